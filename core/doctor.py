"""What a check of this server came to: findings, what a person can do about each, and whether the agent can work at all.

Decides from facts that were gathered; looks at nothing itself.
"""

import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass
from enum import Enum
from typing import Final

from core.build_plan import Host
from core.firewall import Blocked
from core.printable import escape
from core.render import Json

OLDEST_PODMAN: Final = (4, 3)
OLDEST_GIT: Final = (2, 32)
LEAST_FREE_PERCENT: Final = 5.0
LEAST_FILES: Final = 4096
TOLERATED_SKEW_S: Final = 30.0
_PART: Final = re.compile(r"[0-9]{1,9}")
_NUMBER: Final = re.compile(r"[0-9]{1,9}\.[0-9]{1,9}(?:\.|\Z)")
_EVERYWHERE: Final = ("0.0.0.0", "::")  # noqa: S104 - what is listened at, by whomever


class Level(Enum):
    """How bad it is: `failed` stops the agent, `warning` costs a part of its work."""

    OK = "ok"
    WARNING = "warning"
    FAILED = "failed"


@dataclass(frozen=True, slots=True)
class Finding:
    """One check: what was looked at, what was found, and what to do when it is not well."""

    check: str
    level: Level
    found: str
    todo: str = ""


def version(text: str) -> tuple[int, ...]:
    """The first dotted number in a text, `(4, 3, 1)` in `podman version 4.3.1`; empty when there is none."""
    for word in text.replace("v", " ").replace("-", " ").split():
        if _NUMBER.match(word):
            return tuple(int(part) for part in word.split(".") if _PART.fullmatch(part))
    return ()


def at_least(check: str, text: str, oldest: tuple[int, ...], todo: str, *, needed: bool) -> Finding:
    """Whether a tool is here and new enough; `text` is empty when it is not here."""
    bad = Level.FAILED if needed else Level.WARNING
    wanted = ".".join(map(str, oldest))
    if not text:
        return Finding(check, bad, "not installed", todo)
    found = version(text)
    if found < oldest:
        return Finding(check, bad, f"{text}; {wanted} or newer is needed", todo)
    return Finding(check, Level.OK, ".".join(map(str, found)))


def build_warnings(host: Host) -> tuple[str, ...]:
    """What a build on this server could reach beyond its sandbox, for its status and its log."""
    return tuple(f"{one.found}; {one.todo}" for one in builder(host) if one.check == _BUILD_NETWORK)


def builder(host: Host) -> Iterator[Finding]:
    """What can build here, and what a build could then reach."""
    if host.buildkit is not None:
        fault = host.railpack_fault
        what = f"BuildKit at {host.buildkit}" + (f"; Railpack is not used: {fault}" if fault else ", Railpack")
        todo = "install a Railpack of 0.36.1 or newer to build repositories without a Dockerfile" if fault else ""
        yield Finding("builder", Level.WARNING if fault else Level.OK, what, todo)
    elif host.buildkit_fault:
        yield Finding("builder", Level.WARNING, f"BuildKit does not answer: {host.buildkit_fault}", "start buildkitd")
    elif host.podman is not None:
        todo = "run buildkitd and install buildctl and railpack to build repositories without a Dockerfile"
        yield Finding("builder", Level.WARNING, f"{host.podman}, for Dockerfiles", todo)
    else:
        yield Finding("builder", Level.WARNING, "none", "install buildah, or start the agent with --no-builds")
    if host.shares_network:
        yield Finding(_BUILD_NETWORK, Level.WARNING, SHARED_NETWORK, SEPARATE_NETWORK)
    if host.holes and host.buildkit is None:
        found = f"{host.podman} has known ways out of a build: {', '.join(host.holes)}"
        todo = "they lead into the build's sandbox, which is why it gets no credentials of registries; install a newer one for those"
        yield Finding("builder's version", Level.WARNING, found, todo)


