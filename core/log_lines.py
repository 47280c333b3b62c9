"""Log lines as VictoriaLogs takes them: one JSON object per line, `_time` with nanoseconds, unique and increasing within one stream."""

import re
from datetime import UTC, datetime
from functools import lru_cache
from typing import Final

import msgspec

STREAM_FIELDS: Final = ("deployment_id", "service_id", "log_type")
"""What the store groups lines by."""

_BILLION: Final = 1_000_000_000
_STORE_TAKES_AHEAD_NS: Final = 2 * 86_400 * _BILLION  # lines further ahead are dropped and answered with 200
_LONG_AGO_NS: Final = 1_767_225_600 * _BILLION  # 2026-01-01
_LONGEST: Final = 256 * 1024  # bytes of a line; the store takes no longer one
_NULS: Final = re.compile(rb"\0+")


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


class EncodedLines:
    """A file of lines as `build_line` encodes them: bytes in, the same lines out.

    A run of NUL bytes, as a power cut leaves it, ends a line.
    """

    last_ns = 0
    begun = ()

    def __init__(self) -> None:
        self.lines = 0
        self.nul_bytes = 0
        self._left = b""

    @property
    def held_bytes(self) -> int:
        """Bytes at the end of what was fed that are no whole line yet."""
        return len(self._left)

    def feed(self, chunk: bytes) -> bytes:
        """The lines that are whole now, each with its newline. What is no line of ours, a torn one, is left out."""
        if b"\0" in chunk:
            self.nul_bytes += chunk.count(b"\0")
            chunk = _NULS.sub(b"\n", chunk)
        *whole, self._left = (self._left + chunk).split(b"\n")
        if len(self._left) > _LONGEST:
            self._left = b""
        found = [line for line in whole if line.startswith(b"{") and line.endswith(b"}") and len(line) <= _LONGEST]
        self.lines += len(found)
        return b"".join(line + b"\n" for line in found)

    def end(self) -> bytes:
        """What is left is no whole line."""
        self._left = b""
        return b""
