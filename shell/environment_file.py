"""The service's file of environment variables, as systemd reads it: `NAME=value`, perhaps quoted; comments begin with # or ;."""

import shlex
from typing import Final

VARIABLE: Final = "TECHULUS_ENV_FILE"
USUAL: Final = "/etc/techulus/agent.env"
_LONGEST_LINE: Final = 8_192  # twice as long takes four times as long to take apart


def parse(text: str) -> dict[str, str]:
    """The variables; of one that stands there twice the last. Raises ValueError for an endless line and for quotes that do not end."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        if len(line) > _LONGEST_LINE:
            raise ValueError(f"a line has more than {_LONGEST_LINE} characters")
        name, separator, value = line.strip().partition("=")
        if separator and not name.startswith(("#", ";")):
            found[name.rstrip()] = " ".join(shlex.split(value))
    return found
