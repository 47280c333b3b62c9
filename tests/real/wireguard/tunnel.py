"""A tunnel of the adapter's in this process's network, and what the system's own tools say of it."""

import base64
import json
import os
import subprocess
import sys
from collections.abc import Coroutine, Iterator
from contextlib import contextmanager
from dataclasses import replace
from pathlib import Path
from typing import Any, Final, Literal, TypeVar

import anyio

from core.wireguard import Peer
from shell.adapters.wireguard import WireGuard, WireGuardSettings
from shell.failure import AdapterError

T = TypeVar("T")
Mode = Literal["kernel", "userspace"]

SUBNET: Final = 7
ADDRESS: Final = f"10.100.{SUBNET}.1"


class Tunnel:
    """An interface that may or may not be there yet, by its settings, and one agent's adapter for it."""

    def __init__(self, settings: WireGuardSettings) -> None:
        self.settings = settings
        self.wire = WireGuard(settings)

    def again(self, **changes: Any) -> "Tunnel":
        """The same interface for an agent that has just been started, with other settings when told."""
        return Tunnel(replace(self.settings, **changes))

    @property
    def name(self) -> str:
        return self.settings.interface

    def fetch(self) -> tuple[Peer, ...]:
        return now(self.wire.fetch())

    def apply(self, *upsert: Peer, remove: tuple[str, ...] = ()) -> None:
        now(self.wire.apply(upsert, remove))

    def ensure_up(self) -> None:
        now(self.wire.ensure_up())

    def stop(self) -> None:
        now(self.wire.stop())

    def trouble(self) -> str:
        """Why it cannot be read; empty when it can."""
        try:
            self.fetch()
        except AdapterError as error:
            return str(error)
        return ""

    def wg(self, *words: str) -> str:
        """Output of `wg set` and its like, on this interface: words are what follows its name."""
        return command("wg", "set", self.name, *words)

    def dump(self) -> list[list[str]]:
        """What `wg show` says: the interface's row (private key, …, port), then the peers', by key."""
        first, *peers = command("wg", "show", self.name, "dump").splitlines()
        return [first.split("\t"), *sorted(row.split("\t") for row in peers)]

    def routes(self) -> set[str]:
        return {row["dst"] for row in ip("route", "show", "dev", self.name)}


def peer(number: int, *networks: str, endpoint: str | None = "") -> Peer:
    """A peer with a key of its own, the usual networks and an endpoint where nobody answers, unless told."""
    usual = (f"10.100.{number}.0/24", f"10.200.{number}.0/24")
    return Peer(key(number), networks or usual, f"127.0.0.1:{20_000 + number}" if endpoint == "" else endpoint)


def key(number: int) -> str:
    """A public key by number."""
    return base64.b64encode(number.to_bytes(2, "big") * 16).decode()


@contextmanager
def tunnel(folder: Path, name: str, mode: Mode, number: int = SUBNET, **changes: Any) -> Iterator[Tunnel]:
    """A tunnel that nobody else has a name, port or key of; gone afterwards."""
    settings = WireGuardSettings(
        address=f"10.100.{number}.1",
        private_key=os.urandom(32),
        state_dir=folder / name,
        interface=name,
        listen_port=30_000 + number,
        mode=mode,
    )
    made = Tunnel(replace(settings, **changes))
    try:
        yield made
    finally:
        made.stop()


def now(work: Coroutine[Any, Any, T]) -> T:
    """The outcome of an adapter's method."""

    async def wait() -> T:
        return await work

    return anyio.run(wait)


def command(*argv: str) -> str:
    done = subprocess.run(argv, capture_output=True, text=True, timeout=60, check=False)
    assert done.returncode == 0, f"{argv}: {done.stdout}{done.stderr}"
    return done.stdout


def ip(*words: str) -> list[dict[str, Any]]:
    rows: list[dict[str, Any]] = json.loads(command("ip", "-json", "-details", *words) or "[]")
    return rows


def same(found: object, expected: object) -> None:
    """An assertion that shows both sides where no test runner looks into it."""
    assert found == expected, f"\nfound    {found}\nexpected {expected}"


def module_folders() -> tuple[Path, ...]:
    """Where the packages are that this process has loaded from outside the standard library."""
    site = next(Path(path) for path in sys.path if path.endswith("site-packages"))
    return tuple(path for path in site.iterdir() if path.name.removesuffix(".py") in sys.modules)
