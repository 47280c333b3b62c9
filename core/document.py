"""An expected state from its bytes, and what the next one's parse can take over from it.

The document comes every few seconds and changes in few places, if at all. So one that follows another is first told apart into the texts
of its entries, which costs a fraction of reading them, and only those that are new are decoded and checked.
"""

from bisect import bisect_left
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Final, TypeAlias

import msgspec
from returns.result import Result, Success

from core import caddy, containers, dns, wire, wireguard
from core.caddy import Route
from core.containers import ExpectedContainer
from core.dns import Record
from core.rejection import Fault, Sifted, split
from core.state import ExpectedState, Held
from core.texts import equal_ends
from core.wire import ShapeFault, WireContainer, WireExpected, WirePeers, WireRecords, WireRoutes
from core.wireguard import Peer

_BY_DEPLOYMENT: Final = attrgetter("deployment_id")
_CONTAINER: Final = msgspec.json.Decoder(WireContainer)
_FRAME: Final = '{"containers":[],"dns":,"caddy":,"wireguard":}'
_Entry: TypeAlias = tuple[str, ExpectedContainer | Fault]
"""A container's key and what was found there."""


class _Texts(msgspec.Struct, frozen=True):
    """The four lists as texts, the containers one by one."""

    containers: tuple[msgspec.Raw, ...]
    dns: msgspec.Raw
    caddy: msgspec.Raw
    wireguard: msgspec.Raw


class _Parts(msgspec.Struct, frozen=True):
    """The four lists of an expected state, each in canonical order and with its rejections."""

    containers: Sifted[ExpectedContainer]
    dns: Sifted[Record]
    caddy: Sifted[Route]
    wireguard: Sifted[Peer]


@dataclass(frozen=True, slots=True)
class Document:
    """An expected state as it came, and what it means on the server with `subnet_id`.

    `entries` is what each of its containers was found to be, in the document's order; `texts` how they stand there, when that was asked.
    """

    expected: ExpectedState
    raw: bytes = field(repr=False)
    subnet_id: int | None
    texts: _Texts | None = field(repr=False, compare=False)
    entries: tuple[_Entry, ...] = field(repr=False)
    parts: _Parts = field(repr=False)


def parse_expected(raw: bytes, subnet_id: int | None = None) -> Result[ExpectedState, ShapeFault]:
    """Parse an expected state. With the own subnet known, addresses must be the server's own and peers must leave it alone."""
    return parse_expected_after(None, raw, subnet_id).map(lambda document: document.expected)


def parse_expected_after(
    before: Document | None, raw: bytes, subnet_id: int | None = None
) -> Result[Document, ShapeFault]:
    """The same, where `before` is any earlier document: what has not changed since is not checked again.

    The outcome does not depend on `before`. The same bytes give the same document back.
    """
    if before is not None and before.subnet_id != subnet_id:
        before = None
    if before is not None and before.raw == raw:
        return Success(before)
    changed = None if before is None else _changed(before, raw)
    if changed is not None:
        return Success(changed)
    return wire.decode(raw, WireExpected).map(lambda whole: _whole(raw, subnet_id, whole))


def _whole(raw: bytes, subnet_id: int | None, whole: WireExpected) -> Document:
    entries = tuple([_entry(entry, subnet_id) for entry in whole.containers])
    parts = _Parts(
        _sifted(entries),
        dns.normalise_expected(whole.dns.records),
        caddy.normalise_expected(whole.caddy.routes),
        wireguard.normalise_expected(whole.wireguard.peers, subnet_id),
    )
    return Document(_state(parts), raw, subnet_id, None, entries, parts)


def _changed(before: Document, raw: bytes) -> Document | None:
    """The document that follows another; None when it must be read as a whole: to be refused, or for its form."""
    try:
        old, new = before.texts or _told_apart(before.raw), _told_apart(raw)
        if old is None or new is None:
            return None
        entries = _entries(before, old.containers, new.containers)
        was = before.parts
        parts = _Parts(
            _exchanged(before, entries) or _sifted(entries),
            was.dns
            if old.dns == new.dns
            else dns.normalise_expected(msgspec.json.decode(new.dns, type=WireRecords).records),
            was.caddy
            if old.caddy == new.caddy
            else caddy.normalise_expected(msgspec.json.decode(new.caddy, type=WireRoutes).routes),
            was.wireguard
            if old.wireguard == new.wireguard
            else wireguard.normalise_expected(
                msgspec.json.decode(new.wireguard, type=WirePeers).peers, before.subnet_id
            ),
        )
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return None
    return Document(_state(parts), raw, before.subnet_id, new, entries, parts)


def _told_apart(raw: bytes) -> _Texts | None:
    """The texts of a document that consists of these and nothing else, not even a blank: that is how the control plane writes it.

    In any other a key might stand twice, and one of the two would never be looked at.
    """
    texts = msgspec.json.decode(raw, type=_Texts)
    lists = sum(map(len, texts.containers)) + max(0, len(texts.containers) - 1)
    return texts if len(raw) == len(_FRAME) + lists + len(texts.dns) + len(texts.caddy) + len(texts.wireguard) else None


def _entries(before: Document, old: tuple[msgspec.Raw, ...], new: tuple[msgspec.Raw, ...]) -> tuple[_Entry, ...]:
    """Those before the first change and after the last one are taken over as they stand, those between by their text."""
    head, tail = equal_ends(old, new)
    last = len(old) - tail
    moved = dict(zip(map(bytes, old[head:last]), before.entries[head:last], strict=True))
    between = [
        moved.get(bytes(text)) or _entry(_CONTAINER.decode(text), before.subnet_id)
        for text in new[head : len(new) - tail]
    ]
    return (*before.entries[:head], *between, *before.entries[last:])


def _entry(entry: WireContainer, subnet_id: int | None) -> _Entry:
    return entry.deployment_id, containers.normalise_expected(entry, subnet_id)


def _state(parts: _Parts) -> ExpectedState:
    every = (parts.containers, parts.dns, parts.caddy, parts.wireguard)
    return ExpectedState(
        containers=parts.containers.values,
        dns=parts.dns.values,
        caddy=parts.caddy.values,
        wireguard=parts.wireguard.values,
        held=Held(*[part.held for part in every]),
        rejected=tuple(sorted(one for part in every for one in part.rejected)),
    )


def _sifted(entries: tuple[_Entry, ...]) -> Sifted[ExpectedContainer]:
    """In canonical order, with what is wrong."""
    sifted = split("containers", [key for key, _ in entries], [found for _, found in entries])
    return Sifted(tuple(sorted(sifted.values, key=_BY_DEPLOYMENT)), sifted.held, sifted.rejected)


def _exchanged(before: Document, entries: tuple[_Entry, ...]) -> Sifted[ExpectedContainer] | None:
    """The same, when containers have changed and that is all: each deployment once, in its old place, and nothing wrong with any."""
    was = before.parts.containers
    if was.rejected or len(was.values) != len(before.entries) or len(entries) != len(before.entries):
        return None
    values = list(was.values)
    for now, old in zip(entries, before.entries, strict=True):
        if now is not old:
            key, found = now
            if key != old[0] or isinstance(found, Fault):
                return None
            values[bisect_left(values, found.deployment_id, key=_BY_DEPLOYMENT)] = found
    return Sifted(tuple(values), frozenset(), ())
