"""The network between simulated servers: a bridge in a network namespace of its own, one cable to each server.

Decides addresses and cables. Knows servers only by a process that lives in their network namespace.
"""

import contextlib
import os
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.lease import Group, Lease
from tests.lab.process import Child, LabError, run
from tests.lab.wait import PATIENCE_S, wait_for

_HIGHEST_NUMBER = 999
_NUMBER_OF_THIS_PROCESS = 254
_HOLD = "ip link add br0 type bridge && ip link set br0 up && ip link set lo up && touch ready && exec sleep infinity"


class Switch:
    """A switch for 192.168.77.0/24. Use it as a context manager; `directory` takes its log.

    It has no way out, and no name in any namespace that others see.
    """

    def __init__(self, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self._directory = directory
        self._lease = Lease.take("switches", _HIGHEST_NUMBER)
        self._holder: Child | None = None

    def start(self) -> None:
        """Returns when cables can be plugged in; fine when it runs."""
        if self._holder is not None and self._holder.running():
            return
        ready = self._directory / "ready"
        ready.unlink(missing_ok=True)
        script = f"cd '{self._directory}' && {_HOLD}"
        holder = Child(("unshare", "--net", "bash", "-c", script), self._directory / "switch.log")
        self._lease.remember(Group(holder.identity))
        self._holder = holder
        wait_for(lambda: ready.exists() or not holder.running(), PATIENCE_S, "the switch to be ready")
        if not holder.running():
            raise LabError(f"the switch did not start: {holder.last_words()}")

    def plug(self, pid: int, number: int, link: str = "eth0") -> str:
        """Give the network namespace of a process a link into the switch; its address, 192.168.77.`number`."""
        address = server_address(number)
        port = f"port{number}"
        with contextlib.suppress(LabError):
            # The kernel takes the links of a dead namespace away in its own time.
            self._ip("link", "delete", "dev", port)
        # A server keeps its hardware address over a reboot: its neighbours remember it.
        peer = ("peer", "name", link, "address", f"02:00:00:00:4d:{number:02x}", "netns", str(pid))
        self._ip("link", "add", port, "type", "veth", *peer)
        self._ip("link", "set", port, "master", "br0", "up")
        inside = ("nsenter", f"--net=/proc/{pid}/ns/net", "ip")
        run((*inside, "address", "add", f"{address}/24", "dev", link))
        run((*inside, "link", "set", link, "up"))
        return address

    def plug_this_process(self) -> str:
        """Let the calling process reach the servers and be reached by them; its address, 192.168.77.254.

        Call it in a private network: elsewhere the subnet may mean something else.
        """
        return self.plug(os.getpid(), _NUMBER_OF_THIS_PROCESS, f"lab{self._lease.number}")

    def cut(self, number: int) -> None:
        """Take the cable of a server out, as seen from the switch; its addresses and routes stay."""
        self._ip("link", "set", f"port{number}", "nomaster")

    def mend(self, number: int) -> None:
        """Put the cable of a server in again."""
        self._ip("link", "set", f"port{number}", "master", "br0")

    def cleanup(self) -> None:
        """End it; all its cables go with it. Fine twice."""
        if self._holder is not None:
            self._holder.kill()
            self._holder = None
        self._lease.release()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.cleanup()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.cleanup()

    def _ip(self, *arguments: str) -> None:
        if self._holder is None:
            raise LabError("the switch is not running")
        run(("nsenter", f"--net=/proc/{self._holder.pid}/ns/net", "ip", *arguments))


def server_address(number: int) -> str:
    """The address of a server on the switch."""
    return f"192.168.77.{number}"
