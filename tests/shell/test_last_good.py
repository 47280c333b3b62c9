"""The last good expected state: kept exactly as it came, and never a reason not to start."""

import json
import stat
from pathlib import Path
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from core.state import Document, parse_expected, parse_expected_after
from shell.last_good import NAME, LastGood

SUBNET = 3
GOOD = json.dumps(
    {"containers": [], "dns": {"records": []}, "caddy": {"routes": []}, "wireguard": {"peers": []}, "news": "kept"}
).encode()


def document() -> Document:
    """A good one."""
    return parse_expected_after(None, GOOD, SUBNET).unwrap()


def loaded(folder: Path) -> tuple[object, list[Any]]:
    """What a start finds, and what it says about it."""
    with capture_logs() as said:
        found = LastGood(folder, SUBNET).load()
    return found, said


def test_what_was_saved_is_loaded(tmp_path: Path) -> None:
    """L24: the very bytes, for the owner only."""
    kept = LastGood(tmp_path, SUBNET)
    kept.keep(document())
    anyio.run(kept.file.flush)
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


def test_a_disk_that_does_not_take_it_is_not_fatal(tmp_path: Path) -> None:
    """A full disk costs only the start without the control plane."""
    with capture_logs() as said:
        kept = LastGood(tmp_path / "gone", SUBNET)
        kept.keep(document())
        anyio.run(kept.file.flush)
    assert [one["event"] for one in said] == ["state file not written"]
