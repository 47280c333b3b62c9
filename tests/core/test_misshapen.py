"""`core.wire` and `core.state`: a bad field is its entry's affair, as long as the entry's key can be read (PLAN_FORMAT.md)."""

import json
from collections.abc import Iterator
from copy import deepcopy
from typing import Any, Final

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.pipeline import is_successful

from core.action import NotExpected, StopOrphan
from core.plan import awaits_a_refused_one
from core.state import ExpectedState, Held, parse_expected, parse_expected_after
from core.wire import ShapeFault, WireExpected, WireLists, decode, decode_expected
from tests import builders
from tests.builders import an_expected_document
from tests.core.test_wire import EVERY_KEY, full, spelled, without
from tests.strategies import Case, cases

LISTS: Final = {
    "containers": (("containers",), "deploymentId"),
    "dns.records": (("dns", "records"), "name"),
    "caddy.routes": (("caddy", "routes"), "id"),
    "wireguard.peers": (("wireguard", "peers"), "publicKey"),
}
KEYS: Final = {(*path, 0, key) for path, key in LISTS.values()}
FIELDS: Final = [path for path in EVERY_KEY if 0 in path and path not in KEYS]
ANY_JSON: Final = st.recursive(
    st.none()
    | st.booleans()
    | st.integers()
    | st.floats(allow_nan=False, allow_infinity=False)
    | st.text(st.characters(exclude_categories=["Cs"])),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=3), inner, max_size=3),
    max_leaves=5,
)


def raw_of(document: Any) -> bytes:
    """As it comes over the wire."""
    return json.dumps(document).encode()


def list_of(document: Any, name: str) -> list[Any]:
    """One of the four lists."""
    found = document
    for part in LISTS[name][0]:
        found = found[part]
    assert isinstance(found, list)
    return found


@pytest.mark.parametrize("path", FIELDS, ids=spelled)
def test_a_missing_field_rejects_its_entry_alone(path: tuple[str | int, ...]) -> None:
    """With the path of the fault; the key is held."""
    state = parse_expected(raw_of(without(full(), *path))).unwrap()
    (rejected,) = state.rejected
    assert (rejected.path, rejected.reason) == (spelled(path), "is missing")
    assert state.held != Held()
    assert sum(map(len, (state.containers, state.dns, state.caddy, state.wireguard))) == 3


@pytest.mark.parametrize("path", sorted(KEYS, key=str), ids=spelled)
@pytest.mark.parametrize("key", [None, 5, ["x"]])
def test_an_entry_without_a_key_is_the_documents_fault(path: tuple[str | int, ...], key: object) -> None:
    """Nobody knows what to hold then."""
    document = full()
    owner: Any = document
    for part in path[:-1]:
        owner = owner[part]
    owner[path[-1]] = key
    assert parse_expected(raw_of(document)).failure().path == spelled(path)


@pytest.mark.parametrize("name", LISTS)
@pytest.mark.parametrize("entry", [None, 5, "text", []])
def test_an_entry_that_is_none_is_the_documents_fault(name: str, entry: object) -> None:
    """Likewise."""
    document = full()
    list_of(document, name).append(entry)
    assert parse_expected(raw_of(document)).failure().path == f"{name}[1]"


def test_what_is_wrong_outside_of_the_entries_is_the_documents_fault() -> None:
    """Also beside a bad entry; and what is not JSON is none."""
    document = without(without(full(), "containers", 0, "image"), "dns", "records")
    assert decode_expected(raw_of(document)).failure() == ShapeFault("dns.records", "is missing")
    raw = raw_of(without(full(), "containers", 0, "image"))
    assert not is_successful(decode_expected(raw[:-1]))


def test_a_document_of_good_entries_is_decoded_in_one_pass() -> None:
    """The same values, and nothing is decoded again."""
    whole = decode(raw_of(full()), WireExpected).unwrap()
    found = decode_expected(raw_of(full())).unwrap()
    assert found == WireLists(whole.containers, whole.dns.records, whole.caddy.routes, whole.wireguard.peers)


def test_a_record_is_held_by_its_name_as_it_is_compared() -> None:
    """Case and a last dot are not part of it."""
    state = parse_expected(raw_of(an_expected_document(records=[{"name": "WEB.internal.", "ips": None}]))).unwrap()
    assert state.held.dns == {"web.internal"}


@pytest.mark.parametrize("service", [builders.SERVICE, None])
def test_what_runs_of_its_service_is_not_stopped(service: str | None) -> None:
    """L4: a successor whose entry makes no sense; when its service cannot be read either, it may be anybody's."""
    entry = builders.a_container_entry(deploymentId="new", image=5, serviceId=service)
    expected = parse_expected(raw_of(an_expected_document([entry], [], [], []))).unwrap()
    assert expected.refused == {("new", service)}
    actual = builders.actual_of(builders.an_actual_document())
    (there,) = actual.containers
    stop = StopOrphan(there.deployment_id, there.id, there.name, NotExpected())
    assert awaits_a_refused_one(stop, expected, actual)


@st.composite
def spoiled_by_json(draw: st.DrawFn, document: Any) -> tuple[Any, str, int]:
    """A document with any place in one of its entries replaced by any JSON value or removed; the list's name and the index."""
    changed = deepcopy(document)
    here = [(name, index) for name in LISTS for index in range(len(list_of(changed, name)))]
    if not here:
        list_of(changed, "containers").append(builders.a_container_entry())
        here = [("containers", 0)]
    name, index = draw(st.sampled_from(here))
    owner, key = draw(st.sampled_from([*_places(list_of(changed, name)[index])]))
    if isinstance(owner, dict) and draw(st.booleans()):
        del owner[key]
    else:
        owner[key] = draw(ANY_JSON)
    return changed, name, index


def _places(value: Any) -> Iterator[tuple[Any, Any]]:
    for key, one in value.items() if isinstance(value, dict) else enumerate(value) if isinstance(value, list) else ():
        yield value, key
        yield from _places(one)


def others(state: ExpectedState, touched: set[str]) -> object:
    """Everything that a state says of other keys than these."""
    lower = {key.lower().removesuffix(".") for key in touched} | touched
    return (
        [one for one in state.containers if one.deployment_id not in lower],
        [one for one in state.dns if one.name not in lower],
        [one for one in state.caddy if one.id not in lower],
        [one for one in state.wireguard if one.public_key not in lower],
        [(one.key, one.reason) for one in state.rejected if one.key not in lower],
    )


@given(cases(), st.data())
def test_a_spoiled_field_spoils_no_other_entry(case: Case, data: st.DataObject) -> None:
    """PLAN_FORMAT.md: the entry is rejected and held, or still valid; an entry whose key cannot be read is the document's fault."""
    document, name, index = data.draw(spoiled_by_json(case.expected))
    entry, key_name = list_of(document, name)[index], LISTS[name][1]
    key = entry.get(key_name)
    parsed = parse_expected(raw_of(document))
    if not isinstance(key, str):
        assert parsed.failure().path == f"{name}[{index}].{key_name}"
        return
    before = list_of(case.expected, name)
    touched = {key, *([before[index][key_name]] if index < len(before) else [])}
    assert others(parsed.unwrap(), touched) == others(parse_expected(raw_of(case.expected)).unwrap(), touched)
    after = parse_expected_after(parse_expected_after(None, raw_of(case.expected)).unwrap(), raw_of(document)).unwrap()
    assert after.expected == parsed.unwrap(), "whatever was parsed before"
    following = parse_expected_after(after, raw_of(case.expected)).unwrap()
    assert following.expected == parse_expected(raw_of(case.expected)).unwrap()
