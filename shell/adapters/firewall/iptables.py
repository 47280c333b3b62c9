"""Our rules, by the command `iptables`, as Podman sets its own: in chains of ours, so that nothing else is ever taken away."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from dataclasses import dataclass
from typing import Final, TypeAlias

from core.firewall import FORWARD_CHAIN, INPUT_CHAIN, OWN_CHAINS, PREROUTING_CHAIN, Server
from shell import children
from shell.adapters.firewall import links
from shell.failure import AdapterError

COMPONENT: Final = "firewall"
_LIMIT_S: Final = 5.0
_MESH: Final = "10.100.0.0/16"
_CONTAINERS: Final = "10.200.0.0/16"
_MOST_STALE: Final = 100  # rules of a chain that one turn replaces, a process each; the next turn goes on
_LONGEST_LISTING: Final = 100_000  # characters of a chain's rules

Words: TypeAlias = tuple[str, ...]


@dataclass(frozen=True, slots=True)
class OwnChain:
    """A chain of ours: what its rules do, the rules, and what a packet must be to enter it. The order of the rules does not matter.

    The jump into it stands in front of the rules that are there already, or, where others overrule it, behind them.
    """

    name: str
    purpose: str
    rules: tuple[Words, ...]
    entry: Words = ()
    is_overruled: bool = False

    @property
    def table(self) -> Words:
        """The option that names its table."""
        return ("-t", OWN_CHAINS[self.name][0])

    @property
    def jump(self) -> Words:
        """The rule that leads into it, after the name of the chain that it stands in."""
        return (*self.entry, "-j", self.name)

    @property
    def parent(self) -> str:
        """The chain that the jump stands in."""
        return OWN_CHAINS[self.name][1]


def chains(server: Server) -> tuple[OwnChain, ...]:
    """Our chains, of what is managed here.

    Without the guard where the tunnel is another's and no link has the name that was told: what comes through it would be dropped.
    """
    found = []
    if server.interface is not None:
        rules = tuple(_forward_rules(server.interface, server.network))
        found.append(OwnChain(FORWARD_CHAIN, "lets the mesh reach the containers", rules))
    if server.names:
        found.append(OwnChain(INPUT_CHAIN, "lets the containers ask for names", tuple(_name_rules(server))))
    # Only drops, so that an accept in front of it is the word of this server's owner: it counts, also after a boot or a flush.
    if not lacks_tunnel(server):
        guard, purpose = tuple(_guard_rules(server)), "keeps neighbours from the containers"
        found.append(OwnChain(PREROUTING_CHAIN, purpose, guard, ("!", "-i", "lo"), is_overruled=True))
    return tuple(found)


def lacks_tunnel(server: Server) -> bool:
    """Whether the tunnel is somebody else's and no link has its name."""
    return server.unmanaged_tunnel is not None and server.unmanaged_tunnel not in links.indexes()


def is_legacy() -> bool:
    """Whether the command writes to the tables of before nftables; False where it is not installed. Raises AdapterError."""
    return shutil.which("iptables") is not None and "legacy" in run(("iptables", "-V"), _LIMIT_S)[1]


def fault(server: Server) -> str | None:
    """What is wrong with our rules, None when all are there and no others. Starts a process for each. Raises AdapterError."""
    for own in chains(server):
        if not _has(own, own.parent, own.jump) or not all(_has(own, own.name, rule) for rule in own.rules):
            return f"a firewall manager has removed a rule that {own.purpose}"
        if _count(own) != len(own.rules):
            return f"somebody has added a rule to the agent's chain {own.name}"
    return None


def allow(server: Server) -> None:
    """Set our rules; chains that are right stay as they are. Raises AdapterError, when one cannot be set after all others were."""
    refused: list[AdapterError] = []
    for own in chains(server):
        _iptables(*own.table, "-N", own.name, quiet=True)
        if not _has(own, own.parent, own.jump):  # first: where a rule cannot be set, the others hold
            _iptables(*own.table, "-A" if own.is_overruled else "-I", own.parent, *own.jump)
        refused += _fill(own)
    if refused:
        raise refused[0]


def withdraw(server: Server) -> None:
    """Take our chains away; fine when there are none. Raises AdapterError."""
    for own in chains(server):
        _iptables(*own.table, "-D", own.parent, *own.jump, quiet=True)
        _iptables(*own.table, "-F", own.name, quiet=True)
        _iptables(*own.table, "-X", own.name, quiet=True)


