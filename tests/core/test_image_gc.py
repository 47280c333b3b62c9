"""`core.image_gc`: never an image that anybody could miss."""

from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import image_gc
from core.containers import DeploymentId
from core.image_gc import JUST_PULLED_S, UNUSED_S, Pulled, Store, Stored, rubbish
from core.state import ExpectedState
from tests.builders import an_expected_container, an_image

NOW = 1_767_500_000.0
OLD = Pulled(NOW - 3 * UNUSED_S, NOW - 2 * UNUSED_S)


def a_store(*names: str, used: tuple[str, ...] = ()) -> Store:
    """An image of each name; those that containers use."""
    return Store(tuple(Stored(f"id of {name}", (name,)) for name in names), frozenset(f"id of {name}" for name in used))


def test_an_old_image_that_nothing_needs() -> None:
    """The longest unneeded first."""
    ledger = {"a": OLD, "b": replace(OLD, needed_at_s=OLD.needed_at_s - 1)}
    assert rubbish(ledger, a_store("a", "b", "c"), (), NOW, is_full=False) == ("b", "a")


@pytest.mark.parametrize("is_full", [True, False])
def test_what_always_stays(is_full: bool) -> None:
    """L46: in use (by anybody's container), expected, on its way, just pulled, or not pulled by this agent; however full the disk is."""
    store = a_store("used", "expected", "pulling", "new", "foreign", used=("used",))
    ledger = dict.fromkeys(("used", "expected", "pulling"), OLD) | {
        "new": Pulled(NOW - JUST_PULLED_S + 1, NOW - UNUSED_S)
    }
    assert rubbish(ledger, store, ("expected", "pulling"), NOW, is_full=is_full) == ()


def test_age_matters_until_the_disk_is_full() -> None:
    """A young one stays for its week, when there is room."""
    ledger = {"a": Pulled(NOW - 2 * JUST_PULLED_S, NOW - JUST_PULLED_S)}
    assert rubbish(ledger, a_store("a"), (), NOW, is_full=False) == ()
    assert rubbish(ledger, a_store("a"), (), NOW, is_full=True) == ("a",)


def test_a_way_back_stays() -> None:
    """The two newest of each service that are still here, while one of them is needed."""
    ledger = {f"v{n}": Pulled(NOW - 100 * UNUSED_S + n, NOW - 50 * UNUSED_S, frozenset({"s"})) for n in range(5)}
    ledger["v4"] = replace(ledger["v4"], needed_at_s=NOW - UNUSED_S + 1)
    assert rubbish(ledger, a_store("v0", "v1", "v2", "v4"), (), NOW, is_full=True) == ("v0", "v1")


@pytest.mark.parametrize("is_full", [True, False])
def test_nobody_goes_back_to_a_service_that_has_left(is_full: bool) -> None:
    """L46: its images go like any other; they would pile up for ever on a server that many services have seen."""
    ledger = {f"v{n}": replace(OLD, services=frozenset({"gone"})) for n in range(2)}
    assert rubbish(ledger, a_store("v0", "v1"), (), NOW, is_full=is_full) == ("v0", "v1")


def test_an_image_with_two_names() -> None:
    """In use by one is in use by the other."""
    store = Store((Stored("i", ("a", "b")),), frozenset({"i"}))
    assert rubbish({"a": OLD, "b": OLD}, store, (), NOW, is_full=True) == ()


def test_the_ledger_follows() -> None:
    """Pulled, needed by what is expected and used, forgotten when it has gone."""
    one = an_expected_container(deployment_id=DeploymentId("d"), image=an_image("registry.test/a:1"))
    name = str(one.image)
    ids = frozenset({f"id of {name}"})
    ledger = image_gc.pulled({}, one.image, f"id of {name}", 10.0)
    assert ledger == {name: Pulled(10.0, 10.0, frozenset(), ids)}
    ledger = image_gc.needed(ledger, ExpectedState((one,)), 20.0)
    assert ledger[name] == Pulled(10.0, 20.0, frozenset({one.service_id}), ids)
    assert image_gc.needed({}, ExpectedState((one,)), 20.0) == {}, "what was here before is not ours"
    assert image_gc.present(ledger, a_store(name, used=(name,)), 30.0)[name].needed_at_s == 30.0
    assert image_gc.present(ledger, a_store(name), 30.0) == ledger
    assert image_gc.present(ledger, a_store(), 30.0) == {}
    assert image_gc.pulled(ledger, one.image, "other", 40.0)[name].services == {one.service_id}


def test_an_image_whose_tag_has_moved() -> None:
    """L46: it has no name to be asked for by, and goes once nothing uses it; one that this agent did not pull stays."""
    image = an_image("registry.test/a:1")
    ledger = image_gc.pulled(image_gc.pulled({}, image, "old", 10.0), image, "new", 20.0)
    now_s = 20.0 + JUST_PULLED_S
    store = Store((Stored("new", (str(image),)), Stored("old", ()), Stored("foreign", ())), frozenset({"new"}))
    assert rubbish(ledger, store, (str(image),), now_s, is_full=False) == ("old",)
    assert rubbish(ledger, store, (str(image),), now_s - 1, is_full=True) == (), "it has just been replaced"
    used = replace(store, used=frozenset({"new", "old"}))
    assert rubbish(ledger, used, (str(image),), now_s, is_full=True) == ()
    gone = Store((Stored("old", ()),), frozenset())
    assert image_gc.present(ledger, gone, 30.0)[str(image)].ids == {"old"}, "its name has gone, and it has not"


NAMES = st.sampled_from("abcdefgh")
ENTRIES = st.builds(Pulled, st.floats(0, NOW), st.floats(0, NOW), st.frozensets(st.sampled_from("xyz")))


@given(st.dictionaries(NAMES, ENTRIES), st.sets(NAMES), st.sets(NAMES), st.sets(NAMES), st.booleans())
def test_laws(ledger: dict[str, Pulled], here: set[str], used: set[str], wanted: set[str], is_full: bool) -> None:
    """Only ours, only here; nothing used or wanted; each service that lives keeps two that it has."""
    found = rubbish(ledger, a_store(*sorted(here), used=tuple(used)), wanted, NOW, is_full=is_full)
    assert set(found) <= (set(ledger) & here) - used - wanted
    for service in "xyz":
        its = {name for name, entry in ledger.items() if service in entry.services and name in here}
        lives = any(service in one.services and NOW - one.needed_at_s < UNUSED_S for one in ledger.values())
        assert not lives or len(its - set(found)) >= min(2, len(its))
