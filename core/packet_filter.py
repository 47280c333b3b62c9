"""What a ruleset does with one packet: walks the chains of a hook as the kernel does, with a packet of which not everything is known.

A drop counts only when it is certain: each rule before it surely did not apply or decided nothing, and its own conditions surely hold. An
accept counts already when it is possible. So "dropped" can be relied on, while "passes" means that nothing certain was found. A source
that is translated counts when that is certain, too.

The theory: a rule is a little program (`nft --debug=netlink list ruleset` prints it) that loads parts of the packet into registers,
compares them, and ends with a verdict. A register that is loaded with something unknown is unknown, and so is each comparison with it.
"""

import struct
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, TypeAlias

from core import nftables
from core.nftables import Attributes, Chain, Expression, Place, Rule, Ruleset, attributes, number, text

NETWORK, TRANSPORT = 1, 2
_WORD: Final = 4
_FIRST_WORD: Final = 8  # NFT_REG32_00; registers below are four words wide
_DEEPEST: Final = 16  # NFT_JUMP_STACK_SIZE
_MOST_RULES: Final = 20_000  # walked for one packet; a ruleset beyond that is not judged
_ACCEPT, _DROP, _JUMP, _GOTO, _RETURN = 1, 0, -3, -4, -5
_CONTINUE: Final = -1
_COMPARISONS: Final = ("eq", "neq", "lt", "lte", "gt", "gte")
_SOURCE_NAT: Final = 0  # NFT_NAT_SNAT
_STATE_ONLY: Final = 1  # XT_CONNTRACK_STATE
_META: Final = {
    1: "protocol",
    4: "iif",
    5: "oif",
    6: "iifname",
    7: "oifname",
    15: "nfproto",
    16: "l4proto",
}
_CT: Final = {0: "state", 1: "direction", 2: "status"}

Word: TypeAlias = bytes | None
Registers: TypeAlias = dict[int, Word]


@dataclass(frozen=True, slots=True)
class Packet:
    """What is known of a packet: `meta` and `ct` by the kernel's names, headers as (layer, offset) to byte. The rest is unknown."""

    meta: Mapping[str, bytes] = field(default_factory=dict)
    ct: Mapping[str, bytes] = field(default_factory=dict)
    headers: Mapping[tuple[int, int], int] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Dropped:
    """The base chain that drops a packet, and the chain whose rule does it, None when it is the base chain's policy."""

    chain: Chain
    by: Place | None


class _End(Enum):
    """What a walk through a chain comes to, besides a drop by the rule of a chain (its place)."""

    PASSES = "passes"
    FALLS_THROUGH = "falls through"


def dropped(ruleset: Ruleset, hook: int, packet: Packet) -> tuple[Dropped, ...]:
    """Every base chain of a hook that surely drops a packet, in the kernel's order. Raises ValueError for rules that are not understood."""
    found = []
    for chain in ruleset.based(hook, "filter"):
        end = _Walk(ruleset, packet).chain(chain.place, 0)
        if isinstance(end, tuple):
            found.append(Dropped(chain, end))
        elif end is _End.FALLS_THROUGH and chain.drops:
            found.append(Dropped(chain, None))
    return tuple(found)


def translated(ruleset: Ruleset, hook: int, packet: Packet) -> bool:
    """Whether a packet surely gets another source at a hook, by whomever. Raises ValueError for rules that are not understood."""
    return any(_Translation(ruleset, packet).chain(chain.place, 0) for chain in ruleset.based(hook, "nat"))


class _Translation:
    """One packet on its way through one base chain of the kind nat. A rule that may apply, or may not, is taken for one that does not."""

    def __init__(self, ruleset: Ruleset, packet: Packet) -> None:
        self._ruleset = ruleset
        self._packet = packet
        self._left = _MOST_RULES

    def chain(self, place: Place, depth: int) -> bool | None:
        """Whether the packet is translated, or goes on as it is; None when it falls through this chain."""
        for rule in self._ruleset.rules.get(place, ()):
            self._left -= 1
            if self._left < 0 or depth > _DEEPEST:
                return False
            run = _Run(self._ruleset, self._packet, rule)
            if run.translates():
                return True
            if run.verdict is None or not run.is_certain or run.verdict[0] == _CONTINUE:
                continue
            code, target = run.verdict
            if code not in (_JUMP, _GOTO):
                return None if code == _RETURN else False
            end = self.chain((place[0], place[1], target), depth + 1)
            if end is not None or code == _GOTO:
                return end
        return None


