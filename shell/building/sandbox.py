"""One build's sandbox: what of this host it sees and may use, and the commands that are run in it, each by a supervisor of its own.

Where systemd runs, a supervisor is a service in the builds' slice; elsewhere it is a child of this process in control groups of its own.
Either ends with all that it has started when its standard input ends: cancelled, out of time, or this process killed.
"""

import hashlib
import itertools
import os
import platform
import shutil
import socket
import sys
from collections.abc import Iterable, Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass, field, replace
from ipaddress import IPv4Address, IPv4Network, IPv6Address, ip_address
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import psutil

from core import build_sandbox
from core.build_plan import Command
from core.build_sandbox import (
    BUILD,
    BUILDKIT,
    GIT,
    LOGIN,
    NO_LIMITS,
    REPOSITORY,
    SECRETS,
    STORE,
    TOOLS,
    USER,
    Endpoint,
    Limits,
    Network,
    Place,
    Surroundings,
)
from core.build_source import Sees
from shell.building import usage
from shell.building.supervisor import FAILED, Order
from shell.building.workplace import Workplace, make_guests_folder
from shell.children import Child, Output, answer, run

_SYSTEMD: Final = Path("/run/systemd/system")
_GROUPS: Final = Path("/sys/fs/cgroup")
_USUAL: Final = ("/usr/", "/bin/", "/sbin/", "/lib")
_UNIX: Final = "unix://"
_RESOLVE_S: Final = 10.0
_MACHINES: Final = {"x86_64": "amd64", "aarch64": "arm64", "armv7l": "arm", "i686": "386"}


def own_platform() -> str:
    """This machine's, as images name it: `linux/amd64`."""
    machine = platform.machine()
    return f"linux/{_MACHINES.get(machine, machine)}"


class SandboxError(Exception):
    """A sandbox has ended its command, or could not be made; the text is for the user."""


@dataclass(frozen=True, slots=True)
class Sandbox:
    """What one build's commands see and may use. `networks` are theirs by what they see; `store` is where the build's images are,
    `buildkit` the socket of the host's BuildKit.
    """

    place: Workplace
    limits: Limits
    networks: Mapping[Sees | None, Network]
    store: Path
    buildkit: str | None = None
    repository: str | None = None
    numbers: Iterator[int] = field(default_factory=itertools.count)

    async def run(self, command: Command, hear: Output, limit_s: float) -> int:
        """The command's exit status (128 and more: the signal). Raises SandboxError, and AdapterError when nothing can be run."""
        order, argv = await anyio.to_thread.run_sync(self._order, command)
        if _SYSTEMD.is_dir():
            await answer(Child(build_sandbox.slice_weights(self.limits), self.place.folder, {}, _RESOLVE_S))
        status = await run(Child(argv, self.place.folder, {}, limit_s, order.line()), hear)
        why = await anyio.to_thread.run_sync(self._why)
        if why:
            raise SandboxError(why)
        if status == FAILED:
            raise SandboxError("the sandbox of the build could not be made")
        return status

    def _why(self) -> str:
        with suppress(OSError):
            return self.place.why.read_text()
        return ""

    def _order(self, command: Command) -> tuple[Order, tuple[str, ...]]:
        place, name = self.place, _name(self.place.folder)
        place.why.unlink(missing_ok=True)
        tool = shutil.which(command.argv[0]) or command.argv[0]
        binds = [
            (path, inside, False) for path, inside in build_sandbox.read_only(os.environ).items() if Path(path).exists()
        ]
        network = next((way for what, way in self.networks.items() if what in command.sees), self.networks[None])
        if self.repository is not None and Sees.GIT in command.sees:
            binds.append((self.repository, REPOSITORY, False))
        if not os.path.realpath(tool).startswith(_USUAL) and Path(tool).is_file():
            binds.append((tool, f"{TOOLS}/{Path(tool).name}", False))
            tool = f"{TOOLS}/{Path(tool).name}"
        binds += [(str(place.guest), BUILD, True)]
        binds += [(str(place.temporary), inside, True) for inside in ("/tmp", "/var/tmp")]  # noqa: S108 - inside
        seen = {Sees.GIT: (place.git, GIT), Sees.SECRETS: (place.secrets, SECRETS), Sees.LOGIN: (place.login, LOGIN)}
        binds += [(str(path), inside, False) for what, (path, inside) in seen.items() if what in command.sees]
        doomed = [place.guest, place.temporary, place.git, place.secrets, place.login]
        if Sees.STORE in command.sees:
            make_guests_folder(self.store)
            os.utime(self.store)
            binds.append((str(self.store), STORE, True))
            doomed.append(self.store)
        relays = list(network.relays)
        if Sees.BUILDKIT in command.sees and self.buildkit is not None and self.buildkit.startswith(_UNIX):
            relays.append((BUILDKIT, self.buildkit.removeprefix(_UNIX)))
        order = Order(
            argv=[tool, *command.argv[1:]],
            env={**build_sandbox.environment(os.environ), **dict(command.env)},
            folder=BUILD,
            root=str(place.root),
            user=USER,
            why=str(place.why),
            binds=binds,
            files=build_sandbox.files(network),
            rules=network.rules,
            relays=relays,
            disk=[str(path) for path in (place.guest, place.temporary, self.store)],
            disk_bytes=self.limits.disk_bytes,
            doomed=[str(path) for path in doomed],
            trash=str(place.folder / "trash"),
        )
        supervisor = (sys.executable, "-P", "-m", "shell.building.supervisor")
        if _SYSTEMD.is_dir():
            unit = f"techulus-{name}-{next(self.numbers)}"  # the one before may not be forgotten yet
            return order, (*build_sandbox.unit(self.limits, unit), *supervisor)
        groups = build_sandbox.groups(self.limits, name, is_unified=_is_unified())
        made = [(folder, dict(settings)) for folder, settings in groups.made]
        return replace(order, groups=made, joined=list(groups.joined)), supervisor


