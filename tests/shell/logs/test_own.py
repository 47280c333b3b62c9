"""The agent's own log: masked at the root, tapped, and never about itself."""

import json
from collections.abc import Iterator
from typing import Any

import pytest
import structlog

from shell import log
from shell.log_choices import LogFormat, LogLevel
from shell.logs.own import OwnLog


@pytest.fixture(autouse=True)
def as_before() -> Iterator[None]:
    """Logging is one for the process."""
    yield
    log.tap(None)
    log._hidden.clear()
    structlog.reset_defaults()


def taken(own: OwnLog) -> list[dict[str, Any]]:
    """The lines that have come together."""
    raw, number = own.take()
    assert number == raw.count(b"\n")
    return [json.loads(line) for line in raw.splitlines()]


def test_events_become_lines() -> None:
    """With level, facts, increasing times; debugging and what shipping says about itself stay here."""
    own = OwnLog("65a1")
    log.set_up(LogFormat.JSON, LogLevel.DEBUG)
    log.tap(own.heard)
    log.logger().info("applied", kind="start", why="two words")
    log.logger().warning("odd")
    log.logger().error("bad", text="line\nline")
    log.logger().debug("noise")
    log.logger().warning("logs not sent", ship=False)
    found = taken(own)
    assert [(one["level"], one["_msg"]) for one in found] == [
        ("info", "applied kind=start why='two words'"),
        ("warn", "odd"),
        ("error", "bad text='line\\nline'"),
    ]
    assert {one["server_id"] for one in found} == {"65a1"}
    assert sorted(one["_time"] for one in found) == [one["_time"] for one in found]
    assert own.take() == (b"", 0)


def test_secrets_are_masked_at_the_root(capsys: pytest.CaptureFixture[str]) -> None:
    """L37: whoever writes them, wherever they go."""
    own = OwnLog("65a1")
    log.hide("hunter2-and-more", "")
    log.set_up(LogFormat.JSON)
    log.tap(own.heard)
    log.logger().info("said hunter2-and-more", why="token hunter2-and-more!")
    shown = capsys.readouterr().err + json.dumps(taken(own))
    assert "hunter2" not in shown
    assert "token ***!" in shown
    assert '"ship"' not in shown


def test_it_is_bounded() -> None:
    """A store that is away for a week costs the oldest."""
    own = OwnLog("65a1")
    for number in range(2_000):
        own.heard({"event": "\x01" * 100_000, "level": "info", "number": number})
    for number in range(5_000):
        own.heard({"event": str(number), "level": "info"})
    raw, number = own.take()
    assert 5_000 < number < 7_000
    assert 3 * 1024**2 < len(raw) <= 4 * 1024**2
    assert json.loads(raw.splitlines()[-1])["_msg"] == "4999"
    assert own.take() == (b"", 0)
