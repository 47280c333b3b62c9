"""What a reload (SIGHUP) takes over: the log level, from the file of environment variables that the service manager's unit names."""

import os
import shlex
from pathlib import Path
from typing import Final

from shell import log
from shell.log import logger
from shell.log_choices import LogLevel

VARIABLE: Final = "TECHULUS_ENV_FILE"
_LEVEL: Final = "TECHULUS_LOG_LEVEL"


def reload() -> None:
    """Read the file again and take over what may change while the agent runs. What makes no sense changes nothing, and is said."""
    path = os.environ.get(VARIABLE)
    if not path:
        logger().warning("nothing reloaded", why=f"{VARIABLE} is not set", then="the log level stays")
        return
    try:
        level = LogLevel(_value(Path(path).read_text(encoding="utf-8")) or LogLevel.INFO)
    except (OSError, ValueError) as error:
        logger().warning("nothing reloaded", path=path, why=str(error), then="the log level stays")
        return
    log.set_level(level)
    logger().info("reloaded", log_level=level.value)


def _value(text: str) -> str:
    """The last assignment of the level in a file as systemd reads it: `NAME=value`, perhaps quoted; comments begin with # or ;."""
    found = ""
    for line in text.splitlines():
        name, separator, value = line.strip().partition("=")
        if separator and name == _LEVEL:
            found = " ".join(shlex.split(value))
    return found
