"""`core.podman_processes`: what Podman says of a container's processes."""

import json
from typing import Any

import pytest

from core.podman_processes import Inspection, interface_with, parse_inspection, parse_session

_CONTAINER: dict[str, Any] = {
    "Id": "c1",
    "Name": "web",
    "State": {"Status": "running", "Pid": 102, "ConmonPid": 91},
    "PidFile": "/run/c1/pidfile",
    "ExecIDs": ["s1"],
    "Config": {"StopTimeout": 10, "Healthcheck": {"Test": ["CMD-SHELL", "true"]}},
    "NetworkSettings": {"Networks": {"techulus": {"IPAddress": ""}}},
}


def inspection(**changes: Any) -> Inspection:
    """The parsed container with these changes."""
    return parse_inspection(json.dumps(_CONTAINER | changes).encode()).unwrap()


def test_a_container() -> None:
    """Everything that is asked of it."""
    assert inspection() == Inspection(
        "c1", "web", "running", 102, 91, "/run/c1/pidfile", 10.0, ("s1",), ("sh", "-c", "true"), ("techulus",)
    )


def test_one_without_anything() -> None:
    """As one that never ran: what is missing is nothing."""
    bare = inspection(State={"Status": "created"}, PidFile="", ExecIDs=None, Config={}, NetworkSettings={})
    assert bare == Inspection("c1", "web", "created", 0, 0, "", 0.0, (), None, ())


@pytest.mark.parametrize(
    ("test", "command"),
    [
        (["CMD", "/bin/check", "-x"], ("check", "-x")),
        (["CMD-SHELL", "a", "b"], ("sh", "-c", "a b")),
        (["NONE"], None),
        (["CMD"], None),
        ([], None),
        (None, None),
    ],
)
def test_a_check(test: list[str] | None, command: tuple[str, ...] | None) -> None:
    """As Podman runs it."""
    assert inspection(Config={"Healthcheck": {"Test": test}}).check == command


def test_a_command() -> None:
    """With the program's name alone, as that of a check."""
    raw = b'{"ID": "s1", "ProcessConfig": {"entrypoint": "/bin/sh", "arguments": ["-c", "true"]}}'
    assert parse_session(raw).unwrap() == inspection().check


@pytest.mark.parametrize("raw", [b"", b"[]", b"{", b'{"Id": 1}'])
def test_what_makes_no_sense(raw: bytes) -> None:
    """Is said."""
    assert "makes no sense" in parse_inspection(raw).failure()
    assert raw == b'{"Id": 1}' or "makes no sense" in parse_session(raw).failure()


def test_the_interface_with_an_address() -> None:
    """The whole address, not a part of it."""
    said = (
        "1: lo    inet 127.0.0.1/8 scope host lo\n2: eth0    inet 10.200.3.55/24 brd 10.200.3.255 scope global eth0\n"
    )
    assert interface_with(said, "10.200.3.55") == "eth0"
    assert interface_with(said, "10.200.3.5") is None
    assert interface_with("", "10.200.3.5") is None
