"""The service's file of environment variables, as systemd reads it: `NAME=value`, perhaps quoted; comments begin with # or ;."""

import shlex
from collections.abc import Mapping
from dataclasses import dataclass
from typing import Final

VARIABLE: Final = "TECHULUS_ENV_FILE"
USUAL: Final = "/etc/techulus/agent.env"
_LONGEST: Final = 8_192  # characters of a value; twice as long takes four times as long to take apart


@dataclass(frozen=True, slots=True)
class Told:
    """The variables, and by name why a line was left out; the others count all the same."""

    variables: Mapping[str, str]
    left_out: Mapping[str, str]


def parse(text: str) -> Told:
    """What the file says; of a variable that stands there twice the last that makes sense."""
    found: dict[str, str] = {}
    left_out: dict[str, str] = {}
    for line in text.splitlines():
        name, separator, value = line.strip().partition("=")
        if separator and not name.startswith(("#", ";")):
            try:
                found[name.rstrip()] = _unquoted(value)
            except ValueError as error:
                left_out[name.rstrip()] = str(error)
    return Told(found, left_out)


def _unquoted(value: str) -> str:
    if len(value) > _LONGEST:
        raise ValueError(f"it has more than {_LONGEST} characters")
    if "\0" in value:
        raise ValueError("it has a NUL")
    return " ".join(shlex.split(value))
