"""The small messages: every captured answer is read, everything else is refused with the path of its first fault and no value."""

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.pipeline import is_successful

from core.protocol import (
    BuildStatus,
    ClaimedBuild,
    Message,
    PendingBuilds,
    RegistrationAnswer,
    RegistrationRequest,
    WorkItem,
    encode,
    parse,
    registration_fault,
    sendable,
)

CAPTURES = Path(__file__).parent.parent / "captures"
KINDS: dict[str, type[Message]] = {
    r"POST .*/register": RegistrationAnswer,
    r"GET .*/pending-builds": PendingBuilds,
    r"POST .*/claim": ClaimedBuild,
    r"(GET|POST) .*/builds/[^/]*/status": BuildStatus,
}
ANSWER: dict[str, Any] = {
    "serverId": "65a1c0ffee65a1c0ffee65a1",
    "subnetId": 3,
    "wireguardIp": "10.100.3.1",
    "encryptionKey": "ab" * 32,
    "peers": [],
}


def captured() -> Iterator[tuple[str, type[Message], bytes]]:
    """Every good answer to a small message, with the model that reads it."""
    for path in sorted(CAPTURES.glob("*.json")):
        exchange = json.loads(path.read_text())
        called = f"{exchange['request']['method']} {exchange['request']['path']}"
        for pattern, kind in KINDS.items():
            if exchange["response"]["status"] == 200 and re.fullmatch(pattern, called):
                yield path.stem, kind, exchange["response"]["body"].encode()


CAPTURED = list(captured())


def test_there_are_captures_of_every_kind() -> None:
    """A folder that has moved must not make these tests pass on nothing."""
    assert {kind for _, kind, _ in CAPTURED} == set(KINDS.values())


@pytest.mark.parametrize(("kind", "raw"), [pytest.param(kind, raw, id=name) for name, kind, raw in CAPTURED])
def test_a_captured_answer_is_read(kind: type[Message], raw: bytes) -> None:
    """What the control plane has really sent."""
    assert isinstance(parse(raw, kind).unwrap(), kind)


@pytest.mark.parametrize(("kind", "raw"), [pytest.param(kind, raw, id=name) for name, kind, raw in CAPTURED])
def test_an_answer_cut_short_is_refused(kind: type[Message], raw: bytes) -> None:
    """L1: at any byte."""
    assert not any(is_successful(parse(raw[:length], kind)) for length in range(len(raw)))


def answer(**changed: Any) -> bytes:
    """A registration's answer with something else in it; `...` leaves a key out."""
    return json.dumps({key: value for key, value in {**ANSWER, **changed}.items() if value is not ...}).encode()


def test_a_good_registration() -> None:
    """Unknown fields are ignored, a missing encryption key is fine."""
    good = parse(answer(news="none"), RegistrationAnswer).unwrap()
    assert registration_fault(good) is None
    assert parse(answer(encryptionKey=...), RegistrationAnswer).unwrap().encryption_key is None
    assert parse(answer(encryptionKey=None), RegistrationAnswer).unwrap().encryption_key is None


@pytest.mark.parametrize(
    ("raw", "path"),
    [
        (b"", "document"),
        (b"null", "document"),
        (b"[]", "document"),
        (b"<html>", "document"),
        (b"\xff\xfe", "document"),
        (b"[" * 100_000, "document"),
        (b"{}", "serverId"),
        (answer(serverId=...), "serverId"),
        (answer(serverId=""), "serverId"),
        (answer(serverId="a b"), "serverId"),
        (answer(serverId="a\r\nx-evil: 1"), "serverId"),
        (answer(serverId="sérver"), "serverId"),
        (answer(serverId="x" * 1025), "serverId"),
        (answer(serverId=7), "serverId"),
        (answer(subnetId=0), "subnetId"),
        (answer(subnetId=256), "subnetId"),
        (answer(subnetId="3"), "subnetId"),
        (answer(subnetId=True), "subnetId"),
        (answer(wireguardIp=None), "wireguardIp"),
        (answer(encryptionKey="short"), "encryptionKey"),
        (answer(encryptionKey="ab" * 32 + "\n"), "encryptionKey"),
    ],
)
def test_a_bad_registration_is_refused(raw: bytes, path: str) -> None:
    """L1: by the path of its first fault. L37: never by what stands there."""
    fault = parse(raw, RegistrationAnswer).failure()
    assert fault.startswith(f"{path}: ")
    assert len(fault) < 300
    assert not any(value in fault for value in ("evil", "abab", "short"))


