"""Inputs from a seed: what `benchmarks.families` makes in small, changed in ways that have broken parsers before."""

import base64
import json
from collections.abc import Callable, Iterator
from functools import cache
from random import Random
from typing import Any, Final

from benchmarks.families import FAMILIES

LARGEST: Final = 256 * 1024

# Bytes that mean something to one parser or another.
TOKENS: Final = (
    *(
        b"",
        b"\0",
        b"\n",
        b"\r",
        b"\t",
        b" ",
        b"\\",
        b'"',
        b"'",
        b"`",
        b"%",
        b"$",
        b"#",
        b"=",
        b":",
        b";",
        b"/",
        b"..",
        b"*",
    ),
    *(b"\x1b]", b"\x1b[", b"\x07", b"\x1b\\", b"\x7f", b"\x85", b"\xe2\x80\xa8", b"\xff", b"\xc0\x80", b"\xed\xa0\x80"),
    *(
        b"\\ud800",
        b'"\\udfff"',
        b"\\u0000",
        b"null",
        b"true",
        b"NaN",
        b"-0",
        b"1e999",
        b"1.5",
        b"-1",
        b"{}",
        b"[]",
        b"[[]]",
    ),
    *(b"9" * 20, b"9" * 5_000, b"-" + b"9" * 400, b"0x10", b"[" * 1_500, b'{"a":' * 1_500, "²".encode(), "٣".encode()),
    *(
        b"\0\0\0\0",
        b"\xff\xff\xff\xff",
        b"\4\0\1\0",
        b"techulus",
        b"techulus.",
        b".internal",
        b"10.200.3.2",
        b"a" * 300,
    ),
)

# Values in the place of any other in a JSON document.
VALUES: Final[tuple[Any, ...]] = (
    *(
        None,
        True,
        False,
        0,
        -1,
        1,
        2**31,
        2**63,
        2**64,
        -(2**63),
        10**400,
        1e308,
        0.5,
        "",
        "a",
        " ",
        "\0",
        "\n",
        "\ud800",
    ),
    *(
        "\u2028",
        "é",
        "ß",
        "İ",
        "..",
        "a/b",
        "-x",
        "x" * 70_000,
        "10.200.3.2",
        "fe80::1%eth0",
        "[::]:1",
        "1:2",
        "xn--a",
        "ü" * 300,
    ),
    *([], {}, [[]], [None], {"": None}, {"a": {"a": {}}}, [0] * 3_000, {str(number): number for number in range(300)}),
)

# The lists of an expected state, and what tells their entries apart.
_LISTS: Final = (("containers",), ("dns", "records"), ("caddy", "routes"), ("wireguard", "peers"))
_KEYS: Final[dict[str, Callable[[str, int], str]]] = {
    **dict.fromkeys(("deploymentId", "id", "name", "domain"), lambda key, number: f"x{number}-{key}"),
    "publicKey": lambda _, number: base64.b64encode(number.to_bytes(32, "big")).decode(),
    "allowedIps": lambda _, number: f"10.100.{number >> 8 & 255}.{number & 255}/32",
}


@cache
def seeds(parser: str) -> tuple[bytes, ...]:
    """Small inputs of a parser's families."""
    return tuple(one.make(size) for one in FAMILIES if one.parser == parser for size in (1, 3, 40))


def inputs(parser: str, random: Random) -> Iterator[bytes]:
    """Without end, each from a seed by up to four changes."""
    while True:
        raw = random.choice(seeds(parser))
        changes = random.choice((CHANGES, (_value,)))
        for _ in range(random.choice((1, 1, 2, 4))):
            raw = random.choice(changes)(raw, random)
        yield raw[:LARGEST]


def pumped(raw: bytes, random: Random) -> Callable[[int], bytes]:
    """The input with a part of it repeated so many times."""
    first, last = _span(raw, random, 64)
    return lambda times: raw[:first] + raw[first:last] * times + raw[last:]


def enlarged(raw: bytes, size: int) -> bytes:
    """About so many bytes: an expected state with copies of its entries under other keys; of anything else the same bytes repeated."""
    times = size // max(1, len(raw))
    try:
        document = json.loads(raw)
        for path in _LISTS:
            entries: Any = document
            for name in path:
                entries = entries[name]
            entries += [_copy(one, number) for one in [*entries] for number in range(times)]
    except (ValueError, RecursionError, LookupError, TypeError, AttributeError):
        return raw * times
    return json.dumps(document, separators=(",", ":")).encode()


def _copy(entry: dict[str, Any], number: int) -> dict[str, Any]:
    changed = {name: _KEYS[name](text, number) for name, text in entry.items() if name in _KEYS}
    return {**entry, **changed}


def _span(raw: bytes, random: Random, longest: int = 10_000) -> tuple[int, int]:
    first = random.randint(0, len(raw))
    return first, min(len(raw), first + random.randint(1, longest))


def _with_token(raw: bytes, random: Random) -> bytes:
    first, last = _span(raw, random)
    return raw[:first] + random.choice(TOKENS) + raw[random.choice((first, last)) :]


def _with_byte(raw: bytes, random: Random) -> bytes:
    at = random.randint(0, len(raw))
    return raw[:at] + bytes((random.randrange(256),)) + raw[at + random.randint(0, 1) :]


def _cut(raw: bytes, random: Random) -> bytes:
    first, last = _span(raw, random)
    return random.choice((raw[:first], raw[first:], raw[:first] + raw[last:], raw[first:last]))


def _repeated(raw: bytes, random: Random) -> bytes:
    times = random.choice((2, 3, 10, 1000))
    return pumped(raw, random)(times)[:LARGEST]


def _of_another(raw: bytes, random: Random) -> bytes:
    other = random.choice(seeds(random.choice(FAMILIES).parser))
    first, last = _span(other, random)
    at = random.randint(0, len(raw))
    return raw[:at] + other[first:last] + raw[at:]


def _value(raw: bytes, random: Random) -> bytes:
    """Another value somewhere in a JSON document, or the document's own beneath another name."""
    try:
        root = {"": json.loads(raw)}
    except (ValueError, RecursionError):
        return _with_token(raw, random)
    owner: Any = root
    key: Any = ""
    while isinstance(owner[key], dict | list) and owner[key] and random.random() < 0.97:
        owner = owner[key]
        keys = [*owner] if isinstance(owner, dict) else [*range(len(owner))]
        filled = [one for one in keys if _is_filled(owner[one])]
        key = random.choice(filled if filled and random.random() < 0.9 else keys)
    match random.randrange(3):
        case 0 if isinstance(owner, dict):
            owner[str(random.choice(VALUES))[:100]] = owner.pop(key)
        case 1:
            del owner[key]
        case _:
            owner[key] = random.choice(VALUES)
    return json.dumps(root.get(""), separators=(",", ":")).encode()


def _is_filled(value: Any, depth: int = 4) -> bool:
    """Whether there is anything but empty lists and objects in a list or an object."""
    if not isinstance(value, dict | list) or not depth:
        return False
    inner = value.values() if isinstance(value, dict) else value
    return any(not isinstance(one, dict | list) or _is_filled(one, depth - 1) for one in inner)


CHANGES: Final = (_with_token, _with_byte, _cut, _repeated, _of_another, _value)
