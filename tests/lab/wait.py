"""The one place where the lab and the tests wait: ask until a condition holds, and give up at a bound.

Decides how often to ask. Knows nothing of what is asked.
"""

import time
from collections.abc import Callable
from typing import Final, TypeVar

# For what must come, whatever else runs on the machine: no disk or processor stands still for so long. What never comes
# is noticed a minute later; a shorter bound would fail with the machine and not with the product.
PATIENCE_S: Final = 60.0
_FIRST_PAUSE_S = 0.005
# Above this a test would visibly wait for the poll and not for the component.
_LONGEST_PAUSE_S = 0.1
# After a question that took long itself, as the machine may make it.
_LONGEST_REST_S = 1.0

Value = TypeVar("Value")


class WaitedTooLongError(AssertionError):
    """The condition did not hold within its bound."""


def wait_for(condition: Callable[[], Value], timeout_s: float, what: str) -> Value:
    """The first truthy value that `condition` returns; asks with growing pauses for at most `timeout_s` seconds.

    `what` ends the sentence "waited 5.0 s for ..." of the `WaitedTooLongError` raised otherwise. The condition is
    asked at least twice, so that a slow condition is not judged by its first answer alone. A pause is never shorter
    than the asking took: one that runs a command would else have a processor for itself, which what it waits for needs.
    """
    deadline = time.monotonic() + timeout_s
    pause_s = _FIRST_PAUSE_S
    while True:
        asked_at = time.monotonic()
        last_chance = asked_at >= deadline
        value = condition()
        if value:
            return value
        if last_chance:
            raise WaitedTooLongError(f"waited {timeout_s:.1f} s for {what}; last answer: {value!r}")
        time.sleep(max(pause_s, min(time.monotonic() - asked_at, _LONGEST_REST_S)))
        pause_s = min(pause_s * 1.5, _LONGEST_PAUSE_S)
