"""The one exception that an adapter lets out: what failed, on what, why, and what happens next."""

from typing import TypeVar

from returns.pipeline import is_successful
from returns.result import Result

T = TypeVar("T")


class AdapterError(Exception):
    """An outside component did not do what was asked of it.

    `what` is the thing that was tried ("create container web-1"), `why` the component's own answer on one line, `then` what a person
    can do or what the agent does next (may be empty). Raised by adapters only; caught where an action's outcome is made.
    """

    def __init__(self, component: str, what: str, why: str, then: str = "") -> None:
        super().__init__(component, what, why, then)
        self.component = component
        self.what = what
        self.why = why
        self.then = then

    def __str__(self) -> str:
        tail = f"; {self.then}" if self.then else ""
        return f"{self.component}: could not {self.what}: {self.why}{tail}"


class CommandError(Exception):
    """A command cannot do what it was asked; the text is the one line that a person reads."""


def understood(answer: Result[T, str], component: str, what: str, then: str = "") -> T:
    """What a component's answer says; AdapterError when it makes no sense."""
    if not is_successful(answer):
        raise AdapterError(component, what, answer.failure(), then)
    return answer.unwrap()
