"""`shell.loops.logs.Access`: what is said of lines of Caddy's log that are not sent."""

from structlog.testing import capture_logs

from core.access_log import LONGEST_LINE, AccessLog
from shell.loops.logs import Access


def test_lines_that_are_too_long_are_said_now_and_then() -> None:
    """L59: a hundred of them are not a hundred lines."""
    access = Access(AccessLog(), lambda: ())
    with capture_logs() as said:
        for _ in range(100):
            assert access.feed(b"x" * (LONGEST_LINE + 1) + b"\n") == b""
    assert [one["lines"] for one in said] == [1, 2, 4, 8, 16, 32, 64]
    assert access.held_bytes == access.lines == 0
