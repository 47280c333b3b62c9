"""Looks at everything that the agent needs on this server: for `agent doctor`, and for the agent itself when it starts."""

import resource
import shutil
import socket
import stat
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import msgspec
import psutil

from core import doctor, podman
from core.doctor import Finding, Level, Port, Socket
from shell import identity, node, status_socket
from shell.adapters import build_tools
from shell.adapters.caddy.admin import UNIX, NobodyListensError
from shell.adapters.control_plane import ControlPlane, check_url
from shell.adapters.firewall import Firewall
from shell.adapters.podman import Podman, PodmanSettings
from shell.children import Child, answer
from shell.failure import AdapterError, CommandError
from shell.identity import Identity
from shell.options import DEFAULT_CADDY_ADMIN, Options

_ASK_S: Final = 10.0
_ASK_AT_START_S: Final = 2.0
_HERE: Final = Path("/")


async def examine(options: Options) -> list[Finding]:
    """Everything that the agent needs, in an order for a person to read."""
    findings = [finding async for finding in _needed(options, _ASK_S)]
    findings.append(await _control_plane(options))
    findings += await anyio.to_thread.run_sync(_parts, options)
    findings += [finding async for finding in _useful(options)]
    return findings + await _firewall(options)  # which a running agent names by itself


async def examine_at_start(options: Options) -> list[Finding]:
    """What could keep the agent from working at all, within seconds: a Podman that does not answer yet is waited for, not refused."""
    return [_awaited(finding) async for finding in _needed(options, _ASK_AT_START_S)]


async def examine_beside(options: Options) -> list[Finding]:
    """What costs a part of the agent's work only, for a daemon that runs already."""
    return [finding async for finding in _useful(options)]


def _awaited(finding: Finding) -> Finding:
    """The socket unit and the service come up when they do; the agent looks again with every tick."""
    if finding.check == "podman" and finding.level is Level.FAILED and not doctor.version(finding.found):
        if shutil.which("podman") is not None:
            return replace(finding, level=Level.WARNING)
        return replace(finding, found=f"not installed; {finding.found}", todo="apt-get install podman")
    return finding


async def _needed(options: Options, limit_s: float) -> AsyncIterator[Finding]:
    yield _registered(options)
    for path, mode in ((options.data_dir, 0o700), (options.data_dir / "config.json", 0o600)):
        yield doctor.private(str(path), await anyio.to_thread.run_sync(_mode, path), mode)
    yield await _podman(options, limit_s)


async def _useful(options: Options) -> AsyncIterator[Finding]:
    known = await anyio.to_thread.run_sync(_identity, options)
    if known is not None and (finding := await _network(options, known.subnet_id)) is not None:
        yield finding
    for finding in await anyio.to_thread.run_sync(_ports, options, known):
        yield finding
    async for finding in _components(options, is_proxy=_is_proxy(options, known)):
        yield finding
    if not options.no_builds:
        async for finding in _build_tools(options):
            yield finding
    yield doctor.disk(str(options.data_dir), await anyio.to_thread.run_sync(_free_percent, options.data_dir))
    yield doctor.open_files(_files())
    yield await anyio.to_thread.run_sync(_cgroups)


async def _components(options: Options, *, is_proxy: bool) -> AsyncIterator[Finding]:
    if "dns" not in options.unmanaged:
        yield _installed("dnsmasq", "apt-get install dnsmasq-base, or --unmanaged dns")
    if "wireguard" not in options.unmanaged:
        yield await _wireguard()
    if is_proxy and "caddy" not in options.unmanaged:
        yield _installed("caddy", "install Caddy, or --unmanaged caddy")
        for finding in await _caddy_admin(options):
            yield finding


async def _caddy_admin(options: Options) -> list[Finding]:
    """Nothing of a Caddy that does not run yet."""
    try:
        address, foreign = await node.caddy(options, "").fetch_admin()
    except NobodyListensError:
        return []
    except (AdapterError, OSError) as error:
        return [Finding("caddy admin", Level.WARNING, f"not read: {error}", "see what answers there")]
    folder = Path(address.removeprefix(UNIX)).parent if address.startswith(UNIX) else None
    mode = None if folder is None else await anyio.to_thread.run_sync(_mode, folder)
    return doctor.caddy_admin(address, DEFAULT_CADDY_ADMIN, mode, foreign)


