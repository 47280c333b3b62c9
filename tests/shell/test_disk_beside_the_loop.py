"""L60: nothing in the data directory is opened, read, written, renamed, removed or synced on the event loop's thread of a daemon that runs.

A disk that hangs would hold up everything else. Python's own audit events tell what is done where (not `stat`, which waits for no data).
"""

import ast
import os
import signal
import sys
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

import anyio
import anyio.to_thread
import pytest
from structlog.testing import capture_logs

from core.build_record import Record
from core.container_log import Assembler, Source
from core.pause import Pause
from shell import pausing
from shell.adapters import build_tools
from shell.adapters.victorialogs import LogsError
from shell.building import pipeline
from shell.building.workplace import Workplace
from shell.daemon import run_until_stopped
from shell.log import _tapped as log_tap
from shell.log import tap
from shell.logs import pump
from shell.logs.positions import Positions
from shell.logs.sender import Sender
from shell.logs.spool import Spool
from shell.loops import builds, image_gc
from shell.loops.logs import LogFiles, Logs
from shell.pausing import PauseFile
from tests.builders import an_image
from tests.shell import virtual_time
from tests.shell.builds_desk import Desk, a_builder, no_tools
from tests.shell.logs.forgetful import Forgetful
from tests.shell.test_parts_of_the_daemon import Bench, Store, _built_nothing, _cleaned_nothing, a_daemon

SHELL: Final = Path(pausing.__file__).parent

# Who writes a file whole besides `state_file`: the queue of logs, the identity before there is a loop, and what WireGuard's threads keep.
WRITERS: Final = {"files.py", "state_file.py", "identity.py", "logs/spool.py", "adapters/wireguard/adapter.py"}


@dataclass
class Uses:
    """What was done with the files of a folder: on the event loop's thread, and the names of what other threads used."""

    folder: Path
    on_the_loop: set[str] = field(default_factory=set)
    beside: set[str] = field(default_factory=set)

    def note(self, event: str, path: Path) -> None:
        """One use."""
        if not path.is_relative_to(self.folder):
            return
        if threading.current_thread() is threading.main_thread():
            frame, places = sys._getframe(1), list[str]()
            while frame.f_back is not None and len(places) < 3:
                frame = frame.f_back
                if Path(frame.f_code.co_filename).is_relative_to(SHELL):
                    places.append(f"{Path(frame.f_code.co_filename).relative_to(SHELL)}:{frame.f_lineno}")
            self.on_the_loop.add(f"{event} {path.relative_to(self.folder)} at {' < '.join(places)}")
        else:
            self.beside.add(path.name)


_watched: list[Uses] = []


def _audit(event: str, args: tuple[Any, ...]) -> None:
    for uses in _watched:
        for one in args:
            if isinstance(one, str | Path) and event != "import":
                uses.note(event, Path(one))


sys.addaudithook(_audit)  # it cannot be taken away again, and does nothing while nobody watches


@contextmanager
def watched(folder: Path) -> Iterator[Uses]:
    """What is done with the files of this folder within."""
    uses = Uses(folder)
    _watched.append(uses)
    try:
        yield uses
    finally:
        _watched.remove(uses)


@pytest.fixture(autouse=True)
def _syncing(monkeypatch: pytest.MonkeyPatch) -> None:
    """`os.fsync` has no audit event."""
    fsync = os.fsync

    def audited(descriptor: int) -> None:
        _audit("os.fsync", (str(Path(f"/proc/self/fd/{descriptor}").readlink()),))
        fsync(descriptor)

    monkeypatch.setattr(os, "fsync", audited)


def test_the_watch_sees_what_is_done(tmp_path: Path) -> None:
    """Or the tests below would show nothing."""
    with watched(tmp_path) as uses:
        (tmp_path / "a").write_bytes(b"")
        (tmp_path / "a").rename(tmp_path / "b")
        (tmp_path / "b").unlink()
        list(tmp_path.iterdir())
    assert {one.split()[0] for one in uses.on_the_loop} == {"open", "os.rename", "os.remove", "os.listdir"}


