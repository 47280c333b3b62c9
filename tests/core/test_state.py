"""`core.state`: the two documents as they are compared, and their hashes."""

import json

import pytest

from core import state
from core.dns import Record
from core.state import UNREAD, ActualState, ExpectedState, Held, hashes, not_held, parse_actual, parse_expected, without
from tests import builders
from tests.builders import (
    DEPLOYMENT,
    a_container_entry,
    a_key,
    a_peer_entry,
    a_record_entry,
    a_route_entry,
    actual_of,
    an_actual_document,
    an_actual_entry,
    an_expected_document,
    expected_of,
)

APP, WEB = "app.example.org", "web-api.internal"


def bad_everywhere() -> ExpectedState:
    """An expected state whose every entry is bad."""
    return expected_of(
        an_expected_document(
            [a_container_entry(image="NOT ONE")],
            [a_record_entry(ips=["x"])],
            [a_route_entry(domain="")],
            [a_peer_entry(endpoint="x")],
        )
    )


def test_rejections_of_all_lists_are_sorted_by_path() -> None:
    """As text, with the key and a reason."""
    state = bad_everywhere()
    assert [(one.path, one.key) for one in state.rejected] == [
        ("caddy.routes[0].domain", APP),
        ("containers[0].image", DEPLOYMENT),
        ("dns.records[0].ips[0]", WEB),
        ("wireguard.peers[0].endpoint", a_key()),
    ]
    assert all(one.reason for one in state.rejected)
    assert state.held == Held(frozenset({DEPLOYMENT}), frozenset({WEB}), frozenset({APP}), frozenset({a_key()}))


def test_what_is_held_is_left_out_of_both_sides() -> None:
    """L7: for each list; the hashes agree, whatever is there for the key."""
    expected, actual = bad_everywhere(), actual_of(an_actual_document())
    assert not_held(actual, expected.held) == ActualState()
    empty = hashes(ExpectedState(), ActualState())
    assert hashes(expected, actual) == empty


def test_without_held_keys_nothing_is_left_out() -> None:
    """An empty deployment id that is held is not the same as having none."""
    actual = actual_of(an_actual_document([an_actual_entry(labels=builders.labels(""))]))
    assert not_held(actual, Held()) == actual
    assert not_held(actual, Held(containers=frozenset({""}))) == actual


def test_a_component_that_could_not_be_read_stays_so() -> None:
    """L3: unread is a value of its own, and has no hash."""
    actual = actual_of({"containers": [], "dns": None, "caddy": None, "wireguard": None})
    assert actual == ActualState((), UNREAD, UNREAD, UNREAD)
    assert not_held(actual, bad_everywhere().held) == actual
    assert {found.actual for found in hashes(bad_everywhere(), actual).values()} == {None}


def test_components_that_this_server_does_not_manage_are_left_out() -> None:
    """Their entries are gone, the others stay."""
    state = expected_of(an_expected_document())
    assert without(state, frozenset()) == state
    bare = without(state, frozenset({"dns", "caddy", "wireguard"}))
    assert (bare.containers, bare.dns, bare.caddy, bare.wireguard) == (state.containers, (), (), ())


@pytest.mark.parametrize("raw", [b"{}", b"null", b"<html>", b""])
def test_a_document_of_the_wrong_shape_is_refused_whole(raw: bytes) -> None:
    """L1: a failure value with a line for a person, never an empty state."""
    assert str(parse_expected(raw).failure())
    assert str(parse_actual(raw).failure())


def test_containers_stand_by_deployment_id() -> None:
    """Whatever the order in which they were sent."""
    entries = [a_container_entry(deploymentId=key, name=key) for key in ("b", "c", "a")]
    state = parse_expected(json.dumps(an_expected_document(entries)).encode()).unwrap()
    assert [one.deployment_id for one in state.containers] == ["a", "b", "c"]


def test_a_hash_is_computed_once_for_equal_values() -> None:
    """DESIGN's rule 8: at each look both sides are read anew, and are nearly always what they were."""
    state._digest_of.cache_clear()
    for _ in range(5):
        assert ExpectedState(dns=(Record("a.internal", ("10.200.1.2",)),)).digests == dict(
            ActualState(dns=(Record("a.internal", ("10.200.1.2",)),)).digests
        )
    assert state._digest_of.cache_info().misses == 3, "one for each component"
    one, other = (
        ExpectedState(dns=(Record(name, ("10.200.1.2",)),)).digests["dns"] for name in ("a.internal", "b.internal")
    )
    assert one != other
    assert ActualState(dns=UNREAD).digests["dns"] is None
