"""Log lines as VictoriaLogs takes them: one JSON object per line, `_time` with nanoseconds, unique and increasing within one stream."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

import msgspec

STREAM_FIELDS: Final = ("deployment_id", "service_id", "log_type")
"""What the store groups lines by."""

_BILLION: Final = 1_000_000_000
_STORE_TAKES_AHEAD_NS: Final = 2 * 86_400 * _BILLION  # lines further ahead are dropped and answered with 200
_LONG_AGO_NS: Final = 1_767_225_600 * _BILLION  # 2026-01-01


def rfc3339(time_ns: int) -> str:
    """A time in nanoseconds since the epoch, in UTC, to the nanosecond."""
    seconds, rest = divmod(time_ns, _BILLION)
    return f"{_second(seconds)}.{rest:09d}Z"


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    """Lines come many to a second."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def next_time(now_ns: int, last_ns: int) -> int:
    """The time of the next line of a stream: now, or just after the last one when the clock has not moved on (or has gone back).

    A last time that is days ahead came from a clock that was wrong; the store takes nothing from there, so it is not gone on with. A
    present before any release of this agent is the wrong one of the two: a machine without a clock of its own begins long ago.
    """
    if last_ns - now_ns > _STORE_TAKES_AHEAD_NS and now_ns > _LONG_AGO_NS:
        return now_ns
    return max(now_ns, last_ns + 1)


def build_line(text: str, time_ns: int, *, build_id: str, service_id: str, project_id: str) -> bytes:
    """One line of a build's log."""
    return msgspec.json.encode(
        {
            "_msg": text.encode("utf-8", "replace").decode("utf-8"),
            "_time": rfc3339(time_ns),
            "build_id": build_id,
            "service_id": service_id,
            "project_id": project_id,
            "log_type": "build",
        }
    )
