"""`core.processes`: what the kernel says of processes."""

import pytest

from core.containers import ContainerId
from core.processes import Monitor, Process, container_of, family, monitor, mounts, process, shows

ID = "0f3a" * 16
_STAT = "102 (a ) (b) S 91 102 102 0 -1 4194560 1 2 3 4 5 6 7 8 20 0 1 0 228203 1 2 3"


@pytest.mark.parametrize(
    ("cgroup", "found"),
    [
        (f"9:name=systemd:/libpod_parent/libpod-{ID}\n0::/libpod_parent/libpod-{ID}\n", ID),
        (f"0::/machine.slice/libpod-{ID}.scope\n", ID),
        (f"0::/machine.slice/libpod-{ID}.scope/container\n", ID),
        (f"0::/../../libpod-{ID}/init.scope\n", ID),
        (f"0::/machine.slice/libpod-conmon-{ID}.scope\n", None),
        (f"0::/user.slice/libpod-{ID}0.scope\n", None),
        ("0::/system.slice/podman.service\n", None),
        ("", None),
    ],
)
def test_whose_process_it_is(cgroup: str, found: str | None) -> None:
    """By its control group, wherever that lies; a monitor is none of the container's."""
    assert container_of(cgroup) == found


def test_a_process() -> None:
    """Whatever its name has in it; one that has ended is none."""
    assert process(102, _STAT) == Process(102, started=228203, parent=91, session=102)
    assert process(102, _STAT.replace(" S ", " Z ")) is None
    assert process(102, "") is None


def test_a_monitor() -> None:
    """Of a container, and of a command in it; no other program is one."""
    words = [
        "/usr/bin/conmon",
        "--api-version",
        "1",
        "-c",
        ID,
        "-u",
        "s",
        "-r",
        "/usr/bin/runc",
        "-b",
        "/r/u",
        "-n",
        "web",
    ]
    assert monitor("\0".join([*words, "--exit-command-arg", "-n", "x"]).encode()) == Monitor(
        ContainerId(ID), "s", "web", "/r/u"
    )
    assert monitor("\0".join(["/bin/sh", *words[1:]]).encode()) is None
    assert monitor(b"conmon") is None
    assert monitor(b"") is None


def test_mounts() -> None:
    """The folder shown and the place, blanks as they are."""
    line = r"170 164 0:40 /volumes/s/my\040data /data rw,relatime - ext4 /dev/sda1 rw"
    assert mounts(f"{line}\nnonsense\n") == (("/volumes/s/my data", "/data"),)


@pytest.mark.parametrize(
    ("root", "does"),
    [
        ("/var/lib/volumes/web/data", True),
        ("/volumes/web/data/below", True),
        ("/volumes/web", True),
        ("/volumes/web/data//deleted", True),
        ("/volumes/web-2/data", False),
        ("/", False),
    ],
)
def test_what_may_be_a_services_volume(root: str, does: bool) -> None:
    """Its folder, one of its volumes, or what is below."""
    assert shows(root, "web") is does


def test_a_family() -> None:
    """Children's children, and what stayed in the session when its parent had ended."""
    there = [(1, 0, 1), (10, 5, 10), (11, 10, 10), (12, 11, 12), (13, 1, 10), (14, 1, 1)]
    processes = {pid: Process(pid, 0, parent, session) for pid, parent, session in there}
    assert family(10, processes) == {10, 11, 12, 13}
