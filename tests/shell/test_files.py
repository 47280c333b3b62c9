"""Files that survive a crash: whole or not at all, private, and never lost when they make no sense."""

import os
import signal
import stat
import subprocess
import sys
from pathlib import Path

import pytest

from shell import files
from shell.failure import CommandError
from shell.files import DataDirLock
from tests.lab.wait import PATIENCE_S, wait_for

HOLDER = """
import sys, signal
from pathlib import Path
from shell.files import DataDirLock
with DataDirLock(Path(sys.argv[1])):
    print("held", flush=True)
    signal.pause()
"""
KILLED_WRITER = """
import os, signal, sys
from pathlib import Path
from shell import files
os.fsync = lambda descriptor: os.kill(os.getpid(), signal.SIGKILL)
files.write_atomic(Path(sys.argv[1]), b"new")
"""


def mode(path: Path) -> int:
    """Its permission bits."""
    return stat.S_IMODE(path.stat().st_mode)


@pytest.mark.parametrize("before", [None, b"old content that is longer"])
def test_a_file_is_replaced_whole(tmp_path: Path, before: bytes | None) -> None:
    """L24: new content, owner only, and nothing else in the folder."""
    path = tmp_path / "file"
    if before is not None:
        path.write_bytes(before)
        path.chmod(0o644)
    files.write_atomic(path, b"new")
    assert path.read_bytes() == b"new"
    assert mode(path) == 0o600
    assert list(tmp_path.iterdir()) == [path]


def test_the_mode_does_not_depend_on_the_umask(tmp_path: Path) -> None:
    """L24: neither wider nor narrower than asked for."""
    before = os.umask(0o077)
    try:
        files.write_atomic(tmp_path / "public", b"", 0o644)
    finally:
        os.umask(before)
    assert mode(tmp_path / "public") == 0o644