def test_a_daemon_leaves_the_disk_to_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Every part of it, from the end of its start to the signal to stop; deployed, paused and resumed, its log store away for a while."""
    bench = Bench(tmp_path, monkeypatch, ValueError(), is_broken=False)
    monkeypatch.setattr(builds, "_once", _built_nothing)
    monkeypatch.setattr(image_gc, "once", _cleaned_nothing)
    is_away = False
    send = Store.send

    async def sent(self: Store, lines: bytes) -> None:
        if is_away:
            raise LogsError("it is away")
        await send(self, lines)

    monkeypatch.setattr(Store, "send", sent)
    monkeypatch.setattr(pump, "BATCH_AGE_S", 0.0)  # counted in real time
    monkeypatch.setattr(pump, "WAITING_AGE_S", 0.0)
    log = tmp_path / "ctr.log"
    log.write_bytes(b"2026-01-01T00:00:00.000000000+00:00 stdout F hello\n")
    by_hand = PauseFile(data_dir := bench.scenery.node.data_dir, lambda: 0.0)

    async def main() -> Uses:
        nonlocal is_away
        daemon = a_daemon(bench)
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run_until_stopped, daemon, bench.beside)
            await anyio.sleep(0.5)
            with watched(data_dir) as uses:
                await anyio.sleep(60)
                is_away = True
                assert daemon._logs is not None
                for _ in range(3):
                    await daemon._logs.pump.sender.offer(b"{}\n", 1)
                await anyio.to_thread.run_sync(by_hand.save, Pause(0.0))
                await anyio.sleep(60)
                assert daemon.overview()["paused"]
                await anyio.to_thread.run_sync(by_hand.clear)
                daemon._logs.pump.follow("log", log, lambda last_ns, begun: Assembler(Source("d", "s"), last_ns, begun))
                daemon._images.pulled(an_image(), "sha256:1")
                await anyio.sleep(60)
                is_away = False
                await anyio.sleep(120)
            os.kill(os.getpid(), signal.SIGTERM)
        return uses

    try:
        with capture_logs(processors=[log_tap]):
            uses = virtual_time.run(main)
    finally:
        tap(None)
    assert uses.on_the_loop == set()
    assert {"paused.json", "images.json", "positions.json"} <= uses.beside
    assert any(name.endswith(".batch") for name in uses.beside), "lines waited on disk"


async def _short_build(shop: pipeline.Workshop, job: pipeline.Job, listener: pipeline.Listener) -> str:
    """What the pipeline does with the disk by itself."""
    place = Workplace(shop.top, job.id)
    await anyio.to_thread.run_sync(place.prepare, "")
    listener.say("a line")
    await anyio.sleep(1)
    return "sha256:1"


@pytest.mark.parametrize("shape", ["built", "left"])
def test_builds_leave_the_disk_to_threads(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, shape: str) -> None:
    """One that is claimed, built and reported, or left by a crash; its log on the way to the store."""
    monkeypatch.setattr(pipeline, "build", _short_build)
    monkeypatch.setattr(build_tools, "find", no_tools)
    monkeypatch.setattr(pump, "BATCH_AGE_S", 0.0)  # counted in real time
    desk, store = Desk(), Forgetful()
    builder = a_builder(tmp_path, desk)
    if shape == "left":
        Workplace(builder.workshop.top, "left").remember(Record("left", "failed", "why"))
    sender = Sender(store, Spool(tmp_path / "spool", 1024**2), 10.0)
    shipping = Logs(
        pump.Pump(sender, Positions(tmp_path / "positions.json")),
        cast(LogFiles, None),
        lambda: (),
        None,
        lambda: (),
        builder.logs,
    )

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(builds.run, builder)
            tasks.start_soon(shipping.run)
            await anyio.sleep(40)
            tasks.cancel_scope.cancel()

    with capture_logs(), watched(tmp_path) as uses:
        virtual_time.run(main)
    assert uses.on_the_loop == set()
    assert {"build.json"} <= uses.beside
    assert store.texts == ["a line"]
    assert not list(builder.logs.iterdir())
    assert desk.heard


def test_there_is_one_writer() -> None:
    """What is kept is a `StateFile`, but for the named exceptions (docs/architecture.md)."""
    found = set()
    for path in SHELL.rglob("*.py"):
        names = {
            node.attr if isinstance(node, ast.Attribute) else getattr(node, "id", None)
            for node in ast.walk(ast.parse(path.read_text(encoding="utf-8")))
        }
        if "write_atomic" in names or (path.name == "files.py" and path.parent == SHELL):
            found.add(str(path.relative_to(SHELL)))
    assert {one for one in found if not one.startswith("local_plane/")} == WRITERS
