"""Our rules, by the command `iptables`, as Podman sets its own: in chains of ours, so that nothing else is ever taken away."""

import os
import shutil
import signal
import subprocess
from collections.abc import Iterator, Mapping
from contextlib import suppress
from typing import Final

from core.firewall import FORWARD_CHAIN, INPUT_CHAIN, Server
from shell import children
from shell.failure import AdapterError

COMPONENT: Final = "firewall"
_LIMIT_S: Final = 5.0
_MESH: Final = "10.100.0.0/16"
_CONTAINERS: Final = "10.200.0.0/16"
_PURPOSES: Final = {FORWARD_CHAIN: "mesh reach the containers", INPUT_CHAIN: "containers ask for names"}


def chains(server: Server) -> dict[str, tuple[str, tuple[tuple[str, ...], ...]]]:
    """By the chain that each of ours hangs in: its name and its rules. Only of what is managed here."""
    found = {}
    if server.interface is not None:
        found["FORWARD"] = (FORWARD_CHAIN, tuple(_forward_rules(server.interface, server.network)))
    if server.names:
        found["INPUT"] = (INPUT_CHAIN, tuple(_name_rules(server)))
    return found


def is_legacy() -> bool:
    """Whether the command writes to the tables of before nftables; False where it is not installed. Raises AdapterError."""
    return shutil.which("iptables") is not None and "legacy" in run(("iptables", "-V"), _LIMIT_S)[1]


def fault(server: Server) -> str | None:
    """Which of our rules is missing, None when all are there. Starts a process for each. Raises AdapterError."""
    for parent, (chain, rules) in chains(server).items():
        wanted = ((parent, "-j", chain), *((chain, *rule) for rule in rules))
        if not all(_iptables("-C", *rule, quiet=True) for rule in wanted):
            return f"a firewall manager has removed a rule that lets the {_PURPOSES[chain]}"
    return None


def allow(server: Server) -> None:
    """Set our rules; those that are there stay. Raises AdapterError."""
    for parent, (chain, rules) in chains(server).items():
        _iptables("-N", chain, quiet=True)
        for rule in rules:
            if not _iptables("-C", chain, *rule, quiet=True):
                _iptables("-A", chain, *rule)
        if not _iptables("-C", parent, "-j", chain, quiet=True):
            _iptables("-I", parent, "1", "-j", chain)


def withdraw(server: Server) -> None:
    """Take our chains away; fine when there are none. Raises AdapterError."""
    for parent, (chain, _) in chains(server).items():
        _iptables("-D", parent, "-j", chain, quiet=True)
        _iptables("-F", chain, quiet=True)
        _iptables("-X", chain, quiet=True)


def _forward_rules(interface: str, network: str) -> Iterator[tuple[str, ...]]:
    """One network each: a rule that was given with a list of them is kept as several, and not found again by its list."""
    for far in (_MESH, _CONTAINERS):
        yield ("-i", interface, "-s", far, "-d", network, "-j", "ACCEPT")
        yield ("-o", interface, "-s", network, "-d", far, "-j", "ACCEPT")


def _name_rules(server: Server) -> Iterator[tuple[str, ...]]:
    """The containers ask this server for names, also where its firewall lets nothing in."""
    for protocol in ("udp", "tcp"):
        yield ("-s", server.network, "-d", server.gateway, "-p", protocol, "--dport", "53", "-j", "ACCEPT")


def _iptables(*arguments: str, quiet: bool = False) -> bool:
    """Whether iptables succeeded. Raises AdapterError when it must and does not."""
    status, said = run(("iptables", "-w", "2", *arguments), _LIMIT_S)
    if status != 0 and not quiet:
        raise AdapterError(COMPONENT, f"run iptables {' '.join(arguments)}", said, "tried again")
    return status == 0


def run(argv: tuple[str, ...], limit_s: float, added: Mapping[str, str] | None = None) -> tuple[int, str]:
    """Exit status and words of a command; its group is killed when its time is over. Raises AdapterError when it does not run or end."""
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
    return child.returncode, " ".join(said.decode(errors="replace").split())[:300]
