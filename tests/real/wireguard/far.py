"""The other end of a tunnel: a wireguard-go of the test's in a network of its own, which answers pings there.

Its socket stays in the network where it was started, so that both ends reach each other by the loopback.
"""

import base64
from functools import partial
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey

from core.wireguard import Peer
from shell.adapters.wireguard.userspace import SOCKETS, listens
from tests.lab.lease import Group, Lease
from tests.lab.process import Child
from tests.lab.wait import PATIENCE_S, wait_for
from tests.real.wireguard.tunnel import Tunnel, command

ADDRESS = "10.100.9.1"


class FarEnd:
    """Made at once; `cleanup` takes it away. `peer` is what the near end is to be given."""

    def __init__(self, folder: Path, lease: Lease, near: Tunnel) -> None:
        self.name = f"wgf{lease.number}"
        self._network = Child(("unshare", "--net", "sleep", "infinity"), folder / "network.log")
        self._process = Child(("wireguard-go", "-f", self.name), folder / "far.log")
        for child in (self._network, self._process):
            lease.remember(Group(child.identity))
        wait_for(partial(listens, self.name), PATIENCE_S, f"wireguard-go; {self._process.last_words()}")
        secret = folder / "far.key"
        command("sh", "-c", f"umask 077; wg genkey > '{secret}'")
        own = X25519PrivateKey.from_private_bytes(near.settings.private_key).public_key().public_bytes_raw()
        self._near_key = base64.b64encode(own).decode("ascii")
        self.port = 17_000 + lease.number
        command("wg", "set", self.name, "listen-port", str(self.port), "private-key", str(secret))
        command("wg", "set", self.name, "peer", self._near_key, "allowed-ips", "10.0.0.0/8")
        key = command("wg", "show", self.name, "public-key").strip()
        self.peer = Peer(key, ("10.100.9.0/24", "10.200.9.0/24"), f"127.0.0.1:{self.port}")
        self._plug()

    def change_port(self) -> None:
        """Roam: speak from another port, to the near end's."""
        self.port += 1000
        command("wg", "set", self.name, "listen-port", str(self.port))

    def restart_at(self, port: int) -> None:
        """Back at this port with no session: what a host has after a power cut. It knows where nobody is."""
        command("wg", "set", self.name, "peer", self._near_key, "remove")
        self.port = port
        command("wg", "set", self.name, "listen-port", str(port))
        command("wg", "set", self.name, "peer", self._near_key, "allowed-ips", "10.0.0.0/8")

    def call(self, endpoint: str) -> None:
        """Know where the near end is."""
        command("wg", "set", self.name, "peer", self._near_key, "endpoint", endpoint)

    def ping_back(self, address: str) -> None:
        """One packet from the far end to the near one."""
        command(*self._inside(), "ping", "-q", "-c", "1", "-W", "30", address)

    def cleanup(self) -> None:
        self._process.kill()
        self._network.kill()
        (SOCKETS / f"{self.name}.sock").unlink(missing_ok=True)

    def _plug(self) -> None:
        command("ip", "link", "set", self.name, "netns", str(self._network.pid))
        for words in (
            ("link", "set", "lo", "up"),
            ("address", "add", f"{ADDRESS}/32", "dev", self.name),
            ("link", "set", self.name, "mtu", "1420", "up"),
            ("route", "add", "10.0.0.0/8", "dev", self.name),
        ):
            command(*self._inside(), "ip", *words)

    def _inside(self) -> tuple[str, ...]:
        return ("nsenter", f"--net=/proc/{self._network.pid}/ns/net")


class Ping:
    """A ping every 20 ms until it is asked how many got lost."""

    def __init__(self, log: Path) -> None:
        self._child = Child(("ping", "-n", "-i", "0.02", "-W", "3", ADDRESS), log)
        self._log = log
        self.until(5)

    def until(self, more: int) -> None:
        """Until so many more packets have come back."""
        there = self.answered()
        wait_for(
            lambda: self.answered() >= there + more, PATIENCE_S, f"{more} answers; {self._child.last_words()[-300:]}"
        )

    def answered(self) -> int:
        return self._log.read_text().count(" bytes from ")

    def lost(self) -> int:
        """How many of all got no answer. Sends no more; the last one counts when it had time to come back."""
        self.until(5)
        sequence = [int(line.partition("icmp_seq=")[2].split()[0]) for line in self._log.read_text().splitlines()[1:-1]]
        self._child.kill()
        return max(sequence) - len(set(sequence))
