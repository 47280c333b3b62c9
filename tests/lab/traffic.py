"""Steady traffic while something is changed under it: every question counted, every failure kept.

Decides the pace and counts; what is asked is a function.
"""

import threading
import time
from collections.abc import Callable
from types import TracebackType
from typing import Self

from tests.lab.process import LabError
from tests.lab.wait import PATIENCE_S

_PAUSE_LIMIT_S = 5.0


class Traffic:
    """Asks `ask` about `per_second` times a second in a thread of its own, until it is left. Use it as a context manager.

    `ask` returns None when all was well, or says what was not.
    """

    def __init__(self, ask: Callable[[], str | None], per_second: float) -> None:
        self._ask = ask
        self._gap_s = 1 / per_second
        self._over = threading.Event()
        self._thread = threading.Thread(target=self._run, daemon=True)
        self.asked = 0
        self.failures: list[str] = []

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._over.set()
        self._thread.join(PATIENCE_S)
        if self._thread.is_alive():
            raise LabError("the last question has no end; whether it was answered is not known")

    def _run(self) -> None:
        due = time.monotonic()
        while not self._over.wait(max(0.0, due - time.monotonic())):
            due = max(due + self._gap_s, time.monotonic() - _PAUSE_LIMIT_S)
            try:
                problem = self._ask()
            except (OSError, LabError) as error:
                problem = f"it raised {error!r}"
            self.asked += 1
            if problem is not None:
                self.failures.append(f"{time.monotonic():.2f}: {problem}")
