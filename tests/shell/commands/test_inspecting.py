"""`agent status`, `agent pause` and `agent resume` without a running agent, and with one that answers oddly."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from shell.pausing import NAME as PAUSE_FILE
from shell.status_socket import NAME as SOCKET
from tests.shell.command_line import agent


@contextmanager
def answering(folder: Path, raw: bytes) -> Iterator[None]:
    """An agent that says this once."""
    with socket.socket(socket.AF_UNIX) as listener:
        listener.bind(str(folder / SOCKET))
        listener.listen()

        def serve() -> None:
            caller, _ = listener.accept()
            with caller:
                caller.sendall(raw)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join(5)


def test_no_agent_runs(tmp_path: Path) -> None:
    """Said plainly, with an exit status of its own; also whether it would be paused."""
    done = agent("status", "--data-dir", tmp_path)
    assert (done.status, done.out) == (3, f"no agent runs on {tmp_path}\n")
    assert agent("pause", "--data-dir", tmp_path, "--for", "1h", "--reason", "disk").status == 0
    done = agent("status", "--data-dir", tmp_path, "--output", "json")
    assert done.status == 3
    document = json.loads(done.out)
    assert document["running"] is False
    assert document["paused"]["reason"] == "disk"
    assert "PAUSED" in agent("status", "--data-dir", tmp_path).out


def test_pausing_and_resuming(tmp_path: Path) -> None:
    """What is in force is said; twice is no error; resuming what is not paused is none either."""
    assert "until `agent resume`" in agent("pause", "--data-dir", tmp_path).out
    assert " UTC" in agent("pause", "--data-dir", tmp_path, "--for", "90s").out
    assert (tmp_path / PAUSE_FILE).exists()
    assert agent("resume", "--data-dir", tmp_path).out.startswith("resumed")
    assert agent("resume", "--data-dir", tmp_path).out == "the agent was not paused\n"
    assert not (tmp_path / PAUSE_FILE).exists()


@pytest.mark.parametrize(
    ("arguments", "why"),
    [
        (("--for", "soon"), "--for: 'soon' is not a duration"),
        (("--for", "0s"), "--for: '0s' is not between"),
        (("--reason", "x" * 501), "--reason: one line of at most 500 characters"),
        (("--reason", "a\nb"), "--reason: one line"),
    ],
)
def test_a_pause_that_makes_no_sense(tmp_path: Path, arguments: tuple[str, ...], why: str) -> None:
    """Nothing is paused by it."""
    assert agent("pause", "--data-dir", tmp_path, *arguments).why.startswith(why)
    assert not (tmp_path / PAUSE_FILE).exists()


def test_a_pause_written_by_hand_in_milliseconds(tmp_path: Path) -> None:
    """It pauses, and the person reads how to end it."""
    (tmp_path / PAUSE_FILE).write_text('{"since_s": 1767500000000, "reason": "disk"}')
    assert "makes no sense; `agent resume` removes it" in agent("status", "--data-dir", tmp_path).out
    assert agent("resume", "--data-dir", tmp_path).out.startswith("resumed")


def test_a_folder_that_is_not_there(tmp_path: Path) -> None:
    """A mistyped data directory is not paused in silence."""
    for command in ("pause", "resume"):
        assert "is --data-dir the agent's?" in agent(command, "--data-dir", tmp_path / "typo").why


@pytest.mark.parametrize("raw", [b"", b"{", b'{"running": tr', b"[]"])
def test_an_agent_that_ends_while_it_answers(tmp_path: Path, raw: bytes) -> None:
    """An error on one line, not half a status."""
    with answering(tmp_path, raw):
        assert "ended while it was asked" in agent("status", "--data-dir", tmp_path).why


@pytest.mark.parametrize(
    "raw",
    [b'{"running": true}', b'{"running": true, "containers": [{}], "drift": [{}], "retries": [{}], "rejected": [{}]}'],
)
def test_an_agent_of_another_version(tmp_path: Path, raw: bytes) -> None:
    """What it does not say is left out."""
    with answering(tmp_path, raw):
        done = agent("status", "--data-dir", tmp_path)
    assert done.status == 0
    assert done.out.startswith("state")
