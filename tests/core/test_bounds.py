"""`core.bounds`: what is over a bound is refused with a reason, what is within is served (L55)."""

import json
from base64 import b64encode
from collections.abc import Callable
from dataclasses import replace
from typing import Any

import pytest
from returns.pipeline import is_successful

from core import bounds, caddy_change, plan, protocol, work_queue
from core.caddy_base import Base
from core.caddy_config import decode, encode
from core.dns import Record, could_be_expected
from core.memory import Memory, image_requests
from core.protocol import ClaimedBuild, Message, PendingBuilds, WorkItem
from core.state import ActualState, NodeType, parse_expected
from tests import builders
from tests.builders import a_container_entry, a_peer_entry, a_record_entry, a_route_entry, an_expected_document

AT = {"containers": 0, "dns.records": 1, "caddy.routes": 2, "wireguard.peers": 3}


def parsed(path: str, entries: list[Any]) -> Any:
    """A document with these entries in one list."""
    lists: list[list[Any]] = [[], [], [], []]
    lists[AT[path]] = entries
    return parse_expected(json.dumps(an_expected_document(*lists)).encode())


_KEYS: dict[str, Callable[[int], Any]] = {
    "containers": lambda n: a_container_entry(deploymentId=f"d{n:06}", name=f"n{n}", ipAddress=None, ports=[]),
    "dns.records": lambda n: a_record_entry(name=f"a{n:06}.internal", ips=["10.200.1.2"]),
    "caddy.routes": lambda n: a_route_entry(id=f"r{n:06}", domain=f"a{n}.example.org", upstreams=["10.200.1.2:80"]),
    "wireguard.peers": lambda n: a_peer_entry(publicKey=b64encode(n.to_bytes(32)).decode(), allowedIps=""),
}


