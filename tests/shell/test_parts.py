"""`shell.parts`: what nobody foresaw ends one turn of one part, is logged once, counted, shown, and tried again."""

import ast
from contextlib import suppress
from itertools import pairwise
from pathlib import Path
from typing import Final

import anyio
import pytest
from structlog.testing import capture_logs

from shell.failure import AdapterError
from shell.figures import Figures
from shell.parts import FIRST_PAUSE_S, LONGEST_PAUSE_S, METRIC, PARTS, PartError, Parts, Turned
from tests.shell import virtual_time

ROOT: Final = Path(__file__).parents[2]


def foreign(number: int = 0) -> Exception:
    """One of the exceptions that no adapter lets out."""
    return (
        ValueError("that is none"),
        UnicodeEncodeError("ascii", "é", 0, 1, "ordinal not in range"),
        AssertionError(),
        RecursionError("maximum recursion depth exceeded"),
        MemoryError(),
        ExceptionGroup("of a task group", [AdapterError("podman", "look", "away"), KeyError("k")]),
    )[number % 6]


class Clock:
    """A calendar that a test moves."""

    now = 1000.0

    def __call__(self) -> float:
        """Seconds since the epoch."""
        return self.now


def broken(parts: Parts, error: BaseException, about: str = "") -> None:
    """One turn of a part that raises."""
    with parts.contained("pulls", about):
        raise error


def counted(figures: Figures, part: str) -> int:
    """How often a part has failed."""
    return figures.counts[METRIC, (("part", part),)]


@pytest.mark.parametrize("number", range(6))
def test_what_nobody_foresaw_becomes_a_failure_that_every_caller_handles(number: int) -> None:
    """L57: with one line that has the trace, a count, and a place in the status."""
    figures = Figures()
    parts = Parts(figures, Clock())
    assert {part: counted(figures, part) for part in PARTS} == dict.fromkeys(PARTS, 0), "counters begin at 0"
    with capture_logs() as said:
        for _ in range(3):
            with pytest.raises(PartError, match="agent: could not go on with pulls"):
                broken(parts, foreign(number), "nginx")
    (one,) = said
    assert (one["event"], one["log_level"], one["part"], one["about"]) == ("part failed", "error", "pulls", "nginx")
    assert "Traceback" in one["trace"] and "in broken" in one["trace"]
    assert counted(figures, "pulls") == 3
    (failing,) = parts.failing
    assert (failing.part, failing.about, failing.since_s, failing.failures) == ("pulls", "nginx", 1000.0, 3)
    assert failing.reason == one["reason"]


def test_a_failure_is_logged_again_when_it_changes_or_after_the_part_has_worked() -> None:
    """L57, L59: a text that is another each time is the same failure; another place or kind is another."""
    parts = Parts(Figures(), Clock())

    def fail(error: Exception) -> None:
        with pytest.raises(PartError):
            broken(parts, error)

    with capture_logs() as said:
        for number in range(5):
            fail(ValueError(str(number)))
        fail(KeyError("k"))
        with parts.contained("pulls"):
            pass
        with parts.contained("pulls"):
            pass
        fail(KeyError("k"))
    assert [one["event"] for one in said] == ["part failed", "part failed", "part works again", "part failed"]
    assert said[2]["failures"] == 6


def test_a_turn_around_one_that_fails_is_no_recovery() -> None:
    """A task that handles the failure of a call inside it, for the same thing."""
    parts = Parts(Figures(), Clock())
    with capture_logs() as said:
        for _ in range(3):
            with parts.contained("pulls"), suppress(PartError):
                broken(parts, ValueError())
        assert len(parts.failing) == 1
        with parts.contained("pulls"):
            pass
    assert [one["event"] for one in said] == ["part failed", "part works again"]


def test_what_is_foreseen_goes_its_way_and_the_part_is_well() -> None:
    """An adapter's failure is handled where it was before; a task group's wrapping is taken off."""
    parts = Parts(Figures(), Clock())
    with capture_logs() as said:
        with pytest.raises(PartError):
            broken(parts, ValueError())
        away = AdapterError("podman", "look", "away")
        for error in (away, ExceptionGroup("group", [ExceptionGroup("group", [away])])):
            with pytest.raises(AdapterError) as caught:
                broken(parts, error)
            assert caught.value is away
    assert [one["event"] for one in said] == ["part failed", "part works again"]
    assert parts.failing == ()


@pytest.mark.parametrize(
    "error",
    [
        KeyboardInterrupt(),
        SystemExit(1),
        BaseExceptionGroup("group", [KeyboardInterrupt(), ValueError()]),
    ],
)
def test_what_ends_a_process_passes(error: BaseException) -> None:
    """Also in a group with something else."""
    parts = Parts(Figures(), Clock())
    with pytest.raises(type(error)) as caught:
        broken(parts, error)
    assert caught.value is error
    assert parts.failing == ()


def test_a_cancelled_task_ends() -> None:
    """Whatever its part was doing: working, waiting to be tried again, or failing because it is cancelled."""

    async def failing(turned: Turned) -> None:
        await anyio.lowlevel.checkpoint()
        raise ValueError

    async def failing_at_its_end(turned: Turned) -> None:
        try:
            await anyio.sleep_forever()
        finally:
            raise ValueError("while it is cancelled")

    async def main() -> None:
        parts = Parts(Figures(), Clock())
        async with anyio.create_task_group() as tasks:
            for run in (failing, failing_at_its_end, lambda turned: anyio.sleep_forever()):
                parts.start(tasks, "reports", run)
            await anyio.sleep(5)
            tasks.cancel_scope.cancel()

    with capture_logs():
        virtual_time.run(main)


