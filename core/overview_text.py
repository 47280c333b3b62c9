"""The status as lines for a person, rendered from the same document that scripts get."""

from collections.abc import Iterator
from typing import Any, Final

from core.printable import escape

MOST_ENTRIES: Final = 100
"""Lines of one list that comes from a document: no terminal keeps 20,000, which one mistake may be worth."""

_GAP: Final = "  "


def lines(document: dict[str, Any]) -> Iterator[str]:
    """The lines of a status, most urgent first. The document may come from an agent of another version: what is missing is left out.

    Names and reasons come from outside: nothing in them moves a terminal's cursor or makes a line of its own.
    """
    return map(escape, _lines(document))


def _lines(document: dict[str, Any]) -> Iterator[str]:
    if not document.get("running"):
        yield f"no agent runs on {document.get('dataDir', 'this data directory')}"
        yield from _paused(document.get("paused"))
        return
    yield from _head(document)
    yield from _paused(document.get("paused"))
    yield from _list("FAILING", [_failing(one) for one in document.get("failing") or ()])
    yield from _exchanges(document)
    yield from _list("drift", [_words(one) for one in document.get("drift") or ()])
    yield from _list("retries", [_retry(one) for one in document.get("retries") or ()])
    yield from _list("pulling", document.get("pulling") or [])
    unasked = document.get("registryNotAsked") or ()
    yield from _list("not asked", [f"{one.get('name')}: {one.get('image')} as it was here" for one in unasked])
    yield from _list(
        "rejected",
        [f"{one.get('path')} {one.get('key')}: {one.get('reason')}" for one in document.get("rejected") or ()],
    )
    yield from _containers(document)
    builds = document.get("builds") or ()
    yield from _list("builds", [f"{one.get('id')} {one.get('status')} since {one.get('since')}" for one in builds])
    yield from _list("builder", [*(document.get("build_warnings") or ())])
    yield from _list("firewall", [*_firewall(document.get("firewall") or {})])
    if logs := document.get("logs"):
        yield "logs        " + ", ".join(f"{name} {value}" for name, value in logs.items())


def headline(document: dict[str, Any]) -> str:
    """Everything on one line, as a service manager shows it."""
    containers, drift = document.get("containers") or (), document.get("drift") or ()
    unhealthy = sum(one.get("health") == "unhealthy" for one in containers)
    parts = [f"{document.get('state')}: {document.get('doing')}", f"{len(containers)} containers"]
    parts += [f"{unhealthy} unhealthy"] if unhealthy else []
    parts += [f"{len(drift)} to do"] if drift else []
    parts += ["PAUSED"] if document.get("paused") else []
    failing = sorted({str(one.get("part")) for one in document.get("failing") or ()})
    parts += [f"failing: {', '.join(failing)}"] if failing else []
    poll = document.get("poll")
    parts += [f"last poll failed: {poll.get('failure')}"] if poll and not poll.get("ok") else []
    return escape("; ".join(parts))


def _head(document: dict[str, Any]) -> Iterator[str]:
    agent = document.get("agent", {})
    yield f"state       {document.get('state')} since {document.get('since')}: {document.get('doing')}"
    who = f"{agent.get('nodeType')} {agent.get('serverId')} at {agent.get('controlPlane')}"
    yield f"agent       {agent.get('version')}, process {agent.get('pid')} since {agent.get('since')}, {who}"


def _paused(pause: dict[str, Any] | None) -> Iterator[str]:
    if pause:
        until = f"until {pause.get('until')}" if pause.get("until") else "until `agent resume`"
        yield f"PAUSED      since {pause.get('since')} {until}: {pause.get('reason') or 'no reason given'}"


def _exchanges(document: dict[str, Any]) -> Iterator[str]:
    for name, label in (("poll", "last poll"), ("report", "last report"), ("workQueue", "work queue")):
        last = document.get(name)
        if last is None:
            yield f"{label:<11} none yet"
        else:
            outcome = "ok" if last.get("ok") else f"FAILED: {last.get('failure')}"
            following = f", next in {last['nextInS']} s" if last.get("nextInS") is not None else ""
            yield f"{label:<11} {last.get('at')} {outcome}{following}"


def _list(label: str, items: list[str]) -> Iterator[str]:
    for number, item in enumerate(items[:MOST_ENTRIES]):
        yield f"{label if number == 0 else '':<11} {item}"
    if len(items) > MOST_ENTRIES:
        yield f"{'':<11} and {len(items) - MOST_ENTRIES} more; `agent status --output json` has them all"


def _words(action: dict[str, Any]) -> str:
    return f"{action.get('kind')} {action.get('name') or ''}".rstrip() + f": {action.get('reason')}"


def _retry(one: dict[str, Any]) -> str:
    following = f"after {one['waitsFor']}" if one.get("waitsFor") else f"in {one.get('nextInS')} s"
    return f"{one.get('kind')} {one.get('subject')}: attempt {one.get('attempts')}, next {following}: {one.get('why')}"


def _failing(one: dict[str, Any]) -> str:
    what = " ".join(str(word) for word in (one.get("part"), one.get("about")) if word)
    return f"{what}: {one.get('failures')} times since {one.get('since')}: {one.get('reason')}"


def _firewall(found: dict[str, Any]) -> Iterator[str]:
    """What is missing or in the way, each with the commands that put it right."""
    if found.get("failure"):
        yield f"FAILED: {found['failure']}"
    if not found.get("othersSeen", True):
        yield "only the agent's own rules are seen: iptables writes to the tables of before nftables"
    yield from (f"missing: {one}" for one in found.get("missing") or ())
    for one in found.get("blocked") or ():
        what = ", ".join(one.get("drops") or ())
        yield f"{one.get('family')} {one.get('table')} {one.get('chain')} ({one.get('by')}) drops {what}; add:"
        yield from (f"  {command}" for command in one.get("add") or ())


def _containers(document: dict[str, Any]) -> Iterator[str]:
    found = document.get("containers") or []
    seen = "" if document.get("containersSeen", True) else " (could not be listed just now; as last seen)"
    yield f"containers  {len(found)}{seen}"
    rows = [(one.get("name", ""), one.get("state", ""), one.get("health", ""), one.get("image", "")) for one in found]
    widths = [max((len(row[column]) for row in rows), default=0) for column in range(3)]
    for row in rows:
        yield (
            _GAP + _GAP.join([*(cell.ljust(width) for cell, width in zip(row, widths, strict=False)), row[3]]).rstrip()
        )
