"""`core.work_queue`: the list of items, each read by itself."""

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.pipeline import is_successful

from core import bounds, work_queue

CAPTURES = Path(__file__).parent.parent / "captures"
GOOD = {"id": "w", "type": "deploy", "payload": "", "createdAt": "2026-01-01T00:00:00.000Z"}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False, allow_infinity=False) | st.text(),
    lambda inner: (
        st.lists(inner) | st.dictionaries(st.sampled_from(["id", "type", "payload", "createdAt", "x"]), inner)
    ),
)


def parsed(items: list[Any]) -> work_queue.Pending:
    """The queue with these items."""
    return work_queue.parse(json.dumps({"items": items}).encode()).unwrap()


def captured() -> list[bytes]:
    """Every good answer to `GET /work-queue` that was recorded."""
    found = []
    for path in sorted(CAPTURES.glob("*.json")):
        exchange = json.loads(path.read_text())
        request, response = exchange["request"], exchange["response"]
        if request["method"] == "GET" and request["path"].endswith("/work-queue") and response["status"] == 200:
            found.append(response["body"].encode())
    return found


def test_what_a_real_control_plane_answers() -> None:
    """Every recorded queue is read whole."""
    queues = captured()
    assert queues
    for raw in queues:
        pending = work_queue.parse(raw).unwrap()
        assert len(pending.items) == len(json.loads(raw)["items"])
        assert not pending.ill_shaped
        assert not pending.nameless


def test_items_are_done_oldest_first_and_once() -> None:
    """The queue has no order, and may repeat itself."""
    old, new = {**GOOD, "id": "b"}, {**GOOD, "id": "a", "createdAt": "2026-01-02"}
    assert [one.id for one in parsed([new, old, new]).items] == ["b", "a"]


def test_one_that_makes_no_sense_takes_no_other_with_it() -> None:
    """L2: what says who it is can be acknowledged as failed; what does not is passed over, and said."""
    no_text = {**GOOD, "id": "x", "payload": {"deploymentId": "d"}}
    pending = parsed([no_text, 5, {**GOOD, "id": ""}, GOOD, {**GOOD, "id": 7}])
    assert [one.id for one in pending.items] == ["w"]
    assert [(one.id, "payload" in one.why) for one in pending.ill_shaped] == [("x", True)]
    assert [one.split(": ")[1] for one in pending.nameless] == ["document", "id", "id"]
    assert pending.ids == pending.read() == {"w", "x"}


def test_a_good_item_and_a_bad_one_of_the_same_name() -> None:
    """The good one is done; to acknowledge it as failed as well would be a lie."""
    pending = parsed([{**GOOD, "type": None}, GOOD])
    assert not pending.ill_shaped
    assert len(pending.items) == 1


@pytest.mark.parametrize("raw", [b"", b"{", b"[]", b"null", b'{"items": {}}', b'{"error": "no"}', b"\xff", b"[" * 9999])
def test_what_is_no_queue(raw: bytes) -> None:
    """L4: a reason, not a traceback."""
    assert not is_successful(work_queue.parse(raw))


@given(st.lists(JSON))
def test_any_items_are_sorted_out(items: list[Any]) -> None:
    """Nothing from outside raises, and nothing is counted twice."""
    pending = parsed(items)
    assert pending.ids == pending.read()
    assert len(pending.ids) + len(pending.nameless) <= len(items)


def test_of_a_long_queue_the_oldest_are_read(monkeypatch: pytest.MonkeyPatch) -> None:
    """Wherever they stand; those without an id last, since they would stand there for ever. All ids are known."""
    monkeypatch.setattr(bounds, "WORK_ITEMS", 3)
    items = [{**GOOD, "id": f"w{n}", "createdAt": f"2026-01-0{n}"} for n in (5, 2, 4, 1)]
    ill = {"id": "ill", "createdAt": "2026-01-03"}
    pending = parsed([1, 2, 3, *items, ill, {"createdAt": "2025"}])
    assert [one.id for one in pending.items] == ["w1", "w2"]
    assert [one.id for one in pending.ill_shaped] == ["ill"]
    assert (pending.nameless, pending.unread) == ((), 6)
    assert pending.ids == {"w1", "w2", "w4", "w5", "ill"}
    assert len(parsed([1, [], *items[:2]]).nameless) == 1
