"""Parsing and deciding on large states, in multiples of `json.loads` of the same bytes in the same process."""

import base64
import json
import random
import statistics
import time
from collections.abc import Callable
from copy import copy
from dataclasses import replace
from functools import partial
from typing import Any

from core import plan, podman_answers, state, status
from core.action import Action
from core.containers import ActualContainer
from core.state import ActualState, ExpectedState, NodeType

SIZES = (100, 1_000, 10_000)
_NOW = 1_767_540_000
_ROUNDS = 7


def document(containers: int, seed: int = 1) -> bytes:
    """A seeded expected state: half as many DNS names of two addresses, a tenth as many routes, up to 254 peers."""
    source = random.Random(seed)
    address = [f"10.200.{i % 250}.{2 + i // 250 % 250}" for i in range(containers + 1)]
    return json.dumps(
        {
            "containers": [_container(i, address[i], source) for i in range(containers)],
            "dns": {
                "records": [
                    {"name": f"s{i}.internal", "ips": [address[i], address[i + 1]]} for i in range(containers // 2)
                ]
            },
            "caddy": {"routes": [_route(i, address) for i in range(containers // 10)]},
            "wireguard": {"peers": [_peer(i, source) for i in range(min(254, containers))]},
        }
    ).encode()


def listing(raw: bytes) -> bytes:
    """What Podman answers on a server that runs all of a document's containers."""
    return json.dumps([_listed(number, one) for number, one in enumerate(json.loads(raw)["containers"])]).encode()


def main() -> bool:
    """Print a table. No goals are set for these figures yet."""
    for size in SIZES:
        raw = document(size)
        unit_s = _median_s(partial(json.loads, raw))
        figures = "  ".join(f"{name} {seconds / unit_s:.3f}" for name, seconds in measure(raw).items())
        print(f"{size:>7}  json.loads {unit_s * 1000:.2f} ms, in multiples of it:  {figures}")
    return True


def measure(raw: bytes) -> dict[str, float]:
    """Seconds for each step of what the agent does with a document, checked to have done its work."""
    before = state.parse_expected_after(None, raw).unwrap()
    expected = before.expected
    changed = json.loads(raw)
    changed["containers"][-1]["image"] = "registry.example.com/another:1"
    following = json.dumps(changed).encode()
    assert state.parse_expected_after(before, following).unwrap().expected == state.parse_expected(following).unwrap()
    listed = podman_answers.parse_listing_after(None, listing(raw), _NOW).unwrap()
    actions = plan.outstanding(expected, ActualState(), NodeType.PROXY)
    assert len(actions) == len(expected.containers) + 3

    def tick() -> tuple[Action, ...]:
        wanted = state.parse_expected_after(before, raw).unwrap().expected
        there = podman_answers.parse_listing_after(listed, listed.raw, _NOW + 10).unwrap().containers
        drift = plan.outstanding(wanted, _actual(wanted, there), NodeType.PROXY)
        status.body(status.entries(there, status.now_up(there, frozenset()), {}), None, None)
        return drift

    assert tick() == ()
    return {
        "parse": _median_s(partial(state.parse_expected, raw)),
        "one changed": _median_s(partial(state.parse_expected_after, before, following)),
        "decide": statistics.median(_decide_s(expected, listed.raw) for _ in range(_ROUNDS)),
        "decide cold": statistics.median(
            _decide_s(state.parse_expected(raw).unwrap(), listed.raw) for _ in range(_ROUNDS)
        ),
        "idle tick": _median_s(tick),
        "plan of all": _median_s(partial(plan.plan, expected, ActualState(), NodeType.PROXY)),
    }


def _decide_s(expected: ExpectedState, listed: bytes) -> float:
    """One decision on a listing that has just been parsed."""
    actual = _actual(expected, podman_answers.parse_listing(listed, _NOW).unwrap())
    begun = time.perf_counter()
    drift = plan.outstanding(expected, actual, NodeType.PROXY)
    took = time.perf_counter() - begun
    assert drift == ()
    return took


def _actual(expected: ExpectedState, there: tuple[ActualContainer, ...]) -> ActualState:
    """Equal records, routes and peers, but not the very same."""
    return ActualState(
        there,
        tuple(map(copy, expected.dns)),
        tuple(map(copy, expected.caddy)),
        tuple(replace(peer) for peer in expected.wireguard),
    )


def _listed(number: int, one: dict[str, Any]) -> dict[str, object]:
    return {
        "Id": f"{number:064x}",
        "Names": [one["name"]],
        "Image": one["image"],
        "ImageID": f"{number % 50:064x}",
        "Command": ["sleep", "infinity"],
        "Created": "2026-01-04T13:37:11.434102928Z",
        "StartedAt": _NOW - 1000,
        "ExitedAt": -62_135_596_800,
        "Exited": False,
        "ExitCode": 0,
        "Pid": 100 + number,
        "State": "running",
        "Status": "healthy" if one["healthCheck"] else "",
        "Networks": ["techulus"],
        "Mounts": [],
        "Namespaces": {},
        "Labels": {
            "techulus.deployment.id": one["deploymentId"],
            "techulus.service.id": one["serviceId"],
            "techulus.service.name": one["serviceName"],
        },
    }


def _median_s(run: Callable[[], object]) -> float:
    def once() -> float:
        begun = time.perf_counter()
        run()
        return time.perf_counter() - begun

    return statistics.median(once() for _ in range(_ROUNDS))


def _container(i: int, address: str, source: random.Random) -> dict[str, object]:
    check = {"cmd": "curl -f localhost", "interval": 10, "timeout": 5, "retries": 3, "startPeriod": 30}
    return {
        "deploymentId": f"{source.getrandbits(128):032x}",
        "serviceId": f"service-{i // 2}",
        "serviceName": f"Service {i // 2}",
        "name": f"service-{i // 2}-{i:08x}",
        "image": f"registry.example.com:5000/team/app{i % 50}:1.{i % 7}",
        "ipAddress": address,
        "ports": [{"containerPort": 80, "hostPort": 30_000 + i % 2_768}],
        "env": {"FIRST": "x" * 60, "SECOND": "y" * 60},
        "healthCheck": check if i % 2 else None,
        "volumes": [],
    }


def _route(i: int, address: list[str]) -> dict[str, object]:
    domain = f"app{i}.example.com"
    return {
        "id": domain,
        "domain": domain,
        "upstreams": [f"{address[i]}:80", f"{address[i + 1]}:80"],
        "serviceId": f"service-{i}",
    }


def _peer(i: int, source: random.Random) -> dict[str, object]:
    return {
        "publicKey": base64.b64encode(source.randbytes(32)).decode(),
        "allowedIps": f"10.100.{i}.0/24,10.200.{i}.0/24",
        "endpoint": f"203.0.113.{i}:51820",
    }
