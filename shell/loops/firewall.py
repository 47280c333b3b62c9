"""Looks at this server's firewall rules every few seconds: sets ours when they are missing, has Podman set its own, and names a firewall of
somebody else's that drops what must pass.

A change is made from a fresh listing and while nobody else changes the server. Decides when by `core.retry`, as for every other change.
"""

from collections.abc import Awaitable, Callable, Iterable, Mapping
from dataclasses import dataclass
from typing import Final, Protocol

import anyio

from core import retry
from core.containers import ActualContainer, ContainerId, DeploymentId
from core.firewall import Blocked
from core.render import Json
from core.retry import Retries, RetryKey
from core.state import ExpectedState
from shell.adapters.firewall import Seen
from shell.failure import AdapterError
from shell.log import logger
from shell.parts import Turned, no_turn

_EVERY_S: Final = 5.0  # one message to the kernel; a firewall that was reloaded is whole again well within one poll
_SHARE: Final = 20  # after a look the loop waits so many times as long: 20000 rules that change all the time take 2 s to read and judge
_LONGEST_S: Final = 60.0
_START_S: Final = 3.0  # what the start waits for the first turn, so that a single run sets the rules, too; never longer
_OWN: Final[RetryKey] = ("firewall", "own rules")
_PODMANS: Final[RetryKey] = ("firewall", "podman's rules")
_SHORT: Final = 12  # of a container's id, as Podman shows it
_LONGEST: Final = 500  # of what is logged of failures
_VAIN: Final = 3  # reloads in a row that brought nothing back: a further one would only disturb containers


class PacketFilter(Protocol):
    """What this loop asks of the firewall's adapter."""

    async def fetch(self, *, runs: bool, publishes: bool) -> Seen:
        """What there is now, with containers that run and publish ports or without; AdapterError when that is not known."""

    async def apply(self) -> None:
        """Set our rules; AdapterError."""

    async def reload(self, container_id: str) -> None:
        """Have Podman set the rules of a container and its network; AdapterError."""


@dataclass(frozen=True, slots=True)
class Ports:
    """What the loop works with: the containers as last seen and as they are now (AdapterError), what is expected of them, whose turn it is
    to change this server, and whether nothing may be changed.
    """

    firewall: PacketFilter
    containers: Callable[[], tuple[ActualContainer, ...]]
    list_containers: Callable[[], Awaitable[tuple[ActualContainer, ...]]]
    expected: Callable[[], ExpectedState | None]
    lock: anyio.Lock
    is_paused: Callable[[], Awaitable[bool]]


