"""`core.bounds`: what is over a bound is refused with a reason, what is within is served (L55)."""

import json
from dataclasses import replace
from typing import Any

import pytest

from core import bounds, plan, work_queue
from core.caddy_config import decode
from core.memory import Memory, image_requests
from core.state import ActualState, NodeType, parse_expected
from tests import builders
from tests.builders import a_container_entry, a_peer_entry, a_record_entry, a_route_entry, an_expected_document

AT = {"containers": 0, "dns.records": 1, "caddy.routes": 2, "wireguard.peers": 3}


def parsed(path: str, entries: list[Any]) -> Any:
    """A document with these entries in one list."""
    lists: list[list[Any]] = [[], [], [], []]
    lists[AT[path]] = entries
    return parse_expected(json.dumps(an_expected_document(*lists)).encode())


@pytest.mark.parametrize(
    ("path", "entry", "most"),
    [
        ("containers", a_container_entry(), bounds.CONTAINERS),
        ("dns.records", a_record_entry(), bounds.RECORDS),
        ("caddy.routes", a_route_entry(), bounds.ROUTES),
        ("wireguard.peers", a_peer_entry(), bounds.PEERS),
        ("wireguard.peers", {"publicKey": builders.a_key()}, bounds.PEERS),
    ],
)
def test_an_overlong_list_is_the_documents_fault(path: str, entry: Any, most: int) -> None:
    """Nobody can say which of its entries would be left out; the state in force stays."""
    fault = parsed(path, [entry] * (most + 1)).failure()
    assert (fault.path, fault.reason) == (path, f"has {most + 1} entries, and at most {most} are taken")


@pytest.mark.parametrize("path", ["dns.records", "caddy.routes", "wireguard.peers"])
def test_a_list_as_long_as_is_taken_is_served(path: str) -> None:
    """PROTOCOL.md: the control plane's own are far below."""
    most = {"dns.records": bounds.RECORDS, "caddy.routes": bounds.ROUTES, "wireguard.peers": bounds.PEERS}[path]
    entry = {"dns.records": a_record_entry(), "caddy.routes": a_route_entry(), "wireguard.peers": a_peer_entry()}[path]
    state = parsed(path, [entry] * most).unwrap()
    assert len(state.dns) + len(state.caddy) + len(state.wireguard) == 1
    assert not state.rejected


def test_the_addresses_of_all_records_have_a_bound() -> None:
    """Each becomes a line of a file, with its name."""
    records = [a_record_entry(name=f"a{i}.internal", ips=["10.200.1.2"] * bounds.ADDRESSES) for i in range(21)]
    assert parsed("dns.records", records).failure().path == "dns.records"
    assert len(parsed("dns.records", records[:20]).unwrap().dns) == 20


@pytest.mark.parametrize(
    ("path", "good", "field", "spoiled"),
    [
        ("containers", a_container_entry, "deploymentId", {"deploymentId": "d" * (bounds.ID + 1)}),
        ("containers", a_container_entry, "serviceId", {"serviceId": "d" * (bounds.ID + 1)}),
        ("containers", a_container_entry, "serviceName", {"serviceName": "d" * (bounds.LABEL + 1)}),
        ("containers", a_container_entry, "name", {"name": "d" * (bounds.NAME + 1)}),
        ("containers", a_container_entry, "image", {"image": "d" * (bounds.REFERENCE + 1)}),
        ("containers", a_container_entry, "env", {"env": {f"V{i}": "" for i in range(bounds.VARIABLES + 1)}}),
        ("containers", a_container_entry, "env", {"env": {"V" * (bounds.VARIABLE_NAME + 1): ""}}),
        ("containers", a_container_entry, "env", {"env": {"V": "x" * (bounds.VARIABLE + 1)}}),
        (
            "containers",
            a_container_entry,
            "ports",
            {"ports": [{"containerPort": 80, "hostPort": 1}] * (bounds.PORTS + 1)},
        ),
        ("containers", a_container_entry, "volumes", {"volumes": [builders.a_volume_entry()] * (bounds.VOLUMES + 1)}),
        (
            "containers",
            a_container_entry,
            "healthCheck.cmd",
            {"healthCheck": builders.a_health_check_entry(cmd="x" * (bounds.COMMAND + 1))},
        ),
        ("dns.records", a_record_entry, "ips", {"ips": ["10.200.1.2"] * (bounds.ADDRESSES + 1)}),
        ("caddy.routes", a_route_entry, "upstreams", {"upstreams": ["10.200.1.2:80"] * (bounds.ADDRESSES + 1)}),
        ("caddy.routes", a_route_entry, "id", {"id": "d" * (bounds.ID + 1)}),
        ("caddy.routes", a_route_entry, "serviceId", {"serviceId": "d" * (bounds.ID + 1)}),
        ("caddy.routes", a_route_entry, "domain", {"domain": "ü." * bounds.DOMAIN}),
        (
            "wireguard.peers",
            a_peer_entry,
            "allowedIps",
            {"allowedIps": ",".join(["10.100.1.0/24"] * (bounds.NETWORKS + 1))},
        ),
        ("wireguard.peers", a_peer_entry, "publicKey", {"publicKey": "A" * 1_000_000}),
        ("wireguard.peers", a_peer_entry, "endpoint", {"endpoint": ":" * (bounds.ENDPOINT + 1)}),
    ],
)
def test_an_entry_over_a_bound_is_rejected_alone(path: str, good: Any, field: str, spoiled: dict[str, Any]) -> None:
    """PLAN_FORMAT.md: it is held, and what else is there is served."""
    state = parsed(path, [good(**spoiled)]).unwrap()
    assert [one.path for one in state.rejected] == [f"{path}[0].{field}"]
    assert len(state.rejected[0].reason) < 200
    assert not parsed(path, [good()]).unwrap().rejected


