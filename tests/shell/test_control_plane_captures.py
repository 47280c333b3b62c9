"""The client's requests are those that the control plane has really taken: recorded exchanges are the measure."""

import base64
import json
import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pytest
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey, Ed25519PublicKey

from core.protocol import RegistrationRequest
from shell.adapters.control_plane import ControlPlane
from tests.lab.odd_server import OddServer, Received
from tests.shell.calling import ALL, SIGNER, Action, called

CAPTURES = Path(__file__).parent.parent / "captures"
OF_ANY_CLIENT = {"host", "accept", "accept-encoding", "connection", "user-agent", "content-length"}


@dataclass(frozen=True, slots=True)
class Exchange:
    """One recorded exchange; header names in lower case."""

    name: str
    method: str
    path: str
    headers: dict[str, str]
    body: str | None
    status: int
    answer: Any


def recorded() -> list[Exchange]:
    """All of them, in the order in which they happened."""
    found = []
    for path in sorted(CAPTURES.glob("*.json")):
        exchange = json.loads(path.read_text())
        asked, answer = exchange["request"], exchange["response"]
        headers = {name.lower(): value for name, value in asked["headers"].items()}
        found.append(
            Exchange(
                path.stem, asked["method"], asked["path"], headers, asked["body"], answer["status"], answer.get("json")
            )
        )
    return found


RECORDED = recorded()
KEYS = {
    one.answer["serverId"]: json.loads(one.body or "")["signingPublicKey"]
    for one in RECORDED
    if one.path.endswith("/register") and one.status == 200
}
SIGNED = [one for one in RECORDED if one.headers.get("x-server-id") in KEYS and "x-signature" in one.headers]


def verify(public_key: bytes, headers: Any, body: bytes) -> None:
    """Check a signature as the control plane does: over the header's text, a colon and the body's text. Raises InvalidSignature."""
    signature = base64.b64decode(headers["x-signature"].replace("-", "+").replace("_", "/") + "==")
    Ed25519PublicKey.from_public_bytes(public_key).verify(signature, headers["x-timestamp"].encode() + b":" + body)


def test_there_are_captures() -> None:
    """A folder that has moved must not make these tests pass on nothing."""
    assert len(RECORDED) == 192
    assert len(KEYS) >= 6
    assert len([one for one in SIGNED if one.status == 200]) > 100


@pytest.mark.parametrize("exchange", [one for one in SIGNED if one.status == 200], ids=lambda one: one.name)
def test_a_recorded_signature_verifies(exchange: Exchange) -> None:
    """With the key of its registration, over what we take for the signed text; that of a GET and of a claim is empty."""
    empty = exchange.method == "GET" or exchange.path.endswith("/claim")
    body = b"" if empty else (exchange.body or "").encode()
    verify(base64.b64decode(KEYS[exchange.headers["x-server-id"]]), exchange.headers, body)


@pytest.mark.parametrize(
    "exchange",
    [one for one in SIGNED if one.status == 401 and one.answer == {"error": "Invalid signature"}],
    ids=lambda one: one.name,
)
def test_a_recorded_refusal_does_not_verify(exchange: Exchange) -> None:
    """So the control plane and these tests mean the same by a signature."""
    public_key = base64.b64decode(KEYS[exchange.headers["x-server-id"]])
    body = b"" if exchange.path.endswith("/claim") else (exchange.body or "").encode()
    with pytest.raises((InvalidSignature, ValueError)):
        verify(public_key, exchange.headers, body)


