"""The last good expected state: kept exactly as it came, and never a reason not to start."""

import json
import stat
from pathlib import Path
from typing import Any

import anyio
import anyio.to_thread
import pytest
from structlog.testing import capture_logs

from core.state import parse_expected
from shell import files
from shell.last_good import AGAIN_S, NAME, LastGood
from tests.shell import virtual_time

SUBNET = 3
GOOD = json.dumps(
    {"containers": [], "dns": {"records": []}, "caddy": {"routes": []}, "wireguard": {"peers": []}, "news": "kept"}
).encode()


def loaded(folder: Path) -> tuple[object, list[Any]]:
    """What a start finds, and what it says about it."""
    with capture_logs() as said:
        found = LastGood(folder, SUBNET).load()
    return found, said


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    """L24: the very bytes, for the owner only."""
    anyio.run(LastGood(tmp_path, SUBNET).save, GOOD)
    assert (tmp_path / NAME).read_bytes() == GOOD
    assert stat.S_IMODE((tmp_path / NAME).stat().st_mode) == 0o600
    assert loaded(tmp_path) == (parse_expected(GOOD, SUBNET).unwrap(), [])


def test_a_first_start_has_none(tmp_path: Path) -> None:
    """And says nothing about it."""
    assert loaded(tmp_path) == (None, [])


@pytest.mark.parametrize("content", [b"", b"{}", b"null", b"<html>", GOOD[:-1], b"\xff", b"\0" * 4096, b"[" * 100_000])
def test_a_torn_file_is_moved_aside(tmp_path: Path, content: bytes) -> None:
    """L24: not fatal, not lost, said once. L1: it is never taken for an empty state."""
    (tmp_path / NAME).write_bytes(content)
    found, (said,) = loaded(tmp_path)
    assert found is None
    assert said["log_level"] == "warning"
    assert said["then"] == f"moved to {tmp_path / NAME}.corrupt-1; waiting for the control plane"
    assert (tmp_path / f"{NAME}.corrupt-1").read_bytes() == content
    assert loaded(tmp_path) == (None, [])


def test_what_cannot_be_read_is_not_fatal(tmp_path: Path) -> None:
    """L16: one line, and the start goes on."""
    (tmp_path / NAME).mkdir()
    found, (said,) = loaded(tmp_path)
    assert found is None
    assert said["why"] == "Is a directory"


def test_what_cannot_be_moved_is_not_fatal(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L16: even when the folder has too many of them."""
    monkeypatch.setattr(files, "_ASIDE_LIMIT", 1)
    (tmp_path / NAME).write_bytes(b"torn")
    found, (said,) = loaded(tmp_path)
    assert found is None
    assert "look into" in said["then"]


def test_a_disk_that_does_not_take_it_is_not_fatal(tmp_path: Path) -> None:
    """A full disk costs only the start without the control plane."""
    kept = LastGood(tmp_path / "gone", SUBNET)

    async def main() -> None:
        with anyio.move_on_after(5 * AGAIN_S):
            await kept.save(GOOD)

    with capture_logs() as said:
        virtual_time.run(main)
    assert [one["event"] for one in said] == ["last good state not kept"]


def test_a_disk_that_takes_it_later_gets_it(tmp_path: Path) -> None:
    """L29: as soon as it can, and the latest that was given: an older one must not be taken for good at a start."""
    folder = tmp_path / "missing"
    kept = LastGood(folder, SUBNET)

    async def main() -> None:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(kept.save, b"an older one")
            await anyio.sleep(AGAIN_S / 2)
            await kept.save(GOOD)
            await anyio.to_thread.run_sync(folder.mkdir)

    with capture_logs() as said:
        virtual_time.run(main)
    assert [one["event"] for one in said] == ["last good state not kept"]
    assert (folder / NAME).read_bytes() == GOOD
    assert [one.name for one in folder.iterdir()] == [NAME]