def _fill(own: OwnChain) -> list[AdapterError]:
    """Give a chain its rules: what is missing is appended; when there are others as well, all are written anew.

    Returns why rules cannot be set: a kernel may lack a match. The chain does not grow when that lasts.
    """
    missing = [rule for rule in own.rules if not _has(own, own.name, rule)]
    stale = _count(own)
    has_others = stale > len(own.rules) - len(missing)
    refused = []
    for rule in own.rules if has_others else missing:
        try:
            _iptables(*own.table, "-A", own.name, *rule)
        except AdapterError as error:
            if rule not in missing:  # it is among the stale ones, which therefore stay for now
                raise
            refused.append(error)
    for _ in range(min(stale, _MOST_STALE) if has_others else 0):  # last, so that there is no moment without rules
        _iptables(*own.table, "-D", own.name, "1")
    return refused


def _has(own: OwnChain, chain: str, rule: Words) -> bool:
    return _iptables(*own.table, "-C", chain, *rule, quiet=True)


def _count(own: OwnChain) -> int:
    """How many rules a chain of ours has; 0 when it is not there."""
    status, said = run(("iptables", "-w", "2", *own.table, "-S", own.name), _LIMIT_S, longest=_LONGEST_LISTING)
    return said.count(f"-A {own.name} ") if status == 0 else 0


def _forward_rules(interface: str, network: str) -> Iterator[Words]:
    """One network each: a rule that was given with a list of them is kept as several, and not found again by its list."""
    for far in (_MESH, _CONTAINERS):
        yield ("-i", interface, "-s", far, "-d", network, "-j", "ACCEPT")
        yield ("-o", interface, "-s", network, "-d", far, "-j", "ACCEPT")


def _name_rules(server: Server) -> Iterator[Words]:
    """The containers ask this server for names, also where its firewall lets nothing in."""
    for protocol in ("udp", "tcp"):
        yield ("-s", server.network, "-d", server.gateway, "-p", protocol, "--dport", "53", "-j", "ACCEPT")


def _guard_rules(server: Server) -> Iterator[Words]:
    """What comes for the containers' network by neither the tunnel nor their bridge is dropped (L64), and so is what pretends to come
    from it: the rules above would let that into the mesh.

    In `mangle`, since no accept of another chain overrules a drop, and since packets for published ports still have the address there
    that they were sent to (the kernel translates at a later priority), as have answers to what was masqueraded; answers to what was not
    pass by their state.
    The bridge has no name before the first container runs: it is the link that leads to the source (`rpfilter`), when that is a container.
    """
    tunnel = server.interface or server.unmanaged_tunnel
    elsewhere = ("!", "-s", server.network, *(() if tunnel is None else ("!", "-i", tunnel)))
    unasked = ("-m", "conntrack", "!", "--ctstate", "RELATED,ESTABLISHED")
    yield (*elsewhere, "-d", server.network, *unasked, "-j", "DROP")
    if server.interface is not None:  # the agent gave it this address; another's address is not known
        yield (*elsewhere, "-d", server.mesh_address, "-j", "DROP")
    for far in (_MESH, _CONTAINERS):
        yield ("-s", server.network, "-d", far, "-m", "rpfilter", "--invert", "-j", "DROP")


def _iptables(*arguments: str, quiet: bool = False) -> bool:
    """Whether iptables succeeded. Raises AdapterError when it must and does not."""
    status, said = run(("iptables", "-w", "2", *arguments), _LIMIT_S)
    if status != 0 and not quiet:
        raise AdapterError(COMPONENT, f"run iptables {' '.join(arguments)}", said, "tried again")
    return status == 0


def run(
    argv: tuple[str, ...], limit_s: float, added: Mapping[str, str] | None = None, longest: int = 300
) -> tuple[int, str]:
    """Exit status and the first words (`longest` characters) of a command; its group is killed when its time is over. Raises AdapterError
    when it does not run or end.
    """
    what = f"run {' '.join(argv)}"
    try:
        child = subprocess.Popen(  # noqa: S603 - no shell; words of our own and a checked interface name
            argv,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            start_new_session=True,
            env=children.environment(added or {}),
        )
    except FileNotFoundError as error:
        raise AdapterError(COMPONENT, what, "it is not installed", f"install the package {argv[0]}") from error
    except OSError as error:  # no process, file or memory is free
        raise AdapterError(COMPONENT, what, error.strerror or str(error), "tried again") from error
    with child:
        try:
            said, _ = child.communicate(timeout=limit_s)
        except subprocess.TimeoutExpired as error:
            with suppress(ProcessLookupError):
                os.killpg(child.pid, signal.SIGKILL)
            raise AdapterError(COMPONENT, what, f"not done after {limit_s:.0f} s", "tried again") from error
    return child.returncode, " ".join(said.decode(errors="replace").split())[:longest]
