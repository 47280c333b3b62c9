"""The actual state in one pass: all components are read at the same time.

A container listing that fails fails the look, since a server must never seem empty because it could not be seen; what else was seen is
handed over with the failure. DNS, Caddy or WireGuard that cannot be read counts as unread, for that component alone.
"""

from collections.abc import Awaitable, Callable
from typing import TypeVar

import anyio

from core.caddy import Route
from core.containers import ActualContainer
from core.dns import Record
from core.state import UNREAD, ActualState, Unread
from shell.components import Components
from shell.failure import AdapterError
from shell.log import logger
from shell.parts import Parts

T = TypeVar("T")

_FORESEEN = (AdapterError, OSError)
LOOK_LIMIT_S = 30.0  # far beyond what a healthy component needs; the round is not held up longer by a hung one


class NotListedError(AdapterError):
    """The containers could not be listed. `beside` is what else was seen; that it has no containers says nothing."""

    def __init__(self, error: AdapterError, beside: ActualState) -> None:
        super().__init__(error.component, error.what, error.why, error.then)
        self.beside = beside


class Gather:
    """Looks at a server.

    Remembers what it has already complained about, so that a lasting fault is said once; what was served when it could last be read; and
    the containers that it saw last.
    """

    def __init__(self, components: Components, parts: Parts | None = None) -> None:
        self._components = components
        self._parts = Parts() if parts is None else parts
        self.containers: tuple[ActualContainer, ...] = ()
        self._complaints: dict[str, str] = {}
        self._dns_before: tuple[Record, ...] = ()
        self._caddy_before: tuple[Route, ...] = ()

    async def __call__(self, wall_now_s: float) -> ActualState:
        """The state of everything that is managed here. Raises NotListedError when the containers cannot be."""
        parts = self._components
        async with anyio.create_task_group() as tasks:
            containers = _start(tasks, lambda: self._listed(wall_now_s))
            dns = _start(tasks, lambda: self._read("dns", parts.dns.fetch if parts.dns else _nothing))
            caddy = _start(tasks, lambda: self._read("caddy", parts.caddy.fetch if parts.caddy else _nothing))
            wireguard = _start(
                tasks, lambda: self._read("wireguard", parts.wireguard.fetch if parts.wireguard else _nothing)
            )
        self._dns_before = self._dns_before if dns[0] is UNREAD else dns[0]
        self._caddy_before = self._caddy_before if caddy[0] is UNREAD else caddy[0]
        listed = containers[0]
        if isinstance(listed, AdapterError):
            beside = ActualState((), dns[0], caddy[0], wireguard[0], self._dns_before, self._caddy_before)
            raise NotListedError(listed, beside)
        self.containers = listed
        return ActualState(listed, dns[0], caddy[0], wireguard[0], self._dns_before, self._caddy_before)

    async def _read(self, name: str, fetch: Callable[[], Awaitable[tuple[T, ...]]]) -> tuple[T, ...] | Unread:
        try:
            with self._parts.contained("inspection", name, _FORESEEN), anyio.fail_after(LOOK_LIMIT_S):
                found = await fetch()
        except (
            AdapterError,
            OSError,
        ) as error:  # a time limit is one of the latter; so is a table of the kernel's that is full
            why = str(error) or f"no answer within {LOOK_LIMIT_S:.0f} s"
            if self._complaints.get(name) != why:
                self._complaints[name] = why
                logger().warning("component not read", component=name, why=why, then="its update brings it up")
            return UNREAD
        if self._complaints.pop(name, None):
            logger().info("component read again", component=name)
        return found

    async def _listed(self, wall_now_s: float) -> tuple[ActualContainer, ...] | AdapterError:
        try:
            with self._parts.contained("inspection", "containers", _FORESEEN), anyio.fail_after(LOOK_LIMIT_S):
                return await self._components.podman.containers(wall_now_s)
        except AdapterError as error:  # returned, since a task group would wrap it
            return error
        except TimeoutError:
            return AdapterError("podman", "list containers", f"no answer within {LOOK_LIMIT_S:.0f} s")


def _start(tasks: anyio.abc.TaskGroup, read: Callable[[], Awaitable[T]]) -> list[T]:
    """Run `read` in the task group; its answer is the list's one element when the group has ended."""
    box: list[T] = []

    async def run() -> None:
        box.append(await read())

    tasks.start_soon(run)
    return box


async def _nothing() -> tuple[()]:
    return ()
