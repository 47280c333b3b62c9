"""What the agent says about itself: structured events, pretty on a terminal, one line each elsewhere.

Every event goes to standard error, so that standard output belongs to a command's answer. `logfmt`-like text suits a journal; JSON suits
a collector.
"""

import json
import logging
import re
import sys
import time
from collections import Counter
from collections.abc import Callable, Mapping
from contextlib import suppress
from datetime import UTC, datetime
from typing import Any, Final, TextIO, cast

from core.printable import escape
from shell import light_imports
from shell.figures import FIGURES

with light_imports.without("rich"):
    import structlog
from structlog.contextvars import bound_contextvars
from structlog.typing import EventDict, FilteringBoundLogger, Processor

from shell.log_choices import LogFormat, LogLevel

__all__ = ["bound_contextvars", "hide", "logger", "set_level", "set_up", "tap"]


LONGEST_VALUE: Final = 10_000  # characters; a trace of the agent's own has 8,000
LEFT_OUT: Final = "techulus_stderr_lines_left_out"
WINDOW_S: Final = 10.0
MOST_WARNINGS: Final = 20  # of one kind in a window; as of one document (L59)
MOST_OTHERS: Final = 200
_SHORT: Final = (bool, int, float, type(None))


class _Limited:
    """Of one kind of event so many lines in a window of ten seconds: what happens thousands of times at once has one cause (L59)."""

    def __init__(self, clock: Callable[[], float] = time.monotonic) -> None:
        self._clock = clock
        self._since = float("-inf")
        self._counts: Counter[object] = Counter()

    def __call__(self, _: object, method: str, event: EventDict) -> EventDict:
        """The event, or one that stands for all that are left out. Raises DropEvent."""
        now = self._clock()
        if now - self._since >= WINDOW_S:
            self._since = now
            self._counts.clear()
        name = event["event"]
        self._counts[name] += 1
        over = self._counts[name] - (MOST_WARNINGS if _level(method) >= logging.WARNING else MOST_OTHERS)
        if over <= 0:
            return event
        FIGURES.add(LEFT_OUT)
        if over > 1:
            raise structlog.DropEvent
        then = f"left out for {max(1, self._since + WINDOW_S - now):.0f} s and counted ({LEFT_OUT}_total)"
        return {"event": "more lines like these", "of": name, "then": then}


def _level(method: str) -> int:
    return logging.getLevelNamesMapping().get(method.upper(), logging.ERROR)


class _Steadfast:
    """Standard error, where a full disk or a reader that is gone costs lines and nothing else."""

    def write(self, text: str) -> None:
        """Or not."""
        with suppress(OSError):
            sys.stderr.write(text)

    def flush(self) -> None:
        """Or not."""
        with suppress(OSError):
            sys.stderr.flush()


def set_up(log_format: LogFormat = LogFormat.AUTO, level: LogLevel = LogLevel.INFO) -> None:
    """Configure logging for this process; calling it again changes level and format."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            _Limited(),
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _masked,
            _shortened,
            _tapped,
            _renderer(log_format),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level.value),
        logger_factory=structlog.WriteLoggerFactory(cast("TextIO", _Steadfast())),
        cache_logger_on_first_use=False,
    )


def set_level(level: LogLevel) -> None:
    """Change the least severe level, and nothing else."""
    structlog.configure(
        **{**structlog.get_config(), "wrapper_class": structlog.make_filtering_bound_logger(level.value)}
    )


def logger() -> FilteringBoundLogger:
    """The logger of this process."""
    found: FilteringBoundLogger = structlog.get_logger()
    return found


def hide(*secrets: str) -> None:
    """From now on no event shows these, whoever writes it."""
    _hidden.update(one for one in secrets if one)


def tap(listener: Callable[[Mapping[str, Any]], None] | None) -> None:
    """Have every event that is written told to a listener, too; but those about shipping logs, which are marked `ship=False`."""
    _listeners[:] = [] if listener is None else [listener]


_hidden: set[str] = set()
_listeners: list[Callable[[Mapping[str, Any]], None]] = []


def _masked(_: object, __: str, event: EventDict) -> EventDict:
    if not _hidden:
        return event
    from core.secrets import mask  # takes a while to import, and help is to be instant

    return {name: mask(value, _hidden) if isinstance(value, str) else value for name, value in event.items()}


def _shortened(_: object, __: str, event: EventDict) -> EventDict:
    """No text from outside is so long that one line fills a disk. (After secrets are masked: half of one is not found.)"""
    return {name: value if isinstance(value, _SHORT) else _cut(value) for name, value in event.items()}


def _cut(value: object) -> object:
    text = value if isinstance(value, str) else str(value)
    return value if len(text) <= LONGEST_VALUE else f"{text[:LONGEST_VALUE]}… ({len(text)} characters)"


def _tapped(_: object, __: str, event: EventDict) -> EventDict:
    if event.pop("ship", True):
        for listener in _listeners:
            listener(event)
    return event


def lost_lines(count: int) -> str:
    """The line that says how many lines were lost, in the format of the others."""
    event: EventDict = {
        "timestamp": datetime.now(UTC).isoformat().replace("+00:00", "Z"),
        "level": "warning",
        "event": "log lines lost",
        "lines": count,
        "reason": "standard error did not take them",
    }
    return f"{structlog.get_config()['processors'][-1](None, 'warning', event)}\n"


def _renderer(log_format: LogFormat) -> Processor:
    """What makes one line of an event, in which nothing moves a terminal's cursor or changes its colours, whoever wrote it (L59)."""
    if log_format is LogFormat.JSON:
        return structlog.processors.JSONRenderer(serializer=_json)
    if log_format is LogFormat.AUTO and sys.stderr.isatty():
        return _for_a_terminal
    return _as_text


_LOGFMT: Final = structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"])
_CONSOLE: Final = structlog.dev.ConsoleRenderer(pad_event_to=24)
_SPELLED_BY_RENDERER: Final = re.compile(
    r"([\n\r\t]+)"
)  # it quotes a text with one of them, and would double our backslashes


def _json(document: object, **options: Any) -> str:
    return json.dumps(document, **options).replace("\x7f", "\\u007f")  # which JSON lets stand as it is


def _as_text(bound: object, method: str, event: EventDict) -> str:
    return escape(_LOGFMT(bound, method, event))


def _for_a_terminal(bound: object, method: str, event: EventDict) -> str:
    escaped: dict[str, Any] = {name: _without_control(value) for name, value in event.items()}
    return _CONSOLE(bound, method, {**escaped, "event": escape(str(event.get("event", "")))})


def _without_control(value: object) -> object:
    if not isinstance(value, str):
        return value  # shown as Python spells it
    return "".join(part if part.isspace() else escape(part) for part in _SPELLED_BY_RENDERER.split(value))