def test_a_document_of_too_many_values_is_not_decoded() -> None:
    """Whatever they are: each would become an object of this process."""
    raw = b'{"items":[' + b"0," * (bounds.VALUES + 1) + b"0]}"
    assert work_queue.parse(raw).failure() == "has more than 1000000 values"
    assert decode(raw).failure() == "its configuration has more than 1000000 values"
    assert bounds.too_many_values(b'{"a":"' + b"x" * 2 * bounds.VALUES + b'"}') is None


def test_a_long_work_queue_is_read_in_parts() -> None:
    """The first ones now, the others when these are done: none is lost, and none is forgotten meanwhile."""
    items = [{"id": f"w{i}", "type": "deploy", "payload": ""} for i in range(bounds.WORK_ITEMS + 5)]
    pending = work_queue.parse(json.dumps({"items": items}).encode()).unwrap()
    assert (len(pending.items), pending.unread) == (bounds.WORK_ITEMS, 5)


@pytest.mark.parametrize("raw", [b'{"apps":{"http":{"servers":{"\\ud800":{}}}}}', b'{"a":"\\udfff"}'])
def test_half_a_character_in_caddys_configuration(raw: bytes) -> None:
    """It is no text, and nothing that is made of it could be sent or logged: a failure, as with any other answer that makes no sense."""
    assert decode(raw).failure().startswith("its configuration is not JSON")
    assert decode(rb'{"a":"\ud83d\ude00"}').unwrap() == {"a": "\N{GRINNING FACE}"}


def test_caddys_configuration_is_walked_only_so_deep() -> None:
    """Python would give up in the middle of comparing it."""
    deep = b'{"a":' * bounds.DEPTH + b"1" + b"}" * bounds.DEPTH
    assert decode(deep).failure() == "its configuration is nested too deeply"
    assert decode(b'{"a":' * 20 + b"1" + b"}" * 20).unwrap()


def test_very_many_images_are_asked_for_in_parts() -> None:
    """Each request is a task of its own: 60,000 of them at once kept the loop waiting for half a minute."""
    count = bounds.IMAGE_REQUESTS + 5
    entries = [a_container_entry(deploymentId=f"d{i}", name=f"n{i}", ipAddress=None) for i in range(count)]
    expected = parsed("containers", entries).unwrap()
    drift = plan.outstanding(expected, ActualState(), NodeType.WORKER)
    assert len(drift) == count
    memory = Memory(NodeType.WORKER)
    first = image_requests(memory, expected, drift, 0.0)
    assert len(first) == bounds.IMAGE_REQUESTS
    asked = replace(memory, images=memory.images.asked(first))
    assert image_requests(asked, expected, drift, 0.0) == ()
    answered = replace(asked, images=asked.images.answered(first[0], is_here=True))
    assert len(image_requests(answered, expected, drift, 0.0)) == 1
