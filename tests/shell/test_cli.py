"""`agent` as a person, an installer and a script call it: commands, statuses, streams. A few run the installed command."""

import base64
import json
import os
import subprocess
import sys
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, HTTPServer
from pathlib import Path
from typing import Any

import pytest

from shell.commands import applying, running, serving
from shell.failure import AdapterError
from tests.builders import a_container_entry, a_peer_entry, an_actual_entry, an_expected_document, labels, nothing_there
from tests.lab.agent import AGENT
from tests.lab.ports import free_port
from tests.lab.wait import PATIENCE_S
from tests.shell.command_line import agent, daemon

COMMANDS = ("run", "apply", "plan", "control-plane")
ENV = {key: value for key, value in os.environ.items() if not key.startswith(("TECHULUS_", "PYTHON"))}


def installed(*arguments: object, **more: Any) -> subprocess.CompletedProcess[str]:
    """Run the installed command."""
    argv = [str(AGENT), *map(str, arguments)]
    streams = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE} | more
    return subprocess.run(argv, text=True, env=ENV, timeout=PATIENCE_S, check=False, **streams)


@pytest.fixture
def documents(tmp_path: Path) -> list[object]:
    """Options that name two documents whose plan is long."""
    many = [a_container_entry(deploymentId=f"d{number}", name=f"n{number}") for number in range(2000)]
    expected, actual = tmp_path / "expected.json", tmp_path / "actual.json"
    expected.write_text(json.dumps(an_expected_document(many)))
    actual.write_text(json.dumps(nothing_there()))
    return ["--expected", expected, "--actual", actual]


def test_the_installed_command_plans(documents: list[object]) -> None:
    """As a script uses it: JSON on standard output and nothing else anywhere."""
    done = installed("plan", *documents, "--output", "json", "--all", "--detailed-exitcode")
    assert (done.returncode, done.stderr) == (2, "")
    assert len(json.loads(done.stdout)["plan"]) == 2002


def test_the_installed_command_fails_on_one_line(tmp_path: Path) -> None:
    """No traceback, whatever is wrong: here standard input is closed, and there is no such file."""
    done = installed("plan", "--expected", "-", "--actual", "-", preexec_fn=lambda: os.close(0))
    assert (done.returncode, done.stdout, len(done.stderr.splitlines())) == (1, "", 1)
    done = installed("plan", "--expected", "-", preexec_fn=lambda: os.close(0))
    assert (done.returncode, done.stderr) == (1, "agent: expected state: standard input is closed\n")


@pytest.mark.parametrize("output", ["text", "json"])
def test_a_reader_that_has_gone(documents: list[object], output: str) -> None:
    """`agent plan | head -1`: it ends at once and says nothing about it."""
    reading, writing = os.pipe()
    os.close(reading)
    try:
        done = installed("plan", *documents, "--output", output, "--all", stdout=writing)
    finally:
        os.close(writing)
    assert (done.returncode, done.stderr) == (1, "")


@pytest.mark.skipif(not Path("/dev/full").exists(), reason="no device that is always full")
@pytest.mark.parametrize("lines", [1, 2000])
def test_an_answer_that_cannot_be_written(documents: list[object], lines: int) -> None:
    """A full disk is an error on one line, also when the answer is so short that it fails at the very end."""
    with Path("/dev/full").open("w") as full:
        done = installed("plan", *documents, *(["--all"] if lines > 1 else []), stdout=full)
    assert (done.returncode, done.stderr.count("\n")) == (1, 1)
    assert "No space left" in done.stderr


def test_a_name_that_the_locale_cannot_spell(tmp_path: Path) -> None:
    """The answer is whole, and its status is the usual one."""
    expected, actual = tmp_path / "expected.json", tmp_path / "actual.json"
    expected.write_text(json.dumps(an_expected_document([], [], [], [])))
    actual.write_text(
        json.dumps(nothing_there() | {"containers": [an_actual_entry(name="\u4f8b", labels=labels("x"))]})
    )
    argv = [str(AGENT), "plan", "--expected", str(expected), "--actual", str(actual), "--all", "--detailed-exitcode"]
    env = ENV | {"PYTHONIOENCODING": "ascii"}
    done = subprocess.run(argv, capture_output=True, text=True, env=env, timeout=PATIENCE_S, check=False)
    assert (done.returncode, "Traceback" in done.stderr) == (2, False)
    assert "\\u4f8b" in done.stdout


@pytest.mark.parametrize("arguments", [("--help",), ("-h",), *((one, "--help") for one in COMMANDS)], ids=" ".join)
def test_help(arguments: tuple[str, ...]) -> None:
    """Status 0, on standard output; the first one names every command."""
    done = agent(*arguments)
    assert (done.status, done.err) == (0, "")
    assert "Usage: agent" in done.out
    assert len(arguments) > 1 or all(one in done.out for one in COMMANDS)


