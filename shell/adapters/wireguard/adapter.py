"""The tunnel of this server: reads which peers it has, and changes exactly those that differ.

What is configured is what the interface says, together with address, routes and forwarding around it; anything less is a failure to read,
and the next update brings it up. Only the endpoint is what this agent last gave, since a peer may roam; that of a peer that has roamed and
is silent is the interface's own, so that the given one is given again (`core.wireguard_sessions`).

An interface is ours when it has our private key, or no key yet and a mark on the disk that we were about to make it. Any other one of that
name is never touched.
"""

import threading
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final, Literal, TypeVar

import anyio.to_thread
import msgspec

from core import wireguard_sessions
from core import wireguard_uapi as uapi
from core.wireguard import Peer
from core.wireguard_sessions import SILENCE_S, Session
from core.wireguard_uapi import Device
from shell import files
from shell.adapters.wireguard import process
from shell.adapters.wireguard.failures import COMPONENT, failures
from shell.adapters.wireguard.kernel import Kernel
from shell.adapters.wireguard.links import Links
from shell.adapters.wireguard.userspace import Userspace
from shell.failure import AdapterError, CommandError
from shell.log import logger
from shell.state_file import StateFile, json_format

T = TypeVar("T")

MTU: Final = 1420  # what is left of 1500 in a WireGuard packet, whatever carries it
_VERSION: Final = 1


class _Endpoints(msgspec.Struct, frozen=True):
    version: int
    endpoints: dict[str, str | None]


_ENDPOINTS: Final = json_format(
    _Endpoints,
    "the peers' endpoints",
    lost="the interface's own count as given",
    unwritten="the peers are set again",
    version=_VERSION,
)


@dataclass(frozen=True, slots=True)
class WireGuardSettings:
    """`address` is this server's in the mesh, 10.100.<subnet>.1. `state_dir` keeps the endpoints that were given.

    `silence_s` is how long the last handshake of a peer must be over before its given endpoint is given again.
    """

    address: str
    private_key: bytes = field(repr=False)
    state_dir: Path
    interface: str = "wg0"
    listen_port: int = 51_820
    mtu: int = MTU
    mode: Literal["auto", "kernel", "userspace"] = "auto"
    binary: str = "wireguard-go"
    silence_s: float = SILENCE_S