def test_a_loop_that_fails_is_begun_anew_with_growing_pauses() -> None:
    """Up to a minute, and from the first again once it has worked; its recovery is logged once; one that returns is over."""
    begun: list[float] = []

    async def loop(turned: Turned) -> None:
        begun.append(anyio.current_time())
        if len(begun) == 10:
            turned()
            turned()
        if len(begun) < 12:
            raise ValueError(len(begun))

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            Parts(Figures(), Clock()).start(tasks, "reports", loop)

    with capture_logs() as said:
        virtual_time.run(main)
    pauses = [later - sooner for sooner, later in pairwise(begun)]
    assert pauses == [1, 2, 4, 8, 16, 32, LONGEST_PAUSE_S, LONGEST_PAUSE_S, LONGEST_PAUSE_S, FIRST_PAUSE_S, 2]
    assert [one["event"] for one in said] == ["part failed", "part works again"] * 2


def test_what_is_done_once_fails_once() -> None:
    """And takes nobody with it."""
    figures = Figures()
    ended: list[str] = []

    async def wrong() -> None:
        await anyio.lowlevel.checkpoint()
        raise AdapterError("podman", "look", "nobody has handled this")

    async def right() -> None:
        await anyio.sleep(1)
        ended.append("right")

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            for work in (wrong, right):
                Parts(figures, Clock()).spawn(tasks, "pulls", work)

    with capture_logs():
        virtual_time.run(main)
    assert ended == ["right"]
    assert counted(figures, "pulls") == 1


def test_what_is_not_tried_again_is_forgotten() -> None:
    """A change or an image that is no longer wanted; not a loop. And no more than a few hundred are remembered."""
    clock = Clock()
    parts = Parts(Figures(), clock)
    with capture_logs():
        for about in ("", *map(str, range(300))):
            with pytest.raises(PartError):
                broken(parts, ValueError(), about)
        assert len(parts.failing) == 200
        clock.now += 10
        with pytest.raises(PartError):
            broken(parts, ValueError(), "")
        clock.now += 7200
    assert [one.about for one in parts.failing] == [""]


def test_whoever_looks_changes_nothing() -> None:
    """A large overview is made in a thread, while the loop goes on: what is old is left out there, and forgotten with the next failure."""
    clock = Clock()
    parts = Parts(Figures(), clock)

    def fail(about: str) -> None:
        with pytest.raises(PartError):
            broken(parts, ValueError(), about)

    def work(about: str) -> None:
        with parts.contained("pulls", about):
            pass

    with capture_logs() as said:
        fail("old")
        fail("older")
        clock.now += 7200
        assert parts.failing == ()
        work("old")
        fail("new")
        work("older")
    assert [(one["event"], one["about"]) for one in said[2:]] == [("part works again", "old"), ("part failed", "new")]


# Where a task or thread is begun outside of `shell.parts`: inside a call whose caller gets what goes wrong in it, or no part of the daemon.
ELSEWHERE: Final = {
    ("shell/gather.py", "_start"): "one look",
    ("shell/children.py", "_to_the_end"): "one child's output",
    ("shell/loops/events.py", "_opened"): "one stream",
    ("shell/adapters/podman/checks.py", "run"): "one health check",
    ("shell/loops/builds.py", "_watched"): "one build",
    ("shell/commands/building.py", "_build"): "a command",
    ("shell/commands/applying.py", "_apply"): "a command",
    ("shell/metrics.py", "process_request_thread"): "ends one reader's connection",
    ("shell/metrics.py", "listen"): "a thread whose library answers each request by itself",
    ("shell/streams.py", "__init__"): "a thread of six lines, without which nothing could be said of a fault",
    ("shell/adapters/wireguard/process.py", "start"): "waits for a child",
    ("shell/building/relaying.py", "start"): "one command of a build, in a program of its own",
    ("shell/logs/sender.py", "run"): "one sender: what ends one of its tasks ends its turn",
}
BEGINNERS: Final = frozenset(
    {"start_soon", "create_task", "ensure_future", "Thread", "Timer", "call_soon", "call_later", "run_in_executor"}
)


def begun_in(path: Path) -> set[str]:
    """The functions of a file in which a task or thread is begun."""
    found: set[str] = set()

    def walk(node: ast.AST, function: str) -> None:
        for child in ast.iter_child_nodes(node):
            name = child.name if isinstance(child, ast.FunctionDef | ast.AsyncFunctionDef) else function
            if isinstance(child, ast.Call):
                called = child.func
                word = called.attr if isinstance(called, ast.Attribute) else getattr(called, "id", "")
                receiver = called.value if isinstance(called, ast.Attribute) else None
                group = isinstance(receiver, ast.Name) and receiver.id == "tasks"
                if word in BEGINNERS or (word == "start" and group):
                    found.add(name)
            walk(child, name)

    walk(ast.parse(path.read_text(encoding="utf-8")), "")
    return found


def test_everything_is_begun_in_the_one_place() -> None:
    """L57: a new loop that is not contained is found here."""
    found = {
        (str(path.relative_to(ROOT)), function)
        for path in (ROOT / "shell").rglob("*.py")
        if not path.is_relative_to(ROOT / "shell/local_plane") and path != ROOT / "shell/parts.py"
        for function in begun_in(path)
    }
    assert found == set(ELSEWHERE)
