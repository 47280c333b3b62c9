"""What the tests of commands share."""

import socket
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.shell.commands.planning import Planning


@pytest.fixture
def nothing_is_contacted(monkeypatch: pytest.MonkeyPatch) -> Iterator[None]:
    """With both documents given, no socket is opened."""

    def refuse(*_: object, **__: object) -> None:
        raise AssertionError("something was contacted")

    with monkeypatch.context() as patched:
        patched.setattr(socket.socket, "connect", refuse)
        patched.setattr(socket.socket, "connect_ex", refuse)
        patched.setattr(socket.socket, "bind", refuse)
        yield


@pytest.fixture
def plan(tmp_path: Path, nothing_is_contacted: None) -> Planning:
    """`agent plan` with two documents."""
    return Planning(tmp_path)
