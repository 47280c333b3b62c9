"""Counts what the state machine does, from what it asks for and says: polls and changes with their outcomes and durations."""

import time
from collections.abc import Callable
from typing import Final

from core import render
from core.events import Effect, Note, Perform
from core.phases import Fetching, State
from shell.figures import Figures

_OUTCOMES: Final = {"applied": "applied", "not begun": "withheld", "failed": "failed"}


class Watching:
    """An observer of the state machine."""

    def __init__(self, figures: Figures, clock: Callable[[], float] = time.monotonic) -> None:
        self._figures = figures
        self._clock = clock
        self._is_asking = False
        self._begun: tuple[str, float] | None = None

    def __call__(self, state: State, effects: tuple[Effect, ...]) -> None:
        """What follows from one event."""
        self._count_polls(state)
        for effect in effects:
            if isinstance(effect, Note) and effect.event in _OUTCOMES and self._begun is not None:
                kind, begun = self._begun
                self._begun = None
                outcome = _OUTCOMES[effect.event]
                self._figures.add("techulus_actions", kind=kind, outcome=outcome)
                if outcome in ("applied", "failed"):
                    self._figures.took("techulus_action_duration_seconds", self._clock() - begun, kind=kind)
            elif isinstance(effect, Perform):
                self._begun = (render.line(effect.action)[0], self._clock())

    def _count_polls(self, state: State) -> None:
        was_asking, self._is_asking = self._is_asking, isinstance(state.phase, Fetching)
        if was_asking and not self._is_asking:  # answered, or given up
            self._figures.add("techulus_polls", outcome="ok" if state.memory.poll_failure is None else "failed")