class _Walk:
    """One packet on its way through one base chain."""

    def __init__(self, ruleset: Ruleset, packet: Packet) -> None:
        self._ruleset = ruleset
        self._packet = packet
        self._left = _MOST_RULES

    def chain(self, place: Place, depth: int) -> _End | Place:
        """The end of the walk through a chain."""
        is_certain = True  # that the rule at hand is reached at all
        for rule in self._ruleset.rules.get(place, ()):
            self._left -= 1
            if self._left < 0 or depth > _DEEPEST:
                return _End.PASSES
            run = _Run(self._ruleset, self._packet, rule)
            if not run.applies() or run.verdict is None:
                continue
            code, target = run.verdict
            applies = is_certain and run.is_certain
            if code in (_JUMP, _GOTO):
                end = self.chain((place[0], place[1], target), depth + 1)
                if end is _End.PASSES or (applies and isinstance(end, tuple)):
                    return end
            elif code not in (_DROP, _RETURN):
                return _End.PASSES  # accepted, or handed to a program that may accept it
            if applies and code != _JUMP:
                return place if code == _DROP else _End.FALLS_THROUGH
            # What may have left this chain leaves it uncertain whether the rules after it are reached.
            is_certain &= code in (_JUMP, _DROP)
        return _End.FALLS_THROUGH


