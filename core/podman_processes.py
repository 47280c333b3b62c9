"""What Podman says of a container's processes: the inspection's part of it, and that of a command which runs in a container.

Field names are those of the libpod API, 4.3 to 5. Process numbers are those of the PID namespace in which Podman's service runs.
"""

from dataclasses import dataclass
from typing import Final, TypeAlias

import msgspec
from returns.result import Failure, Result, Success

Command: TypeAlias = tuple[str, ...]
_SHELL: Final = ("sh", "-c")  # Podman's own words for `CMD-SHELL`


@dataclass(frozen=True, slots=True)
class Inspection:
    """A container's state in Podman's word (`running`), its process and monitor (0 when unknown), the file with the process's number.

    `stop_timeout_s` is the container's own; `sessions` are the commands that run in it beside its process, `check` is that of its health
    check. `shared_memory` is the folder that Podman mounts first in a start and unmounts after the container's end, empty when unknown.
    """

    id: str
    name: str
    state: str
    pid: int
    monitor_pid: int
    pid_file: str
    stop_timeout_s: float
    sessions: tuple[str, ...]
    check: Command | None
    networks: tuple[str, ...]
    shared_memory: str = ""


class _State(msgspec.Struct, frozen=True, rename="pascal"):
    status: str
    pid: int = 0
    conmon_pid: int = 0


class _Check(msgspec.Struct, frozen=True, rename="pascal"):
    test: list[str] | None = None


class _Config(msgspec.Struct, frozen=True, rename="pascal"):
    stop_timeout: float = 0.0
    healthcheck: _Check | None = None


class _Network(msgspec.Struct, frozen=True):
    pass


class _NetworkSettings(msgspec.Struct, frozen=True, rename="pascal"):
    networks: dict[str, _Network | None] | None = None


class _Inspected(msgspec.Struct, frozen=True, rename="pascal"):
    id: str
    name: str
    state: _State
    config: _Config = _Config()
    pid_file: str = ""
    static_dir: str = ""
    exec_ids: list[str] | None = msgspec.field(name="ExecIDs", default=None)
    network_settings: _NetworkSettings = _NetworkSettings()


class _Process(msgspec.Struct, frozen=True):
    entrypoint: str = ""
    arguments: list[str] | None = None


class _Session(msgspec.Struct, frozen=True):
    process: _Process = msgspec.field(name="ProcessConfig", default_factory=_Process)


def parse_inspection(raw: bytes) -> Result[Inspection, str]:
    """The answer of `GET /containers/<id>/json`."""
    try:
        found = msgspec.json.decode(raw, type=_Inspected)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Failure(f"Podman's answer makes no sense: {error}")
    return Success(
        Inspection(
            id=found.id,
            name=found.name,
            state=found.state.status.lower(),
            pid=found.state.pid,
            monitor_pid=found.state.conmon_pid,
            pid_file=found.pid_file,
            stop_timeout_s=found.config.stop_timeout,
            sessions=tuple(found.exec_ids or ()),
            check=_command(found.config.healthcheck),
            networks=tuple(sorted(found.network_settings.networks or ())),
            shared_memory=f"{found.static_dir}/shm" if found.static_dir else "",
        )
    )


def parse_session(raw: bytes) -> Result[Command, str]:
    """The command in the answer of `GET /exec/<id>/json`; the program without its folder, as in `Inspection.check`."""
    try:
        found = msgspec.json.decode(raw, type=_Session).process
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Failure(f"Podman's answer makes no sense: {error}")
    return Success(_named((found.entrypoint, *(found.arguments or ()))))


def interface_with(text: str, address: str) -> str | None:
    """The interface with this IPv4 address in what `ip -oneline -4 address show` says; None when none has it."""
    for line in text.splitlines():
        words = line.split()  # number, interface, "inet", address/length, …
        if len(words) > 3 and words[2] == "inet" and words[3].partition("/")[0] == address:
            return words[1]
    return None


def _command(check: _Check | None) -> Command | None:
    """What Podman runs for a health check; None when there is none."""
    match check.test if check is not None and check.test else ():
        case ["CMD-SHELL", *words]:
            return (*_SHELL, " ".join(words))
        case ["CMD", first, *words]:
            return _named((first, *words))
        case _:
            return None


def _named(command: Command) -> Command:
    """With the program's name alone: Podman shows it with the folder in which it has found it."""
    return (command[0].rpartition("/")[2], *command[1:])
