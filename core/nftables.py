"""nftables' rules as the kernel gives them by netlink, whoever made them: nft, iptables-nft, firewalld, netavark.

Knows the wire format (linux/netfilter/nf_tables.h): attributes of a two-byte length and a two-byte type, numbers in network byte order.
What a rule means is `core.packet_filter`'s; here its expressions are kept as they came, and taken apart only where somebody asks.
"""

import struct
from bisect import bisect_right
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import Final, TypeAlias

# Types of messages, without the subsystem in the upper byte.
NEW_CHAIN, GET_CHAIN = 3, 4
NEW_RULE, GET_RULE = 6, 7
NEW_SET, GET_SET = 9, 10
NEW_ELEMENTS, GET_ELEMENTS = 12, 13
NEW_GENERATION, GET_GENERATION = 15, 16

FAMILIES: Final[Mapping[int, str]] = {1: "inet", 2: "ip"}  # the ones that IPv4 passes through
PREROUTING, INPUT, FORWARD, POSTROUTING = 0, 1, 2, 4

_CONCATENATED, _INTERVAL = 0x80, 0x4
_TYPE_MASK: Final = 0x3FFF  # without the flags NLA_F_NESTED and NLA_F_NET_BYTEORDER
_DROP_BY_POLICY: Final = 0

Attributes: TypeAlias = Mapping[int, bytes]
Place: TypeAlias = tuple[str, str, str]
"""Family, table, and name of a chain or a set."""


@dataclass(frozen=True, slots=True)
class Chain:
    """A chain; one without a hook is entered by a jump only."""

    place: Place
    hook: int | None
    kind: str
    priority: int
    drops: bool


@dataclass(frozen=True, slots=True)
class Expression:
    """A step of a rule, by the kernel's name for it (`cmp`, `immediate`, …)."""

    name: str
    attributes: Attributes


@dataclass(frozen=True, slots=True)
class Rule:
    """A rule of a chain; `raw` are its expressions as they came."""

    place: Place
    raw: bytes

    def expressions(self) -> Iterator[Expression]:
        """Its steps in their order. Raises ValueError where the bytes are no attributes."""
        for _, element in attributes(self.raw):
            fields = dict(attributes(element))
            yield Expression(text(fields.get(1, b"")), dict(attributes(fields.get(2, b""))))

    def content(self) -> bytes:
        """What is the same as long as nobody changes the rule: all but its counters. Raises ValueError."""
        return b"".join(element for _, element in attributes(self.raw) if not element[4:].startswith(b"counter\0"))


@dataclass(frozen=True, slots=True)
class Element:
    """A key of a set; `ends` marks the first key after an interval; `verdict` is what a map of verdicts has for it, as it came."""

    key: bytes
    ends: bool
    verdict: bytes | None


def _place_of(one: Element) -> tuple[bytes, bool]:
    """Of two with one key, an interval's end comes before the beginning of the next."""
    return one.key, not one.ends


@dataclass(frozen=True, slots=True)
class Set:
    """A set or a map. `elements` is None when they were not read."""

    place: Place
    flags: int
    elements: tuple[Element, ...] | None = None
    width: int = field(init=False, repr=False, compare=False)
    _ordered: tuple[Element, ...] = field(init=False, repr=False, compare=False)

    def __post_init__(self) -> None:
        """`width` is that of the widest key; thousands of rules may ask for each."""
        ordered = tuple(sorted(self.elements or (), key=_place_of))
        object.__setattr__(self, "_ordered", ordered)
        object.__setattr__(self, "width", max((len(one.key) for one in ordered), default=0))

    def find(self, key: bytes) -> Element | bool | None:
        """The element that a key falls on, False when there is none, None when that is not known."""
        if self.elements is None or self.flags & (_CONCATENATED | _INTERVAL) == _CONCATENATED | _INTERVAL:
            return None
        at = bisect_right(self._ordered, (key, True), key=_place_of)
        below = self._ordered[at - 1] if at else None
        if below is None or (below.key != key and not self.flags & _INTERVAL):
            return False
        return below if not below.ends or not self.flags & _INTERVAL else False


@dataclass(frozen=True, slots=True)
class Ruleset:
    """The chains in the order of the kernel, each one's rules, and the sets; of the families that IPv4 passes through."""

    chains: tuple[Chain, ...] = ()
    rules: Mapping[Place, tuple[Rule, ...]] = field(default_factory=dict)
    sets: Mapping[Place, Set] = field(default_factory=dict)

    def based(self, hook: int, kind: str) -> Iterator[Chain]:
        """The chains of this kind that a hook walks."""
        return (chain for chain in self.chains if chain.hook == hook and chain.kind == kind)


def attributes(data: bytes) -> Iterator[tuple[int, bytes]]:
    """Type and value of each attribute. Raises ValueError for one that is longer than the data."""
    offset = 0
    while offset + 4 <= len(data):
        length, kind = struct.unpack_from("=HH", data, offset)
        if length < 4 or offset + length > len(data):
            raise ValueError("an attribute is cut short")
        yield kind & _TYPE_MASK, data[offset + 4 : offset + length]
        offset += (length + 3) & ~3


def attribute(kind: int, value: bytes) -> bytes:
    """The attribute as bytes."""
    return struct.pack("=HH", len(value) + 4, kind) + value + b"\0" * (-len(value) % 4)


def text(value: bytes) -> str:
    """A name."""
    return value.rstrip(b"\0").decode("utf-8", "replace")


def number(value: bytes | None) -> int:
    """A number in network byte order; 0 when it is not there."""
    return int.from_bytes(value or b"", "big")


def parse(messages: Iterable[tuple[int, int, bytes]]) -> Ruleset:
    """The ruleset from messages of (type, family, attributes). Raises ValueError."""
    chains: list[Chain] = []
    rules: dict[Place, list[Rule]] = {}
    sets: dict[Place, Set] = {}
    for kind, family, data in messages:
        if family not in FAMILIES:
            continue
        found = dict(attributes(data))
        match kind:
            case 3:
                chains.append(_chain(family, found))
            case 6:
                rule = Rule((FAMILIES[family], _name(found, 1), _name(found, 2)), found.get(4, b""))
                rules.setdefault(rule.place, []).append(rule)
            case 9:
                one = Set((FAMILIES[family], _name(found, 1), _name(found, 2)), number(found.get(3)))
                sets[one.place] = one
    return Ruleset(tuple(chains), {place: tuple(found) for place, found in rules.items()}, sets)


def parse_elements(messages: Iterable[bytes]) -> tuple[Element, ...] | None:
    """The elements in the messages that answer for one set; None when one of them stands for all other keys. Raises ValueError."""
    elements = []
    for data in messages:
        for _, element in attributes(dict(attributes(data)).get(3, b"")):
            found = dict(attributes(element))
            if 1 not in found:
                return None
            verdict = dict(attributes(found[2])).get(2) if 2 in found else None
            key = dict(attributes(found[1])).get(1, b"")
            elements.append(Element(key, bool(number(found.get(3)) & 1), verdict))
    return tuple(elements)


def _name(found: Attributes, kind: int) -> str:
    return text(found.get(kind, b""))


def _chain(family: int, found: Attributes) -> Chain:
    hook = dict(attributes(found[4])) if 4 in found else {}
    return Chain(
        (FAMILIES[family], _name(found, 1), _name(found, 3)),
        number(hook[1]) if 1 in hook else None,
        text(found.get(7, b"")),
        int.from_bytes(hook.get(2, b""), "big", signed=True),
        5 in found and number(found[5]) == _DROP_BY_POLICY,
    )
