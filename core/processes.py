"""What the kernel says of processes (`/proc/<pid>/…`), as far as containers are concerned: whose a process is, and what it has mounted.

Every text is the kernel's own form (proc(5), cgroups(7)). Refuses to know how the files are read, and which processes may be signalled.
"""

import re
from collections.abc import Mapping
from dataclasses import dataclass
from itertools import pairwise
from typing import Final

from core.containers import ContainerId

# The control group of a container's processes, below whatever parent: `libpod-<id>` or, with systemd, `libpod-<id>.scope`. That of the
# monitor begins with `libpod-conmon-`.
_GROUP: Final = re.compile(r"/libpod-([0-9a-f]{64})(?:\.scope)?(?:/|$)", re.MULTILINE)
_ENDED: Final = frozenset("ZX")  # a zombie runs no more, whoever is still to ask for its exit status
_ESCAPE: Final = re.compile(r"\\([0-7]{3})")
_MONITOR: Final = "conmon"


@dataclass(frozen=True, slots=True)
class Process:
    """One process: number, start (ticks since boot) and parent. Number and start together are never used twice."""

    pid: int
    started: int
    parent: int
    session: int


@dataclass(frozen=True, slots=True)
class Monitor:
    """What a running conmon looks after: a container, or (where `session` is another id) a command run in it. `store` is its folder."""

    container_id: ContainerId
    session: str
    name: str
    bundle: str


def container_of(cgroup: str) -> ContainerId | None:
    """The container whose process has this `/proc/<pid>/cgroup`; None when it is no container's."""
    found = _GROUP.search(cgroup)
    return None if found is None else ContainerId(found[1])


def process(pid: int, stat: str) -> Process | None:
    """A process from its `/proc/<pid>/stat`; None when it has ended, and only its parent does not know yet."""
    fields = stat.rpartition(")")[2].split()  # the name, in brackets, may have anything in it
    if len(fields) < 20 or fields[0] in _ENDED:
        return None
    try:
        return Process(pid, started=int(fields[19]), parent=int(fields[1]), session=int(fields[3]))
    except ValueError:
        return None


def monitor(cmdline: bytes) -> Monitor | None:
    """What the process with this `/proc/<pid>/cmdline` monitors; None when it is no conmon."""
    words = cmdline.decode("utf-8", "replace").split("\0")
    if words[0].rpartition("/")[2] != _MONITOR:
        return None
    options: dict[str, str] = {}
    for name, value in pairwise(words[1:]):
        options.setdefault(name, value)
    container, session = options.get("-c", ""), options.get("-u", "")
    return Monitor(ContainerId(container), session, options.get("-n", ""), options.get("-b", "")) if container else None


def mounts(mountinfo: str) -> tuple[tuple[str, str], ...]:
    """Each mount of a `/proc/<pid>/mountinfo`: which folder of its file system it shows, and where."""
    rows = [line.split(" ") for line in mountinfo.splitlines()]
    return tuple((_plain(row[3]), _plain(row[4])) for row in rows if len(row) > 5)


def shows(root: str, service_id: str) -> bool:
    """Whether the folder of a mount may be one of a service's volumes, or below one."""
    return f"/{service_id}/" in f"{root.removesuffix('//deleted')}/"


def family(first: int, processes: Mapping[int, Process]) -> frozenset[int]:
    """The process `first` and all that have come from it: its children and theirs, and what is in its session."""
    children: dict[int, list[int]] = {}
    for one in processes.values():
        children.setdefault(one.parent, []).append(one.pid)
    waiting = [first, *(one.pid for one in processes.values() if one.session == first)]
    found: set[int] = set()
    while waiting:
        pid = waiting.pop()
        if pid not in found:
            found.add(pid)
            waiting += children.get(pid, ())
    return frozenset(found)


def _plain(text: str) -> str:
    """A path without the kernel's escapes for blanks, tabs, line feeds and backslashes."""
    return _ESCAPE.sub(lambda found: chr(int(found[1], 8)), text)
