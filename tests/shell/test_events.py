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


@dataclass
class Stream(Podman):
    """An engine whose stream ends when the script says so; `opened` are the times at which it was opened."""

    opened: list[float] = field(default_factory=list)

    async def watch(self, on_open: Callable[[], None], on_event: Callable[[ContainerEvent], None]) -> None:
        """Fails before it is open when `open` is scripted to."""
        self.opened.append(anyio.current_time())
        await self._scripted("open")
        await super().watch(on_open, on_event)


def follow(stream: Stream, scene: Callable[[], Awaitable[None]]) -> tuple[list[float], list[str]]:
    """When somebody was told to look, and what was said, during a scene."""
    stirred: list[float] = []

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(events.run, Ear(stream, lambda: (ONE,), lambda: stirred.append(anyio.current_time())))
            await scene()
            tasks.cancel_scope.cancel()

    with capture_logs() as said:
        virtual_time.run(main)
    return stirred, [one["event"] for one in said]


def test_news_is_told_at_once() -> None:
    """A container that dies is; one that is as healthy as before is not."""
    stream = Stream()

    async def scene() -> None:
        await anyio.sleep(5)
        stream.tell(ContainerEvent("health_status", ONE.id, 0.0, "healthy"))
        await anyio.sleep(5)
        stream.tell(ContainerEvent("died", ContainerId("other"), 0.0))

    assert follow(stream, scene) == ([10.0], [])


def test_a_stream_that_ends_is_followed_again() -> None:
    """Said once, and once when it is back; what was missed is looked for."""
    stream = Stream()
    stream.scripts["watch"] = failing("follow the events")

    async def scene() -> None:
        await anyio.sleep(3.5)
        del stream.scripts["watch"]
        await anyio.sleep(600)

    stirred, said = follow(stream, scene)
    assert stream.opened == [0.0, 1.0, 3.0, 7.0], "L14: it only opens, as that of a Podman without an event log does"
    assert said == ["events not followed", "events followed again"]
    assert len(stirred) == 1


def test_a_stream_that_cannot_be_opened() -> None:
    """Tried after 1 s, 2 s, … 30 s; said once; when it opens at last, somebody looks."""
    stream = Stream()
    stream.scripts["open"] = failing("follow the events")

    async def scene() -> None:
        await anyio.sleep(120)
        del stream.scripts["open"]
        await anyio.sleep(LONGEST_PAUSE_S)

    stirred, said = follow(stream, scene)
    assert stream.opened[:7] == [0.0, 1.0, 3.0, 7.0, 15.0, 31.0, 61.0]
    assert said == ["events not followed", "events followed again"]
    assert len(stirred) == 1
