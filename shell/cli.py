"""The command line: declares the commands, imports what one needs only when it runs, and turns failures into one line and a status.

Every option can also be given as an environment variable, so that secrets need not stand on a command line.
"""

import os
import sys
from enum import StrEnum
from pathlib import Path
from typing import Annotated, Any

import typer

from shell import ending, environment_file
from shell.cli_options import LogChoices, with_node_options

app = typer.Typer(
    name="agent",
    help="Makes this server run what its control plane expects, one safe change at a time.",
    rich_markup_mode=None,  # panels around the help would take longer to load than all the rest of it
    pretty_exceptions_enable=False,
    context_settings={"help_option_names": ["-h", "--help"]},
)


class NodeTypeName(StrEnum):
    """A worker runs containers only; a proxy also runs Caddy."""

    WORKER = "worker"
    PROXY = "proxy"


class Output(StrEnum):
    """Text for a person, JSON for a script."""

    TEXT = "text"
    JSON = "json"


Token = Annotated[
    str | None,
    typer.Option(
        "--token", envvar="TECHULUS_TOKEN", help="Registration token, used once. Prefer the variable: ps shows options."
    ),
]


@app.callback(invoke_without_command=True)
def _agent(
    version: Annotated[
        bool, typer.Option("--version", help="Print the version and its commit, and exit.", is_eager=True)
    ] = False,
) -> None:
    if version:
        from shell.version import full

        typer.echo(full())
        raise typer.Exit


@app.command()
@with_node_options
def run(node: dict[str, Any], log_choices: LogChoices, token: Token = None) -> None:
    """Run the agent until told to stop. It registers if need be, then keeps this server as expected."""
    from shell.commands.running import run_agent

    run_agent(node, token, log_choices)


@app.command()
@with_node_options
def apply(node: dict[str, Any]) -> None:
    """Reconcile once, until converged. The exit status is 0 when it did."""
    from shell.commands.applying import apply_once

    apply_once(node)


@app.command()
@with_node_options
def plan(
    node: dict[str, Any],
    log_choices: LogChoices,
    expected: Annotated[
        str | None,
        typer.Option(
            "--expected",
            envvar="TECHULUS_PLAN_EXPECTED",
            metavar="FILE",
            help="Expected state; else from the control plane.",
        ),
    ] = None,
    actual: Annotated[
        str | None,
        typer.Option(
            "--actual", envvar="TECHULUS_PLAN_ACTUAL", metavar="FILE", help="Actual state; else from this server."
        ),
    ] = None,
    node_type: Annotated[
        NodeTypeName | None,
        typer.Option(
            "--node-type",
            envvar="TECHULUS_PLAN_NODE_TYPE",
            help="Default: the registered type; worker with both files.",
        ),
    ] = None,
    whole: Annotated[
        bool, typer.Option("--all", envvar="TECHULUS_PLAN_ALL", help="The whole plan, not only the next change.")
    ] = False,
    output: Annotated[
        Output, typer.Option("--output", envvar="TECHULUS_PLAN_OUTPUT", help="Text for a person or JSON for a script.")
    ] = Output.TEXT,
    detailed_exitcode: Annotated[
        bool,
        typer.Option(
            "--detailed-exitcode",
            envvar="TECHULUS_PLAN_DETAILED_EXITCODE",
            help="Exit with 2 when there is something to do.",
        ),
    ] = False,
) -> None:
    """Show what would be done, without doing it."""
    from shell.commands.planning import plan_once

    if expected is None or actual is None:  # else nothing is contacted, and nothing can be logged
        from shell.log import set_up

        set_up(*log_choices)
    converged = plan_once(
        node, expected, actual, node_type and node_type.value, whole=whole, as_json=output is Output.JSON
    )
    if detailed_exitcode and not converged:
        raise typer.Exit(2)


@app.command()
@with_node_options
def build(
    node: dict[str, Any],
    repo: Annotated[
        str, typer.Option("--repo", metavar="URL", help="Git repository; its token is TECHULUS_CLONE_TOKEN.")
    ],
    image: Annotated[str, typer.Option("--image", help="Name under which the image is pushed.")],
    ref: Annotated[str, typer.Option("--ref", help="Commit (40 hex digits), or HEAD for the branch's tip.")] = "HEAD",
    branch: Annotated[str, typer.Option("--branch", help="Branch for HEAD.")] = "main",
    dockerfile: Annotated[
        str, typer.Option("--dockerfile", help="Path of the Dockerfile in the repository.")
    ] = "Dockerfile",
    folder: Annotated[str, typer.Option("--folder", help="Folder of the repository that is built.")] = ".",
    platform: Annotated[
        str, typer.Option("--platform", help="Platform of the image, such as linux/arm64; this server's if not given.")
    ] = "",
    secret_env: Annotated[
        list[str] | None,
        typer.Option("--secret-env", metavar="NAME", help="A build secret from this environment; repeatable."),
    ] = None,
) -> None:
    """Build and push an image by hand, as the agent would."""
    from shell.commands.building import Wanted, build_by_hand

    build_by_hand(node, Wanted(repo, ref, branch, image, (dockerfile, folder, platform), secret_env or []))


@app.command()
@with_node_options
def doctor(
    node: dict[str, Any],
    output: Annotated[Output, typer.Option("--output", help="Text for a person or JSON for a script.")] = Output.TEXT,
) -> None:
    """Check everything that the agent needs on this server. The exit status is 1 when it could not work."""
    from shell.commands.examining import examine

    raise typer.Exit(examine(node, as_json=output is Output.JSON))


DataDir = Annotated[
    Path, typer.Option("--data-dir", envvar="TECHULUS_DATA_DIR", help="Folder of keys, identity and volumes.")
]
_DATA_DIR = Path("/var/lib/techulus-agent")