async def _build_tools(options: Options) -> AsyncIterator[Finding]:
    todo = "apt-get install git, or --no-builds"
    yield doctor.at_least("git", await _said("git", "--version"), doctor.OLDEST_GIT, todo, needed=False)
    yield _installed("skopeo", "apt-get install skopeo, or --no-builds")
    host = await build_tools.find(options.builder, _HERE)
    for finding in doctor.builder(host):
        yield finding
    yield _installed("slirp4netns", "apt-get install slirp4netns, or --no-builds")


def _parts(options: Options) -> list[Finding]:
    """What the running agent says of itself; nothing when none runs."""
    try:
        told = status_socket.ask(options.data_dir)
        return [] if told is None else doctor.parts(msgspec.json.decode(told, type=_Told).failing)
    except (OSError, msgspec.DecodeError) as error:
        return [Finding("agent", Level.WARNING, f"its status cannot be read: {error}", "see its log")]


class _Told(msgspec.Struct):
    failing: list[dict[str, str | int | None]] = []


def _registered(options: Options) -> Finding:
    try:
        known = identity.load(options.data_dir) if options.data_dir.is_dir() else None
    except (CommandError, OSError) as error:
        return Finding("identity", Level.FAILED, str(error), "put it right, or register anew with another --data-dir")
    if known is None:
        return Finding("identity", Level.WARNING, "not registered yet", "start the agent with --url and TECHULUS_TOKEN")
    return Finding("identity", Level.OK, f"{'proxy' if known.is_proxy else 'worker'} {known.server_id}")


async def _podman(options: Options, limit_s: float) -> Finding:
    engine = Podman(PodmanSettings(options.podman_socket, 1, options.data_dir / "volumes", read_limit_s=limit_s))
    todo = f"systemctl enable --now podman.socket; is {options.podman_socket} the socket?"
    try:
        text = await engine.version()
    except AdapterError as error:
        return Finding("podman", Level.FAILED, error.why, todo)
    finally:
        await engine.aclose()
    return doctor.at_least("podman", text, doctor.OLDEST_PODMAN, "install a newer Podman", needed=True)


async def _control_plane(options: Options) -> Finding:
    known = await anyio.to_thread.run_sync(_known_url, options)
    if known is None:
        return Finding("control plane", Level.WARNING, "its address is not known", "give it with --url")
    try:
        plane = ControlPlane(check_url(known, allow_http=options.allow_http), ca_file=options.ca_file, timeout_s=_ASK_S)
    except CommandError as error:
        return Finding("control plane", Level.FAILED, str(error), "put the option or the variable right")
    try:
        judged = doctor.clock(await plane.probe())
    except AdapterError as error:
        return Finding("control plane", Level.WARNING, error.why, "the agent goes on with the last good state")
    finally:
        await plane.aclose()
    if judged.level is Level.WARNING:
        return judged
    route = f" through the proxy {plane.via}" if plane.via else ""
    return Finding("control plane", Level.OK, f"{known} answers{route}; the clock is {judged.found}")


def _known_url(options: Options) -> str | None:
    if options.url is not None:
        return options.url.rstrip("/")
    known = _identity(options)
    return None if known is None else known.url


def _identity(options: Options) -> Identity | None:
    try:
        return identity.load(options.data_dir) if options.data_dir.is_dir() else None
    except (CommandError, OSError):
        return None  # what is wrong with it is a finding of its own


def _is_proxy(options: Options, known: Identity | None) -> bool:
    return options.proxy if known is None else known.is_proxy


async def _network(options: Options, subnet_id: int) -> Finding | None:
    """The containers' network; None when Podman does not answer, which is a finding of its own."""
    engine = Podman(
        PodmanSettings(
            options.podman_socket, subnet_id, options.data_dir / "volumes", options.network, read_limit_s=_ASK_S
        )
    )
    try:
        fault = await engine.network_fault()
    except AdapterError:
        return None
    finally:
        await engine.aclose()
    if fault is not None:
        return Finding("network", Level.WARNING, f"{options.network}: {fault}", "remove it, or give --network")
    return Finding("network", Level.OK, f"{options.network}, {podman.subnet(subnet_id)}")


