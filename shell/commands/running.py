"""`agent run`: checks the options, and becomes the daemon."""

from collections.abc import Mapping
from typing import NoReturn

from shell import handover
from shell.log_choices import LogFormat, LogLevel
from shell.option_checks import checked


def run_agent(given: Mapping[str, object], token: str | None, log_choices: tuple[LogFormat, LogLevel]) -> NoReturn:
    """Run the daemon in this process's place. Raises CommandError when an option makes no sense."""
    handover.become_daemon(handover.Task(checked(given), token, *log_choices))
