"""What the state machine says to the person who runs this server: one log line for each piece of news, said once.

Decides words only; knows nothing of phases.
"""

from collections.abc import Mapping
from dataclasses import replace
from typing import Final, assert_never

from core import render, retry
from core.action import Action, UpdateCaddy, UpdateDns, UpdateWireGuard
from core.events import ActionDone, Applied, Effect, Failed, ImageFetched, Note, Remember, Withheld
from core.memory import Memory
from core.rejection import Rejection
from core.state import Component, ExpectedState

MOST_LINES: Final = 20
"""Lines about what is wrong in one document (L59). What is wrong with more has one cause, which these show."""

_COMPONENTS: Final[Mapping[type[Action], Component]] = {
    UpdateDns: "dns",
    UpdateCaddy: "caddy",
    UpdateWireGuard: "wireguard",
}


def held_back(memory: Memory) -> Note:
    """A suspicious expected state waits for its confirmation."""
    why = f"it would remove {len(memory.doubted or ())} of the running containers"
    facts = (("why", why), ("then", "it is acted on when the next poll says the same"))
    return Note("warning", "expected state held back", facts)


def accepted(before: ExpectedState | None, expected: ExpectedState) -> tuple[Effect, ...]:
    """A new expected state is in force: it is kept, and what is newly wrong in it is said."""
    if before == expected:
        return ()
    known = {_what_is_wrong(one) for one in before.rejected} if before is not None else set()
    news = [one for one in expected.rejected if _what_is_wrong(one) not in known]
    notes = [
        Note("warning", "entry rejected", (("path", one.path), ("key", one.key), ("why", one.reason), ("then", "held")))
        for one in news[:MOST_LINES]
    ]
    if len(news) > MOST_LINES:
        facts = (("count", len(news) - MOST_LINES), ("then", "held; `agent status --output json` has them all"))
        notes.append(Note("warning", "more entries rejected", facts))
    return (Remember(), *notes)


def _what_is_wrong(one: Rejection) -> tuple[str, str, str]:
    """A rejection without its place in the list, which moves from poll to poll since the order of lists means nothing."""
    return one.path.partition("[")[0], one.key, one.reason


def idle_hands(memory: Memory) -> tuple[Effect, ...]:
    """A paused agent has found something to do."""
    if memory.paused is None:
        return ()
    facts = (("changes", len(memory.drift)), ("why", memory.paused.reason or "no reason given"))
    return (Note("warning", "drift found while paused", (*facts, ("then", "nothing is changed until `agent resume`"))),)


def unfetched(memory: Memory, why: str) -> Note:
    """A poll has failed."""
    then = "no state is known yet" if memory.in_force is None else "the last good state stays in force"
    return Note("warning", "expected state not fetched", (("why", why), ("then", then)))


def blind(memory: Memory, why: str) -> tuple[Memory, tuple[Effect, ...]]:
    """Said once for each reason: it may go on for hours."""
    then = "no container is changed and nothing reported until they can be listed; names, routes and the tunnel are kept up"
    facts = (("why", why), ("then", then))
    notes = () if why == memory.look_failure else (Note("error", "containers not listed", facts),)
    return replace(memory, look_failure=why), notes


def about(action: Action) -> tuple[tuple[str, str], ...]:
    """An action as facts of a log line."""
    kind, subject, reason = render.line(action)
    return (("kind", kind), ("subject", subject), ("reason", reason))


def image_answer(memory: Memory, event: ImageFetched, now: float) -> tuple[Effect, ...]:
    """An image could not be had; nothing is said of one that is here."""
    found = memory.retries.get(event.request.key)
    if event.failure is None or found is None:
        return ()
    then = f"tried again in {found.not_before - now:.0f} s; what runs stays"
    facts = (("image", str(event.request.image)), ("deployment", event.request.deployment_id), ("why", event.failure))
    return (Note("error", "image not fetched", (*facts, ("then", then)), event.request.deployment_id),)


def said(memory: Memory, event: ActionDone, now: float) -> Note:
    """How an action ended."""
    named = about(event.action)
    match event.outcome:
        case Applied():
            return Note(
                "info", "applied", (*named, *_hash(memory, event.action), *_repeated(memory, event.action, now))
            )
        case Withheld(why=why):
            return Note("info", "not begun", (*named, ("why", why)))
        case Failed(why=why):
            last = memory.retries[retry.key(event.action)]
            then = f"tried again in {last.not_before - now:.0f} s"
            return Note("error", "failed", (*named, ("why", why), ("attempt", last.count), ("then", then)))
        case _:
            assert_never(event.outcome)


def _hash(memory: Memory, action: Action) -> tuple[tuple[str, str], ...]:
    """The hash that names, routes or peers are to have: the same in the plan, in the status, and on every server that serves the same."""
    component = _COMPONENTS.get(type(action))
    found = memory.hashes.get(component) if component is not None else None
    return (("hash", found.expected),) if found is not None else ()


def _repeated(memory: Memory, action: Action, now: float) -> tuple[tuple[str, str | int], ...]:
    """What is worth saying of a change that was made before and did not last, as a container that ends again and again."""
    last = memory.retries[retry.key(action)]
    if last.count < 2:
        return ()
    return (("attempt", last.count), ("then", f"made again in {last.not_before - now:.0f} s at the earliest"))