@pytest.mark.parametrize(
    ("path", "bound"),
    [("dns.records", "RECORD_ADDRESSES"), ("caddy.routes", "ROUTE_UPSTREAMS"), ("wireguard.peers", "PEERS")],
)
def test_what_is_over_in_a_list_is_rejected_alone(path: str, bound: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """What is within is served, and the same whatever the order; what is over is held, so that nothing of it is taken away."""
    most = 50
    monkeypatch.setattr(bounds, bound, most)
    entries = [_KEYS[path](number) for number in range(most + 2)]
    state, other = (parsed(path, order).unwrap() for order in (entries, entries[::-1]))
    assert len(state.dns) + len(state.caddy) + len(state.wireguard) == most
    what = "entries" if path == "wireguard.peers" else "addresses"
    why = f"the list has {most + 2} {what}, and at most {most} are taken"
    assert [(one.path, one.reason) for one in state.rejected] == [(f"{path}[{n}]", why) for n in (most, most + 1)]
    assert state.held == other.held and sum(map(len, (state.held.dns, state.held.caddy, state.held.wireguard))) == 2
    assert (state.dns, state.caddy, state.wireguard) == (other.dns, other.caddy, other.wireguard)


def test_what_is_over_among_containers(monkeypatch: pytest.MonkeyPatch) -> None:
    """As in the other lists, of which none is as long."""
    monkeypatch.setattr(bounds, "CONTAINERS", 3)
    state = parsed("containers", [_KEYS["containers"](number) for number in (4, 1, 3, 2)]).unwrap()
    assert [one.deployment_id for one in state.containers] == ["d000001", "d000002", "d000003"]
    assert [one.path for one in state.rejected] == ["containers[0]"] and state.held.containers == {"d000004"}


@pytest.mark.parametrize("apart", [1, 2, bounds.NAME_ADDRESSES + 1])
def test_one_name_with_too_many_addresses_takes_no_room_from_others(apart: int) -> None:
    """However they are spread over records: dnsmasq, which has to look at each for each, would answer nobody meanwhile."""
    ips = [f"10.200.{n // 250}.{n % 250 + 1}" for n in range(bounds.NAME_ADDRESSES + 1)]
    entries = [a_record_entry(name=("a.internal", "A.internal.")[n % 2], ips=ips[n::apart]) for n in range(apart)]
    state = parsed("dns.records", [*entries, a_record_entry(name="web.internal")]).unwrap()
    assert [one.name for one in state.dns] == ["web.internal"] and state.held.dns == {"a.internal"}
    why = f"the name has {len(ips)} addresses in all, and at most {bounds.NAME_ADDRESSES} are taken"
    assert {one.reason for one in state.rejected} == {why} and len(state.rejected) == apart


def test_a_name_with_as_many_addresses_as_are_taken() -> None:
    """What is rejected is not taken for expected where it is served already."""
    ips = tuple(sorted(f"10.200.{n // 250}.{n % 250 + 1}" for n in range(bounds.NAME_ADDRESSES + 1)))
    state = parsed("dns.records", [a_record_entry(name="a.internal", ips=list(ips[1:]))]).unwrap()
    assert state.dns == (Record("a.internal", ips[1:]),) and not state.rejected
    assert could_be_expected(state.dns[0]) and not could_be_expected(Record("a.internal", ips))


def _volume(name: str = "data", **changes: str) -> dict[str, Any]:
    path = builders.a_volume_entry()["hostPath"].removesuffix("data")
    return builders.a_volume_entry(name=name, hostPath=path + name, **changes)


@pytest.mark.parametrize(
    ("path", "good", "field", "spoiled"),
    [
        ("containers", a_container_entry, "deploymentId", {"deploymentId": "d" * (bounds.ID + 1)}),
        ("containers", a_container_entry, "serviceId", {"serviceId": "d" * (bounds.ID + 1)}),
        ("containers", a_container_entry, "serviceName", {"serviceName": "d" * (bounds.LABEL + 1)}),
        ("containers", a_container_entry, "name", {"name": "d" * (bounds.NAME + 1)}),
        ("containers", a_container_entry, "image", {"image": "d" * 1_024}),
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
        ("containers", a_container_entry, "volumes[0].name", {"volumes": [_volume(name="d" * (bounds.VOLUME + 1))]}),
        (
            "containers",
            a_container_entry,
            "volumes[0].containerPath",
            {"volumes": [_volume(containerPath="/" + "d" * bounds.PATH)]},
        ),
        ("dns.records", a_record_entry, "ips", {"ips": ["10.200.1.2"] * (bounds.NAME_ADDRESSES + 1)}),
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


def test_the_longest_names_of_a_volume_are_taken() -> None:
    """A file may be called so, and be so deep."""
    volume = _volume(name="d" * bounds.VOLUME, containerPath="/" + "d" * (bounds.PATH - 1))
    assert not parsed("containers", [a_container_entry(volumes=[volume])]).unwrap().rejected


_BUILD = {"id": "b", "commitSha": "HEAD", "branch": "main", "serviceId": "s", "projectId": "p"}
_CLAIM = {"cloneUrl": "https://h/a.git", "imageUri": "r/p/s:1", "secrets": {}}


@pytest.mark.parametrize(
    ("kind", "message", "path"),
    [
        (WorkItem, lambda name: {"id": name, "type": "stop", "payload": ""}, "id"),
        (PendingBuilds, lambda name: {"build": {**_BUILD, "id": name}}, "build.id"),
        (ClaimedBuild, lambda name: {**_CLAIM, "build": {**_BUILD, "id": name}}, "build.id"),
    ],
)
def test_an_id_over_its_bound(kind: type[Message], message: Callable[[str], Any], path: str) -> None:
    """It is named wherever its item or its build is spoken of; the reason does not repeat it."""
    longest, longer = (json.dumps(message("d" * (bounds.SHOWN_ID + more))).encode() for more in (0, 1))
    assert is_successful(protocol.parse(longest, kind))
    why = protocol.parse(longer, kind).failure()
    assert why.startswith(f"{path}: ") and len(why) < 200


def test_an_item_with_an_id_over_its_bound() -> None:
    """It cannot be acknowledged, and takes no other with it."""
    ids = ["d" * (bounds.SHOWN_ID + 1), "d" * bounds.SHOWN_ID]
    items = [{"id": name, "type": "stop", "payload": ""} for name in ids]
    pending = work_queue.parse(json.dumps({"items": items}).encode()).unwrap()
    assert pending.ids == {ids[1]} and len(pending.nameless) == 1


def test_the_upstreams_of_all_routes_are_counted_together() -> None:
    """Each becomes values of Caddy's configuration; a route that has too many by itself takes no room from the others."""
    many = [f"10.200.{n // 250 + 1}.{n % 250 + 2}:{port}" for port in range(80, 180) for n in range(500)]
    entries = [a_route_entry(id=f"r{n}", domain=f"a{n}.example.org", upstreams=many[: 9_999 - n]) for n in range(3)]
    state = parsed("caddy.routes", [a_route_entry(id="a", upstreams=many), *entries]).unwrap()
    assert [one.id for one in state.caddy] == ["r0", "r1"] and state.held.caddy == {"a", "r2"}


@pytest.mark.parametrize("odd", [",", "<", "[", '"'])
def test_all_routes_that_are_taken_can_be_read_back_from_caddy(odd: str) -> None:
    """However many values its configuration has, or seems to have: routes that are sent and never read would stay for ever."""
    entries = [a_route_entry(id=f"{n}{odd * 60_000}", domain=f"a{n}.example.org") for n in range(30)]
    routes = parse_expected(json.dumps(an_expected_document([], [], entries, [])).encode()).unwrap().caddy
    many = [f"10.200.{n // 250 + 1}.{n % 250 + 2}:80" for n in range(12)]
    small = [a_route_entry(id=f"r{n}", domain=f"b{n}.example.org", upstreams=many) for n in range(1_600)]
    routes += parsed("caddy.routes", small).unwrap().caddy
    config = caddy_change.with_routes({}, routes, Base("https://control.example.org"))
    assert decode(encode(config)).unwrap() == config


def test_a_document_of_too_many_values_is_not_decoded() -> None:
    """Whatever they are: each would become an object of this process."""
    raw = b'{"items":[' + b"0," * (bounds.VALUES + 1) + b"0]}"
    assert work_queue.parse(raw).failure() == "has more than 1000000 values"
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
