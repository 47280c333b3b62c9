"""`shell.loops.reports`: the heartbeat, in every state of everything else."""

import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from itertools import pairwise
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from core.containers import ContainerId, DeploymentId
from core.memory import Memory
from core.state import NodeType
from core.status import Entry, Resources
from shell.loops.reports import HEARTBEAT_S, LEAST_SPACING_S, LOOK_LIMIT_S, Reports
from tests.builders import CONTAINER, DEPLOYMENT, an_actual_container
from tests.shell import virtual_time
from tests.shell.stand_ins import Podman, Script, failing, hanging, taking

WALL = 1_767_500_100.0
LONGEST_SILENCE_S = 30.0  # what the control plane wants
UP = an_actual_container(running_for_s=60.0)
SEEN = {"deploymentId": DEPLOYMENT, "containerId": CONTAINER, "status": "running", "healthStatus": "none"}


def an_entry(name: str) -> Entry:
    """A container that runs."""
    return Entry(DeploymentId(name), ContainerId(name), "running", "none")


@dataclass
class Plane:
    """Takes reports, one at a time, when its script lets it."""

    script: Script | None = None
    got: list[tuple[float, dict[str, Any]]] = field(default_factory=list)
    busy: bool = False

    async def send(self, body: bytes) -> None:
        """Write the report down with its time."""
        assert not self.busy, "one report at a time"
        self.busy = True
        try:
            if self.script is not None:
                await self.script()
            self.got.append((anyio.current_time(), json.loads(body)))
        finally:
            self.busy = False

    @property
    def times(self) -> list[float]:
        """When reports were taken."""
        return [when for when, _ in self.got]

    @property
    def names(self) -> list[list[str]]:
        """The deployments in each report."""
        return [[one["deploymentId"] for one in body["containers"]] for _, body in self.got]


Scene = Callable[[Reports, Plane, Podman], Awaitable[None]]


def play(scene: Scene, plane: Plane | None = None, memory: Memory | None = None) -> tuple[Plane, list[Any]]:
    """Run a scene beside the loop; what the control plane got, and what was said."""
    taker, podman = plane or Plane(), Podman(there={CONTAINER: UP})
    reports = Reports(
        send=taker.send,
        engine=podman,
        memory=lambda: memory or Memory(NodeType.WORKER),
        resources=lambda: Resources(2, 4096, 40),
        wall_clock=lambda: WALL,
        public_ip=lambda: "198.51.100.7",
    )

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(reports.run)
            await scene(reports, taker, podman)
            tasks.cancel_scope.cancel()

    with capture_logs() as said:
        virtual_time.run(main)
    return taker, said


def test_a_report_goes_out_at_once_and_whole() -> None:
    """Entries, the server's size and its public address."""

    async def scene(reports: Reports, plane: Plane, podman: Podman) -> None:
        reports.post((an_entry("a"),))
        await anyio.sleep(0.5)

    plane, said = play(scene)
    assert plane.got == [
        (
            0.0,
            {
                "containers": [
                    {"deploymentId": "a", "containerId": "a", "status": "running", "healthStatus": "none"},
                ],
                "resources": {"cpuCores": 2, "memoryMb": 4096, "diskGb": 40},
                "publicIp": "198.51.100.7",
            },
        )
    ]
    assert said == []


def test_silence_is_filled_by_looking() -> None:
    """L12: while the machine says nothing (a ten-minute pull), the containers are looked at and reported."""

    async def scene(reports: Reports, plane: Plane, podman: Podman) -> None:
        await anyio.sleep(600)

    plane, _ = play(scene)
    assert [body["containers"] for _, body in plane.got] == [[SEEN]] * len(plane.got)
    assert all(later - sooner <= LONGEST_SILENCE_S for sooner, later in pairwise([0.0, *plane.times, 600.0]))
    assert len(plane.got) <= 600 / HEARTBEAT_S


def test_a_podman_that_is_slow_delays_no_heartbeat_too_long() -> None:
    """L12: also one that takes nearly as long as it may, and a control plane that takes its second."""

    async def scene(reports: Reports, plane: Plane, podman: Podman) -> None:
        podman.scripts["containers"] = taking(LOOK_LIMIT_S - 0.5)
        plane.script = taking(1)
        await anyio.sleep(600)

    plane, said = play(scene)
    assert max(later - sooner for sooner, later in pairwise([0.0, *plane.times])) <= LONGEST_SILENCE_S
    assert said == []


