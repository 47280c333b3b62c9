"""A netavark that stands still in the middle of a set-up when it is told to, as on a server that is out of memory or of patience.

Podman finds it by its configuration. Knows nothing of what Podman makes of it.
"""

import contextlib
from pathlib import Path

from tests.lab.podman_machine import PodmanMachine
from tests.lab.wait import PATIENCE_S, wait_for

_HELPERS = Path("/usr/lib/podman")
# $flag: a set-up stands still while this file is there, and says so by another.
_SCRIPT = """\
#!/bin/sh
case "$*" in *setup*) if [ -e {flag} ]; then touch {flag}.begun; while [ -e {flag} ]; do sleep 0.05; done; fi;; esac
exec {helpers}/netavark "$@"
"""


class HaltingNetavark:
    """The netavark of a Podman whose service is restarted with it."""

    def __init__(self, machine: PodmanMachine) -> None:
        self._machine = machine
        self._flag = machine.directory / "halt"
        folder = machine.directory / "helpers"
        folder.mkdir()
        for one in _HELPERS.iterdir():
            (folder / one.name).symlink_to(one)
        (folder / "netavark").unlink()
        (folder / "netavark").write_text(_SCRIPT.format(flag=self._flag, helpers=_HELPERS))
        (folder / "netavark").chmod(0o755)
        conf = machine.directory / "etc/containers.conf"
        conf.write_text(conf.read_text().replace("[engine]\n", f'[engine]\nhelper_binaries_dir = ["{folder}"]\n'))
        machine.restart()

    def halt(self) -> None:
        """The next set-up stands still."""
        self._flag.touch()

    def kill_service_within(self, *, alone: bool = False) -> None:
        """Kill Podman's service in the middle of a set-up, and start it again; `alone`: netavark finishes what it is at."""
        begun = Path(f"{self._flag}.begun")
        wait_for(begun.exists, PATIENCE_S, "a set-up to begin")
        if alone:
            self._machine.run(("pkill", "--signal", "KILL", "--exact", "podman"))
        else:
            self._machine.kill()
        for name in (self._flag, begun):
            with contextlib.suppress(FileNotFoundError):
                name.unlink()
        if alone:
            wait_for(lambda: not self._is_at_work(), PATIENCE_S, "netavark to finish")
        self._machine.restart()

    def _is_at_work(self) -> bool:
        return bool(self._machine.run(("sh", "-c", "pgrep netavark || true")).strip())
