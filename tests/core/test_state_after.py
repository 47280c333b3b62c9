"""`core.state`: parsing a document after another gives what parsing it alone gives, whatever has changed between the two."""

import json
from copy import deepcopy
from typing import Any

from hypothesis import given
from hypothesis import strategies as st
from returns.pipeline import is_successful

from core.state import Document, parse_expected, parse_expected_after
from tests import builders
from tests.strategies import Case, cases, shuffled, spoiled

LISTS = (("containers", ""), ("dns", "records"), ("caddy", "routes"), ("wireguard", "peers"))
SUBNETS = st.sampled_from([None, 1, 3])


def entries(document: builders.Document, outer: str, inner: str) -> list[Any]:
    """One of the four lists."""
    found = document[outer][inner] if inner else document[outer]
    assert isinstance(found, list)
    return found


@st.composite
def edited(draw: st.DrawFn, document: builders.Document, other: builders.Document) -> builders.Document:
    """The same document with entries added, removed, moved, repeated, exchanged for another's of the same key, or spoiled."""
    if draw(st.booleans()):
        return draw(st.one_of(shuffled(document), spoiled(document)))
    changed = deepcopy(document)
    for outer, inner in draw(st.lists(st.sampled_from(LISTS), min_size=1, max_size=4)):
        here, there = entries(changed, outer, inner), entries(other, outer, inner)
        match draw(st.sampled_from(["remove", "add", "repeat", "move", "exchange"])):
            case "remove" if here:
                here.pop(draw(st.integers(0, len(here) - 1)))
            case "add":
                place = draw(st.integers(0, len(here)))
                here[place:place] = deepcopy(there)
            case "repeat" if here:
                here.insert(draw(st.integers(0, len(here))), deepcopy(draw(st.sampled_from(here))))
            case "move" if here:
                here.insert(draw(st.integers(0, len(here) - 1)), here.pop(draw(st.integers(0, len(here) - 1))))
            case "exchange" if here and there:
                place, theirs = draw(st.integers(0, len(here) - 1)), draw(st.sampled_from(there))
                here[place] = {**here[place], **draw(st.sampled_from([theirs, dict(list(theirs.items())[1:])]))}
            case _:
                pass
    return changed


def raw_of(document: builders.Document) -> bytes:
    """As it comes over the wire."""
    return json.dumps(document, separators=(",", ":")).encode()


@given(cases(), cases(), SUBNETS, st.data())
def test_what_was_parsed_before_never_shows(
    case: Case, other: Case, subnet_id: int | None, data: st.DataObject
) -> None:
    """After any row of documents, whole and broken: the same values, rejections, held keys and refusals as alone."""
    before: Document | None = None
    document = case.expected
    for _ in range(4):
        raw = raw_of(document)
        raw = raw if data.draw(st.integers(0, 9)) else raw[: data.draw(st.integers(0, len(raw)))]
        after = parse_expected_after(before, raw, subnet_id)
        assert after == parse_expected_after(None, raw, subnet_id)
        assert after.map(lambda one: one.expected) == parse_expected(raw, subnet_id)
        before = after.unwrap() if is_successful(after) else before
        subnet_id = subnet_id if data.draw(st.integers(0, 4)) else data.draw(SUBNETS)
        document = data.draw(edited(document, other.expected))


def test_the_same_bytes_give_the_same_document() -> None:
    """So that whoever asks can tell at once that nothing is new; another subnet is another question."""
    raw = raw_of(builders.an_expected_document())
    before = parse_expected_after(None, raw, 3).unwrap()
    assert parse_expected_after(before, bytes(bytearray(raw)), 3).unwrap() is before
    assert parse_expected_after(before, raw, 4).unwrap() is not before


def test_one_changed_container_leaves_the_others_as_they_were() -> None:
    """They are not only equal but the same values, and none of them is checked again."""
    wanted = [builders.a_container_entry(deploymentId=key, name=key) for key in ("a", "b", "c")]
    before = parse_expected_after(None, raw_of(builders.an_expected_document(wanted))).unwrap()
    wanted[1]["image"] = "nginx:2"
    after = parse_expected_after(before, raw_of(builders.an_expected_document(wanted))).unwrap()
    same = [one is old for one, old in zip(after.expected.containers, before.expected.containers, strict=True)]
    assert same == [True, False, True]
    assert after.expected.dns is before.expected.dns
    assert after.expected.caddy is before.expected.caddy
    assert after.expected.wireguard is before.expected.wireguard