def test_a_heartbeat_is_what_is_seen_now() -> None:
    """Never the report before it once more, which may have become untrue."""

    async def scene(reports: Reports, plane: Plane, podman: Podman) -> None:
        reports.post((an_entry("a"),))
        await anyio.sleep(HEARTBEAT_S + 5)

    plane, _ = play(scene)
    assert plane.names == [["a"], [DEPLOYMENT]]


def test_a_heartbeat_knows_what_the_machine_remembers() -> None:
    """L31: a container that has been up and has stopped is still listed."""

    async def scene(reports: Reports, plane: Plane, podman: Podman) -> None:
        podman.there = {CONTAINER: an_actual_container(state="exited")}
        await anyio.sleep(HEARTBEAT_S + 1)

    plane, _ = play(scene, memory=Memory(NodeType.WORKER, ever_up=frozenset({ContainerId(CONTAINER)})))
    assert [one["status"] for one in plane.got[0][1]["containers"]] == ["stopped"]


def test_no_heartbeat_while_the_machine_reports_by_itself() -> None:
    """Podman is not asked in vain."""

    async def scene(reports: Reports, plane: Plane, podman: Podman) -> None:
        podman.scripts["containers"] = failing("list containers")
        for _ in range(20):
            reports.post((an_entry("a"),))
            await anyio.sleep(10)

    plane, said = play(scene)
    assert len(plane.got) == 20
    assert said == []


def test_a_later_report_replaces_one_that_waits() -> None:
    """While a report is on its way only the newest waits behind it, and reports are a second apart."""

    async def scene(reports: Reports, plane: Plane, podman: Podman) -> None:
        plane.script = taking(3)
        for number in range(5):
            reports.post((an_entry(str(number)),))
            await anyio.sleep(0.1)
        await anyio.sleep(10)

    plane, _ = play(scene)
    assert plane.names == [["0"], ["4"]]


def test_a_storm_of_changes_is_a_report_a_second() -> None:
    """L14: however fast changes are made; the last one is always told."""

    async def scene(reports: Reports, plane: Plane, podman: Podman) -> None:
        for number in range(1000):
            reports.post((an_entry(str(number)),))
            await anyio.sleep(0.01)
        await anyio.sleep(2)

    plane, _ = play(scene)
    assert all(later - sooner >= LEAST_SPACING_S - 1e-6 for sooner, later in pairwise(plane.times))
    assert len(plane.got) <= 12
    assert plane.names[-1] == ["999"]


@pytest.mark.parametrize("script", [failing("list containers"), hanging], ids=["fails", "hangs"])
def test_a_listing_that_fails_makes_no_report(script: Script) -> None:
    """L3: silence rather than an empty server. It is tried again soon, and said once."""

    async def scene(reports: Reports, plane: Plane, podman: Podman) -> None:
        podman.scripts["containers"] = script
        await anyio.sleep(120)
        assert plane.got == []
        del podman.scripts["containers"]
        await anyio.sleep(20)
        assert plane.names[:1] == [[DEPLOYMENT]]

    _, said = play(scene)
    assert [one["event"] for one in said] == ["no heartbeat", "heartbeat goes on"]
    assert said[0]["why"]


def test_one_failed_listing_makes_no_long_silence() -> None:
    """L12: a heartbeat that could not be made is tried again before the control plane misses it."""

    async def scene(reports: Reports, plane: Plane, podman: Podman) -> None:
        reports.post((an_entry("a"),))
        await anyio.sleep(HEARTBEAT_S - 1)
        podman.scripts["containers"] = failing("list containers")
        await anyio.sleep(3)
        del podman.scripts["containers"]
        await anyio.sleep(20)

    plane, _ = play(scene)
    assert plane.times[1] - plane.times[0] <= LONGEST_SILENCE_S


@pytest.mark.parametrize("why", ["refused", "HTTP 401"])
def test_a_control_plane_that_is_away_is_said_once(why: str) -> None:
    """The same failure again says nothing; that reports go out again is said."""

    async def scene(reports: Reports, plane: Plane, podman: Podman) -> None:
        plane.script = failing("send the status report", why)
        await anyio.sleep(100)
        plane.script = None
        await anyio.sleep(30)

    plane, said = play(scene)
    assert [one["event"] for one in said] == ["report not sent", "reports go out again"]
    assert why in said[0]["why"]
    assert plane.got


