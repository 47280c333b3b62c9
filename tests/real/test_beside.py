"""`children.is_beside`: whose process with our command line is ours."""

import shutil
import subprocess
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import psutil
import pytest

from shell import children
from tests.lab.wait import PATIENCE_S, wait_for

pytestmark = pytest.mark.real


@contextmanager
def asleep(*within: str) -> Iterator[int]:
    """The number of a process that sleeps there."""
    with subprocess.Popen((*within, "/busybox" if within[0] == "chroot" else "busybox", "sleep", "600")) as child:
        try:
            there = psutil.Process(child.pid)
            wait_for(lambda: there.cmdline()[1:] == ["sleep", "600"], PATIENCE_S, "the process")
            yield child.pid
        finally:
            child.kill()


def test_who_is_beside_the_agent(tmp_path: Path) -> None:
    """L5, L10: as long as network and root folder are the same; a service's own view of the mounts is new with each of its starts."""
    shutil.copy(str(shutil.which("busybox")), tmp_path)
    places: dict[tuple[str, ...], bool] = {
        ("env",): True,
        ("unshare", "--mount"): True,
        ("unshare", "--net"): False,
        ("chroot", str(tmp_path)): False,
    }
    for within, is_beside in places.items():
        with asleep(*within) as pid:
            assert children.is_beside(pid) is is_beside, within


def test_a_process_that_has_ended() -> None:
    """It is nobody's."""
    with asleep("env") as pid:
        pass
    with pytest.raises(OSError, match="No such"):
        children.is_beside(pid)