def test_the_version() -> None:
    """Status 0, one line."""
    done = agent("--version")
    assert (done.status, done.err) == (0, "")
    assert done.out.startswith("agent ") and done.out.count("\n") == 1


def test_help_is_instant() -> None:
    """No command's libraries are loaded to tell what there is."""
    heavy = ("httpx", "podman", "pydantic", "cryptography", "starlette", "anyio")
    code = f"import sys, shell.cli; print([one for one in {heavy!r} if one in sys.modules])"
    done = subprocess.run([sys.executable, "-c", code], capture_output=True, text=True, timeout=PATIENCE_S, check=True)
    assert done.stdout.strip() == "[]"


@pytest.mark.parametrize(
    "arguments",
    [
        ("nonsense",),
        ("run", "--bogus"),
        ("--bogus",),
        ("run", "stray"),
        ("apply", "--log-level", "loud"),
        ("control-plane",),
    ],
    ids=" ".join,
)
def test_a_wrong_command_line(arguments: tuple[str, ...]) -> None:
    """Status 2, said on one line of standard error."""
    done = agent(*arguments)
    assert (done.status, done.out) == (2, "")
    assert done.err.startswith("agent: ")
    assert done.err.count("\n") == 1


@pytest.mark.parametrize(
    "arguments",
    [
        ("--url", "https://plane.example.org", "--proxy"),
        ("run", "--url", "https://plane.example.org", "--proxy"),
    ],
    ids=["options alone", "run"],
)
def test_plain_options_mean_run(monkeypatch: pytest.MonkeyPatch, arguments: tuple[str, ...]) -> None:
    """As installers and the unit file call it; the token comes from the environment."""
    heard: list[tuple[dict[str, Any], str | None]] = []
    monkeypatch.setattr(running, "run_agent", lambda node, token, _: heard.append((node, token)))
    assert agent(*arguments, env={"TECHULUS_TOKEN": "t0ken"}).status == 0
    ((node, token),) = heard
    assert (node["url"], node["proxy"], token) == ("https://plane.example.org", True, "t0ken")


def test_the_control_planes_options(monkeypatch: pytest.MonkeyPatch) -> None:
    """As flags and as variables."""
    heard: list[tuple[Any, ...]] = []
    monkeypatch.setattr(serving, "serve_control_plane", lambda *given: heard.append(given))
    assert agent("control-plane", "--state", "/srv", "--new-token", "web", "--subnet", "7").status == 0
    env = {"TECHULUS_STATE": "/srv", "TECHULUS_LISTEN": "127.0.0.1:9"}
    assert agent("control-plane", env=env).status == 0
    assert heard == [
        (Path("/srv"), "127.0.0.1:8000", "web", 7),
        (Path("/srv"), "127.0.0.1:9", None, None),
    ]


@pytest.mark.parametrize("listen", ["nowhere", "127.0.0.1", "127.0.0.1:http", "127.0.0.1:0", "127.0.0.1:70000"])
def test_an_address_that_cannot_be_served(tmp_path: Path, listen: str) -> None:
    """One line that names it."""
    assert f"--listen {listen} " in agent("control-plane", "--state", tmp_path, "--listen", listen).why


@pytest.mark.parametrize("command", [("plan",), ("apply",), ("plan", "--output", "json")], ids=" ".join)
def test_without_an_identity(tmp_path: Path, command: tuple[str, ...]) -> None:
    """It says what to do; nothing is made."""
    data_dir = tmp_path / "data"
    why = agent(*command, "--data-dir", data_dir).why
    assert str(data_dir) in why and "agent run" in why and "TECHULUS_TOKEN" in why
    assert not data_dir.exists()


@pytest.mark.parametrize("given", ["--expected", "--actual"])
def test_one_document_without_an_identity(tmp_path: Path, given: str) -> None:
    """The other one would have to come from somewhere."""
    file = tmp_path / "document.json"
    file.write_text(json.dumps(nothing_there()))
    assert "no registered identity" in agent("plan", given, file, "--data-dir", tmp_path / "data").why


@pytest.mark.parametrize(
    ("url", "more", "refusal"),
    [
        ("http://plane.example.org", (), "in the clear"),
        ("https://user:secret@plane.example.org", (), "no user"),
        ("http://127.0.0.1:1", (), "registration token"),
        ("http://plane.example.org", ("--allow-http",), "registration token"),
    ],
)
def test_addresses_of_a_control_plane(tmp_path: Path, url: str, more: tuple[str, ...], refusal: str) -> None:
    """L39: plain HTTP only on this machine or when allowed by name. What is accepted gets as far as wanting a token.

    Which addresses are: `test_control_plane_address.py`.
    """
    why = daemon("run", "--data-dir", tmp_path / "data", "--url", url, *more).why
    assert refusal in why
    assert "secret@" not in why


def test_a_run_without_an_address(tmp_path: Path) -> None:
    """It says which option is missing."""
    assert "--url" in daemon("run", "--data-dir", tmp_path / "data").why