_BUILD_NETWORK: Final = "build network"
SHARED_NETWORK: Final = (
    "BuildKit runs steps in this server's own network: whoever may push a Dockerfile reaches what listens on loopback, the cloud's "
    "metadata service and the mesh"
)
SEPARATE_NETWORK: Final = (
    'install CNI plugins (containernetworking-plugins) and set networkMode = "cni" below [worker.oci] in buildkitd.toml, '
    "with cniConfigPath and cniBinaryPath"
)


def disk(folder: str, free_percent: float) -> Finding:
    """Whether there is room."""
    found = f"{free_percent:.0f} % of the disk of {folder} is free"
    if free_percent < LEAST_FREE_PERCENT:
        return Finding("disk", Level.WARNING, found, "make room: images and logs cannot be written on a full disk")
    return Finding("disk", Level.OK, found)


def open_files(limit: int) -> Finding:
    """How many files the agent may open: one or two for each container, and its connections."""
    if 0 <= limit < LEAST_FILES:
        return Finding(
            "open files", Level.WARNING, f"at most {limit}", f"raise LimitNOFILE= (ulimit -n) to {LEAST_FILES} or more"
        )
    return Finding("open files", Level.OK, f"at most {limit}" if limit >= 0 else "no limit")


def clock(skew_s: float | None) -> Finding:
    """How far this server's clock is from the control plane's, whose answers say its time."""
    if skew_s is None:
        return Finding(
            "clock", Level.WARNING, "not known: the control plane does not say its time", "see that NTP is on"
        )
    side = "behind" if skew_s > 0 else "ahead of"
    if abs(skew_s) > TOLERATED_SKEW_S:
        return Finding(
            "clock",
            Level.WARNING,
            f"{abs(skew_s):.0f} s {side} the control plane's",
            "set it: timedatectl set-ntp true",
        )
    return Finding("clock", Level.OK, f"within {max(1, round(abs(skew_s)))} s of the control plane's")


@dataclass(frozen=True, slots=True)
class Port:
    """An address and port that the agent's components need; `owner` is the program that may hold it, `transport` tcp or udp."""

    transport: str
    address: str
    port: int
    owner: str


@dataclass(frozen=True, slots=True)
class Socket:
    """What is listened at, and by which program; None when that is not known (the kernel's own, or another user's)."""

    transport: str
    address: str
    port: int
    program: str | None


def ports(needed: Iterable[Port], listening: Iterable[Socket]) -> list[Finding]:
    """Whether each needed port is free or held by the component that it is for; one finding for each that is not."""
    wanted, there = tuple(needed), tuple(listening)
    taken = [(one, holder) for one in wanted for holder in there if _in_the_way(one, holder)]
    if taken:
        return [
            Finding(
                f"port {one.port}/{one.transport}",
                Level.WARNING,
                f"held by {holder.program} at {holder.address}",
                f"stop it: {one.owner} needs {one.address}:{one.port}",
            )
            for one, holder in dict(taken).items()
        ]
    free = ", ".join(dict.fromkeys(f"{one.port}/{one.transport}" for one in wanted))
    return [Finding("ports", Level.OK, f"{free} are free or held by the agent's components")] if wanted else []


def _in_the_way(one: Port, holder: Socket) -> bool:
    if (holder.transport, holder.port) != (one.transport, one.port) or holder.program is None:
        return False
    if holder.address in _EVERYWHERE:
        # One's own listens at its own address only; where every address is meant, that is what the component does too.
        return holder.program != one.owner or one.address not in _EVERYWHERE
    return holder.program != one.owner and (one.address in _EVERYWHERE or one.address == holder.address)


def open_ports(ports: Iterable[str]) -> Finding:
    """What must be reachable from other servers and from the internet, which nothing on this server can tell."""
    return Finding(
        "open ports", Level.OK, f"{', '.join(ports)} must be open from outside, at the provider's firewall as well"
    )