def test_content_is_on_the_disk_before_its_name(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L24: file, name, folder, in this order; otherwise a power cut leaves an empty file under the right name."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    synced: list[tuple[bool, bytes]] = []

    def fsync(descriptor: int) -> None:
        synced.append((stat.S_ISDIR(os.fstat(descriptor).st_mode), path.read_bytes()))

    monkeypatch.setattr(os, "fsync", fsync)
    files.write_atomic(path, b"new")
    assert synced == [(False, b"old"), (True, b"new")]


@pytest.mark.parametrize("failing", ["fsync", "fchmod"])
@pytest.mark.parametrize("error", [OSError(28, "No space left on device"), KeyboardInterrupt()])
def test_a_write_that_fails_leaves_the_old_file_alone(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, failing: str, error: BaseException
) -> None:
    """L24: a full disk and a signal in the middle change nothing and leave nothing behind."""
    path = tmp_path / "file"
    path.write_bytes(b"old")

    def fail(*_: object) -> None:
        raise error

    with monkeypatch.context() as patch:
        patch.setattr(os, failing, fail)
        with pytest.raises(type(error)):
            files.write_atomic(path, b"new")
    assert path.read_bytes() == b"old"
    assert list(tmp_path.iterdir()) == [path]


def test_a_link_in_the_way_is_not_followed(tmp_path: Path) -> None:
    """Somebody else's file must not be written through it."""
    target = tmp_path / "target"
    target.write_bytes(b"precious")
    (tmp_path / f".file.{os.getpid()}.new").symlink_to(target)
    with pytest.raises(OSError, match="symbolic links"):
        files.write_atomic(tmp_path / "file", b"new")
    assert target.read_bytes() == b"precious"


def test_a_killed_writer_leaves_the_old_file_and_the_next_agent_tidies_up(tmp_path: Path) -> None:
    """L24: a real SIGKILL between writing and renaming; what it left may hold a key, so it does not stay."""
    path = tmp_path / "file"
    path.write_bytes(b"old")
    done = subprocess.run([sys.executable, "-c", KILLED_WRITER, str(path)], check=False, timeout=30)
    assert done.returncode == -signal.SIGKILL
    assert path.read_bytes() == b"old"
    (left,) = set(tmp_path.iterdir()) - {path}
    assert mode(left) == 0o600
    with DataDirLock(tmp_path):
        assert {one.name for one in tmp_path.iterdir()} == {"file", "agent.lock"}


def test_a_private_folder(tmp_path: Path) -> None:
    """L24: 0700 whatever it was, made with its parents; and one line when it cannot be."""
    folder = tmp_path / "a" / "b"
    for _ in range(2):
        files.make_private_dir(folder)
        assert mode(folder) == 0o700
        folder.chmod(0o755)
    (tmp_path / "file").write_bytes(b"")
    with pytest.raises(CommandError, match=r"file/c cannot be used as a folder: Not a directory"):
        files.make_private_dir(tmp_path / "file" / "c")


def test_files_are_moved_aside_one_after_another(tmp_path: Path) -> None:
    """L24: each to a name of its own, links that lead nowhere included."""
    path = tmp_path / "file"
    (tmp_path / "file.corrupt-2").symlink_to(tmp_path / "nowhere")
    for number in (1, 3):
        path.write_bytes(b"%d" % number)
        assert files.move_aside(path) == tmp_path / f"file.corrupt-{number}"
        assert (tmp_path / f"file.corrupt-{number}").read_bytes() == b"%d" % number
    assert not path.exists()


def test_moving_aside_has_an_end(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Something that tears a file at every start must not fill the disk; and what cannot be moved is said."""
    monkeypatch.setattr(files, "_ASIDE_LIMIT", 2)
    path = tmp_path / "file"
    path.write_bytes(b"")
    files.move_aside(path)
    with pytest.raises(CommandError, match=r"makes no sense, and there are 1 such files"):
        files.move_aside(path)
    with pytest.raises(CommandError, match=r"other makes no sense and cannot be moved aside: No such file"):
        files.move_aside(tmp_path / "other")


def test_a_second_lock_is_refused_and_names_the_first(tmp_path: Path) -> None:
    """One agent for each data directory; the lock is free again once it is given back."""
    with DataDirLock(tmp_path):
        with pytest.raises(CommandError, match=rf"another agent \(process {os.getpid()}\) works on {tmp_path}"):
            DataDirLock(tmp_path).__enter__()
        assert mode(tmp_path / "agent.lock") == 0o600
    with DataDirLock(tmp_path):
        pass


def test_a_killed_holder_gives_the_lock_back(tmp_path: Path) -> None:
    """However it ends: the kernel frees it, and no stale file is in the way."""
    argv = [sys.executable, "-c", HOLDER, str(tmp_path)]
    with subprocess.Popen(argv, stdout=subprocess.PIPE, text=True) as holder:
        try:
            assert holder.stdout is not None
            assert holder.stdout.readline() == "held\n"
            with pytest.raises(CommandError, match=rf"process {holder.pid}\)"):
                DataDirLock(tmp_path).__enter__()
        finally:
            holder.kill()
    with DataDirLock(tmp_path):
        assert (tmp_path / "agent.lock").read_text() == f"{os.getpid()}\n"


def test_a_child_that_outlives_the_agent_does_not_hold_the_lock(tmp_path: Path) -> None:
    """What serves (dnsmasq, a tunnel) goes on after the agent; the next agent must still be able to start."""
    with DataDirLock(tmp_path):
        child = subprocess.Popen(["sleep", "60"], close_fds=False)
    try:
        wait_for(lambda: child.poll() is None, PATIENCE_S, "the child to run")
        with DataDirLock(tmp_path):
            pass
    finally:
        child.kill()
        child.wait()


def test_a_lock_that_cannot_be_opened_is_said(tmp_path: Path) -> None:
    """One line, not a traceback."""
    with pytest.raises(CommandError, match=r"agent\.lock cannot be opened: No such file or directory"):
        DataDirLock(tmp_path / "missing").__enter__()
    (tmp_path / "agent.lock").symlink_to(tmp_path / "elsewhere")
    with pytest.raises(CommandError, match=r"agent\.lock cannot be opened: Too many levels"):
        DataDirLock(tmp_path).__enter__()
    assert not (tmp_path / "elsewhere").exists()
