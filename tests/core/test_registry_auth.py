"""`core.registry_auth`: which login of an auth.json is meant for an image."""

import base64
import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.pipeline import is_successful

from core import registry_auth
from core.registry_auth import Credentials
from tests.builders import an_image


def encoded(user: str, password: str = "secret") -> dict[str, str]:
    """An entry of the file."""
    return {"auth": base64.b64encode(f"{user}:{password}".encode()).decode()}


def found(auths: dict[str, Any], image: str) -> Credentials | None:
    """The login in a file that must be a good one."""
    return registry_auth.credentials(json.dumps({"auths": auths}).encode(), an_image(image)).unwrap()


@pytest.mark.parametrize(
    ("keys", "image", "user"),
    [
        (["r.example:5000"], "r.example:5000/a/b:1", "r.example:5000"),
        (["r.example"], "r.example:5000/a/b:1", None),
        (["r.example", "r.example/a", "r.example/a/b"], "r.example/a/b:1", "r.example/a/b"),
        (["r.example", "r.example/a", "r.example/a/b"], "r.example/a/c:1", "r.example/a"),
        (["r.example", "r.example/a"], "r.example/ab/c:1", "r.example"),
        (["docker.io"], "nginx", "docker.io"),
        (["https://index.docker.io/v1/"], "nginx", "https://index.docker.io/v1/"),
        (["https://index.docker.io/v1/"], "r.example/nginx", None),
        ([], "nginx", None),
    ],
)
def test_the_most_specific_entry_counts(keys: list[str], image: str, user: str | None) -> None:
    """Each entry's user is called like its key, but for its colons."""
    login = found({key: encoded(key.replace(":", "_")) for key in keys}, image)
    assert login == (None if user is None else Credentials(user.replace(":", "_"), "secret"))


def test_a_password_may_have_colons() -> None:
    assert found({"r.example": encoded("u", "a:b:c")}, "r.example/x") == Credentials("u", "a:b:c")


def test_an_identity_token_does_without_a_password() -> None:
    assert found({"r.example": {"identitytoken": "t"}}, "r.example/x") == Credentials("", "", "t")


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"[]",
        b"null",
        b'{"auths": []}',
        b'{"auths": {"r.example": {"auth": "!"}}}',
        b'{"auths": {"r.example": {"auth": "c2VjcmV0"}}}',
        b'{"auths": {"r.example": {}}}',
        b'{"credHelpers": {"r.example": "pass"}}',
        b'{"auths": {"r.example": {"auth": "/w=="}}}',
        '{"auths": {"r.example": {"auth": "c2VjcmV0é"}}}'.encode(),
    ],
)
def test_a_bad_file_is_refused_without_showing_it(raw: bytes) -> None:
    """L37: nothing of it is in the message."""
    outcome = registry_auth.credentials(raw, an_image("r.example/x"))
    assert not is_successful(outcome)
    assert "c2VjcmV0" not in outcome.failure()
    assert "secret" not in outcome.failure()


@given(
    st.text(st.characters(exclude_characters=":", exclude_categories=["Cs"])),
    st.text(st.characters(exclude_categories=["Cs"])),
)
def test_a_login_survives_the_header_and_shows_in_no_repr(user: str, password: str) -> None:
    """L37."""
    login = Credentials(user, password)
    assert json.loads(base64.urlsafe_b64decode(registry_auth.header(login))) == {"username": user, "password": password}
    assert repr(login) == "Credentials()"
