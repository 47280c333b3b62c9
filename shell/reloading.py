"""What a reload (SIGHUP) takes over: the log level, from the file of environment variables that the service manager's unit names."""

import os
from pathlib import Path
from typing import Final

from shell import environment_file, log
from shell.log import logger
from shell.log_choices import LogLevel

_LEVEL: Final = "TECHULUS_LOG_LEVEL"


def reload() -> None:
    """Read the file again and take over what may change while the agent runs. What makes no sense changes nothing, and is said."""
    path = os.environ.get(environment_file.VARIABLE)
    if not path:
        logger().warning("nothing reloaded", why=f"{environment_file.VARIABLE} is not set", then="the log level stays")
        return
    try:
        told = environment_file.parse(Path(path).read_text(encoding="utf-8"))
        if why := told.left_out.get(_LEVEL):
            raise ValueError(f"{_LEVEL}: {why}")
        level = LogLevel(told.variables.get(_LEVEL) or LogLevel.INFO)
    except (OSError, ValueError) as error:
        logger().warning("nothing reloaded", path=path, why=str(error), then="the log level stays")
        return
    log.set_level(level)
    logger().info("reloaded", log_level=level.value)
