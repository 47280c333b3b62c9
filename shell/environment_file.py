"""The service's file of environment variables, as systemd reads it: `NAME=value`, perhaps quoted; comments begin with # or ;."""

import shlex
from typing import Final

VARIABLE: Final = "TECHULUS_ENV_FILE"
USUAL: Final = "/etc/techulus/agent.env"


def parse(text: str) -> dict[str, str]:
    """The variables; of one that stands there twice the last. Raises ValueError for quotes that do not end."""
    found: dict[str, str] = {}
    for line in text.splitlines():
        name, separator, value = line.strip().partition("=")
        if separator and not name.startswith(("#", ";")):
            found[name.rstrip()] = " ".join(shlex.split(value))
    return found
