"""`core.rejection`: good and bad entries are split, and a bad one holds its key (L7)."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.rejection import Fault, Rejection, has_control, id_fault, shown, sift, split
from tests.strategies import ANY_TEXT

Pair = tuple[str, str]
CLASH = "another entry has the same key and differs"


def key(entry: Pair) -> str:
    """The first of the pair."""
    return entry[0]


def parse(entry: Pair) -> str | Fault:
    """The second of the pair, unless it says that it is bad."""
    return Fault("field", "is bad") if entry[1] == "bad" else "".join(entry)


@pytest.mark.parametrize(
    ("entries", "good", "held", "rejected"),
    [
        ([], (), set(), []),
        ([("a", "1"), ("b", "2")], ("a1", "b2"), set(), []),
        ([("a", "1"), ("a", "1")], ("a1",), set(), []),
        ([("a", "bad"), ("b", "2")], ("b2",), {"a"}, [("l[0].field", "a", "is bad")]),
        ([("a", "1"), ("a", "2")], (), {"a"}, [("l[0]", "a", CLASH), ("l[1]", "a", CLASH)]),
        ([("a", "1"), ("b", "2"), ("a", "3")], ("b2",), {"a"}, [("l[0]", "a", CLASH), ("l[2]", "a", CLASH)]),
        ([("a", "1"), ("a", "bad")], (), {"a"}, [("l[0]", "a", CLASH), ("l[1].field", "a", "is bad")]),
        ([("a", "bad"), ("a", "1")], (), {"a"}, [("l[0].field", "a", "is bad"), ("l[1]", "a", CLASH)]),
        ([("a", "bad"), ("a", "bad")], (), {"a"}, [("l[0].field", "a", "is bad"), ("l[1].field", "a", "is bad")]),
        ([("a", "1"), ("a", "1"), ("a", "2")], (), {"a"}, [(f"l[{n}]", "a", CLASH) for n in range(3)]),
    ],
)
def test_unique_lists(
    entries: list[Pair], good: tuple[str, ...], held: set[str], rejected: list[tuple[str, str, str]]
) -> None:
    """Two that differ are both rejected, identical ones collapse."""
    found = sift("l", entries, key, parse, 100)
    assert (found.values, set(found.held), found.rejected) == (
        good,
        held,
        tuple(Rejection(*one) for one in rejected),
    )


def test_a_list_of_names_may_repeat_them() -> None:
    """Without `unique` a key may stand twice, and is held as soon as one of its entries is bad."""
    entries = [("a", "1"), ("a", "2"), ("b", "1"), ("b", "bad")]
    found = split("l", [*map(key, entries)], [*map(parse, entries)], 100, unique=False)
    assert (found.values, set(found.held)) == (("a1", "a2"), {"b"})
    assert found.rejected == (Rejection("l[3].field", "b", "is bad"),)


def test_rejections_are_sorted_by_path_as_text() -> None:
    """As text: the tenth entry comes before the second."""
    found = sift("l", [(str(n), "bad") for n in range(11)], key, parse, 100)
    assert [one.path for one in found.rejected][:3] == ["l[0].field", "l[10].field", "l[1].field"]


@given(
    st.permutations(
        [("a", "1"), ("a", "2"), ("b", "1"), ("b", "1"), ("c", "bad"), ("d", "bad"), ("d", "1"), ("e", "1")]
    )
)
def test_what_is_held_does_not_depend_on_the_order(entries: list[Pair]) -> None:
    """The same values, keys and reasons, wherever the entries stand."""
    found = sift("l", entries, key, parse, 100)
    assert (set(found.values), set(found.held)) == ({"b1", "e1"}, {"a", "c", "d"})
    assert sorted((one.key, one.reason) for one in found.rejected) == [
        ("a", CLASH),
        ("a", CLASH),
        ("c", "is bad"),
        ("d", CLASH),
        ("d", "is bad"),
    ]


@pytest.mark.parametrize(
    "text", ["", "a\n", "\x00", "\x1f", "\x7f", "\x85", "\x9f", "\u2028", "\u2029", "a/b", "..", "a..b", "/"]
)
def test_ids_that_are_refused(text: str) -> None:
    """Empty, with a control character, with `/` or `..`."""
    assert id_fault("id", text) is not None


@pytest.mark.parametrize("text", ["a", ".", "a.b", "-", " ", "é☃", "a" * 10_000, "'\"", "a\\b"])
def test_ids_of_any_length_and_printable_character(text: str) -> None:
    """L8."""
    assert id_fault("id", text) is None


@given(ANY_TEXT)
def test_what_is_shown_of_a_text_is_short_and_has_no_control_character(text: str) -> None:
    """A message can neither be broken nor be flooded by what came from outside (L34)."""
    assert not has_control(shown(text))
    assert len(shown(text * 100)) < 1000
