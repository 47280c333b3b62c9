"""`shell.loops.events`: the stream is followed, comes back by itself, and only news makes anybody look."""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field

import anyio
from structlog.testing import capture_logs

from core.containers import ContainerId
from core.podman_events import ContainerEvent
from shell.loops import events
from shell.loops.events import LONGEST_PAUSE_S, Ear
from tests.builders import an_actual_container
from tests.shell import virtual_time
from tests.shell.stand_ins import Podman, failing

ONE = an_actual_container(health="healthy")
LOOKED_AT_S = 1_000.0


@dataclass
class Stream(Podman):
    """An engine whose stream ends when the script says so; `opened` are the times at which it was opened."""

    opened: list[float] = field(default_factory=list)

    async def watch(self, on_open: Callable[[], None], on_event: Callable[[ContainerEvent], None]) -> None:
        """Fails before it is open when `open` is scripted to."""
        self.opened.append(anyio.current_time())
        await self._scripted("open")
        await super().watch(on_open, on_event)


@dataclass
class Heard:
    """When the reporter and the planner were told to look, and what was said."""

    stirred: list[float] = field(default_factory=list)
    replanned: list[float] = field(default_factory=list)
    said: list[str] = field(default_factory=list)


def follow(stream: Stream, scene: Callable[[], Awaitable[None]]) -> Heard:
    """What is heard of during a scene, in which the planner looked last at `LOOKED_AT_S`."""
    heard = Heard()

    async def main() -> None:
        ear = Ear(
            stream,
            containers=lambda: (ONE,),
            stir=lambda: heard.stirred.append(anyio.current_time()),
            looked_at_s=lambda: LOOKED_AT_S,
            replan=lambda: heard.replanned.append(anyio.current_time()),
        )
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(events.run, ear)
            await scene()
            tasks.cancel_scope.cancel()

    with capture_logs() as said:
        virtual_time.run(main)
    heard.said = [one["event"] for one in said]
    return heard


def test_news_is_told_at_once() -> None:
    """A container that dies is; one that is as healthy as before is not."""
    stream = Stream()

    async def scene() -> None:
        await anyio.sleep(5)
        stream.tell(ContainerEvent("health_status", ONE.id, 0.0, "healthy"))
        await anyio.sleep(5)
        stream.tell(ContainerEvent("died", ContainerId("other"), LOOKED_AT_S + 1))

    assert follow(stream, scene) == Heard([10.0], [10.0], [])


def test_what_the_last_look_has_seen_is_not_planned_for_again() -> None:
    """What the agent itself stopped is heard of after the look that follows; what came up asks for no plan."""
    stream = Stream()

    async def scene() -> None:
        await anyio.sleep(5)
        stream.tell(ContainerEvent("died", ONE.id, LOOKED_AT_S - 0.1))
        stream.tell(ContainerEvent("remove", ONE.id, LOOKED_AT_S - 0.1))
        stream.tell(ContainerEvent("start", ONE.id, LOOKED_AT_S + 0.1))

    assert follow(stream, scene) == Heard([5.0] * 3, [], [])


def test_a_stream_that_ends_is_followed_again() -> None:
    """Said once, and once when it is back; what was missed is looked for."""
    stream = Stream()
    stream.scripts["watch"] = failing("follow the events")

    async def scene() -> None:
        await anyio.sleep(3.5)
        del stream.scripts["watch"]
        await anyio.sleep(600)

    heard = follow(stream, scene)
    assert stream.opened == [0.0, 1.0, 3.0, 7.0], "L14: it only opens, as that of a Podman without an event log does"
    assert heard.said == ["events not followed", "events followed again"]
    assert len(heard.stirred) == 1
    assert heard.replanned == heard.stirred


def test_a_stream_that_cannot_be_opened() -> None:
    """Tried after 1 s, 2 s, … 30 s; said once; when it opens at last, somebody looks."""
    stream = Stream()
    stream.scripts["open"] = failing("follow the events")

    async def scene() -> None:
        await anyio.sleep(120)
        del stream.scripts["open"]
        await anyio.sleep(LONGEST_PAUSE_S)

    heard = follow(stream, scene)
    assert stream.opened[:7] == [0.0, 1.0, 3.0, 7.0, 15.0, 31.0, 61.0]
    assert heard.said == ["events not followed", "events followed again"]
    assert len(heard.stirred) == 1
    assert heard.replanned == heard.stirred