CALLS: dict[str, tuple[Action, str, str]] = {
    "register": (ALL["register"], "010-register-worker-ok-first-no-peers", "/register"),
    "register with an address": (
        lambda plane: plane.register(
            RegistrationRequest(
                token="t", wireguard_public_key="w", signing_public_key="s", is_proxy=True, public_ip="203.0.113.20"
            )
        ),
        "012-register-proxy-ok-one-peer",
        "/register",
    ),
    "expected state": (ALL["expected state"], "051-expected-state-rich-pending-worker", "/expected-state"),
    "status": (ALL["status"], "043-status-no-containers-minimal", "/status"),
    "work queue": (ALL["work queue"], "053-work-queue-with-deploy-items", "/work-queue"),
    "work done": (ALL["work done"], "054-work-queue-post-completed", "/work-queue"),
    "work failed": (
        lambda plane: plane.complete_work("w", "why"),
        "055-work-queue-post-failed-with-error",
        "/work-queue",
    ),
    "pending build": (ALL["pending build"], "146-pending-builds-one-public-repo", "/pending-builds"),
    "claim": (ALL["claim"], "151-build-claim-ok", "/builds/b/claim"),
    "build building": (ALL["build building"], "158-build-status-building", "/builds/b/status"),
    "build failed": (ALL["build failed"], "170-build-status-failed-with-error", "/builds/b/status"),
    "build completed": (ALL["build completed"], "164-build-status-completed-triggers-deploy", "/builds/b/status"),
    "build status": (ALL["build status"], "160-build-get-status-pushing", "/builds/b/status"),
}


def sent(action: Action) -> Received:
    """What a call puts on the wire."""
    with OddServer() as server:
        called(server.url, action)
        (request,) = server.requests
        return request


@pytest.mark.parametrize("name", CALLS)
def test_a_call_is_like_the_recorded_one(name: str) -> None:
    """Method, path, headers and the keys of the body with the kinds of their values."""
    action, capture, path = CALLS[name]
    (exchange,) = (one for one in RECORDED if one.name == capture)
    request = sent(action)
    assert (request.method, request.path) == (exchange.method, f"/api/v1/agent{path}")
    assert re.sub("/builds/[^/]+/", "/builds/b/", exchange.path) == request.path
    assert set(request.headers) - OF_ANY_CLIENT == set(exchange.headers)
    if exchange.body is None:
        assert request.body == b""
    else:
        ours, theirs = json.loads(request.body), json.loads(exchange.body)
        kinds = {key: type(value) for key, value in theirs.items() if name != "register" or key != "publicIp"}
        assert {key: type(value) for key, value in ours.items()} == kinds


@pytest.mark.parametrize("name", [name for name in CALLS if not name.startswith("register")])
def test_a_call_is_signed_over_its_exact_bytes(name: str) -> None:
    """As they arrive, with the time in milliseconds of now; a registration has nobody to sign it."""
    request = sent(CALLS[name][0])
    public = Ed25519PrivateKey.from_private_bytes(SIGNER.signing_key).public_key().public_bytes_raw()
    verify(public, request.headers, request.body)
    assert request.headers["x-server-id"] == SIGNER.server_id
    assert re.fullmatch("[0-9]{13}", request.headers["x-timestamp"])
    assert len(base64.b64decode(request.headers["x-signature"], validate=True)) == 64


def test_a_body_is_sent_as_it_is() -> None:
    """Not parsed and written anew: spaces, order and characters stay, or the signature would be for another text."""
    body = '{ "containers" : [ ],\n "name":"é\N{SNOWMAN}\\u00e9" }'.encode()
    assert sent(lambda plane: plane.post_status(body)).body == body


@pytest.mark.parametrize("build_id", ["a/b", "a b", "é", ".", "..", "a?b#c", "%2F", "x" * 1000])
def test_any_id_of_a_build_stays_one_part_of_the_path(build_id: str) -> None:
    """L8: an id is never taken for a path, a query or an escape."""
    path = sent(lambda plane: plane.fetch_build_status(build_id)).path
    assert re.fullmatch(r"/api/v1/agent/builds/[^/?#]+/status", path)


def test_a_base_url_may_have_a_path() -> None:
    """A control plane behind a prefix."""
    with OddServer() as server:
        called(f"{server.url}/some/prefix", ControlPlane.fetch_work)
        assert server.requests[0].path == "/some/prefix/api/v1/agent/work-queue"


def test_an_error_is_cleaned_before_it_is_signed() -> None:
    """The control plane answers 500 to a NUL, and half a character cannot be sent at all."""
    request = sent(lambda plane: plane.post_build_status("b", "failed", "a\0b\udc80c"))
    assert json.loads(request.body) == {"status": "failed", "error": "a\N{REPLACEMENT CHARACTER}b?c"}