@app.command()
def status(
    data_dir: DataDir = _DATA_DIR,
    output: Annotated[Output, typer.Option("--output", help="Text for a person or JSON for a script.")] = Output.TEXT,
) -> None:
    """Show what the running agent is doing. The exit status is 3 when none runs."""
    from shell.commands.inspecting import show_status

    raise typer.Exit(show_status(data_dir.absolute(), as_json=output is Output.JSON))


@app.command()
def pause(
    data_dir: DataDir = _DATA_DIR,
    duration: Annotated[
        str | None,
        typer.Option("--for", metavar="TIME", help="Ends by itself after 90s, 15m, 1h30m, 2d; else by `agent resume`."),
    ] = None,
    reason: Annotated[str, typer.Option("--reason", help="Shown in the status and the log.")] = "",
) -> None:
    """Have the agent change nothing on this server. It goes on observing and reporting."""
    from shell.commands.inspecting import pause as pause_agent

    pause_agent(data_dir.absolute(), duration, reason)


@app.command()
def resume(data_dir: DataDir = _DATA_DIR) -> None:
    """End a pause."""
    from shell.commands.inspecting import resume as resume_agent

    resume_agent(data_dir.absolute())


@app.command("control-plane")
def control_plane(
    state: Annotated[Path, typer.Option("--state", envvar="TECHULUS_STATE", help="Folder of its files.")],
    listen: Annotated[
        str, typer.Option("--listen", envvar="TECHULUS_LISTEN", metavar="HOST:PORT", help="Address to serve.")
    ] = "127.0.0.1:8000",
    new_token: Annotated[
        str | None,
        typer.Option("--new-token", metavar="NAME", help="Print a registration token for a new server; exit."),
    ] = None,
    subnet: Annotated[
        int | None,
        typer.Option("--subnet", min=1, max=255, help="With --new-token: the server's subnet; else the lowest free."),
    ] = None,
) -> None:
    """Serve the embedded control plane. It is for one machine, labs and tests."""
    from shell.commands.serving import serve_control_plane

    serve_control_plane(state, listen, new_token, subnet)


@app.command(hidden=True)
def man() -> None:
    """Print the manual page, agent(1), for whoever installs it."""
    from shell.commands.describing import print_manual

    print_manual(app)


_USAGE_ERROR = 2
_OWN_FLAGS = ("-h", "--help", "--version", "--install-completion", "--show-completion")


_OURS = "TECHULUS_"
_PROXIES = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")


def main() -> None:
    """The entry point. Plain options without a command mean `run`, as installers call it."""
    arguments = sys.argv[1:]
    if _is_about_files_alone(arguments):
        for name in [name for name in os.environ if name.startswith(_OURS)]:
            del os.environ[name]
    else:
        _take_over(Path(os.environ.get(environment_file.VARIABLE, environment_file.USUAL)))
    if arguments and arguments[0].startswith("-") and arguments[0] not in _OWN_FLAGS:
        arguments = ["run", *arguments]
    if not arguments:
        _status(["--help"])
        sys.exit(_written(_USAGE_ERROR))
    sys.exit(_written(_status(arguments)))


def _is_about_files_alone(arguments: list[str]) -> bool:
    """A dry run of two files, whose answer is the same on every machine."""
    given = {one.partition("=")[0] for one in arguments}
    return arguments[:1] == ["plan"] and {"--expected", "--actual"} <= given


def _take_over(path: Path) -> None:
    """What the service on this server was told counts for commands by hand too, where the environment says nothing else."""
    try:
        told = environment_file.parse(path.read_text(encoding="utf-8"))
    except OSError:
        return  # as a rule there is none, or it is not for this user to read
    except ValueError:
        ending.told(f"{path} is passed over: it is not UTF-8")
        return
    for name, why in told.left_out.items():
        if _is_wanted(name):
            ending.told(f"{path}: {name} is passed over: {why}")
    for name, value in told.variables.items():
        if _is_wanted(name):
            os.environ[name] = value


def _is_wanted(name: str) -> bool:
    """Whether a variable of the service means something to us and the environment has none."""
    if name.upper() in _PROXIES:
        return not {name.upper(), name.lower()} & os.environ.keys()
    return name.startswith(_OURS) and name not in os.environ


def _status(arguments: list[str]) -> int:
    from shell.failure import AdapterError, CommandError

    try:
        outcome = app(arguments, prog_name="agent", standalone_mode=False)
    except typer.TyperException as error:
        return _misused(arguments, error.format_message())
    except typer.Abort:
        return 130
    except BrokenPipeError:  # the reader of our output has gone
        return 1
    except (CommandError, AdapterError, OSError) as error:
        return ending.told(ending.reason(error))
    return outcome if isinstance(outcome, int) else 0


def _misused(arguments: list[str], why: str) -> int:
    """Say what is wrong with a command line, on one line (nothing when help was shown instead); its status.

    The dry run's status 2 means that there is something to do, so its wrong usage is a plain error like any other.
    """
    known = {one.name or getattr(one.callback, "__name__", "") for one in app.registered_commands}
    command = arguments[0] if arguments and arguments[0] in known else ""
    if why:
        ending.told(f"{why} (see `{' '.join(('agent', command)).strip()} --help`)")
    return 1 if command == "plan" else _USAGE_ERROR


def _written(status: int) -> int:
    """The exit status, once all output has really been written; what could not be is not tried again by the interpreter."""
    try:
        sys.stdout.flush()
    except OSError as error:
        os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())
        return (
            1
            if status == 1 or isinstance(error, BrokenPipeError)
            else ending.told(f"standard output: {error.strerror}")
        )
    return status
