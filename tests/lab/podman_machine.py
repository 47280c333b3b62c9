"""A machine with a Podman and its API service: what a store and a simulated server have in common.

Decides the life of the service and of the machine; knows nothing of networks between machines, and of agents.
"""

import signal
import socket
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Self

from tests.lab.cell import PrivateCell
from tests.lab.images import Image
from tests.lab.lease import Directory, Group, Lease
from tests.lab.process import Child, LabError
from tests.lab.wait import PATIENCE_S, wait_for

# The longest path that a Unix socket can have.
_SOCKET_PATH_BYTES = 107


class PodmanMachine:
    """A cell with a Podman service; its folder `directory` is removed with it. Use it as a context manager.

    Everything it makes is on `lease`, which it gives back at the end.
    """

    def __init__(
        self, directory: Path, lease: Lease, *, own_network: bool = False, disk_size_bytes: int | None = None
    ) -> None:
        self.directory = directory
        self.socket_path = directory / "podman.sock"
        if len(str(self.socket_path)) > _SOCKET_PATH_BYTES:
            raise LabError(f"the path of the machine is too long for a socket: {self.socket_path}")
        directory.mkdir(parents=True, exist_ok=True)
        lease.remember(Directory(str(directory)))
        self._lease = lease
        self._cell = PrivateCell(directory, lease, own_network=own_network, disk_size_bytes=disk_size_bytes)
        self._service: Child | None = None

    @property
    def socket_url(self) -> str:
        return f"unix://{self.socket_path}"

    def start(self) -> None:
        """Start the API service (and the machine under it). Returns when it answers; fine when it runs."""
        self._cell.start()
        if self._service is not None and self._service.running():
            return
        self.socket_path.unlink(missing_ok=True)
        argv = ("podman", "system", "service", "--time=0", self.socket_url)
        service = self._cell.spawn(argv, self.directory / "service.log")
        self._lease.remember(Group(service.identity))
        self._service = service
        wait_for(lambda: self.answers() or not service.running(), PATIENCE_S, "the Podman service to answer")
        if not service.running():
            raise LabError(f"the Podman service did not start: {service.last_words()}")

    def stop(self) -> None:
        """End the service with SIGTERM; containers go on, and the socket is gone. Fine when it is stopped."""
        if self._service is not None:
            self._service.stop()
            self._forget_service()

    def kill(self) -> None:
        """End the service with SIGKILL; containers go on, and a dead socket stays. Fine when it is stopped."""
        if self._service is not None:
            self._service.kill()
            self._forget_service()

    def restart(self) -> None:
        self.kill()
        self.start()

    def hang(self) -> None:
        """Let the service accept connections and never answer, until `resume` or an end."""
        self._require_service().halt()

    def resume(self) -> None:
        self._require_service().signal(signal.SIGCONT)

    def power_off(self) -> None:
        """End everything at once, containers too; only the disk stays. `start` is the boot after it."""
        self._cell.power_off()
        self._forget_service()

    def answers(self) -> bool:
        """Whether the service answers a ping within a second."""
        with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as connection:
            connection.settimeout(1)
            try:
                connection.connect(str(self.socket_path))
                connection.sendall(b"GET /_ping HTTP/1.0\r\nHost: podman\r\n\r\n")
                return b" 200 " in connection.recv(100)
            except OSError:
                return False

    def cli(self, *arguments: str, timeout_s: float = 60, text: str = "") -> str:
        """Standard output of `podman ARGUMENTS` on this store; works with and without the service."""
        return self._cell.run(("podman", *arguments), timeout_s=timeout_s, text=text)

    @property
    def init(self) -> int:
        """The process id of its first process, as seen from outside; its network is /proc/<init>/ns/net."""
        return self._cell.init

    def run(self, argv: Sequence[str], timeout_s: float = 30, text: str = "") -> str:
        """Run a command on the machine to its end and return its standard output; `LabError` when it fails."""
        return self._cell.run(argv, timeout_s=timeout_s, text=text)

    def spawn(self, argv: Sequence[str], log: Path, env: Mapping[str, str] | None = None) -> Child:
        """Start a command on the machine; it ends with `stop` or `kill`, or with the machine's power."""
        return self._cell.spawn(argv, log, env)

    def use_resolvers(self, *addresses: str) -> None:
        """Make these the DNS servers in the machine's /etc/resolv.conf; until then it has those of the real one."""
        self._cell.use_resolvers(*addresses)

    def load(self, image: Image) -> str:
        """Put an image into the store without a registry; the reference to use for it."""
        self.cli("load", "--quiet", "--input", str(image.archive))
        return image.reference

    def trust_registry(self, address: str) -> None:
        """Let this Podman speak plain HTTP with the registry at `address` (`host:port`), whoever asks it to pull."""
        self._cell.trust_registry(address)

    def cleanup(self) -> None:
        """Remove containers, networks, processes, mounts and the folder. Fine twice."""
        self.power_off()
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

    def _forget_service(self) -> None:
        if self._service is not None:
            self._lease.forget(Group(self._service.identity))
            self._service = None

    def _require_service(self) -> Child:
        if self._service is None:
            raise LabError("the Podman service is not running")
        return self._service
