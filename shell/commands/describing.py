"""`agent man`: the manual page, from what the command line itself declares, so that it is never behind."""

import sys
from collections.abc import Iterable
from pathlib import Path
from typing import Final

import typer
from typer.core import TyperGroup

from core import manual
from core.manual import Command, Manual, Option, Section
from shell import version
from shell.cli_options import LOG_OPTIONS, NODE_OPTIONS

_DESCRIPTION: Final = (
    "Runs on a server, asks a control plane what should run there, looks at what does, and closes the gap, one safe change at a time: "
    "containers (Podman), names (dnsmasq), the tunnel between servers (WireGuard) and, on a proxy, public traffic (Caddy).",
    "As a service it is started as agent run by techulus-agent.service. Plain options without a command mean agent run.",
)
_SECTIONS: Final = (
    Section(
        "EXIT STATUS",
        (
            ("0", "Done; for a daemon, stopped when it was told to."),
            (
                "1",
                "Failed, with one line on standard error. For agent doctor: the agent could not work on this server.",
            ),
            ("2", "Wrong usage. For agent plan with --detailed-exitcode: there is something to do."),
            ("3", "agent status: no agent runs."),
        ),
    ),
    Section(
        "SIGNALS",
        (
            ("SIGTERM, SIGINT", "Stop within ten seconds. Containers, tunnel, DNS and Caddy go on."),
            ("SIGHUP", "Read the log level again from the file that TECHULUS_ENV_FILE names."),
        ),
    ),
    Section(
        "FILES",
        (
            ("/etc/techulus/agent.env", "Environment variables of the service, mode 0600."),
            ("/var/lib/techulus-agent", "Keys, identity, the last good expected state, volumes; mode 0700."),
            ("/run/techulus-agent", "What lasts until a reboot."),
        ),
    ),
)
_SEE_ALSO: Final = "podman(1), dnsmasq(8), wg(8), systemctl(1), journalctl(1)"


def print_manual(app: typer.Typer) -> None:
    """Write the page of this command line to standard output."""
    sys.stdout.write(manual.page(_manual(app)))


def _manual(app: typer.Typer) -> Manual:
    group = typer.main.get_command(app)
    assert isinstance(group, TyperGroup)
    shared = {*NODE_OPTIONS, *LOG_OPTIONS}
    commands = [group.commands[name] for name in group.commands if not group.commands[name].hidden]
    run = group.commands["run"]
    return Manual(
        program="agent",
        version=version.number(),
        summary="node agent of a self-hosted container platform",
        description=_DESCRIPTION,
        commands=tuple(
            Command(
                one.name or "",
                one.help or "",
                _options(each for each in one.params if each.name not in shared),
                any(each.name in shared for each in one.params if each.name != "data_dir"),
            )
            for one in commands
        ),
        node_options=_options(each for each in run.params if each.name in shared),
        sections=_SECTIONS,
        see_also=_SEE_ALSO,
    )


def _options(declared: Iterable[object]) -> tuple[Option, ...]:
    return tuple(_option(one) for one in declared if isinstance(one, typer.core.TyperOption) and not one.hidden)


def _option(one: typer.core.TyperOption) -> Option:
    takes = "" if one.is_flag else (one.metavar or one.name or "").upper().replace("_", "-")
    default = one.default
    plain = isinstance(default, str | int | Path) and not isinstance(default, bool)
    told = f" Default: {getattr(default, 'value', default)}." if plain and default != "" else ""
    variable = one.envvar if isinstance(one.envvar, str) else ""
    return Option(", ".join(one.opts), takes, f"{one.help or ''}{told}", variable)
