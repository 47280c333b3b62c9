"""`core.build_source`: what may be cloned, and how Git is asked for exactly that."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.pipeline import is_successful

from core import build_source
from core.build_source import Source, parse

SHA = "41c0ffee" * 5
TOKEN = "ghs_secretTOKEN"
URL = f"https://x-access-token:{TOKEN}@git.example/acme/api.git"


def test_the_token_leaves_the_url_at_once() -> None:
    """L37: neither the URL nor what is shown of a source holds it."""
    source = parse(URL, SHA, "main").unwrap()
    assert source.url == "https://git.example/acme/api.git"
    assert (source.username, source.password) == ("x-access-token", TOKEN)
    assert TOKEN not in repr(source)
    assert TOKEN in source.secrets
    assert TOKEN not in " ".join(build_source.fetch(source))
    assert TOKEN not in str(build_source.git_environment())


def test_a_public_repository() -> None:
    """Without credentials, on a port, as it is."""
    source = parse("https://git.example:8443/acme/api.git", SHA, "main").unwrap()
    assert source == Source("https://git.example:8443/acme/api.git", SHA, "main")
    assert source.secrets == ()
    assert "extraHeader" not in build_source.git_config(source)


def test_credentials_that_are_quoted() -> None:
    """As browsers and control planes write them."""
    source = parse("https://a%40b:p%2Fq%3A@git.example/x.git", SHA, "main").unwrap()
    assert (source.username, source.password) == ("a@b", "p/q:")


@pytest.mark.parametrize(
    "url",
    [
        "",
        "-oProxyCommand=x",
        "--upload-pack=x",
        "git@github.com:a/b.git",
        "ssh://git.example/a.git",
        "git://git.example/a.git",
        "ext::sh -c x",
        "http://git.example/a.git",
        "file:///etc",
        "/etc",
        "https://",
        "https:///a.git",
        "https://git.example",
        "https://git.example/",
        "https://-oX/a.git",
        "https://git.example/a b.git",
        "https://git.example/a\n.git",
        "https://git.example:99999/a.git",
        "https://[::1/a.git",
        "https://git.example/" + "a" * 3000,
    ],
)
def test_what_is_not_cloned(url: str) -> None:
    """L38, L39: only https; nothing that could be an option or another transport."""
    assert not is_successful(parse(url, SHA, "main"))


def test_a_refusal_repeats_no_credentials() -> None:
    """L37: the reason goes to the user, and perhaps to a public page."""
    why = parse(URL.replace("https", "http"), SHA, "main").failure()
    assert TOKEN not in why
    assert "--build-allow-scheme http" in why


@pytest.mark.parametrize("scheme", ["http", "file"])
def test_labs_may_allow_more(scheme: str) -> None:
    """By name, one by one; Git itself is told the same, since submodules name URLs too."""
    url = f"{scheme}://{'' if scheme == 'file' else 'git.example'}/a.git"
    source = parse(url, SHA, "main", (scheme,)).unwrap()
    config = build_source.git_config(source, (scheme,))
    assert f'[protocol "{scheme}"]\n\tallow = always' in config
    assert config.startswith("[protocol]\n\tallow = never\n")
    assert f'[protocol "{scheme}"]' not in build_source.git_config(source)


@pytest.mark.parametrize("commit", ["", "head", "main", "-x", SHA[:39], SHA + "0", SHA.upper(), f"{SHA}\n", f" {SHA}"])
def test_what_is_no_commit(commit: str) -> None:
    """L41: exactly 40 hex digits, or HEAD."""
    assert not is_successful(parse(URL, commit, "main"))


@pytest.mark.parametrize("branch", ["main", "feature/x", "release-1.2", "ümläut", "a@b", "v1.0.x"])
def test_the_tip_of_a_branch(branch: str) -> None:
    """For HEAD: fetched by its full name, so that it is never an option."""
    source = parse(URL, "HEAD", branch).unwrap()
    assert source.commit is None
    assert build_source.fetch(source)[-1] == f"refs/heads/{branch}"


@pytest.mark.parametrize(
    "branch",
    [
        "",
        "-x",
        "--upload-pack=x",
        "a..b",
        "a b",
        "a~1",
        "a^",
        "a:b",
        "a?",
        "a*",
        "a[",
        "a\\b",
        "/a",
        "a/",
        "a//b",
        "a.",
        ".a",
        "a/.b",
        "a.lock",
        "a.lock/b",
        "@",
        "a@{1}",
        "a\x00",
        "a\x7f",
        "a" * 3000,
    ],
)
def test_what_is_no_branch(branch: str) -> None:
    """By the rules of git-check-ref-format(1)."""
    assert not is_successful(parse(URL, "HEAD", branch))


def test_the_branch_does_not_matter_for_a_commit() -> None:
    """The control plane may send any text there."""
    assert is_successful(parse(URL, SHA, "--odd"))


@given(st.text(), st.text(), st.text())
def test_any_source(url: str, commit: str, branch: str) -> None:
    """A source or a reason, never an exception."""
    parse(url, commit, branch)


def test_the_exact_commands() -> None:
    """Shallow, without tags and prompts, and nothing but the wanted commit; what comes from outside is an operand of the script."""
    *shell, url, wanted = build_source.fetch(parse(URL, SHA, "main").unwrap())
    assert shell[:2] == ["sh", "-euc"]
    assert 'fetch --quiet --depth=1 --no-tags --no-recurse-submodules origin "$2"' in shell[2]
    assert (url, wanted) == ("https://git.example/acme/api.git", SHA)
    assert build_source.fetch(parse("file:///r.git", SHA, "main", ("file",)).unwrap())[-2] == "file:///repository"


def test_what_was_checked_out_is_verified() -> None:
    """L41: another commit is a failure; for HEAD any commit will do."""
    pinned, tip = parse(URL, SHA, "main").unwrap(), parse(URL, "HEAD", "main").unwrap()
    assert build_source.commit_fault(pinned, SHA) is None
    assert SHA in str(build_source.commit_fault(pinned, "0" * 40))
    assert build_source.commit_fault(tip, "0" * 40) is None
    assert build_source.commit_fault(tip, "fatal: bad") is not None
