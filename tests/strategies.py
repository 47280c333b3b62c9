"""What the property tests draw from.

A *case* is drawn first (only wanted, only there, both, both but changed, held, ...); the two documents and the answer are derived from it,
so that the answer owes nothing to the planner. `shuffled` then gives the same documents in another order and with repetitions.
"""

from collections.abc import Callable
from copy import deepcopy
from dataclasses import dataclass
from random import Random
from typing import Any, TypeAlias

from hypothesis import strategies as st

from core.state import NodeType
from tests import builders
from tests.builders import Document, Entry

Fact: TypeAlias = tuple[str, ...] | tuple[str, str | None, str | None]
"""An action as far as the answer says: kind, deployment and container; or kind and the keys added, removed and changed."""

RIGHT, WRONG = "docker.io/library/nginx:1.27", "docker.io/library/nginx:1.26"
SAME_IMAGE = ("nginx:1.27", "library/nginx:1.27", "docker.io/nginx:1.27", "index.docker.io/library/nginx:1.27", RIGHT)
STARTABLE = ("created", "exited")
BROKEN = ("paused", "stopped", "dead", "configured", "unknown", "removing", "stopping", "initialized")
SERVICES = ("svc-a", "svc-b")
NODE_TYPES = st.sampled_from([NodeType.WORKER, NodeType.PROXY])

CONTAINER_CASES = ("missing", "right", "startable", "wrong image", "broken", "unwanted", "held", "held and there")
KEYED_CASES = (
    "only wanted",
    "only there",
    "both",
    "both, spelled otherwise",
    "changed",
    "held",
    "held and there",
    "empty",
)


@dataclass(frozen=True)
class Case:
    """Two documents and what is to be done, found without the planner."""

    expected: Document
    actual: Document
    node_type: NodeType
    answer: tuple[tuple[Any, ...], ...]
    foreign: frozenset[str]
    held: frozenset[str]


@dataclass(frozen=True)
class Keyed:
    """One list of keyed entries: how one is spelled in its ways, and what is wrong with a bad one."""

    name: str
    key: Callable[[int], str]
    good: Callable[[int], Entry]
    otherwise: Callable[[int], Entry]
    changed: Callable[[int], Entry]
    bad: Callable[[int], Entry]
    empty: Callable[[int], Entry] | None


RECORDS = Keyed(
    "dns",
    key=lambda n: f"host-{n}.internal",
    good=lambda n: {"name": f"host-{n}.internal", "ips": ["10.200.1.2", f"10.200.2.{n}"]},
    otherwise=lambda n: {"name": f"HOST-{n}.Internal.", "ips": [f"10.200.2.{n}", "10.200.1.2", "10.200.1.2"]},
    changed=lambda n: {"name": f"host-{n}.internal", "ips": ["10.200.1.2"]},
    bad=lambda n: {"name": f"host-{n}.internal", "ips": ["10.200.1.2", "fd00::1"]},
    empty=lambda n: {"name": f"host-{n}.internal", "ips": []},
)
ROUTES = Keyed(
    "caddy",
    key=lambda n: f"route-{n}",
    good=lambda n: _route(n, f"bücher-{n}.example", "10.200.1.2:80", f"10.200.2.{n}:80"),
    otherwise=lambda n: _route(n, f"BÜCHER-{n}.Example", f"10.200.2.{n}:80", "10.200.1.2:0080", "10.200.1.2:80"),
    changed=lambda n: _route(n, f"bücher-{n}.example", "10.200.1.2:80"),
    bad=lambda n: _route(n, f"bücher-{n}.example", "10.200.1.2"),
    empty=lambda n: _route(n, f"bücher-{n}.example"),
)
PEERS = Keyed(
    "wireguard",
    key=lambda n: builders.a_key(n + 1),
    good=lambda n: _peer(n, f"10.100.{n}.0/24,10.200.{n}.0/24", "[fd00::1]:51820"),
    otherwise=lambda n: _peer(n, f"10.200.{n}.7/24, 10.100.{n}.0/24,10.200.{n}.0/24", "fd00:0::1:51820"),
    changed=lambda n: _peer(n, f"10.100.{n}.0/24", None),
    bad=lambda n: _peer(n, f"10.100.{n}.0/24,192.168.0.0/24", None),
    empty=None,
)


def _route(number: int, domain: str, *upstreams: str) -> Entry:
    return {"id": f"route-{number}", "domain": domain, "serviceId": "svc-a", "upstreams": list(upstreams)}


def _peer(number: int, networks: str, endpoint: str | None) -> Entry:
    return {"publicKey": builders.a_key(number + 1), "allowedIps": networks, "endpoint": endpoint}


