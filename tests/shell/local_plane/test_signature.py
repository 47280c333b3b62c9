"""Who may call, and in which order the checks refuse."""

import base64

import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import Encoding, PublicFormat
from hypothesis import given
from hypothesis import strategies as st

from shell.local_plane.signature import WINDOW_MS, caller
from shell.local_plane.world import Answer, Server, ServerId, World

KEY = Ed25519PrivateKey.from_private_bytes(bytes(range(32)))
PUBLIC = base64.b64encode(KEY.public_key().public_bytes(Encoding.Raw, PublicFormat.Raw)).decode()
NOW = 1_767_500_000_000
SERVER = Server(ServerId("s"), "a", signing_key=PUBLIC)
WORLD = World("00" * 32, servers={SERVER.id: SERVER})


def headers(body: bytes = b"", stamp: str = str(NOW), server: str = "s") -> dict[str, str]:
    """A good call's headers."""
    signature = base64.b64encode(KEY.sign(stamp.encode() + b":" + body)).decode()
    return {"x-server-id": server, "x-timestamp": stamp, "x-signature": signature}


def status(found: Server | Answer) -> int:
    """200 for a server."""
    return found.status if isinstance(found, Answer) else 200


@given(st.binary(max_size=200))
def test_a_signed_call_is_taken(body: bytes) -> None:
    """The signature covers the exact timestamp and the exact body."""
    assert caller(WORLD, headers(body), body, NOW) == SERVER
    assert status(caller(WORLD, headers(body), body + b" ", NOW)) == 401


@pytest.mark.parametrize(
    ("stamp", "expected"),
    [
        (str(NOW - WINDOW_MS), 200),
        (str(NOW + WINDOW_MS), 200),
        (str(NOW - WINDOW_MS - 1), 401),
        (str(NOW + WINDOW_MS + 1), 401),
        (f"{NOW}.75", 200),
        (f"{NOW}abc", 200),
        (str(NOW // 1000), 401),
        ("abc", 401),
        ("9" * 400, 401),
        ("", 400),
    ],
)
def test_timestamps(stamp: str, expected: int) -> None:
    """60 s either way, read as JavaScript reads numbers."""
    assert status(caller(WORLD, headers(stamp=stamp), b"", NOW)) == expected


def test_checks_refuse_in_the_protocols_order() -> None:
    """Headers, timestamp, server, signature: the first thing wrong decides."""
    call = headers(server="other", stamp="1")
    call["x-signature"] = ""
    assert status(caller(WORLD, call, b"", NOW)) == 400
    call["x-signature"] = "wrong"
    assert status(caller(WORLD, call, b"", NOW)) == 401
    call["x-timestamp"] = str(NOW)
    assert status(caller(WORLD, call, b"", NOW)) == 404
    call["x-server-id"] = "s"
    assert status(caller(WORLD, call, b"", NOW)) == 401


def test_base64_is_read_as_leniently_as_the_original_reads_it() -> None:
    """Either alphabet, padded or not, with foreign characters between."""
    call = headers()
    standard = call["x-signature"]
    urlsafe = base64.urlsafe_b64encode(base64.b64decode(standard)).decode().rstrip("=")
    for text in (urlsafe, f"{standard[:10]} \n{standard[10:]}", f"{standard}rest"):
        assert caller(WORLD, {**call, "x-signature": text}, b"", NOW) == SERVER


@given(st.text(max_size=120))
def test_no_signature_text_breaks_it(text: str) -> None:
    """Anything that is not the signature is refused, not an error."""
    assert status(caller(WORLD, {**headers(), "x-signature": text}, b"", NOW)) in (400, 401)


@pytest.mark.parametrize("key", ["not a key", "AAAA", "é", "A" * 43])
def test_a_key_that_is_none_verifies_nothing(key: str) -> None:
    """Registration takes any text for a key."""
    world = World("00" * 32, servers={SERVER.id: Server(SERVER.id, "a", signing_key=key)})
    assert status(caller(world, headers(), b"", NOW)) == 401
