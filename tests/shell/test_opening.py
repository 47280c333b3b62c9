"""From options to a node: what is wrong is named by its option, and what was registered counts."""

import json
from pathlib import Path
from typing import Any

import anyio
import pytest
from structlog.testing import capture_logs

from core.protocol import RegistrationRequest
from shell import identity
from shell.failure import CommandError
from shell.opening import registered, registered_now
from shell.option_checks import checked

URL = "https://plane.test"
ANSWER = {"serverId": "s", "subnetId": 3, "wireguardIp": "10.100.3.1", "peers": []}


async def answering(_: RegistrationRequest) -> bytes:
    """A control plane that takes everything."""
    return json.dumps(ANSWER).encode()


def made(folder: Path, is_proxy: bool = False) -> None:
    """A registered data directory."""
    anyio.run(identity.register, folder, URL, "t", is_proxy, answering)


def opened(**given: Any) -> list[str]:
    """Open a node, close it, and give what was said meanwhile."""
    with capture_logs() as said:
        node = registered(checked(given))
    anyio.run(node.aclose)
    return [one["event"] for one in said]


@pytest.mark.parametrize(
    ("given", "flag"),
    [
        ({"container_log_mib": 0}, "--container-log-mib: "),
        ({"public_ip": "127.0.0.1"}, "--public-ip: "),
        ({"public_ip": "not an address"}, "--public-ip: "),
        ({"unmanaged": ["podman"]}, "--unmanaged: "),
        ({"network": "a b"}, "--network: "),
    ],
)
def test_a_bad_option_is_named(given: dict[str, object], flag: str) -> None:
    """As it is written on the command line. L33: a server's address must be one that others can reach."""
    with pytest.raises(CommandError, match=f"^{flag}"):
        checked(given)


def test_a_server_that_is_not_registered(tmp_path: Path) -> None:
    """What to do first; nothing is made by looking."""
    with pytest.raises(CommandError, match=r"run `agent run --url URL` with TECHULUS_TOKEN first"):
        registered(checked({"data_dir": tmp_path / "none"}))
    assert list(tmp_path.iterdir()) == []


def test_a_registered_server_needs_no_address(tmp_path: Path) -> None:
    """Everything is known."""
    made(tmp_path)
    assert opened(data_dir=tmp_path) == []


@pytest.mark.parametrize(
    ("given", "said"),
    [
        ({"url": f"{URL}/"}, []),
        ({"url": "https://other.test"}, ["control plane differs from the registered one"]),
        ({"proxy": True}, ["--proxy differs from the registration"]),
    ],
)
def test_what_differs_from_the_registration_is_said(tmp_path: Path, given: dict[str, Any], said: list[str]) -> None:
    """And does not stop the agent."""
    made(tmp_path)
    assert opened(data_dir=tmp_path, **given) == said


def test_an_address_in_the_clear_is_refused_for_a_registered_server_too(tmp_path: Path) -> None:
    """L39: the key of all secrets does not come again, but environments do."""
    made(tmp_path)
    with pytest.raises(CommandError, match="--allow-http"):
        registered(checked({"data_dir": tmp_path, "url": "http://192.0.2.1"}))


def test_a_folder_that_cannot_be_one(tmp_path: Path) -> None:
    """One line, not a traceback."""
    (tmp_path / "file").write_bytes(b"")
    options = checked({"data_dir": tmp_path / "file", "url": URL})
    with pytest.raises(CommandError, match="cannot be used as a folder"):
        anyio.run(registered_now, options, "t")
