"""`core.podman_events`: what Podman says while it happens. Lines as Podman 4.3 writes them."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.podman_events import ENDS, KINDS, ContainerEvent, asks_for_a_plan, is_news, parse
from tests.builders import CONTAINER, an_actual_container, labels

HEALTHY = an_actual_container(health="healthy")
SEEN = {HEALTHY.id: HEALTHY}


def a_line(action: str = "start", **changes: Any) -> bytes:
    """One event about the container of `tests.builders`."""
    actor = {"ID": CONTAINER, "Attributes": {"image": "x", "name": "web", **labels()}}
    return json.dumps(
        {"Type": "container", "Action": action, "Actor": actor, "timeNano": 1_500_000_000} | changes
    ).encode()


def an_event(kind: str, health: str = "") -> ContainerEvent:
    """An event about the same container."""
    return ContainerEvent(kind, HEALTHY.id, 1.5, health)


@pytest.mark.parametrize("kind", KINDS)
def test_what_is_heard(kind: str) -> None:
    """Each kind that can change what is reported, with its exact time."""
    assert parse(a_line(kind)) == an_event(kind)


def test_a_health_check() -> None:
    """In Podman's own form, and in docker's with the outcome behind a colon."""
    assert parse(a_line("health_status", HealthStatus="Healthy")) == an_event("health_status", "healthy")
    assert parse(a_line("health_status: healthy")) == an_event("health_status")


@pytest.mark.parametrize(
    "line",
    [
        b"",
        b"{",
        b"[]",
        b"null",
        b"\xff",
        b"[" * 9999,
        a_line("exec"),
        a_line(Actor={"ID": "", "Attributes": labels()}),
        a_line(Actor={"ID": CONTAINER, "Attributes": {"name": "somebody else's"}}),
        a_line(Actor=None),
        a_line(Actor={"ID": 5}),
        a_line(timeNano=10**400),
        a_line(timeNano=2**63),
        a_line(timeNano=-1),
    ],
)
def test_what_is_not(line: bytes) -> None:
    """Other kinds, containers of others, nonsense."""
    assert parse(line) is None


@given(st.binary())
def test_any_bytes(line: bytes) -> None:
    """No event, and no exception."""
    assert parse(line) is None


ANYTHING = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: st.lists(inner, max_size=2) | st.dictionaries(st.text(), inner, max_size=2),
    max_leaves=4,
)


@given(st.sampled_from(["Action", "Actor", "timeNano", "HealthStatus", "Type", "a later Podman's"]), ANYTHING)
def test_any_value_in_an_event(field: str, value: Any) -> None:
    """One field spoiled: an event of one of our kinds at a time that can be, or nothing; no exception."""
    found = parse(a_line(**{field: value}))
    assert found is None or (found.kind in KINDS and found.at_s >= 0)


def test_what_is_news() -> None:
    """Everything but a check that finds healthy what was healthy: a hundred of those a second are looked at by nobody."""
    assert is_news(an_event("died"), SEEN)
    assert not is_news(an_event("health_status", "healthy"), SEEN)
    assert is_news(an_event("health_status", "unhealthy"), SEEN)
    assert is_news(an_event("health_status", "healthy"), {})
    assert is_news(an_event("health_status", "healthy"), {HEALTHY.id: an_actual_container(health="starting")})


@pytest.mark.parametrize("kind", KINDS)
def test_what_asks_for_a_plan(kind: str) -> None:
    """That something has ended, unless a look has begun since."""
    assert asks_for_a_plan(an_event(kind), 1.4) == (kind in ENDS)
    assert not asks_for_a_plan(an_event(kind), 1.5)
