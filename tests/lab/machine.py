"""Machines that are a network namespace and nothing else, and cables between them: for what a kernel does with packets.

Knows links, addresses and who answers on a port; nothing of Podman or agents.
"""

import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from types import TracebackType
from typing import Final, Self

from tests.lab.lease import Group, Lease
from tests.lab.process import Child, LabError, run
from tests.lab.wait import PATIENCE_S, wait_for

_HIGHEST_NUMBER: Final = 999
# Answers every datagram and every connection to a port with its own name, and writes down what arrived.
_ANSWERER: Final = """\
import socket, sys, threading
name, port, journal = sys.argv[1].encode(), int(sys.argv[2]), open(sys.argv[3], "ab", buffering=0)
datagrams = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
datagrams.setsockopt(socket.IPPROTO_IP, 8, 1)  # IP_PKTINFO: the answer comes from the address that was asked
datagrams.bind(("0.0.0.0", port))
listener = socket.create_server(("0.0.0.0", port))
def connections():
    while True:
        connection, _ = listener.accept()
        with connection:
            connection.sendall(name)
threading.Thread(target=connections, daemon=True).start()
journal.write(b"ready\\n")
while True:
    data, where, _, sender = datagrams.recvmsg(100, 100)
    journal.write(data + b"\\n")
    if data == b"ask":
        try:
            level, kind, at = where[0]
            datagrams.sendmsg([name], [(level, kind, bytes(4) + at[4:8] + bytes(4))], 0, sender)
        except OSError:
            pass
"""
# Prints who answers; `send` waits for no answer.
_ASKER: Final = """\
import socket, sys
kind, address, port, source, words = sys.argv[1], sys.argv[2], int(sys.argv[3]), sys.argv[4], sys.argv[5].encode()
with socket.socket(socket.AF_INET, socket.SOCK_STREAM if kind == "tcp" else socket.SOCK_DGRAM) as asker:
    asker.settimeout(1)
    asker.bind((source, 0))
    try:
        asker.connect((address, port))
        if kind != "tcp":
            asker.send(words)
        print("" if kind == "send" else asker.recv(100).decode())
    except OSError:
        print("")
"""


class Machine:
    """A machine called `name`. Use it as a context manager; `directory` takes its logs."""

    def __init__(self, name: str, directory: Path) -> None:
        directory.mkdir(parents=True, exist_ok=True)
        self.name = name
        self._directory = directory
        self._lease = Lease.take("machines", _HIGHEST_NUMBER)
        self._holder: Child | None = None
        self._answerers: list[Child] = []

    @property
    def pid(self) -> int:
        """A process in its network namespace."""
        if self._holder is None:
            raise LabError(f"{self.name} is not running")
        return self._holder.pid

    def run(self, *argv: str, env: Mapping[str, str] | None = None, text: str = "") -> str:
        """Output of a command in its network."""
        return run(self._inside(argv), env=env, text=text)

    def answer(self, port: int) -> None:
        """Answer on every address of it, by TCP and UDP, with its name, until it is left."""
        journal = self._journal(port)
        argv = (sys.executable, "-c", _ANSWERER, self.name, str(port), str(journal))
        child = Child(self._inside(argv), self._directory / f"{self.name}-{port}.log")
        self._lease.remember(Group(child.identity))
        self._answerers.append(child)
        wait_for(lambda: journal.exists() and journal.read_text(), PATIENCE_S, f"{self.name} to answer; {child.log}")

    def ask(self, kind: str, address: str, port: int, source: str = "0.0.0.0") -> str:
        """The name of the machine that answers there by `tcp` or `udp`; empty when none does within a second."""
        return self.run(sys.executable, "-c", _ASKER, kind, address, str(port), source, "ask").strip()

    def send(self, address: str, port: int, words: str, source: str) -> None:
        """Send a datagram for which no answer is waited."""
        self.run(sys.executable, "-c", _ASKER, "send", address, str(port), source, words)

    def heard(self, port: int) -> list[str]:
        """The datagrams that have arrived."""
        return self._journal(port).read_text().splitlines()[1:]

    def cleanup(self) -> None:
        """End it; its ends of cables go with it. Fine twice."""
        for child in (*self._answerers, *([] if self._holder is None else [self._holder])):
            child.kill()
        self._answerers.clear()
        self._holder = None
        self._lease.release()

    def __enter__(self) -> Self:
        argv = ("unshare", "--net", "sh", "-c", 'ip link set lo up && touch "$0" && exec sleep infinity')
        ready = self._directory / f"{self.name}.ready"
        holder = self._holder = Child((*argv, str(ready)), self._directory / f"{self.name}.log")
        self._lease.remember(Group(holder.identity))
        try:
            wait_for(lambda: ready.exists() or not holder.running(), PATIENCE_S, f"{self.name} to be there")
        except BaseException:
            self.cleanup()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.cleanup()

    def _inside(self, argv: Sequence[str]) -> tuple[str, ...]:
        return ("nsenter", f"--net=/proc/{self.pid}/ns/net", "--", *argv)

    def _journal(self, port: int) -> Path:
        return self._directory / f"{self.name}-{port}.journal"


def cable(one: Machine, link: str, other: Machine, other_link: str) -> None:
    """Connect two machines by a link of each, which are up."""
    one.run("ip", "link", "add", link, "type", "veth", "peer", "name", other_link, "netns", str(other.pid))
    one.run("ip", "link", "set", link, "up")
    other.run("ip", "link", "set", other_link, "up")