@st.composite
def cases(draw: st.DrawFn) -> Case:
    """A whole server: containers in every situation, and each component in every situation."""
    node_type = draw(NODE_TYPES)
    wanted, there, answer, held = draw(_deployments())
    strays, stops, foreign = draw(_strays())
    expected: dict[str, list[Entry]] = {}
    actual: dict[str, list[Entry] | None] = {}
    updates: list[tuple[Any, ...]] = []
    for keyed in (RECORDS, ROUTES, PEERS):
        expected[keyed.name], actual[keyed.name], found, keys = draw(_component(keyed))
        held |= keys
        if found is not None and not (keyed is ROUTES and node_type is NodeType.WORKER):
            updates.append(found)
    order = {"stop_orphan": 0, "start": 1, "deploy": 2, "redeploy": 3}
    changes = sorted(answer + stops, key=lambda a: (order[a[0]], a[1] is not None, a[1] or "", a[2] or ""))
    document = builders.an_expected_document(wanted, expected["dns"], expected["caddy"], expected["wireguard"])
    found_there = builders.an_actual_document([*there, *strays], [], [], [])
    for name, inner in (("dns", "records"), ("caddy", "routes"), ("wireguard", "peers")):
        entries = actual[name]
        found_there[name] = None if entries is None else {inner: entries}
    return Case(document, found_there, node_type, tuple(changes + updates), foreign, frozenset(held))


@st.composite
def _deployments(draw: st.DrawFn) -> tuple[list[Entry], list[Entry], list[tuple[Any, ...]], set[str]]:
    wanted: list[Entry] = []
    there: list[Entry] = []
    answer: list[tuple[Any, ...]] = []
    held: set[str] = set()
    for number, case in enumerate(draw(st.lists(st.sampled_from(CONTAINER_CASES), max_size=6))):
        deployment = f"dep-{number}"
        if case != "unwanted":
            spoiled = (
                {"image": "UPPER/case"} if case.startswith("held") else {"image": draw(st.sampled_from(SAME_IMAGE))}
            )
            wanted.append(_wanted(deployment, draw(st.sampled_from(SERVICES)), **spoiled))
        if case.startswith("held"):
            held.add(deployment)
        kept, fact = draw(_kept(case, deployment))
        there += [] if kept is None else [kept]
        answer += [] if fact is None else [fact]
        if kept is not None and case in ("right", "startable", "wrong image", "broken"):
            spares = draw(_spares(kept, deployment))
            there += spares
            answer += [("stop_orphan", deployment, spare["id"]) for spare in spares]
    return wanted, there, answer, held


@st.composite
def _kept(draw: st.DrawFn, case: str, deployment: str) -> tuple[Entry | None, tuple[Any, ...] | None]:
    container = f"c-{deployment}"
    image, state = draw(st.sampled_from(SAME_IMAGE)), "running"
    if case == "missing":
        return None, ("deploy", deployment, None)
    if case == "held":
        return None, None
    fact: tuple[Any, ...] | None = None
    if case == "startable":
        state, fact = draw(st.sampled_from(STARTABLE)), ("start", deployment, container)
    elif case == "wrong image":
        state, image = draw(st.sampled_from((*STARTABLE, *BROKEN, "running"))), draw(st.sampled_from((WRONG, "<none>")))
        fact = ("redeploy", deployment, container)
    elif case == "broken":
        state, fact = draw(st.sampled_from(BROKEN)), ("redeploy", deployment, container)
    elif case == "unwanted":
        state, fact = draw(st.sampled_from((*BROKEN, "running"))), ("stop_orphan", deployment, container)
    return _there(container, deployment, image=image, state=state, created=1000), fact


@st.composite
def _spares(draw: st.DrawFn, kept: Entry, deployment: str) -> list[Entry]:
    """Further containers of one deployment, each worse than the kept one in one respect."""
    spares = []
    for number in range(draw(st.integers(0, 2))):
        worse = draw(st.sampled_from(["older", "greater id", "state"]))
        spare = {**deepcopy(kept), "id": f"{kept['id']}-spare-{number}"}
        if worse == "older":
            spare |= {"created": 900, "id": f"a-{deployment}-{number}"}
        elif worse == "state" and kept["state"] == "running":
            spare |= {"state": "exited", "created": 2000, "id": f"a-{deployment}-{number}"}
        spares.append(spare)
    return spares