class FirewallLoop:
    """The loop, and what it has found."""

    def __init__(self, ports: Ports) -> None:
        self._ports = ports
        self._retries: Retries = {}
        self._vain = 0
        self._look_s = 0.0
        self._was_set = False
        self._seen: Seen | None = None
        self._failure: str | None = None
        self._named: tuple[Blocked, ...] = ()
        self._first = anyio.Event()

    async def run(self, turned: Turned = no_turn) -> None:
        """Look for ever."""
        while True:
            try:
                await self._turn()
            except (AdapterError, OSError) as error:  # the latter when no socket or file is free
                self._complain(str(error))
            else:
                self._complain(None)
                turned()
            finally:
                self._first.set()
            await anyio.sleep(min(max(_EVERY_S, self._look_s * _SHARE), _LONGEST_S))

    async def first_turn(self) -> None:
        """Returns after the first turn, or when that takes long."""
        with anyio.move_on_after(_START_S):
            await self._first.wait()

    def document(self) -> dict[str, Json]:
        """What was found, as `agent status` tells it."""
        seen = self._seen
        return {
            "failure": self._failure,
            "othersSeen": seen is None or seen.is_whole,
            "missing": [] if seen is None else [*([seen.fault] if seen.fault else []), *seen.lost],
            "blocked": [] if seen is None else [one.json() for one in seen.blocked],
        }

    async def _turn(self) -> None:
        ports = self._ports
        self._seen = await self._fetch(ports.containers())
        if self._seen.fault is not None and self._is_due(_OWN) and not await ports.is_paused():
            async with ports.lock:
                if not await ports.is_paused():  # a person may have paused while another change was waited for
                    await self._set_own(self._seen.fault)
            self._seen = await self._fetch(ports.containers())
        if self._is_due(_PODMANS) and not await ports.is_paused():
            async with ports.lock:
                if not await ports.is_paused():
                    await self._set_podmans()
        self._name(self._seen.blocked)

    async def _fetch(self, listed: Iterable[ActualContainer]) -> Seen:
        running = _running(listed)
        publishes = bool(_publishing(running, self._ports.expected()))
        begun = anyio.current_time()
        seen = await self._ports.firewall.fetch(runs=bool(running), publishes=publishes)
        self._look_s = anyio.current_time() - begun
        if seen.fault is None:
            self._retries = {key: one for key, one in self._retries.items() if key != _OWN}
        if not seen.lost:
            self._vain = 0
        return seen

    def _is_due(self, key: RetryKey) -> bool:
        """Whether something is missing that may be set now."""
        now = anyio.current_time()
        self._retries = retry.forget_old(self._retries, now)
        if self._seen is None or retry.is_waiting(self._retries, key, now):
            return False
        return key == _OWN or (bool(self._seen.lost) and self._vain < _VAIN)

    async def _set_own(self, fault: str) -> None:
        if self._was_set:
            logger().warning("firewall rules removed", reason=fault, then="they are set again")
        failure = None
        try:
            await self._ports.firewall.apply()
        except AdapterError as error:
            failure = str(error)
            logger().warning("firewall rules not set", reason=failure, then="tried again")
        self._was_set |= failure is None
        self._retries = retry.after_attempt(self._retries, _OWN, anyio.current_time(), failure)

    async def _set_podmans(self) -> None:
        """Have set what a fresh look still finds missing: the listing of before may name containers that have ended since."""
        listed = await self._ports.list_containers()
        self._seen = await self._fetch(listed)
        if self._is_due(_PODMANS):
            failures = await self._reload(self._seen.lost, listed)
            self._seen = await self._fetch(listed)
            self._judge_reload(self._seen.lost, failures)

    async def _reload(self, lost: tuple[str, ...], listed: tuple[ActualContainer, ...]) -> list[str]:
        """Each container with ports of this server; without any, one is enough: the rules of the network are every container's.

        Returns what failed.
        """
        running = _running(listed)
        chosen = _publishing(running, self._ports.expected()) or (min(running),)
        then = f"podman network reload {' '.join(one[:_SHORT] for one in chosen)}"
        logger().warning("Podman's firewall rules removed", missing=", ".join(lost), then=then)
        failures = []
        for container_id in chosen:
            try:
                await self._ports.firewall.reload(container_id)
            except AdapterError as error:
                failures.append(str(error))
        return failures

    def _judge_reload(self, lost: tuple[str, ...], failures: list[str]) -> None:
        if lost:
            failures = [*failures, f"still missing: {', '.join(lost)}"]
            self._vain += 1
            over = "not tried again; run `podman network reload --all`, or restart the containers"
            then = over if self._vain >= _VAIN else "tried again"
            logger().warning("Podman's firewall rules not set", reason="; ".join(failures)[:_LONGEST], then=then)
        failure = failures[0] if failures else None
        self._retries = retry.after_attempt(self._retries, _PODMANS, anyio.current_time(), failure)

    def _name(self, blocked: tuple[Blocked, ...]) -> None:
        """Say once, until it changes, who drops what must pass."""
        for one in blocked:
            if one not in self._named:
                then = f"add to it: {'; '.join(one.commands)}"
                logger().warning("firewall drops what must pass", reason=str(one), then=then)
        if self._named and not blocked:
            logger().info("firewall drops nothing any more that must pass")
        self._named = blocked

    def _complain(self, failure: str | None) -> None:
        if failure is not None and failure != self._failure:
            logger().warning("firewall not read", reason=failure, then="tried again")
        self._failure = failure


def _running(listed: Iterable[ActualContainer]) -> dict[ContainerId, DeploymentId | None]:
    return {one.id: one.deployment_id for one in listed if one.state == "running"}


def _publishing(
    running: Mapping[ContainerId, DeploymentId | None], expected: ExpectedState | None
) -> tuple[ContainerId, ...]:
    """Those that run and have ports of this server, which are those without an address."""
    entries = () if expected is None else expected.containers
    wanted = {one.deployment_id for one in entries if one.ports and one.address is None}
    return tuple(sorted(key for key, deployment in running.items() if deployment in wanted))