def test_delivering_waits_until_it_has_been_tried() -> None:
    """The last report of a round: with this very list, and whether it went out or not."""

    async def scene(reports: Reports, plane: Plane, podman: Podman) -> None:
        plane.script = taking(4)
        reports.post((an_entry("before"),))
        await anyio.sleep(1)
        await reports.deliver((an_entry("last"),))
        assert plane.names == [["before"], ["last"]]
        plane.script = failing("send the status report")
        await reports.deliver((an_entry("never"),))
        assert len(plane.got) == 2

    play(scene)


def test_two_deliveries_at_once() -> None:
    """Both end; the newer list is the one that is told."""

    async def scene(reports: Reports, plane: Plane, podman: Podman) -> None:
        async with anyio.create_task_group() as both:
            both.start_soon(reports.deliver, (an_entry("a"),))
            both.start_soon(reports.deliver, (an_entry("b"),))
        assert len(plane.got) == 1

    play(scene)


def test_a_stop_does_not_wait_for_a_control_plane_that_hangs() -> None:
    """L13: cancelled in the middle of a report."""
    started = Plane(hanging)

    async def scene(reports: Reports, plane: Plane, podman: Podman) -> None:
        reports.post(())
        with anyio.move_on_after(5) as limit:
            await reports.deliver(())
        assert limit.cancelled_caught

    plane, _ = play(scene, started)
    assert (plane.got, plane.busy) == ([], False)


def test_an_empty_list_is_a_report() -> None:
    """Nothing runs here: that is told, and is not the same as nothing to tell."""

    async def scene(reports: Reports, plane: Plane, podman: Podman) -> None:
        podman.scripts["containers"] = failing("list containers")
        reports.post(())
        await anyio.sleep(0.5)

    plane, _ = play(scene)
    assert plane.names == [[]]


def test_a_fault_of_ours_costs_no_heartbeat_but_its_own() -> None:
    """L57: whoever waits for a report goes on, and the next report is tried in time."""
    tries: list[float] = []

    async def wrong() -> None:
        tries.append(anyio.current_time())
        raise KeyError("no such thing")

    async def scene(reports: Reports, plane: Plane, podman: Podman) -> None:
        await reports.deliver(())
        await anyio.sleep(60)

    _, said = play(scene, Plane(wrong))
    assert [one["event"] for one in said] == ["part failed", "report not sent"]
    assert all(later - sooner <= LONGEST_SILENCE_S for sooner, later in pairwise([0.0, *tries, 60.0]))


def test_news_is_looked_at_and_reported_at_once() -> None:
    """L12: something happened to a container; what goes out is what is there now, also when a report waits to be sent."""

    async def scene(reports: Reports, plane: Plane, podman: Podman) -> None:
        reports.post((an_entry("a"),))
        await anyio.sleep(5)
        reports.stir()
        await anyio.sleep(5)
        reports.post((an_entry("old"),))
        reports.stir()
        await anyio.sleep(5)

    plane, _ = play(scene)
    assert plane.names == [["a"], [DEPLOYMENT], [DEPLOYMENT]]
    assert plane.times == [0.0, 5.0, 10.0]


def test_a_storm_of_news_is_not_a_storm_of_reports() -> None:
    """A container that flaps, or a hundred that start: one report each `LEAST_SPACING_S`."""

    async def scene(reports: Reports, plane: Plane, podman: Podman) -> None:
        for _ in range(1000):
            reports.stir()
            await anyio.sleep(0.01)

    plane, _ = play(scene)
    assert len(plane.got) <= 10 / LEAST_SPACING_S + 1


def test_news_that_cannot_be_looked_at() -> None:
    """L3: no listing, no report."""

    async def scene(reports: Reports, plane: Plane, podman: Podman) -> None:
        podman.scripts["containers"] = failing("list containers")
        reports.stir()
        await anyio.sleep(5)

    plane, said = play(scene)
    assert plane.got == []
    assert [one["event"] for one in said] == ["no heartbeat"]