class _Run:
    """A rule run on a packet. `verdict` (code and chain) stays None when it decides nothing; `is_certain` when it surely applies."""

    def __init__(self, ruleset: Ruleset, packet: Packet, rule: Rule) -> None:
        self._ruleset, self._packet, self._rule = ruleset, packet, rule
        self._registers: Registers = {}
        self.verdict: tuple[int, str] | None = None
        self.is_certain = True

    def applies(self) -> bool:
        """Whether the rule may apply and has a verdict."""
        for expression in self._rule.expressions():
            holds = self._step(expression)
            if holds is False:
                return False
            self.is_certain &= holds is not None
            if self.verdict is not None:
                return self.verdict[0] != _CONTINUE
        return False

    def translates(self) -> bool:
        """Whether the rule surely applies and gives the packet another source."""
        for expression in self._rule.expressions():
            if _is_source_translation(expression):
                return self.is_certain
            holds = self._step(expression)
            self.is_certain &= holds is True
            if holds is False or self.verdict is not None:
                break
        return False

    def _step(self, one: Expression) -> bool | None:
        """Whether the rule goes on after this expression; None when that is not known."""
        found = one.attributes
        match one.name:
            case "payload" | "meta" | "ct" | "bitwise" | "byteorder":
                return self._load(one.name, found)
            case "cmp" | "range" | "lookup" | "match":
                return self._compare(one.name, found)
            case "immediate":
                self._immediate(found)
            case "reject":
                self.verdict = (_DROP, "")
            case "target":
                self.verdict = _TARGETS.get(text(found.get(1, b"")))
            case "queue" | "synproxy" | "tproxy" | "fwd":
                self.verdict = (_ACCEPT, "")
            case "counter" | "log" | "notrack" | "flow_offload":
                pass
            case _:
                self._registers.clear()  # it may have written to any of them
                return None
        return True

    def _load(self, name: str, found: Attributes) -> bool | None:
        if name in ("payload", "meta", "ct") and 1 not in found:
            return True  # it writes to the packet; what it writes is never taken as known
        match name:
            case "payload":
                value = self._payload(number(found.get(2)), number(found.get(3)), number(found.get(4)))
                self._set(number(found.get(1)), value, number(found.get(4)))
            case "meta":
                self._set(number(found.get(1)), self._packet.meta.get(_META.get(number(found.get(2)), "")), 16)
            case "ct":
                self._set(number(found.get(1)), self._packet.ct.get(_CT.get(number(found.get(2)), "")), 16)
            case "bitwise":
                self._bitwise(found)
            case "byteorder":
                self._byteorder(found)
        return True

    def _compare(self, name: str, found: Attributes) -> bool | None:
        match name:
            case "cmp":
                wanted = _value(found.get(3, b""))
                return _holds(self._get(number(found.get(1)), len(wanted)), number(found.get(2)), wanted)
            case "range":
                low, high = _value(found.get(3, b"")), _value(found.get(4, b""))
                value = self._get(number(found.get(1)), len(low))
                return None if value is None else (low <= value <= high) == (number(found.get(2)) == 0)
            case "lookup":
                return self._lookup(found)
        return self._match(found)

    def _lookup(self, found: Attributes) -> bool | None:
        one = self._ruleset.sets.get((*self._rule.place[:2], text(found.get(1, b""))))
        element: nftables.Element | bool | None = None
        if one is not None and one.elements is not None:
            key = self._get(number(found.get(2)), one.width)
            element = None if key is None else one.find(key)
        if 3 not in found:
            return None if element is None else (element is not False) != bool(number(found.get(5)) & 1)
        if number(found.get(3)) == 0:
            return self._verdict_of(element)
        self._set(number(found.get(3)), None, 16)
        return None if element is None else element is not False

    def _verdict_of(self, element: nftables.Element | bool | None) -> bool | None:
        """A map of verdicts has been asked; what is not known may be an accept."""
        if element is None:
            self.verdict = (_ACCEPT, "")
            return None
        if isinstance(element, bool) or element.verdict is None:
            return False
        self.verdict = _verdict(element.verdict)
        return True

    def _match(self, found: Attributes) -> bool | None:
        """An extension of iptables: a comment says nothing, the state of a connection is known, all others are not."""
        name, revision, data = text(found.get(1, b"")), number(found.get(2)), found.get(3, b"")
        if name == "comment":
            return True
        state = self._packet.ct.get("state")
        if name != "conntrack" or revision not in (2, 3) or len(data) < 154 or state is None:
            return None
        flags, inverted, states = struct.unpack_from(
            "=HHH", data, 146
        )  # xt_conntrack_mtinfo3, in the machine's byte order
        if flags != _STATE_ONLY:
            return None
        return bool(states & struct.unpack("=I", state)[0]) != bool(inverted & _STATE_ONLY)

    def _immediate(self, found: Attributes) -> None:
        data = dict(attributes(found.get(2, b"")))
        if 2 in data:
            self.verdict = _verdict(data[2])
        else:
            value = data.get(1, b"")
            self._set(number(found.get(1)), value, len(value))

    def _bitwise(self, found: Attributes) -> None:
        length, value = number(found.get(3)), None
        before = self._get(number(found.get(1)), length)
        if before is not None and number(found.get(6)) == 0:
            mask, flip = _value(found.get(4, b"")), _value(found.get(5, b""))
            value = bytes((a & b) ^ c for a, b, c in zip(before, mask, flip, strict=True))
        self._set(number(found.get(2)), value, length)

    def _byteorder(self, found: Attributes) -> None:
        length, size = number(found.get(4)), max(1, number(found.get(5)))
        before = self._get(number(found.get(1)), length)
        value = before and b"".join(before[at : at + size][::-1] for at in range(0, length, size))
        self._set(number(found.get(2)), value, length)

    def _payload(self, layer: int, offset: int, length: int) -> bytes | None:
        _require_room(length)
        found = [self._packet.headers.get((layer, offset + at)) for at in range(length)]
        return None if None in found else bytes(one for one in found if one is not None)

    def _get(self, register: int, length: int) -> bytes | None:
        _require_room(length)
        first = _first_word(register)
        words = [self._registers.get(first + at) for at in range(-(-length // _WORD))]
        return None if None in words else b"".join(word for word in words if word is not None)[:length]

    def _set(self, register: int, value: bytes | None, length: int) -> None:
        _require_room(length)
        first = _first_word(register)
        for at in range(-(-max(length, len(value or b"")) // _WORD)):
            part = None if value is None else value[at * _WORD : (at + 1) * _WORD].ljust(_WORD, b"\0")
            self._registers[first + at] = part


_REGISTERS_BYTES: Final = 80  # linux/netfilter/nf_tables.h: a verdict of 16 bytes, and 16 words of 4
_TARGETS: Final = {"REJECT": (_DROP, ""), "DROP": (_DROP, ""), "NFQUEUE": (_ACCEPT, ""), "ACCEPT": (_ACCEPT, "")}


def _is_source_translation(one: Expression) -> bool:
    if one.name == "target":
        return text(one.attributes.get(1, b"")) in ("MASQUERADE", "SNAT")
    return one.name == "masq" or (one.name == "nat" and number(one.attributes.get(1)) == _SOURCE_NAT)


def _require_room(length: int) -> None:
    """Raise ValueError for more bytes than a kernel has registers for; a length of four bytes would be worked off one by one."""
    if length > _REGISTERS_BYTES:
        raise ValueError(f"a rule works on {length} bytes, and there are registers for {_REGISTERS_BYTES}")


def _first_word(register: int) -> int:
    return register - _FIRST_WORD + _WORD if register >= _FIRST_WORD else register * _WORD


def _value(data: bytes) -> bytes:
    return dict(attributes(data)).get(1, b"")


def _verdict(data: bytes) -> tuple[int, str]:
    found = dict(attributes(data))
    return int.from_bytes(found.get(1, b""), "big", signed=True), text(found.get(2, b""))


def _holds(value: bytes | None, operator: int, wanted: bytes) -> bool | None:
    if value is None:
        return None
    match _COMPARISONS[operator] if operator < len(_COMPARISONS) else "":
        case "eq":
            return value == wanted
        case "neq":
            return value != wanted
        case "lt":
            return value < wanted
        case "lte":
            return value <= wanted
        case "gt":
            return value > wanted
        case "gte":
            return value >= wanted
    return None