async def _firewall(options: Options) -> list[Finding]:
    """What must be open, and, on a server with a subnet, who keeps it shut."""
    known = await anyio.to_thread.run_sync(_identity, options)
    is_proxy = _is_proxy(options, known) and "caddy" not in options.unmanaged
    ports = [*([] if "wireguard" in options.unmanaged else [f"{options.wireguard_port}/udp"])]
    ports += ["80/tcp", "443/tcp", "443/udp"] if is_proxy else []
    findings = [doctor.open_ports(ports)] if ports else []
    if known is None:
        return findings
    firewall = Firewall(node.firewall_settings(options, known.subnet_id, is_proxy=known.is_proxy))
    try:
        return [*findings, *doctor.firewalls(await firewall.fetch_blocked())]
    except (AdapterError, OSError) as error:
        return [
            *findings,
            Finding("firewall", Level.WARNING, str(error), "see which rules there are: nft list ruleset"),
        ]


def _ports(options: Options, known: Identity | None) -> list[Finding]:
    return doctor.ports(_needed_ports(options, known), _listening())


def _needed_ports(options: Options, known: Identity | None) -> Iterator[Port]:
    if "dns" not in options.unmanaged:
        own = [str(options.dns_loopback), *([] if known is None else [podman.gateway(known.subnet_id)])]
        yield from (Port(transport, one, 53, "dnsmasq") for one in own for transport in ("udp", "tcp"))
    if "wireguard" not in options.unmanaged:
        yield Port("udp", "0.0.0.0", options.wireguard_port, "wireguard-go")  # noqa: S104 - WireGuard listens so
    if _is_proxy(options, known) and "caddy" not in options.unmanaged:
        yield from (Port("tcp", "0.0.0.0", port, "caddy") for port in (80, 443))  # noqa: S104 - Caddy listens so


def _listening() -> Iterator[Socket]:
    for one in psutil.net_connections("inet"):
        if one.laddr and one.status in (psutil.CONN_LISTEN, psutil.CONN_NONE):
            transport = "tcp" if one.type == socket.SOCK_STREAM else "udp"
            yield Socket(transport, one.laddr.ip, one.laddr.port, _program(one.pid))


def _program(pid: int | None) -> str | None:
    try:
        return None if pid is None else psutil.Process(pid).name()
    except psutil.Error:
        return None


async def _wireguard() -> Finding:
    if await anyio.to_thread.run_sync(Path("/sys/module/wireguard").is_dir):
        return Finding("wireguard", Level.OK, "in the kernel")
    status, _ = await _asked("modprobe", "--dry-run", "--quiet", "wireguard")
    if status == 0:
        return Finding("wireguard", Level.OK, "a module of the kernel")
    if shutil.which("wireguard-go") is not None:
        return Finding("wireguard", Level.OK, "in userspace (wireguard-go)")
    return Finding(
        "wireguard", Level.WARNING, "none", "install wireguard-go, or a kernel with WireGuard, or --unmanaged wireguard"
    )


def _installed(tool: str, todo: str) -> Finding:
    path = shutil.which(tool)
    if path is None:
        return Finding(tool, Level.WARNING, "not installed", todo)
    return Finding(tool, Level.OK, path)


async def _said(*argv: str) -> str:
    status, text = await _asked(*argv)
    return text if status == 0 else ""


async def _asked(*argv: str) -> tuple[int, str]:
    try:
        return await answer(Child(argv, _HERE, {}, _ASK_S))
    except AdapterError:
        return -1, ""


def _mode(path: Path) -> int | None:
    try:
        return stat.S_IMODE(path.stat().st_mode)
    except OSError:
        return None


def _free_percent(path: Path) -> float:
    while not path.exists():
        path = path.parent
    return 100.0 - psutil.disk_usage(str(path)).percent


def _files() -> int:
    limit = resource.getrlimit(resource.RLIMIT_NOFILE)[1]
    return -1 if limit == resource.RLIM_INFINITY else limit


def _cgroups() -> Finding:
    if Path("/sys/fs/cgroup/cgroup.controllers").exists():
        return Finding("cgroups", Level.OK, "version 2")
    todo = "boot with systemd.unified_cgroup_hierarchy=1 for limits that hold"
    return Finding("cgroups", Level.WARNING, "version 1 or mixed", todo)
