"""`shell.daemon`: the loops side by side on stand-ins of everything outside, with real signals, on virtual time."""

import json
import os
import signal
import time
from collections.abc import Awaitable, Callable
from itertools import pairwise
from pathlib import Path

import anyio
import pytest
from structlog.testing import capture_logs

from core.containers import ContainerId
from core.podman_events import ContainerEvent
from core.state import NodeType
from shell.daemon import Daemon, run_until_stopped
from shell.expected_state import Expected
from shell.failure import AdapterError
from shell.last_good import NAME
from tests.builders import an_actual_container, an_expected_document
from tests.shell import virtual_time
from tests.shell.scenery import Scenery, wanting
from tests.shell.stand_ins import failing, hanging, taking

STOP_S = 10.0  # what a service manager and L13 allow
SIGNALS = [signal.SIGTERM, signal.SIGINT]


Scene = Callable[[], Awaitable[None]]


def play(scenery: Scenery, scene: Scene) -> float:
    """Run the daemon beside a scene, which must end it; how long it took to end after the scene."""

    async def main() -> float:
        daemon = Daemon(scenery.node)
        asked: list[float] = []

        async def direct() -> None:
            await scene()
            asked.append(anyio.current_time())

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(direct)
            await run_until_stopped(daemon)
            assert asked, "it ended by itself"
            return anyio.current_time() - asked[0]
        raise AssertionError("not reached")

    took = virtual_time.run(main)
    assert scenery.plane.closed
    assert scenery.stage.podman.changing == 0
    return took


def send(number: signal.Signals = signal.SIGTERM) -> None:
    """A signal to this very process, which must be listening."""
    assert signal.getsignal(number) not in (signal.SIG_DFL, signal.default_int_handler)
    os.kill(os.getpid(), number)


def stopped_after(seconds: float, number: signal.Signals = signal.SIGTERM) -> Scene:
    """A scene in which time passes, and then the signal comes."""

    async def scene() -> None:
        await anyio.sleep(seconds)
        send(number)

    return scene


def test_from_nothing_to_as_expected(tmp_path: Path) -> None:
    """Fetched, deployed with its secrets, served, reported, kept on disk; then it ends on a signal."""
    document = wanting("a", "b") | {key: an_expected_document()[key] for key in ("dns", "wireguard")}
    scenery = Scenery(tmp_path, document)
    assert play(scenery, stopped_after(25)) == 0
    kinds = [entry[0] for entry in scenery.stage.journal]
    assert kinds == [
        "pull", "ensure_network", "create_and_start", "ensure_network", "create_and_start", "dns", "wireguard",
    ]  # fmt: skip
    assert scenery.stage.journal[2] == ("create_and_start", "a", (("PASSWORD", "hunter2"),))
    assert scenery.reported[-1] == ["a", "b"]
    assert json.loads((tmp_path / NAME).read_bytes()) == document
    assert b"hunter2" not in (tmp_path / NAME).read_bytes()


def test_a_start_without_the_control_plane(tmp_path: Path) -> None:
    """L16, L29: containers come back from the last good state; reports say what is really here."""
    (tmp_path / NAME).write_bytes(json.dumps(wanting("a")).encode())
    scenery = Scenery(tmp_path, wanting("never"))
    scenery.plane.scripts["fetch"] = failing("fetch the expected state")
    play(scenery, stopped_after(15))
    assert scenery.made == ["a"]
    assert scenery.reported[0] == []
    assert scenery.reported[-1] == ["a"]


def test_a_first_start_without_the_control_plane(tmp_path: Path) -> None:
    """L1: with no state known, nothing that runs is touched."""
    scenery = Scenery(tmp_path, wanting("never"))
    scenery.plane.scripts["fetch"] = failing("fetch the expected state")
    there = an_actual_container(running_for_s=60.0)
    scenery.stage.podman.there = {there.id: there}
    play(scenery, stopped_after(60))
    assert scenery.stage.journal == []
    assert scenery.reported[-1] == [there.deployment_id]


@pytest.mark.parametrize("answer", [b"{}", b"null", b"<html>", b"", b'{"containers": []}', b"\xff\xfe"])
def test_an_answer_that_is_no_expected_state_changes_nothing(tmp_path: Path, answer: bytes) -> None:
    """L1: the last good state stays in force and on disk."""
    scenery = Scenery(tmp_path, wanting("a"))

    async def scene() -> None:
        await anyio.sleep(5)
        scenery.plane.document = answer
        await anyio.sleep(30)
        scenery.stage.podman.there.clear()
        await anyio.sleep(30)
        send()

    play(scenery, scene)
    assert scenery.made == ["a", "a"], "and is acted on"
    assert json.loads((tmp_path / NAME).read_bytes()) == wanting("a")


