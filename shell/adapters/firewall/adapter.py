"""The firewall of this server: reads what all rules come to, sets ours, has Podman set its own, and changes no other.

While nothing changes, a look is one small message to the kernel. Rules of ours are compared as a whole with what they were when they were
last found right; only when that differs is `iptables` asked which is missing. On a server whose iptables writes to the tables of before
nftables, our rules are asked for every five minutes, and nothing can be said of others.
"""

import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, replace
from typing import Final, TypeVar

import anyio.to_thread

from core import firewall
from core.firewall import Blocked, Server
from core.nftables import Ruleset
from shell import children
from shell.adapters.firewall import iptables, links, ruleset
from shell.failure import AdapterError
from shell.log import logger

T = TypeVar("T")

_LEGACY_EVERY_S: Final = 300.0
_RELOAD_LIMIT_S: Final = 60.0


@dataclass(frozen=True, slots=True)
class FirewallSettings:
    """`interface` is the tunnel's, None where WireGuard is not managed, and then `unmanaged_tunnel` is; `names` says whether containers ask
    this server for names.
    """

    subnet_id: int
    interface: str | None
    wireguard_port: int
    is_proxy: bool
    names: bool
    unmanaged_tunnel: str | None = None


@dataclass(frozen=True, slots=True)
class Seen:
    """What a look has found: which rule of ours is missing and what of Podman's, in words; and who drops what must pass.

    `is_whole` is False where only our own rules can be looked at.
    """

    fault: str | None
    lost: tuple[str, ...]
    blocked: tuple[Blocked, ...]
    is_whole: bool = True


class Firewall:
    """The rules of this network namespace. Its methods run one at a time in worker threads, each wait in them with its limit."""

    def __init__(self, settings: FirewallSettings) -> None:
        self._server = Server(
            subnet_id=settings.subnet_id,
            interface=settings.interface,
            bridge=None,
            outside=None,
            wireguard_port=settings.wireguard_port,
            is_proxy=settings.is_proxy,
            names=settings.names,
            unmanaged_tunnel=settings.unmanaged_tunnel,
        )
        self._turn = threading.Lock()
        self._is_legacy: bool | None = None
        self._checked_at = float("-inf")
        self._right: tuple[bytes, ...] | None = None
        self._before: tuple[object, Seen] | None = None
        self._refused: str | None = None
        self._lacks_tunnel = False

    async def fetch(self, *, runs: bool = False, publishes: bool = False) -> Seen:
        """What there is now, AdapterError when that is not known. Podman's rules are expected while a container `runs`; those for ports of
        this server while one `publishes` some.
        """
        return await self._thread(lambda: self._fetch(runs, publishes))

    async def fetch_blocked(self) -> tuple[Blocked, ...] | None:
        """Who drops what must pass; None where that cannot be seen. For who asks once. Raises AdapterError."""
        return await self._thread(self._fetch_blocked)

    async def apply(self) -> None:
        """Set our rules. Raises AdapterError."""
        await self._thread(self._apply)

    async def reload(self, container_id: str) -> None:
        """Have Podman set the rules of a container and of its network again. It gets its network anew, with the same addresses.

        Raises AdapterError. Podman is never stopped in the middle of it: a container would be left without a network.
        """
        argv = children.outside("podman", "network", "reload", container_id)
        status, said = await self._thread(lambda: iptables.run(argv, _RELOAD_LIMIT_S))
        if status != 0:
            raise AdapterError("podman", f"reload the network of {container_id}", said, "tried again")

    async def withdraw(self) -> None:
        """Take our rules away. For taking a lab down and for uninstalling; agents leave them. Raises AdapterError."""
        await self._thread(lambda: iptables.withdraw(self._server))

    async def _thread(self, run: Callable[[], T]) -> T:
        def in_turn() -> T:
            with self._turn:
                return run()

        return await anyio.to_thread.run_sync(in_turn, abandon_on_cancel=True)

    def _apply(self) -> None:
        self._refused = None
        try:
            iptables.allow(self._server)
        except AdapterError as error:
            self._refused = f"a rule of the agent's cannot be set: {error.why}"
            raise

    def _fetch(self, runs: bool, publishes: bool) -> Seen:
        self._name_tunnel()
        generation = ruleset.generation()
        if generation is None or self._writes_elsewhere():
            return self._fetch_own()
        indexes = links.indexes()
        moment = (generation, runs, publishes, indexes)
        if self._before is None or self._before[0] != moment:
            read_at, rules = ruleset.read()
            seen = self._judged(rules, indexes, runs, publishes)
            self._before = ((read_at, runs, publishes, indexes), seen)
            if seen.fault is not None and self._refused is None:  # what is not right is asked for again until it is
                self._before = None
            return seen
        return self._before[1]

    def _fetch_blocked(self) -> tuple[Blocked, ...] | None:
        if ruleset.generation() is None or self._writes_elsewhere():
            return None
        with _understood():
            return firewall.blocked(ruleset.read()[1], self._server_now(links.indexes()))

    def _server_now(self, indexes: dict[str, int]) -> Server:
        bridge = links.bridge(self._server.gateway)
        return replace(self._server, bridge=bridge, outside=links.outside(), indexes=indexes)

    def _judged(self, rules: Ruleset, indexes: dict[str, int], runs: bool, publishes: bool) -> Seen:
        server = self._server_now(indexes)
        with _understood():
            fault = self._own_fault(rules)
        try:
            with _understood():
                lost = firewall.lost(rules, server, publishes=publishes) if runs else ()
                return Seen(fault, lost, firewall.blocked(rules, server))
        except AdapterError:
            if fault is None:
                raise
            return Seen(fault, (), (), is_whole=False)  # ours are set whatever stands beside them

    def _own_fault(self, rules: Ruleset) -> str | None:
        found = firewall.own_rules(rules)
        if found == self._right:
            return None
        fault = iptables.fault(self._server)
        if fault is None:
            self._right = found
        return fault and (self._refused or fault)

    def _fetch_own(self) -> Seen:
        fault = None
        if time.monotonic() - self._checked_at > _LEGACY_EVERY_S:
            fault = iptables.fault(self._server)
            fault = fault and (self._refused or fault)
            if fault is None:  # else it is asked again until it is put right
                self._checked_at = time.monotonic()
        return Seen(fault, (), (), is_whole=False)

    def _name_tunnel(self) -> None:
        """Say it when it begins."""
        lacks_tunnel = iptables.lacks_tunnel(self._server)
        if lacks_tunnel and not self._lacks_tunnel:
            why = (
                f"there is no link {self._server.unmanaged_tunnel}, by which the mesh comes in (--wireguard-interface)"
            )
            then = "nothing keeps neighbours on this server's networks from its containers, until there is one"
            logger().warning("containers not guarded", why=why, then=then)
        if lacks_tunnel != self._lacks_tunnel:  # other rules are right
            self._right, self._before, self._checked_at = None, None, float("-inf")
        self._lacks_tunnel = lacks_tunnel

    def _writes_elsewhere(self) -> bool:
        if self._is_legacy is None:
            self._is_legacy = iptables.is_legacy()
        return self._is_legacy


@contextmanager
def _understood() -> Iterator[None]:
    """Rules of another form than is known raise AdapterError."""
    try:
        yield
    except ValueError as error:
        raise AdapterError(ruleset.COMPONENT, "understand the rules of nftables", str(error)) from error
