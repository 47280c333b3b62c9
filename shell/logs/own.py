"""The agent's own log on its way to the log store: a tap on the events, bounded, so that a store that is away costs the oldest."""

import threading
import time
from collections import deque
from collections.abc import Mapping
from typing import Any, Final

import msgspec

from core.log_lines import next_time, rfc3339

_MOST_BYTES: Final = 4 * 1024**2  # ten thousand usual lines
_LONGEST: Final = 16_000
_LEVELS: Final = {"warning": "warn", "error": "error", "critical": "error"}
_META: Final = frozenset({"event", "level", "timestamp"})


class OwnLog:
    """Collects events; `take` gives them away as lines."""

    def __init__(self, server_id: str) -> None:
        self._server_id = server_id
        self._lines: deque[bytes] = deque()
        self._size = 0
        self._lock = threading.Lock()  # it is taken away by the thread that reads the logs
        self._last_ns = 0

    def heard(self, event: Mapping[str, Any]) -> None:
        """One event as the log has it; debugging stays here."""
        level = str(event.get("level", "info"))
        if level == "debug":
            return
        facts = " ".join(f"{name}={_shown(value)}" for name, value in event.items() if name not in _META)
        self._last_ns = next_time(time.time_ns(), self._last_ns)
        fields = {
            "_msg": f"{event.get('event', '')} {facts}".strip()[:_LONGEST],
            "_time": rfc3339(self._last_ns),
            "server_id": self._server_id,
            "level": _LEVELS.get(level, "info"),
            "log_type": "agent",
        }
        line = msgspec.json.encode(fields) + b"\n"
        with self._lock:
            self._lines.append(line)
            self._size += len(line)
            while self._size > _MOST_BYTES:
                self._size -= len(self._lines.popleft())

    def take(self) -> tuple[bytes, int]:
        """What has come together: encoded lines, and how many."""
        with self._lock:
            taken, self._lines, self._size = [*self._lines], deque(), 0
        return b"".join(taken), len(taken)


def _shown(value: object) -> str:
    text = str(value).encode("utf-8", "replace").decode("utf-8")
    return text if text and " " not in text and text.isprintable() else repr(text)
