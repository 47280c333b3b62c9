"""`shell.loops.image_gc` and its ledger: images go by the core's word, one by one, and only until there is room."""

from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import pytest
from structlog.testing import capture_logs

from core.image import Image
from core.image_gc import Store, Stored
from core.state import ExpectedState
from shell.failure import AdapterError
from shell.image_ledger import NAME, ImageLedger
from shell.loops import image_gc
from shell.loops.image_gc import Broom
from tests.builders import an_expected_container, an_image
from tests.shell import virtual_time

DAY_S = 86_400.0
FIVE = [an_image(f"registry.test/a:{number}") for number in range(5)]


@dataclass
class Podman:
    """A store of images; one name cannot be removed."""

    names: list[str]
    stuck: str = ""
    broken: bool = False
    removed: list[str] = field(default_factory=list)

    async def store(self) -> Store:
        """What is there."""
        await anyio.lowlevel.checkpoint()
        if self.broken:
            raise AdapterError("podman", "list images", "it is broken")
        return Store(tuple(Stored(f"id of {name}", (name,)) for name in self.names), frozenset())

    async def folder(self) -> str:
        """Anywhere."""
        await anyio.lowlevel.checkpoint()
        return "/images"

    async def remove(self, reference: str) -> None:
        """Unless it is stuck."""
        await anyio.lowlevel.checkpoint()
        if reference == self.stuck:
            raise AdapterError("podman", f"remove {reference}", "image is in use")
        self.names.remove(reference)
        self.removed.append(reference)


@dataclass
class Bench:
    """Five images, pulled a day after each other; the clock stands `days` after the first."""

    folder: Path
    days: float
    podman: Podman = field(default_factory=lambda: Podman([str(one) for one in FIVE]))
    expected: ExpectedState | None = field(default_factory=ExpectedState)
    percent: Callable[[], float] = lambda: 10.0
    pruned: list[bool] = field(default_factory=list)
    now: float = 0.0
    kept: frozenset[str] = frozenset()

    def sweep(self) -> list[str]:
        """What is logged while it cleans."""
        ledger = ImageLedger(self.folder, lambda: self.now)
        for number, one in enumerate(FIVE):
            self.now = number * DAY_S
            ledger.pulled(one, f"id of {one}")
        self.now = self.days * DAY_S

        async def prune(thoroughly: bool) -> None:
            self.pruned.append(thoroughly)

        broom = Broom(
            images=self.podman,
            ledger=ledger,
            expected=lambda: self.expected,
            pulling=frozenset,
            kept=lambda: self.kept,
            wall_clock=lambda: self.now,
            percent_used=lambda _: self.percent(),
            prune_builds=prune,
            high_percent=85,
        )

        async def main() -> None:
            with anyio.move_on_after(image_gc.FIRST_S + 1):
                await image_gc.run(broom)

        with capture_logs() as said:
            virtual_time.run(main)
        return [one["event"] for one in said]


def names(images: list[Image]) -> list[str]:
    """As the store has them."""
    return [str(one) for one in images]


def test_old_ones_go(tmp_path: Path) -> None:
    """Those unused for a week, each with a line in the log."""
    bench = Bench(tmp_path, days=8.5)
    assert bench.sweep() == ["image removed"] * 2
    assert bench.podman.removed == names(FIVE[:2])
    assert bench.pruned == [False]


def test_a_full_disk(tmp_path: Path) -> None:
    """The oldest go until there is room, and no more."""
    bench = Bench(tmp_path, days=5)
    bench.percent = lambda: 90.0 if len(bench.podman.names) > 2 else 80.0
    bench.sweep()
    assert bench.podman.removed == names(FIVE[:3])
    assert bench.pruned == [False, True]


def test_what_is_expected_stays(tmp_path: Path) -> None:
    """However old it is."""
    bench = Bench(tmp_path, days=100)
    bench.expected = ExpectedState((an_expected_container(image=FIVE[0]),))
    bench.sweep()
    assert bench.podman.names == names(FIVE[:1])


def test_what_a_deployment_is_stays(tmp_path: Path) -> None:
    """L52: also without a container, and when its tag means another image."""
    bench = Bench(tmp_path, days=100, kept=frozenset({f"id of {FIVE[0]}"}))
    bench.sweep()
    assert bench.podman.names == names(FIVE[:1])


def test_nothing_goes_while_nothing_is_known(tmp_path: Path) -> None:
    """No expected state, or no listing: no image is removed."""
    bench = Bench(tmp_path, days=100)
    bench.expected = None
    assert bench.sweep() == []
    bench.expected, bench.podman.broken = ExpectedState(), True
    assert bench.sweep() == ["images not cleaned"]
    assert len(bench.podman.names) == 5


def test_one_that_cannot_be_removed(tmp_path: Path) -> None:
    """Is said, and holds up no other."""
    bench = Bench(tmp_path, days=100)
    bench.podman.stuck = str(FIVE[1])
    said = bench.sweep()
    assert said.count("image not removed") == 1
    assert bench.podman.names == [str(FIVE[1])]


def test_the_ledger_outlives_the_agent(tmp_path: Path) -> None:
    """And one that makes no sense removes nothing."""
    ledger = ImageLedger(tmp_path, lambda: 5.0)
    ledger.pulled(FIVE[0], "id")
    anyio.run(ledger.file.flush)
    assert list(ImageLedger(tmp_path, lambda: 6.0).entries) == names(FIVE[:1])
    (tmp_path / NAME).write_text("{")
    with capture_logs() as said:
        assert ImageLedger(tmp_path, lambda: 6.0).entries == {}
    assert [one["event"] for one in said] == ["state file not usable"]


@pytest.mark.parametrize("percent", [84.9, 85.0])
def test_the_high_water_mark(tmp_path: Path, percent: float) -> None:
    """At it, and below it."""
    bench = Bench(tmp_path, days=5)
    bench.percent = lambda: percent
    bench.sweep()
    assert bool(bench.podman.removed) is (percent >= 85)