def test_a_state_that_is_held_back_is_not_kept(tmp_path: Path) -> None:
    """L2: an emptied database is not acted on, nor does it replace the state on disk, until the next poll says the same."""
    scenery = Scenery(tmp_path, wanting("a", "b", "c", "d"))

    async def scene() -> None:
        await anyio.sleep(5)
        scenery.change(wanting())
        await anyio.sleep(7)
        assert len(scenery.stage.podman.there) == 4
        assert json.loads((tmp_path / NAME).read_bytes()) == wanting("a", "b", "c", "d")
        await anyio.sleep(10)
        assert not scenery.stage.podman.there
        assert json.loads((tmp_path / NAME).read_bytes()) == wanting()
        send()

    play(scenery, scene)


@pytest.mark.parametrize("name", ["dns", "caddy", "wireguard"])
def test_a_component_that_hangs_holds_up_no_container(tmp_path: Path, name: str) -> None:
    """L12, L16: it is unread; deployments and heartbeats go on."""
    scenery = Scenery(tmp_path, wanting("a"), node_type=NodeType.PROXY)
    getattr(scenery.stage, name).scripts["fetch"] = hanging
    play(scenery, stopped_after(120))
    assert scenery.made == ["a"]
    times = [0.0, *(when for when, _ in scenery.plane.reports), 120.0]
    assert all(later - sooner <= 30 for sooner, later in pairwise(times))


def test_a_long_pull_holds_up_nothing(tmp_path: Path) -> None:
    """L11, L12: ten minutes; the other container comes at once, heartbeats go out, and the slow one comes right after its pull."""
    slow = wanting("a", image="docker.io/library/slow:1")
    document = wanting("b")
    document["containers"].append(slow["containers"][0] | {"ipAddress": "10.200.3.9"})
    scenery = Scenery(tmp_path, document)

    scenery.stage.podman.scripts["pull docker.io/library/slow:1"] = taking(600)

    async def scene() -> None:
        await anyio.sleep(30)
        assert scenery.made == ["b"]
        await anyio.sleep(573)
        assert scenery.made == ["b", "a"]
        send()

    play(scenery, scene)
    times = [0.0, *(when for when, _ in scenery.plane.reports)]
    assert all(later - sooner <= 30 for sooner, later in pairwise(times))


@pytest.mark.parametrize("number", SIGNALS)
def test_a_signal_lets_the_change_in_hand_finish(tmp_path: Path, number: signal.Signals) -> None:
    """L13: the change, a last report, and nothing more."""
    scenery = Scenery(tmp_path, wanting("a", "b"))
    scenery.stage.podman.scripts["create_and_start"] = taking(5)
    assert play(scenery, stopped_after(1, number)) == pytest.approx(4, abs=1.5)
    assert scenery.made == ["a"]
    assert scenery.reported[-1] == ["a"]


@pytest.mark.parametrize("name", ["create_and_start", "pull", "containers", "fetch", "report"])
def test_a_signal_ends_it_whatever_hangs(tmp_path: Path, name: str) -> None:
    """L13: within ten seconds."""
    scenery = Scenery(tmp_path, wanting("a"))
    scenery.stage.podman.scripts[name] = hanging
    scenery.plane.scripts[name] = hanging
    assert play(scenery, stopped_after(3)) < STOP_S


@pytest.mark.parametrize("number", SIGNALS)
def test_a_second_signal_ends_it_at_once(tmp_path: Path, number: signal.Signals) -> None:
    """L13: whatever hangs."""
    scenery = Scenery(tmp_path, wanting("a"))
    scenery.stage.podman.scripts["create_and_start"] = hanging

    async def scene() -> None:
        await anyio.sleep(3)
        send(signal.SIGTERM)
        await anyio.sleep(1)
        send(number)

    with capture_logs() as said:
        assert play(scenery, scene) == 0
    assert [one["event"] for one in said if one["event"].startswith("stopping")] == ["stopping", "stopping at once"]


def test_a_pull_that_ends_while_stopping(tmp_path: Path) -> None:
    """Late news is for nobody, and breaks nothing."""
    scenery = Scenery(tmp_path, wanting("a"))
    scenery.stage.podman.scripts["pull"] = taking(15)
    assert play(scenery, stopped_after(15)) < STOP_S


