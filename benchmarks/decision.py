"""Parsing and deciding on large states, in multiples of `json.loads` of the same bytes in the same process."""

import base64
import json
import random
import statistics
import time
from collections.abc import Callable
from functools import partial

from core import plan, state
from core.state import ActualState, NodeType

SIZES = (100, 1_000, 10_000)
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


def main() -> bool:
    """Print a table. No goals are set for these figures yet."""
    print(
        f"{'containers':>10}  {'json.loads ms':>13}  {'parse':>6}  {'decide':>6}  {'plan of all':>11}   (multiples of json.loads)"
    )
    for size in SIZES:
        raw = document(size)
        unit_s = _median_s(partial(json.loads, raw))
        expected = state.parse_expected(raw).unwrap()
        actions = plan.outstanding(expected, ActualState(), NodeType.PROXY)
        actual = plan.predict(ActualState(), actions)
        assert len(actions) == size + 3
        assert plan.outstanding(expected, actual, NodeType.PROXY) == ()
        parse_s = _median_s(partial(state.parse_expected, raw))
        decide_s = _median_s(partial(plan.outstanding, expected, actual, NodeType.PROXY))
        whole_s = _median_s(partial(plan.plan, expected, ActualState(), NodeType.PROXY))
        print(
            f"{size:>10}  {unit_s * 1000:>13.2f}  {parse_s / unit_s:>6.2f}  {decide_s / unit_s:>6.2f}  {whole_s / unit_s:>11.2f}"
        )
    return True


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