@st.composite
def _strays(draw: st.DrawFn) -> tuple[list[Entry], list[tuple[Any, ...]], frozenset[str]]:
    """Containers of ours that name no deployment, and containers that are not ours."""
    nameless = [_there(f"n-{n}", None) for n in range(draw(st.integers(0, 2)))]
    blank = [_there(f"b-{n}", "") for n in range(draw(st.integers(0, 1)))]
    foreign = [
        {**_there(f"f-{n}", None), "labels": {"com.example": "x", "techulus": "no dot"}}
        for n in range(draw(st.integers(0, 2)))
    ]
    stops: list[tuple[Any, ...]] = [("stop_orphan", None, entry["id"]) for entry in nameless + blank]
    return nameless + blank + foreign, stops, frozenset(entry["id"] for entry in foreign)


@st.composite
def _component(
    draw: st.DrawFn, keyed: Keyed
) -> tuple[list[Entry], list[Entry] | None, tuple[Any, ...] | None, set[str]]:
    wanted: list[Entry] = []
    there: list[Entry] = []
    held: set[str] = set()
    keys: dict[str, list[str]] = {"added": [], "removed": [], "changed": []}
    possible = KEYED_CASES if keyed.empty else KEYED_CASES[:-1]
    for number, case in enumerate(draw(st.lists(st.sampled_from(possible), max_size=5))):
        ways = [keyed.good(number), keyed.otherwise(number)]
        if case in ("only wanted", "both", "both, spelled otherwise", "changed"):
            wanted.append(draw(st.sampled_from(ways)))
        if case.startswith("held"):
            wanted.append(keyed.bad(number))
            held.add(keyed.key(number))
        if case == "empty" and keyed.empty:
            draw(st.sampled_from([wanted, there])).append(keyed.empty(number))
        if case in ("only there", "both", "held and there"):
            there.append(keyed.good(number))
        if case == "both, spelled otherwise":
            there.append(keyed.otherwise(number))
        if case == "changed":
            there.append(keyed.changed(number))
        word = {"only wanted": "added", "only there": "removed", "changed": "changed"}.get(case)
        if word is not None:
            keys[word].append(keyed.key(number))
    if draw(st.integers(0, 9)) == 0:
        return wanted, None, (f"update_{keyed.name}", (), (), ()), held
    found = tuple(tuple(sorted(keys[word])) for word in ("added", "removed", "changed"))
    return wanted, there, (f"update_{keyed.name}", *found) if any(found) else None, held


def _wanted(deployment: str, service: str, **changes: Any) -> Entry:
    return builders.a_container_entry(
        deploymentId=deployment, serviceId=service, name=f"{service}-{deployment}", **changes
    )


def _there(container: str, deployment: str | None, **changes: Any) -> Entry:
    return builders.an_actual_entry(
        id=container, name=f"was-{container}", labels=builders.labels(deployment, "svc-a"), **changes
    )


@st.composite
def shuffled(draw: st.DrawFn, document: Document) -> Document:
    """The same document with every list and object in another order, and with some entries of its lists repeated."""
    random = draw(st.randoms(use_true_random=False))
    changed = _shuffle(document, random)
    assert isinstance(changed, dict)
    return changed


def _shuffle(value: Any, random: Random) -> Any:
    if isinstance(value, dict):
        items = [(key, _shuffle(inner, random)) for key, inner in value.items()]
        random.shuffle(items)
        return {key: _mixed(inner, random) if key == "allowedIps" else inner for key, inner in items}
    if isinstance(value, list):
        mixed = [_shuffle(inner, random) for inner in value]
        mixed += [deepcopy(inner) for inner in mixed if random.random() < 0.25]
        random.shuffle(mixed)
        return mixed
    return value


def _mixed(networks: str, random: Random) -> str:
    parts = networks.split(",")
    random.shuffle(parts)
    return ",".join(parts)


TEXTS = st.text(st.characters(codec="utf-8"), max_size=12)
NASTY = st.sampled_from(
    ["", " ", "\x00", "\n", "a\nb", "-x", "..", "a/../b", "a/b", "é", "☃", ",", '"', "'", "[]", "\u2028", "x" * 300]
)
ANY_TEXT = st.one_of(NASTY, TEXTS)


@st.composite
def spoiled(draw: st.DrawFn, document: Document) -> Document:
    """The same document with one text anywhere in it replaced by any other."""
    changed = deepcopy(document)
    places = list(_texts(changed))
    if places:
        owner, key = draw(st.sampled_from(places))
        owner[key] = draw(ANY_TEXT)
    return changed


def _texts(value: Any) -> list[tuple[Any, Any]]:
    found: list[tuple[Any, Any]] = []
    inner = value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ()
    for key, one in inner:
        found += [(value, key)] if isinstance(one, str) else _texts(one)
    return found