def test_ids_may_be_long_and_odd() -> None:
    """L8: any printable ASCII in a server's id, any text in others."""
    assert parse(answer(serverId="!~" * 512), RegistrationAnswer).unwrap().server_id == "!~" * 512
    item = {"id": "né/../ \N{SNOWMAN}", "type": "x", "payload": "", "createdAt": "2026"}
    assert parse(json.dumps(item).encode(), WorkItem).unwrap().id == item["id"]


def test_an_unknown_word_is_not_repeated() -> None:
    """L37: a value of the wrong kind is named by its place only."""
    assert parse(b'{"status": "hush"}', BuildStatus).failure() == "status: invalid enum value"


@pytest.mark.parametrize("address", ["10.100.4.1", "10.100.3.2", "10.100.3.1/24", "", "192.0.2.1"])
def test_the_address_follows_from_the_subnet(address: str) -> None:
    """Anything else would put this server where another one is."""
    fault = registration_fault(parse(answer(wireguardIp=address), RegistrationAnswer).unwrap())
    assert fault == f"wireguardIp is {address!r}, expected 10.100.3.1"


def test_a_request_is_spelled_as_the_control_plane_reads_it() -> None:
    """With `isProxy` as a JSON boolean, and without a public address that is not known."""
    request = RegistrationRequest(
        token="t", wireguard_public_key="w", signing_public_key="s", is_proxy=True, public_ip=None
    )
    found = json.loads(encode(request))
    assert found == {"token": "t", "wireguardPublicKey": "w", "signingPublicKey": "s", "isProxy": True}


def test_nothing_secret_is_shown() -> None:
    """L37: the token, the key, a clone URL and the secrets of a build are left out where a value is printed."""
    request = RegistrationRequest(token="hush-1", wireguard_public_key="w", signing_public_key="s", is_proxy=False)
    claimed = {
        "build": {"id": "b", "commitSha": "HEAD", "branch": "main", "serviceId": "s", "projectId": "p"},
        "cloneUrl": "https://x-access-token:hush-2@host/r.git",
        "imageUri": "registry/p/s:latest",
        "secrets": {"NPM_TOKEN": "hush-3"},
    }
    shown = [
        repr(request),
        repr(parse(answer(encryptionKey="ab" * 32), RegistrationAnswer).unwrap()),
        repr(parse(json.dumps(claimed).encode(), ClaimedBuild).unwrap()),
    ]
    assert not any(secret in text for text in shown for secret in ("hush", "abab"))


@given(st.binary(max_size=200), st.sampled_from(list(KINDS.values())))
def test_no_bytes_break_a_parser(raw: bytes, kind: type[Message]) -> None:
    """L1: a result, never an exception."""
    parse(raw, kind)


@given(st.text(st.characters(codec=None), max_size=50))
def test_an_error_can_be_sent(text: str) -> None:
    """The control plane answers 500 to a NUL, and half a character is no UTF-8; what is fine stays as it is."""
    sent = sendable(text)
    assert "\x00" not in sent
    assert sent.encode("utf-8").decode("utf-8") == sent
    fine = all(character != "\x00" and not "\ud800" <= character <= "\udfff" for character in text)
    assert not fine or sent == text


def test_an_error_is_not_endless() -> None:
    """Its end is kept, where the reason usually stands."""
    sent = sendable("x" * 300_000 + "why")
    assert len(sent) == 200_000
    assert sent.endswith("why")
