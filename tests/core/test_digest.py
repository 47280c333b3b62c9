"""`core.digest`: one form for one collection, and only for that one."""

from hypothesis import example, given
from hypothesis import strategies as st

from core.digest import Difference, Plain, canonical, canonical_order, difference, digest

PLAIN: st.SearchStrategy[Plain] = st.recursive(
    st.none() | st.integers(0, 99) | st.text('ab",[]\\:\x00é', max_size=4),
    lambda inner: st.lists(inner, max_size=3).map(tuple),
    max_leaves=6,
)
TEXTS = st.text('ab,"|\x00', max_size=3)


def itself(value: str) -> Plain:
    """A text is its own plain form."""
    return value


@given(PLAIN, PLAIN)
@example(("a", "b"), ("a,b",))
@example(("ab",), ("a", "b"))
@example(("a", ("b",)), ("a", "b"))
@example((), ("",))
@example(None, "null")
@example(1, "1")
@example('","', ("", ""))
@example(("1", 2), ("1,2",))
def test_different_values_never_share_a_canonical_form(one: Plain, other: Plain) -> None:
    """No joining collisions: the form is equal exactly when the values are."""
    assert (canonical(one) == canonical(other)) == (one == other)


@given(st.lists(TEXTS, max_size=6), st.lists(TEXTS, max_size=6))
@example(["a", "b"], ["ab"])
@example(["a,b"], ["a", "b"])
@example([""], [])
def test_digests_are_equal_exactly_when_the_sets_are(one: list[str], other: list[str]) -> None:
    """L5: whatever the order and the repetitions on either side."""
    ordered = [canonical_order(values, itself) for values in (one, other)]
    assert (digest(ordered[0]) == digest(ordered[1])) == (set(one) == set(other))


@given(st.permutations(["b", "a", "c", "a", ",", '"']))
def test_the_canonical_order_forgets_the_order_of_the_input(values: list[str]) -> None:
    """The same for every order and any repetition."""
    assert canonical_order(values, itself) == canonical_order(["a", "b", "c", ",", '"'], itself)


def test_a_digest_is_64_hex_digits_that_stay_the_same() -> None:
    """It is the SHA-256 of JSON without blanks, the same in every process."""
    assert digest([]) == "4f53cda18c2baa0c0354bb5f9a3ecbe5ed12ab4d8e11ba873c2f11161202b945"
    assert len(digest([("a", 1, None, ("x",))])) == 64


@given(st.dictionaries(TEXTS, st.integers(0, 2)), st.dictionaries(TEXTS, st.integers(0, 2)))
def test_a_difference_names_each_key_once_and_sorted(wanted: dict[str, int], there: dict[str, int]) -> None:
    """Only wanted, only there, or both with another value."""
    found = difference(wanted.items(), there.items(), lambda pair: pair[0])
    assert found == Difference(
        tuple(sorted(set(wanted) - set(there))),
        tuple(sorted(set(there) - set(wanted))),
        tuple(sorted(key for key in set(wanted) & set(there) if wanted[key] != there[key])),
    )


def test_a_key_that_stands_for_several_values_differs_when_the_sets_do() -> None:
    """A duplicate that was made by hand on the server is drift."""
    twice = [("k", 1), ("k", 2)]
    assert difference([("k", 1)], twice, lambda pair: pair[0]) == Difference(changed=("k",))
    assert difference(list(reversed(twice)), twice, lambda pair: pair[0]) == Difference()
