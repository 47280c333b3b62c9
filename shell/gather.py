"""The actual state in one pass: all components are read at the same time.

A container listing that fails fails the look, since a server must never seem empty because it could not be seen; what else was seen is
handed over with the failure. DNS, Caddy or WireGuard that cannot be read counts as unread, for that component alone; so does one that
serves a name or a route which the agent would take from nobody, as it may have been put there before the agent knew better.
"""

from collections.abc import Awaitable, Callable
from functools import partial
from typing import TypeVar

import anyio

from core import caddy, dns
from core.caddy import Route
from core.containers import ActualContainer
from core.dns import Record
from core.local_rules import NO_RULES, LocalRules
from core.rejection import shown
from core.state import UNREAD, ActualState, Unread
from shell.beside import LARGE_ENTRIES, beside_if
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

    def __init__(self, components: Components, parts: Parts | None = None, rules: LocalRules = NO_RULES) -> None:
        self._components = components
        self._rules = rules
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
            records = _start(tasks, lambda: self._read("dns", self._records))
            routes = _start(tasks, lambda: self._read("caddy", self._routes))
            wireguard = _start(
                tasks, lambda: self._read("wireguard", parts.wireguard.fetch if parts.wireguard else _nothing)
            )
        listed = containers[0]
        seen = () if isinstance(listed, AdapterError) else listed
        served = (records[0], routes[0], wireguard[0])
        are_many = sum(0 if one is UNREAD else len(one) for one in (seen, *served)) > LARGE_ENTRIES
        state = await beside_if(are_many, lambda: ActualState(seen, *served, self._dns_before, self._caddy_before))
        if isinstance(listed, AdapterError):
            raise NotListedError(listed, state)
        self.containers = listed
        return state

    async def _records(self) -> tuple[Record, ...]:
        served = self._components.dns
        found = () if served is None else await served.fetch()
        if found == self._dns_before:  # the usual case, and judged before
            return found
        judged = partial(_only, lambda one: dns.could_be_expected(one, self._rules), found)
        self._dns_before = await beside_if(len(found) > LARGE_ENTRIES, judged)
        if self._dns_before != found:
            raise _planted("dnsmasq", next(one.name for one in found if not dns.could_be_expected(one, self._rules)))
        return found

    async def _routes(self) -> tuple[Route, ...]:
        served = self._components.caddy
        found = () if served is None else await served.fetch()
        if found == self._caddy_before:
            return found
        judged = partial(_only, lambda one: caddy.could_be_expected(one, self._rules), found)
        self._caddy_before = await beside_if(len(found) > LARGE_ENTRIES, judged)
        if self._caddy_before != found:
            raise _planted("caddy", next(one.domain for one in found if not caddy.could_be_expected(one, self._rules)))
        return found

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


def _only(could_be: Callable[[T], bool], found: tuple[T, ...]) -> tuple[T, ...]:
    return tuple(one for one in found if could_be(one))


def _planted(component: str, what: str) -> AdapterError:
    """What is served is none of ours, though it stands in its place: a held key must not keep it, so it counts as unread."""
    why = f"it serves {shown(what)}, which no expected state may have"
    return AdapterError(component, "take it for what was written", why, "the next update takes it away")


async def _nothing() -> tuple[()]:
    return ()
