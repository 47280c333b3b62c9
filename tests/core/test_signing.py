"""Requests are signed as the control plane checks them: over the header's own text, a colon and the exact body."""

import base64

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from hypothesis import given
from hypothesis import strategies as st

from core import signing

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
RAW = KEY.private_bytes_raw()


def verify(headers: dict[str, str], body: bytes) -> None:
    """As the control plane does it; raises InvalidSignature."""
    message = headers["x-timestamp"].encode() + b":" + body
    KEY.public_key().verify(base64.b64decode(headers["x-signature"], validate=True), message)


@given(st.integers(0, 2**53), st.binary(max_size=200))
def test_every_body_verifies(timestamp_ms: int, body: bytes) -> None:
    """Whatever its bytes; the time is plain decimal milliseconds."""
    headers = signing.headers("a-server", RAW, timestamp_ms, body)
    assert headers["x-timestamp"] == str(timestamp_ms)
    assert headers["x-server-id"] == "a-server"
    verify(headers, body)


@given(st.binary(max_size=50), st.binary(max_size=50))
def test_another_body_does_not_verify(body: bytes, other: bytes) -> None:
    """The signature is worth nothing for anything else."""
    headers = signing.headers("a-server", RAW, 1_700_000_000_000, body)
    if body != other:
        with pytest.raises(InvalidSignature):
            verify(headers, other)


def test_no_body_is_an_empty_one() -> None:
    """Every GET and the claim of a build sign an empty text."""
    assert signing.headers("s", RAW, 5) == signing.headers("s", RAW, 5, b"")
    verify(signing.headers("s", RAW, 5), b"")


def test_another_time_does_not_verify() -> None:
    """A signature cannot be given a new time."""
    headers = signing.headers("s", RAW, 5, b"{}")
    with pytest.raises(InvalidSignature):
        verify({**headers, "x-timestamp": "6"}, b"{}")


def test_the_form_is_the_known_one() -> None:
    """Three headers; the signature is 64 bytes in standard base64. Ed25519 is deterministic, so the whole value is known."""
    headers = signing.headers("s", RAW, 1_700_000_000_000, b'{"containers":[]}')
    assert set(headers) == {"x-server-id", "x-timestamp", "x-signature"}
    assert len(base64.b64decode(headers["x-signature"], validate=True)) == 64
    assert headers == signing.headers("s", RAW, 1_700_000_000_000, b'{"containers":[]}')
