"""Every expected state that the control plane has really sent is planned without an error; only what makes no sense is rejected."""

import json
from pathlib import Path
from typing import Any

import pytest

from core import plan
from core.plan import predict
from core.state import ActualState, NodeType, parse_expected

CAPTURES = Path(__file__).parent.parent / "captures"


def bodies() -> dict[str, bytes]:
    """The answers to `GET /expected-state` by the name of their exchange."""
    found: dict[str, bytes] = {}
    for path in sorted(CAPTURES.glob("*.json")):
        exchange: dict[str, Any] = json.loads(path.read_text())
        asked, answer = exchange["request"], exchange["response"]
        if asked["method"] == "GET" and asked["path"].endswith("/expected-state") and answer["status"] == 200:
            found[path.stem] = answer["body"].encode()
    return found


BODIES = bodies()

NAMELESS = ("dns.records[0].name", "dns.records[1].name")
ODD_DOMAINS = tuple(f"caddy.routes[{number}].domain" for number in (1, 4, 5))
BAD_ENTRIES: dict[str, tuple[str, ...]] = {
    "118-expected-state-image-normalisation": ("containers[3].image",),
    "127-edge-proxy-routes-dup-names-odd-domains": (*ODD_DOMAINS, NAMELESS[1]),
    "128-edge-null-ip-container": NAMELESS[1:],
    "129-edge-null-ip-no-route-no-dns": (ODD_DOMAINS[0], NAMELESS[1]),
    "130-edge-empty-health-cmd": NAMELESS[1:],
    "133-edge-health-null-numbers-default": NAMELESS[1:],
    "134-edge-set-image-without-deploy-changes-expected-state-at-once": NAMELESS[:1],
}
"""What the control plane itself gets wrong: a service name without a letter makes `.internal`, domains are not checked, and a short name
with a registry gets a second one."""


def test_there_are_captures() -> None:
    """A folder that has moved must not make these tests pass on nothing."""
    assert len(BODIES) >= 10


@pytest.mark.parametrize("node_type", list(NodeType))
@pytest.mark.parametrize("name", BODIES)
def test_a_captured_state_is_planned(name: str, node_type: NodeType) -> None:
    """From an empty server to a converged one, one action for each container and component that is wanted."""
    expected = parse_expected(BODIES[name]).unwrap()
    bad = BAD_ENTRIES.get(name, ())
    assert tuple(one.path for one in expected.rejected) == bad
    wanted = len(json.loads(BODIES[name])["containers"]) - sum(path.startswith("containers") for path in bad)
    assert len(expected.containers) == wanted
    actions = plan.plan(expected, ActualState(), node_type)
    components = [expected.dns, expected.caddy if node_type is NodeType.PROXY else (), expected.wireguard]
    assert len(actions) == len(expected.containers) + sum(map(bool, components))
    assert plan.plan(expected, predict(ActualState(), actions), node_type) == ()
