"""What the agent says about itself: structured events, pretty on a terminal, one line each elsewhere.

Every event goes to standard error, so that standard output belongs to a command's answer. `logfmt`-like text suits a journal; JSON suits
a collector.
"""

import sys
from enum import StrEnum

import structlog
from structlog.typing import FilteringBoundLogger, Processor


class LogFormat(StrEnum):
    """How events are written; `auto` is pretty on a terminal and plain text elsewhere."""

    AUTO = "auto"
    TEXT = "text"
    JSON = "json"


class LogLevel(StrEnum):
    """The least severe level that is written."""

    DEBUG = "debug"
    INFO = "info"
    WARNING = "warning"
    ERROR = "error"


def set_up(log_format: LogFormat = LogFormat.AUTO, level: LogLevel = LogLevel.INFO) -> None:
    """Configure logging for this process; calling it again changes level and format."""
    structlog.configure(
        processors=[
            structlog.contextvars.merge_contextvars,
            structlog.processors.add_log_level,
            structlog.processors.TimeStamper(fmt="iso", utc=True),
            _renderer(log_format),
        ],
        wrapper_class=structlog.make_filtering_bound_logger(level.value),
        logger_factory=structlog.PrintLoggerFactory(sys.stderr),
        cache_logger_on_first_use=False,
    )


def logger() -> FilteringBoundLogger:
    """The logger of this process."""
    found: FilteringBoundLogger = structlog.get_logger()
    return found


def _renderer(log_format: LogFormat) -> Processor:
    if log_format is LogFormat.JSON:
        return structlog.processors.JSONRenderer()
    if log_format is LogFormat.AUTO and sys.stderr.isatty():
        return structlog.dev.ConsoleRenderer(pad_event_to=24)
    return structlog.processors.LogfmtRenderer(key_order=["timestamp", "level", "event"])
