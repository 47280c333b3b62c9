"""Log lines as VictoriaLogs takes them: one JSON object per line, `_time` with nanoseconds, unique and increasing within one stream."""

from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

import msgspec

STREAM_FIELDS: Final = ("deployment_id", "service_id", "log_type")
"""What the store groups lines by."""

_BILLION: Final = 1_000_000_000


def rfc3339(time_ns: int) -> str:
    """A time in nanoseconds since the epoch, in UTC, to the nanosecond."""
    seconds, rest = divmod(time_ns, _BILLION)
    return f"{_second(seconds)}.{rest:09d}Z"


@lru_cache(maxsize=64)
def _second(seconds: int) -> str:
    """Lines come many to a second."""
    return f"{datetime.fromtimestamp(seconds, UTC):%Y-%m-%dT%H:%M:%S}"


def next_time(now_ns: int, last_ns: int) -> int:
    """The time of the next line of a stream: now, or just after the last one when the clock has not moved on (or has gone back)."""
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