def firewalls(blocked: Iterable[Blocked] | None) -> list[Finding]:
    """Who drops what must pass, one finding each; None when the rules are not those of nftables, and cannot be judged."""
    if blocked is None:
        return [Finding("firewall", Level.OK, "not judged: iptables writes to the tables of before nftables")]
    found = [
        Finding(
            f"firewall {one.family} {one.table} {one.chain}",
            Level.WARNING,
            f"{one.by}: drops {', '.join(one.drops)}",
            f"add to it, and to its configuration: {'; '.join(one.commands)}",
        )
        for one in blocked
    ]
    return found or [Finding("firewall", Level.OK, "nothing drops what must pass")]


def caddy_admin(address: str, socket: str, mode: int | None, foreign: Iterable[str]) -> list[Finding]:
    """Where Caddy's admin API listens (`unix//path` or `host:port`), the mode of its socket's folder, and what it serves beside the agent.

    Whoever reaches the API reads every file that Caddy may read. `socket` is where it belongs.
    """
    if not address.startswith("unix/"):
        what = f"its admin API listens at {address}, where every program of this server reaches it"
        findings = [Finding("caddy admin", Level.WARNING, what, f"in its Caddyfile's global options: admin {socket}")]
    elif mode is not None and mode & 0o077:
        path, own = (one.removeprefix("unix/").rpartition("/")[0] for one in (address, socket))
        todo = f"chmod 700 {path}" if path == own else f"give the socket a folder of its own: {socket}"
        findings = [Finding("caddy admin", Level.WARNING, f"{path} has mode {mode:04o}", todo)]
    else:
        findings = [Finding("caddy admin", Level.OK, address)]
    others = tuple(foreign)
    if others:
        todo = "they stay; is one not yours, take it away by the admin API"
        findings.append(Finding("caddy routes", Level.WARNING, f"not the agent's: {'; '.join(others)}", todo))
    return findings


def private(path: str, mode: int | None, wanted: int) -> Finding:
    """Whether a folder or file is closed to everybody else; None when it is not there yet."""
    check = f"mode of {path}"
    if mode is None:
        return Finding(check, Level.OK, "not there yet")
    if mode & 0o077:
        return Finding(check, Level.FAILED, f"{mode:04o}", f"chmod {wanted:o} {path}: it holds keys")
    return Finding(check, Level.OK, f"{mode:04o}")


def parts(failing: Iterable[Mapping[str, Json]]) -> list[Finding]:
    """What the running agent says of its parts; `failing` as its status has it."""
    found = [
        Finding(
            "agent",
            Level.WARNING,
            f"{' '.join(str(one[name]) for name in ('part', 'about') if one.get(name))} fails: {one.get('reason')}",
            "this is a fault of the agent: its log has the trace; everything else goes on",
        )
        for one in failing
    ]
    return found or [Finding("agent", Level.OK, "runs, and all of its parts work")]


def can_work(findings: Iterable[Finding]) -> bool:
    """Whether nothing that is needed is missing."""
    return all(one.level is not Level.FAILED for one in findings)


def document(findings: Iterable[Finding]) -> dict[str, Json]:
    """The object that `agent doctor --output json` prints."""
    found = tuple(findings)
    rows: list[Json] = [
        {"check": one.check, "level": one.level.value, "found": one.found, "todo": one.todo} for one in found
    ]
    return {"version": 1, "ok": can_work(found), "checks": rows}


def lines(findings: Iterable[Finding]) -> list[str]:
    """The same for a person: one line each, and what to do under those that are not well."""
    found = tuple(findings)
    width = max((len(one.check) for one in found), default=0)
    shown = []
    for one in found:
        shown.append(f"{one.level.value:<8}{one.check:<{width}}  {one.found}")
        if one.todo:
            shown.append(f"{'':<8}{'':<{width}}  → {one.todo}")
    return [escape(line) for line in shown]
