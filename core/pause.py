"""A pause: for the person who works on a server by hand, the agent observes and reports, and changes nothing.

Times are seconds since the epoch, since a pause outlives the process and the boot.
"""

import re
from dataclasses import dataclass
from typing import Final

from returns.result import Failure, Result, Success

_UNITS: Final = {"s": 1, "m": 60, "h": 3600, "d": 86_400}
_PART: Final = re.compile(r"([0-9]{1,9})([smhd])")
_LONGEST_S: Final = 365 * 86_400
LONGEST_REASON: Final = 500


@dataclass(frozen=True, slots=True)
class Pause:
    """Since when, until when (None: until somebody says so), and why."""

    since_s: float
    until_s: float | None = None
    reason: str = ""


def is_over(pause: Pause, wall_now_s: float) -> bool:
    """Whether a pause has ended by itself."""
    return pause.until_s is not None and wall_now_s >= pause.until_s


def parse_duration(text: str) -> Result[int, str]:
    """Seconds in a duration such as `90s`, `15m`, `1h30m` or `2d`; at least a second, at most a year."""
    parts = _PART.findall(text)
    if not parts or "".join(number + unit for number, unit in parts) != text:
        return Failure(f"{text!r} is not a duration such as 90s, 15m, 1h30m or 2d")
    total = sum(int(number) * _UNITS[unit] for number, unit in parts)
    return Success(total) if 1 <= total <= _LONGEST_S else Failure(f"{text!r} is not between a second and a year")