def test_a_data_directory_that_cannot_be_made(tmp_path: Path) -> None:
    """A file is in the way: one line that names it."""
    file = tmp_path / "data"
    file.write_text("")
    why = daemon("run", "--data-dir", file, "--url", "https://plane.example.org").why
    assert str(file) in why and "File exists" in why


def test_a_value_that_makes_no_sense(tmp_path: Path) -> None:
    """Checked before anything is made."""
    done = daemon("run", "--data-dir", tmp_path / "data", "--unmanaged", "podman")
    assert done.why.startswith("--unmanaged: ")
    assert not (tmp_path / "data").exists()


def test_a_failure_is_one_line(monkeypatch: pytest.MonkeyPatch) -> None:
    """Whatever a component has to say."""

    def fail(_: object) -> None:
        raise AdapterError("podman", "list containers", "first\nsecond")

    monkeypatch.setattr(applying, "apply_once", fail)
    assert agent("apply").why == "podman: could not list containers: first second"


class _Plane(BaseHTTPRequestHandler):
    """Answers every GET with one document."""

    document = b""

    def do_GET(self) -> None:
        self.send_response(200)
        self.send_header("content-type", "application/json")
        self.send_header("content-length", str(len(self.document)))
        self.end_headers()
        self.wfile.write(self.document)

    def log_message(self, format: str, *args: object) -> None:
        """Say nothing."""


@pytest.fixture
def plane() -> Iterator[str]:
    """The URL of a control plane that expects one container, one record and one route."""
    handler = type("Plane", (_Plane,), {"document": json.dumps(an_expected_document(peers=[])).encode()})
    with HTTPServer(("127.0.0.1", 0), handler) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
        thread.start()
        yield f"http://127.0.0.1:{server.server_port}"
        server.shutdown()
        thread.join()


def registered(data_dir: Path, url: str, *, is_proxy: bool) -> Path:
    """A data directory as registration leaves it."""
    data_dir.mkdir()
    key = base64.b64encode(bytes(range(32))).decode()
    (data_dir / "signing.key").write_text(key)
    (data_dir / "wireguard.key").write_text(key)
    answer = {
        "serverId": "server",
        "subnetId": 3,
        "wireguardIp": "10.100.3.1",
        "encryptionKey": "00" * 32,
        "peers": [],
    }
    config = {"version": 1, "isProxy": is_proxy, "url": url, "registration": answer}
    (data_dir / "config.json").write_text(json.dumps(config))
    return data_dir


@pytest.mark.parametrize("is_proxy", [True, False], ids=["proxy", "worker"])
def test_a_plan_with_the_expected_state_fetched(tmp_path: Path, plane: str, is_proxy: bool) -> None:
    """The node type is the registered one unless told otherwise; the given document counts, but for what is left alone here."""
    actual = tmp_path / "actual.json"
    actual.write_text(json.dumps(nothing_there() | {"wireguard": {"peers": [a_peer_entry()]}}))
    data_dir = registered(tmp_path / "data", plane, is_proxy=is_proxy)
    common = (
        "plan",
        "--data-dir",
        data_dir,
        "--actual",
        actual,
        "--output",
        "json",
        "--all",
        "--unmanaged",
        "wireguard",
    )
    switch = ("--proxy",) if is_proxy else ()
    answer = json.loads(agent(*common, *switch).out)
    assert answer["nodeType"] == ("proxy" if is_proxy else "worker")
    kinds = [one["kind"] for one in answer["plan"]]
    assert kinds == ["deploy", "update_dns", "update_caddy"][: 3 if is_proxy else 2]
    assert json.loads(agent(*common, *switch, "--node-type", "worker").out)["nodeType"] == "worker"


def test_a_plan_when_the_control_plane_is_away(tmp_path: Path) -> None:
    """One line: who did not answer."""
    actual = tmp_path / "actual.json"
    actual.write_text(json.dumps(nothing_there()))
    url = f"http://127.0.0.1:{free_port('127.0.0.1')}"
    data_dir = registered(tmp_path / "data", url, is_proxy=False)
    why = agent("plan", "--data-dir", data_dir, "--actual", actual).why
    assert why.startswith("control plane: could not fetch the expected state: 127.0.0.1")


def test_a_plan_when_this_server_cannot_be_seen(tmp_path: Path, plane: str) -> None:
    """L3: no Podman is an error, never an empty server."""
    data_dir = registered(tmp_path / "data", plane, is_proxy=False)
    unmanaged = [part for name in ("dns", "caddy", "wireguard") for part in ("--unmanaged", name)]
    why = agent("plan", "--data-dir", data_dir, "--podman-socket", tmp_path / "none.sock", *unmanaged).why
    assert why.startswith("podman: could not list containers: ")


def test_no_word_at_all_shows_the_help() -> None:
    """As help it is written, and as wrong usage it ends."""
    done = agent()
    assert (done.status, done.err) == (2, "")
    assert done.out == agent("--help").out
