"""The server's size, as the status report tells it."""

import os

import psutil

from core.status import Resources

_MIB = 1024**2
_GIB = 1024**3


def fetch(path: str = "/") -> Resources:
    """Cores, memory in MiB and the size in GiB of the file system that holds `path`; whole numbers, as the control plane stores them."""
    return Resources(
        cpu_cores=os.cpu_count() or 1,
        memory_mb=psutil.virtual_memory().total // _MIB,
        disk_gb=psutil.disk_usage(path).total // _GIB,
    )
