"""`core.wire`: a document of the wrong shape is refused whole, naming the path of its first fault (L1)."""

import json
from copy import deepcopy
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.wire import ShapeFault, WireActual, WireExpected, decode
from tests import builders
from tests.builders import an_actual_document, an_actual_entry, an_expected_document


def fault(raw: bytes) -> ShapeFault:
    """Why an expected state is refused."""
    return decode(raw, WireExpected).failure()


def actual_fault(document: dict[str, Any]) -> ShapeFault:
    """Why an actual state is refused."""
    return decode(json.dumps(document).encode(), WireActual).failure()


def without(document: dict[str, Any], *path: str | int) -> dict[str, Any]:
    """The document without what stands at a path."""
    changed = deepcopy(document)
    owner: Any = changed
    for part in path[:-1]:
        owner = owner[part]
    del owner[path[-1]]
    return changed


def full() -> dict[str, Any]:
    """An expected state that has every field."""
    check, volume = builders.a_health_check_entry(), builders.a_volume_entry()
    return an_expected_document([builders.a_container_entry(healthCheck=check, volumes=[volume])])


EVERY_KEY: list[tuple[str | int, ...]] = [
    ("containers",),
    *(("containers", 0, name) for name in builders.a_container_entry()),
    *(("containers", 0, "ports", 0, name) for name in ("containerPort", "hostPort")),
    *(("containers", 0, "healthCheck", name) for name in builders.a_health_check_entry()),
    *(("containers", 0, "volumes", 0, name) for name in builders.a_volume_entry()),
    ("dns",),
    ("dns", "records"),
    *(("dns", "records", 0, name) for name in builders.a_record_entry()),
    ("caddy",),
    ("caddy", "routes"),
    *(("caddy", "routes", 0, name) for name in builders.a_route_entry()),
    ("wireguard",),
    ("wireguard", "peers"),
    *(("wireguard", "peers", 0, name) for name in builders.a_peer_entry()),
]


def spelled(path: tuple[str | int, ...]) -> str:
    """A path as it is written in messages."""
    return "".join(f"[{part}]" if isinstance(part, int) else f".{part}" for part in path)[1:]


@pytest.mark.parametrize("path", EVERY_KEY, ids=spelled)
def test_a_missing_key(path: tuple[str | int, ...]) -> None:
    """Every key of PROTOCOL §4 is needed."""
    assert fault(json.dumps(without(full(), *path)).encode()) == ShapeFault(spelled(path), "is missing")


@pytest.mark.parametrize("path", EVERY_KEY, ids=spelled)
@pytest.mark.parametrize("value", [True, 1.5, "text", [[]], {"x": 1}], ids=repr)
def test_an_ill_typed_key(path: tuple[str | int, ...], value: object) -> None:
    """The first fault is at the key or within it, and is named."""
    document = full()
    owner: Any = document
    for part in path[:-1]:
        owner = owner[part]
    if type(owner[path[-1]]) is type(value) or (value == "text" and owner[path[-1]] is None):
        return
    owner[path[-1]] = value
    found = fault(json.dumps(document).encode())
    assert found.path.startswith(spelled(path))
    assert "expected" in found.reason or found.reason == "is missing"


@pytest.mark.parametrize(
    "path", [p for p in EVERY_KEY if p[-1] not in ("ipAddress", "healthCheck", "endpoint")], ids=spelled
)
def test_null_is_no_value(path: tuple[str | int, ...]) -> None:
    """Only the address, the health check and an endpoint may be null."""
    document = full()
    owner: Any = document
    for part in path[:-1]:
        owner = owner[part]
    owner[path[-1]] = None
    found = fault(json.dumps(document).encode())
    assert (found.path, "got null" in found.reason) == (spelled(path), True)


@pytest.mark.parametrize(
    "raw",
    [b"", b"null", b"[]", b"{}", b"1", b'"x"', b"<html></html>", b"{", b"\xff\xfe", b"[" * 200_000, b'{"containers":' * 50_000, b"NaN"],
    ids=lambda raw: repr(raw[:12]),
)  # fmt: skip
def test_what_is_no_expected_state_at_all(raw: bytes) -> None:
    """A 200 answer that is something else: a proxy's page, an empty body, an answer cut short."""
    assert str(fault(raw))


@given(st.binary(max_size=40) | st.integers(0, 400).map(lambda cut: json.dumps(full()).encode()[:cut]))
def test_an_answer_cut_short_is_refused(raw: bytes) -> None:
    """Never half a state."""
    assert str(fault(raw))


def test_unknown_fields_are_ignored() -> None:
    """The agent ignores unknown fields that it receives."""
    document = {**full(), "later": {"x": [1]}}
    document["containers"][0]["later"] = 1
    assert (
        decode(json.dumps(document).encode(), WireExpected).unwrap()
        == decode(json.dumps(full()).encode(), WireExpected).unwrap()
    )


def test_what_an_actual_state_may_leave_out() -> None:
    """`created`, `health` and the three components; null means that one could not be read."""
    entry = without(without(an_actual_entry(), "created"), "health")
    found = decode(json.dumps({"containers": [entry]}).encode(), WireActual).unwrap()
    assert (found.containers[0].created, found.containers[0].health) == (0, "none")
    assert found.dns is not None and found.caddy is not None and found.wireguard is not None
    nulls: dict[str, Any] = {"containers": [], "dns": None, "caddy": None, "wireguard": None}
    assert decode(json.dumps(nulls).encode(), WireActual).unwrap().dns is None


@pytest.mark.parametrize("name", ["id", "name", "image", "state", "labels"])
def test_what_an_actual_container_must_have(name: str) -> None:
    """Also when it is not one of ours: a listing that is not complete is no listing (L3)."""
    document = an_actual_document(
        [without(an_actual_entry(labels={}), name)] if name != "labels" else [without(an_actual_entry(), name)]
    )
    assert actual_fault(document) == ShapeFault(f"containers[0].{name}", "is missing")


@pytest.mark.parametrize(
    "document", [{}, {"containers": None}, {"containers": [], "dns": {}}, {"containers": [], "dns": []}]
)
def test_what_is_no_actual_state(document: dict[str, Any]) -> None:
    """The containers must be listed, and a component that is there must be whole."""
    assert str(actual_fault(document))


@pytest.mark.parametrize("raw", [b"", b" \n\t"])
def test_an_empty_document_is_called_so(raw: bytes) -> None:
    """As a file that a full disk left behind."""
    assert fault(raw) == ShapeFault("", "is empty")
