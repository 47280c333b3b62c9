"""Credentials for image registries, from the `auth.json` that Podman's and other tools' logins write.

Decides which entry is meant for an image. A failure never shows what is in the file.
"""

import base64
from dataclasses import dataclass, field

import msgspec
from returns.result import Failure, Result, Success

from core.image import DEFAULT_REGISTRY, Image

# What a login at the default registry is filed under, oldest tools last.
_DEFAULT_REGISTRY_KEYS = ("index.docker.io", "https://index.docker.io/v1/", "registry-1.docker.io")


@dataclass(frozen=True, slots=True)
class Credentials:
    """A login: user and password, or an identity token instead of the password. Not shown by `repr`."""

    username: str = field(repr=False)
    password: str = field(repr=False)
    identity_token: str = field(default="", repr=False)


class _Entry(msgspec.Struct, frozen=True):
    auth: str = ""
    identitytoken: str = ""


class _AuthFile(msgspec.Struct, frozen=True):
    auths: dict[str, _Entry] = {}
    cred_helpers: dict[str, str] = msgspec.field(default={}, name="credHelpers")


def credentials(raw: bytes, image: Image) -> Result[Credentials | None, str]:
    """The login for an image, None when the file has none for its registry.

    The most specific entry counts: `host/namespace/repository` before `host/namespace` before `host`.
    """
    try:
        file = msgspec.json.decode(raw, type=_AuthFile)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return Failure("it is not an auth.json")
    for key in _keys(image):
        if key in file.auths:
            return _login(file.auths[key], key)
    helper = file.cred_helpers.get(image.registry)
    if helper is not None:
        return Failure(
            f"it names a credential helper for {image.registry}, which the agent does not run; log in without it"
        )
    return Success(None)


def header(login: Credentials) -> str:
    """The value of `X-Registry-Auth`, in which Podman's API takes a login."""
    plain = {"username": login.username, "password": login.password}
    if login.identity_token:
        plain["identitytoken"] = login.identity_token
    return base64.urlsafe_b64encode(msgspec.json.encode(plain)).decode("ascii")


def _keys(image: Image) -> tuple[str, ...]:
    parts = f"{image.registry}/{image.repository}".split("/")
    specific = tuple("/".join(parts[:length]) for length in range(len(parts), 0, -1))
    return (*specific, *(_DEFAULT_REGISTRY_KEYS if image.registry == DEFAULT_REGISTRY else ()))


def _login(entry: _Entry, key: str) -> Result[Credentials | None, str]:
    try:
        username, colon, password = base64.b64decode(entry.auth, validate=True).decode("utf-8").partition(":")
    except ValueError:  # not base64, not UTF-8, or base64 with a letter outside ASCII
        colon = ""
    if not colon and not entry.identitytoken:
        return Failure(f"its entry for {key} is not base64 of user:password")
    if not colon:
        return Success(Credentials("", "", entry.identitytoken))
    # Old tools fill the field with zero bytes.
    return Success(Credentials(username, password.rstrip("\x00"), entry.identitytoken))