def remove_groups(folder: Path) -> None:
    """The control groups of the build in this folder, where no systemd does that."""
    usage.remove_groups(build_sandbox.groups(NO_LIMITS, _name(folder), is_unified=_is_unified()).joined)


def _name(folder: Path) -> str:
    """Of the unit or the control groups: of this build of this agent's and no other, since both are the machine's."""
    return f"build-{hashlib.sha256(str(folder).encode()).hexdigest()[:24]}"


async def network(endpoints: Iterable[Endpoint | None], users: Endpoint | None = None) -> Network:
    """The network of a command that must get to these, and to what a user has chosen. A name that is not found now is not let through."""
    places = [Place(one, await _addresses(one.host)) for one in {*endpoints} if one is not None]
    if users is not None:
        places.append(Place(users, await _addresses(users.host), is_users=True))
    return build_sandbox.network(places, await anyio.to_thread.run_sync(_surroundings))


async def _addresses(host: str) -> tuple[IPv4Address | IPv6Address, ...]:
    with suppress(OSError, UnicodeError), anyio.move_on_after(_RESOLVE_S):
        found = await anyio.getaddrinfo(host, None, type=socket.SOCK_STREAM)
        return tuple(dict.fromkeys(ip_address(one[4][0]) for one in found))
    return ()


def _surroundings() -> Surroundings:
    own: set[IPv4Address] = set()
    bridges: set[IPv4Network] = set()
    for name, addresses in psutil.net_if_addrs().items():
        for one in (found for found in addresses if found.family == socket.AF_INET):
            address = IPv4Address(one.address)
            if not address.is_loopback:
                own.add(address)
            if Path("/sys/class/net", name, "bridge").exists():
                bridges.add(IPv4Network(f"{address}/{one.netmask or 32}", strict=False))
    return Surroundings(frozenset(own), frozenset(bridges))


def _is_unified() -> bool:
    return (_GROUPS / "cgroup.controllers").exists()
