"""An expected state from its bytes, and what the next one's parse can take over from it.

The document comes every few seconds and changes in few places, if at all. So its entries are first told apart as texts, which costs a
fraction of reading them, and only those that are new are decoded and checked. What comes out does not depend on what was known before:
a key that stands twice in the document counts as it stands last, with and without an earlier document.
"""

from bisect import bisect_left
from dataclasses import dataclass, field
from operator import attrgetter
from typing import Final, TypeAlias, TypeVar

import msgspec
from returns.result import Failure, Result, Success

from core import caddy, containers, dns, wire, wireguard
from core.caddy import Route
from core.containers import ExpectedContainer
from core.dns import Record
from core.rejection import Fault, Sifted, split
from core.state import ExpectedState, Held
from core.texts import equal_ends
from core.wire import ShapeFault, WireContainer, WireExpected, WirePeers, WireRecords, WireRoutes
from core.wireguard import Peer

T = TypeVar("T")

_BY_DEPLOYMENT: Final = attrgetter("deployment_id")
_CONTAINER: Final = msgspec.json.Decoder(WireContainer)
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

    `entries` is what each of its containers was found to be, in the document's order.
    """

    expected: ExpectedState
    raw: bytes = field(repr=False)
    subnet_id: int | None
    texts: _Texts = field(repr=False)
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
    try:
        return Success(_document(before, raw, subnet_id))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Read as one document it is refused with the path of its first fault.
        return wire.decode(raw, WireExpected).bind(lambda _: Failure(ShapeFault("", "cannot be read part by part")))


def _document(before: Document | None, raw: bytes, subnet_id: int | None) -> Document:
    texts = msgspec.json.decode(raw, type=_Texts)
    entries = _entries(before, texts.containers, subnet_id)
    parts = _Parts(
        containers=_sifted(before, entries),
        dns=before.parts.dns
        if before and before.texts.dns == texts.dns
        else dns.normalise_expected(msgspec.json.decode(texts.dns, type=WireRecords).records),
        caddy=before.parts.caddy
        if before and before.texts.caddy == texts.caddy
        else caddy.normalise_expected(msgspec.json.decode(texts.caddy, type=WireRoutes).routes),
        wireguard=before.parts.wireguard
        if before and before.texts.wireguard == texts.wireguard
        else wireguard.normalise_expected(msgspec.json.decode(texts.wireguard, type=WirePeers).peers, subnet_id),
    )
    every = (parts.containers, parts.dns, parts.caddy, parts.wireguard)
    expected = ExpectedState(
        containers=parts.containers.values,
        dns=parts.dns.values,
        caddy=parts.caddy.values,
        wireguard=parts.wireguard.values,
        held=Held(*[part.held for part in every]),
        rejected=tuple(sorted(one for part in every for one in part.rejected)),
    )
    return Document(expected, raw, subnet_id, texts, entries, parts)


def _entries(before: Document | None, texts: tuple[msgspec.Raw, ...], subnet_id: int | None) -> tuple[_Entry, ...]:
    """Those before the first change and after the last one are taken over as they stand, those between by their text."""
    if before is None:
        return tuple([_entry(text, subnet_id) for text in texts])
    old = before.texts.containers
    head, tail = equal_ends(old, texts)
    last = len(old) - tail
    moved = dict(zip(map(bytes, old[head:last]), before.entries[head:last], strict=True))
    between = [moved.get(bytes(text)) or _entry(text, subnet_id) for text in texts[head : len(texts) - tail]]
    return (*before.entries[:head], *between, *before.entries[last:])


def _entry(text: msgspec.Raw, subnet_id: int | None) -> _Entry:
    entry = _CONTAINER.decode(text)
    return entry.deployment_id, containers.normalise_expected(entry, subnet_id)


def _sifted(before: Document | None, entries: tuple[_Entry, ...]) -> Sifted[ExpectedContainer]:
    """In canonical order, with what is wrong."""
    exchanged = None if before is None else _exchanged(before, entries)
    if before is None or exchanged is None:
        sifted = split("containers", [key for key, _ in entries], [found for _, found in entries])
        return Sifted(tuple(sorted(sifted.values, key=_BY_DEPLOYMENT)), sifted.held, sifted.rejected)
    values = list(before.parts.containers.values)
    for one in exchanged:
        values[bisect_left(values, one.deployment_id, key=_BY_DEPLOYMENT)] = one
    return Sifted(tuple(values), frozenset(), ())


def _exchanged(before: Document, entries: tuple[_Entry, ...]) -> list[ExpectedContainer] | None:
    """The containers that have changed, when that is all: the same deployments in the same places, once each and nothing wrong with any."""
    was = before.parts.containers
    if was.rejected or len(was.values) != len(before.entries) or len(entries) != len(before.entries):
        return None
    changed: list[ExpectedContainer] = []
    for now, old in zip(entries, before.entries, strict=True):
        if now is not old:
            key, found = now
            if key != old[0] or isinstance(found, Fault):
                return None
            changed.append(found)
    return changed