@pytest.mark.parametrize(
    ("node_type", "left"),
    [(NodeType.WORKER, ["dns", "wireguard"]), (NodeType.PROXY, ["caddy", "dns", "wireguard"])],
    ids=["worker", "proxy"],
)
def test_what_is_left_alone_is_said_and_left_alone(tmp_path: Path, node_type: NodeType, left: list[str]) -> None:
    """Neither looked at nor drift, on start from disk as well; a worker has no Caddy, which is nothing to say."""
    (tmp_path / NAME).write_bytes(json.dumps(an_expected_document(containers=[])).encode())
    scenery = Scenery(tmp_path, an_expected_document(containers=[]), managed=False, node_type=node_type)
    scenery.plane.scripts["fetch"] = failing("fetch the expected state")

    async def scene() -> None:
        await anyio.sleep(15)
        del scenery.plane.scripts["fetch"]
        await anyio.sleep(15)
        send()

    with capture_logs() as said:
        play(scenery, scene)
    assert [one["component"] for one in said if one["event"] == "component left alone"] == left
    assert "drift found" not in [one["event"] for one in said]
    assert scenery.stage.journal == []


def test_what_is_kept_of_a_deployment_goes_with_it(tmp_path: Path) -> None:
    """Bounded: its image is known while it is wanted or its container is there, and no longer, though the document stays as it is then."""
    scenery = Scenery(tmp_path, wanting("a", "b", "c"))
    kept: list[set[str]] = []

    async def scene() -> None:
        for document in (wanting("a", "b", "c"), wanting("b", "c")):
            scenery.change(document)
            await anyio.sleep(30)
            kept.append({*json.loads((tmp_path / "deployment-images.json").read_bytes())["images"]})
        send()

    play(scenery, scene)
    assert [len(one) for one in kept] == [3, 2] and kept[1] < kept[0]
    assert sorted(one.name for one in scenery.stage.podman.there.values()) == ["b", "c"]


def test_an_unchanged_document_is_not_parsed_again(tmp_path: Path) -> None:
    """The very same value comes back; another document is another value, and a bad one spoils nothing."""
    scenery = Scenery(tmp_path, wanting("a"))

    async def main() -> None:
        node = scenery.node
        expected = Expected(node)
        first = await expected.fetch()
        assert await expected.fetch() is first
        scenery.plane.document = json.dumps({**wanting(), "containers": [{"deploymentId": 7}]}).encode()
        with pytest.raises(AdapterError, match=r"containers\[0\].deploymentId"):
            await expected.fetch()
        await expected.remember()
        await node.last_good.file.flush()
        assert json.loads((tmp_path / NAME).read_bytes()) == wanting("a")
        scenery.change(wanting("b"))
        assert [one.name for one in (await expected.fetch()).containers] == ["b"]
        await node.aclose()

    virtual_time.run(main)


def test_nothing_fetched_nothing_kept(tmp_path: Path) -> None:
    """Remembering before the first fetch writes no file."""
    scenery = Scenery(tmp_path, wanting())

    async def main() -> None:
        node = scenery.node
        await Expected(node).remember()
        await node.last_good.file.flush()
        await node.aclose()

    virtual_time.run(main)
    assert list(tmp_path.iterdir()) == []


def test_a_container_that_has_ended_is_made_good_before_the_next_poll(tmp_path: Path) -> None:
    """L53: Podman says it, and the state in force is gone on with; what a look has seen already asks for no other."""
    scenery = Scenery(tmp_path, wanting("a", "b"))
    podman = scenery.stage.podman

    async def scene() -> None:
        await anyio.sleep(25)
        scenery.plane.scripts["fetch"] = hanging
        del podman.there["id-a"]
        podman.tell(ContainerEvent("died", ContainerId("id-a"), time.time()))
        await anyio.sleep(0.5)
        assert scenery.made == ["a", "b", "a"]
        del podman.there["id-b"]
        podman.tell(ContainerEvent("remove", ContainerId("id-b"), 0.0))
        await anyio.sleep(2)
        assert scenery.made == ["a", "b", "a"], "that is older than the last look"
        podman.tell(ContainerEvent("remove", ContainerId("id-b"), time.time()))
        await anyio.sleep(0.5)
        assert scenery.made == ["a", "b", "a", "b"]
        send()

    play(scenery, scene)


def test_what_a_work_item_ends_is_followed_by_its_poll(tmp_path: Path) -> None:
    """A container that it stops is heard of before it has started it again: nothing is planned, let alone withheld, for that."""
    scenery = Scenery(tmp_path, wanting("a"))
    podman = scenery.stage.podman

    async def main() -> None:
        daemon = Daemon(scenery.node)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(daemon.run)
            await anyio.sleep(25)
            with daemon._turns.changing():
                before = podman.there.pop("id-a")
                podman.tell(ContainerEvent("died", before.id, time.time()))
                await anyio.sleep(2)
                podman.there[before.id] = before
            await anyio.sleep(2)
            await daemon.reconcile.stop()

    with capture_logs() as said:
        virtual_time.run(main)
    assert [one["event"] for one in said].count("drift found") == 1
