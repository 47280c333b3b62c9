"""What can be chosen about the log, apart from what writes it: help and the dry run need the words and not the library."""

from enum import StrEnum


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
