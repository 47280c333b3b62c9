"""`agent doctor`: looks at everything that the agent needs on this server, and says what to do about what is not well."""

import resource
import shutil
import stat
import sys
import time
from collections.abc import AsyncIterator, Mapping
from email.utils import parsedate_to_datetime
from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import httpx
import msgspec
import psutil

from core import doctor
from core.doctor import Finding, Level
from shell import identity
from shell.adapters import build_tools
from shell.adapters.podman import Podman, PodmanSettings
from shell.children import Child, answer
from shell.commands.opening import checked
from shell.failure import AdapterError, CommandError
from shell.options import Options

_ASK_S: Final = 10.0
_HERE: Final = Path("/")


def examine(given: Mapping[str, object], *, as_json: bool) -> int:
    """Print what was found; the exit status is 1 when the agent could not work."""
    options = checked(given)
    findings = anyio.run(_all, options)
    if as_json:
        sys.stdout.write(msgspec.json.format(msgspec.json.encode(doctor.document(findings)), indent=2).decode() + "\n")
    else:
        sys.stdout.write("".join(f"{line}\n" for line in doctor.lines(findings)))
    return 0 if doctor.can_work(findings) else 1


async def _all(options: Options) -> list[Finding]:
    return [finding async for finding in _findings(options)]


async def _findings(options: Options) -> AsyncIterator[Finding]:
    yield _registered(options)
    for path, mode in ((options.data_dir, 0o700), (options.data_dir / "config.json", 0o600)):
        yield doctor.private(str(path), await anyio.to_thread.run_sync(_mode, path), mode)
    yield await _podman(options)
    yield await _control_plane(options)
    if "dns" not in options.unmanaged:
        yield _installed("dnsmasq", "apt-get install dnsmasq-base, or --unmanaged dns")
    if "wireguard" not in options.unmanaged:
        yield await _wireguard()
    if options.proxy and "caddy" not in options.unmanaged:
        yield _installed("caddy", "install Caddy, or --unmanaged caddy")
    if not options.no_builds:
        yield doctor.at_least(
            "git",
            await _said("git", "--version"),
            doctor.OLDEST_GIT,
            "apt-get install git, or --no-builds",
            needed=False,
        )
        yield _installed("skopeo", "apt-get install skopeo, or --no-builds")
        host = await build_tools.find(options.builder, _HERE)
        yield doctor.builder(host.buildkit, host.podman, railpack=host.railpack)
    yield doctor.disk(str(options.data_dir), await anyio.to_thread.run_sync(_free_percent, options.data_dir))
    yield doctor.open_files(_files())
    yield await anyio.to_thread.run_sync(_cgroups)


def _registered(options: Options) -> Finding:
    try:
        known = identity.load(options.data_dir) if options.data_dir.is_dir() else None
    except (CommandError, OSError) as error:
        return Finding("identity", Level.FAILED, str(error), "put it right, or register anew with another --data-dir")
    if known is None:
        return Finding("identity", Level.WARNING, "not registered yet", "start the agent with --url and TECHULUS_TOKEN")
    return Finding("identity", Level.OK, f"{'proxy' if known.is_proxy else 'worker'} {known.server_id}")


async def _podman(options: Options) -> Finding:
    podman = Podman(PodmanSettings(options.podman_socket, 1, options.data_dir / "volumes", read_limit_s=_ASK_S))
    todo = f"systemctl enable --now podman.socket; is {options.podman_socket} the socket?"
    try:
        text = await podman.version()
    except AdapterError as error:
        return Finding("podman", Level.FAILED, error.why, todo)
    finally:
        await podman.aclose()
    return doctor.at_least("podman", text, doctor.OLDEST_PODMAN, "install a newer Podman", needed=True)


async def _control_plane(options: Options) -> Finding:
    known = await anyio.to_thread.run_sync(_known_url, options)
    if known is None:
        return Finding("control plane", Level.WARNING, "its address is not known", "give it with --url")
    try:
        async with httpx.AsyncClient(timeout=_ASK_S, trust_env=False) as client:
            found = await client.get(f"{known}/api/v1/agent/expected-state")
    except (httpx.HTTPError, httpx.InvalidURL, UnicodeError) as error:
        why = str(error) or type(error).__name__
        return Finding("control plane", Level.WARNING, f"{known}: {why}", "the agent goes on with the last good state")
    skew_s = None
    if "date" in found.headers:
        try:
            skew_s = parsedate_to_datetime(found.headers["date"]).timestamp() - time.time()
        except (ValueError, TypeError):
            skew_s = None
    judged = doctor.clock(skew_s)
    if judged.level is Level.WARNING:
        return judged
    return Finding("control plane", Level.OK, f"{known} answers; the clock is {judged.found}")


def _known_url(options: Options) -> str | None:
    if options.url is not None:
        return options.url.rstrip("/")
    try:
        known = identity.load(options.data_dir) if options.data_dir.is_dir() else None
    except (CommandError, OSError):
        return None
    return None if known is None else known.url


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
