"""`core.image`: references taken apart and compared (L9)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import image
from core.image import Image
from tests.builders import an_image
from tests.strategies import ANY_TEXT

SHA = "sha256:" + "ab" * 32
OTHER_SHA = "sha256:" + "cd" * 32


@pytest.mark.parametrize(
    ("text", "complete"),
    [
        ("nginx", "docker.io/library/nginx:latest"),
        ("nginx:1.27", "docker.io/library/nginx:1.27"),
        ("library/nginx", "docker.io/library/nginx:latest"),
        ("docker.io/nginx", "docker.io/library/nginx:latest"),
        ("index.docker.io/nginx:1", "docker.io/library/nginx:1"),
        ("index.docker.io/org/app", "docker.io/org/app:latest"),
        ("org/app:1.2", "docker.io/org/app:1.2"),
        ("org/team/app", "docker.io/org/team/app:latest"),
        ("localhost/app", "localhost/app:latest"),
        ("localhost:5000/app:2", "localhost:5000/app:2"),
        ("localhost:5000", "docker.io/library/localhost:5000"),
        ("registry.example/app", "registry.example/app:latest"),
        ("registry.example:5000/a/b:c", "registry.example:5000/a/b:c"),
        ("registry:5000/app", "registry:5000/app:latest"),
        ("[fd00::1]:5000/app:1", "[fd00::1]:5000/app:1"),
        (f"nginx@{SHA}", f"docker.io/library/nginx@{SHA}"),
        (f"nginx:1.27@{SHA}", f"docker.io/library/nginx:1.27@{SHA}"),
        (f"r.example:5000/a/b@{SHA}", f"r.example:5000/a/b@{SHA}"),
        ("a__b/c-d.e--f:T_x.y-z", "docker.io/a__b/c-d.e--f:T_x.y-z"),
        ("r.example/project/service:0123456789abcdef0123456789abcdef01234567",
         "r.example/project/service:0123456789abcdef0123456789abcdef01234567"),
    ],
)  # fmt: skip
def test_a_reference_is_completed(text: str, complete: str) -> None:
    """Registry, namespace and tag are filled in as the control plane means them."""
    assert str(an_image(text)) == complete


@pytest.mark.parametrize(
    "text", ["nginx", "r.example:5000/a/b:c", f"nginx@{SHA}", f"org/a:1@{SHA}", "[fd00::1]:5000/app:1"]
)
def test_the_complete_spelling_means_the_same(text: str) -> None:
    """Completing twice is completing once."""
    assert image.parse(str(an_image(text))) == an_image(text)


@pytest.mark.parametrize(
    "text",
    [
        "", " ", "UPPER", "Org/app", "nginx:", "nginx@", "nginx:1@", "nginx@sha256:12", f"nginx@{SHA}0", "nginx@md5:" + "a" * 32,
        "a//b", "/a", "a/", "r.example/", ":5000/a", "-a", "a-", ".a", "a..b", "a___b", "nginx:-1", "nginx:" + "t" * 129,
        "nginx 1", "nginx\n", "nginx\x00", "http://r.example/a", "a:b:c", "<none>", "<none>:<none>", "a@b@c", "é", "x" * 256,
        "r_x.example/a", "r.example:port/a", "--help", "nginx:a/b/c:",
    ],
)  # fmt: skip
def test_what_is_not_a_reference(text: str) -> None:
    """Refused, so that its entry can be rejected."""
    assert image.parse(text) is None


@pytest.mark.parametrize(
    ("one", "other", "same"),
    [
        ("nginx", "docker.io/library/nginx:latest", True),
        ("nginx", "index.docker.io/library/nginx", True),
        ("nginx:1.27", "nginx:1.28", False),
        ("nginx", "org/nginx", False),
        ("nginx", "quay.example/library/nginx", False),
        ("r.example/a", "r.example:5000/a", False),
        ("org/app", "docker.io/org/app", True),
        ("library/library/app", "library/app", False),
        (f"nginx:1@{SHA}", f"nginx:2@{SHA}", True),
        (f"nginx:1@{SHA}", f"nginx:1@{OTHER_SHA}", False),
        (f"nginx@{SHA}", f"nginx:latest@{SHA}", True),
        (f"nginx@{SHA}", f"org/nginx@{SHA}", False),
    ],
)
def test_when_two_references_mean_one_image(one: str, other: str, same: bool) -> None:
    """The names, then the digests where both have one, otherwise the tags; whichever of the two is the expected one."""
    assert image.same(an_image(one), an_image(other)) is same
    assert image.same(an_image(other), an_image(one)) is same


@pytest.mark.parametrize(
    ("expected", "actual", "same"),
    [
        (f"nginx:1@{SHA}", "nginx:1", False),
        (f"nginx@{SHA}", "nginx", False),
        (f"nginx@{SHA}", "nginx:1", False),
        ("nginx:1", f"nginx:1@{SHA}", True),
        ("nginx:2", f"nginx:1@{SHA}", False),
        ("nginx", f"nginx@{SHA}", True),
        ("nginx:1", f"nginx@{SHA}", False),
    ],
)
def test_an_expected_digest_is_asked_for_and_an_expected_tag_is_enough(
    expected: str, actual: str, *, same: bool
) -> None:
    """L52: pinning a running image to a digest is a change, unless the container was made from that digest."""
    assert image.same(an_image(expected), an_image(actual)) is same


@pytest.mark.parametrize(
    ("text", "local"), [("localhost/app", True), ("localhost:5000/app", False), ("localhost", False), ("app", False)]
)
def test_which_images_are_this_servers_own(text: str, *, local: bool) -> None:
    """No registry has them; one that listens on this server has a port."""
    assert image.is_local(an_image(text)) is local


def test_exactly_one_image_is_named_by_its_digest() -> None:
    """Whatever its tag means by now."""
    assert str(image.pinned(an_image("nginx:1"), SHA)) == f"docker.io/library/nginx@{SHA}"


@given(ANY_TEXT | st.from_regex(r"[a-z.:/@-]{1,40}", fullmatch=True))
def test_any_text_is_taken_apart_or_refused(text: str) -> None:
    """Never an exception; what is taken spells itself completely, and reads back as the same."""
    found = image.parse(text)
    if found is not None:
        assert isinstance(found, Image)
        assert image.parse(str(found)) == found
        assert image.same(found, found)
