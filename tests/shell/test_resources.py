"""`shell.resources`: the server's size in the units of the status report."""

import os
import shutil
from pathlib import Path

from msgspec import structs

from shell import resources


def test_the_size_of_this_server(tmp_path: Path) -> None:
    """Whole numbers, none of them zero: cores, MiB, GiB."""
    found = resources.fetch()
    assert all(type(one) is int and one > 0 for one in structs.astuple(found))
    assert found.cpu_cores == os.cpu_count()
    total_kib = int(Path("/proc/meminfo").read_text().split()[1])
    assert found.memory_mb == total_kib // 1024
    assert resources.fetch(str(tmp_path)).disk_gb == shutil.disk_usage(tmp_path).total // 1024**3