class WireGuard:
    """One interface of ours. Its methods run one at a time in worker threads, since netlink and sockets block; each wait has its limit."""

    def __init__(self, settings: WireGuardSettings) -> None:
        self._settings = settings
        self._endpoint_file = StateFile(settings.state_dir / "endpoints.json", _ENDPOINTS)
        self._links = Links(settings.interface, settings.address, settings.mtu)
        self._key = uapi.clamped(settings.private_key)
        self._turn = threading.Lock()
        self._sessions: dict[str, Session] = {}
        self._lost: frozenset[str] = frozenset()

    async def fetch(self) -> tuple[Peer, ...]:
        """The peers that are configured now, in canonical order; AdapterError when that is not known or the tunnel cannot work."""
        return await self._thread(self._fetch)

    async def apply(self, upsert: tuple[Peer, ...], remove: tuple[str, ...]) -> None:
        """Set these peers and remove those keys; the interface is brought up first when it is not. Verified by reading back."""
        await self._thread(lambda: self._apply(upsert, remove))

    async def ensure_up(self) -> None:
        """Bring the interface up without touching a peer."""
        await self._thread(self._ensure_up)

    async def stop(self) -> None:
        """Take down the interface and its routes. For taking a lab down and for uninstalling; agents leave it up."""
        await self._thread(self._stop)

    async def _thread(self, run: Callable[[], T]) -> T:
        def in_turn() -> T:
            with self._turn:
                return run()

        return await anyio.to_thread.run_sync(in_turn, abandon_on_cancel=True)

    def _fetch(self) -> tuple[Peer, ...]:
        device = self._ours(self._links.kind()).read()
        self._check(device)
        networks = [network for peer in device.peers for network in peer.networks]
        fault = self._links.fault(networks)
        if fault is not None:
            raise AdapterError(COMPONENT, f"use {self._settings.interface}", fault, "its update puts it right")
        given = self._endpoints()
        lost = self._find_lost(device, given)
        return uapi.peers_of(device, {key: endpoint for key, endpoint in given.items() if key not in lost})

    def _find_lost(self, device: Device, given: dict[str, str | None]) -> frozenset[str]:
        now = time.monotonic()
        self._sessions = wireguard_sessions.observe(self._sessions, device, now)
        lost = wireguard_sessions.lost(self._sessions, device, given, now, self._settings.silence_s)
        for peer in device.peers:
            if peer.public_key in lost - self._lost:
                reason = f"no handshake for {self._settings.silence_s:.0f} s at {peer.endpoint}"
                then = f"its endpoint {given[peer.public_key]} is set again"
                logger().warning("peer unreachable", peer=peer.public_key, reason=reason, then=then)
        self._lost = lost
        return lost

    def _apply(self, upsert: tuple[Peer, ...], remove: tuple[str, ...]) -> None:
        self._ensure_up()
        implementation = self._ours(self._links.kind())
        # Forgotten first and remembered last: whatever ends this in between, a peer without a memory counts by its live endpoint, while
        # one with a wrong memory would hide an endpoint that was never given.
        touched = {*remove, *(peer.public_key for peer in upsert)}
        endpoints = {key: given for key, given in self._endpoints().items() if key not in touched}
        self._remember(endpoints)
        implementation.change(upsert, remove)
        self._remember({**endpoints, **{peer.public_key: peer.endpoint for peer in upsert}})
        self._sessions = wireguard_sessions.without(self._sessions, touched)
        device = implementation.read()
        # Before the check: peers that are right do not wait for one that is not.
        self._links.set_routes(network for peer in device.peers for network in peer.networks)
        self._verify(device, upsert, remove)

    def _verify(self, device: Device, upsert: tuple[Peer, ...], remove: tuple[str, ...]) -> None:
        there = {peer.public_key: frozenset(peer.networks) for peer in device.peers}
        wrong = [peer.public_key for peer in upsert if there.get(peer.public_key) != frozenset(peer.networks)]
        wrong += [key for key in remove if key in there]
        if wrong:
            raise AdapterError(
                COMPONENT, f"set peers of {self._settings.interface}", f"{wrong[0]} is not as it was set", "tried again"
            )

    def _ensure_up(self) -> None:
        kind = self._links.kind()
        if kind is None:
            self._make()
            kind = self._links.kind()
        elif kind == "tun" and not process.find(self._settings.binary, self._settings.interface):
            raise self._foreign("it is a tunnel of another program")
        implementation = self._ours(kind)
        device = implementation.read()
        if device.private_key is None and self._mark().exists():
            implementation.configure(self._key, self._settings.listen_port)
        elif device.private_key != self._key:
            raise self._foreign("it has another private key")
        elif device.listen_port != self._settings.listen_port:
            implementation.configure(self._key, self._settings.listen_port)
        self._links.set_up()
        self._links.set_routes(network for peer in device.peers for network in peer.networks)

    def _make(self) -> None:
        settings = self._settings
        with failures(f"make {settings.interface}"):
            self._keep(self._mark(), b"")
        if settings.mode != "userspace" and self._links.add_kernel_link():
            logger().info("wireguard interface made", interface=settings.interface, implementation="kernel")
            return
        if settings.mode == "kernel":
            raise AdapterError(COMPONENT, f"make {settings.interface}", "the kernel has no WireGuard")
        process.end(settings.binary, settings.interface)
        process.start(settings.binary, settings.interface, settings.state_dir / "wireguard-go.log")

    def _ours(self, kind: str | None) -> Kernel | Userspace:
        name = self._settings.interface
        match kind:
            case "wireguard":
                return Kernel(name)
            case "tun":
                return Userspace(name)
            case None:
                raise AdapterError(COMPONENT, f"read {name}", "the interface is missing", "its update makes it")
            case other:
                raise self._foreign(f"it is of kind {other}")

    def _check(self, device: Device) -> None:
        if device.private_key != self._key:
            if device.private_key is None and self._mark().exists():
                raise AdapterError(
                    COMPONENT, f"read {self._settings.interface}", "it has no key yet", "its update gives it one"
                )
            raise self._foreign("it has another private key")
        if device.listen_port != self._settings.listen_port:
            why = f"it listens on port {device.listen_port}, expected {self._settings.listen_port}"
            raise AdapterError(COMPONENT, f"use {self._settings.interface}", why, "its update puts it right")

    def _foreign(self, why: str) -> AdapterError:
        then = "it is left alone; remove it, or name another with --wireguard-interface"
        return AdapterError(COMPONENT, f"use {self._settings.interface}", f"{why}, so it is not the agent's", then)

    def _mark(self) -> Path:
        return self._settings.state_dir / f"made-{self._settings.interface}"

    def _endpoints(self) -> dict[str, str | None]:
        """The endpoints that were given, by key; empty when that is not known, and then the interface's own count."""
        try:
            found = self._endpoint_file.load()
        except CommandError as error:
            raise AdapterError(COMPONENT, "read the peers' endpoints", str(error)) from error
        return {} if found is None else found.endpoints

    def _remember(self, endpoints: dict[str, str | None]) -> None:
        with failures("keep the peers' endpoints"):
            self._settings.state_dir.mkdir(mode=files.PRIVATE_DIR, parents=True, exist_ok=True)
            self._endpoint_file.write(_Endpoints(_VERSION, endpoints))

    def _keep(self, path: Path, content: bytes) -> None:
        path.parent.mkdir(mode=files.PRIVATE_DIR, parents=True, exist_ok=True)
        files.write_atomic(path, content)

    def _stop(self) -> None:
        process.end(self._settings.binary, self._settings.interface)
        self._links.remove_link()
        self._mark().unlink(missing_ok=True)
