"""The kernel's nftables, read by netlink in this process: no tool is started, and none need be installed.

`generation` costs one small message: the kernel counts every change of any rule, so that nothing else is read while nothing changes.
"""

import errno
import os
import socket
import struct
from collections.abc import Iterator
from contextlib import contextmanager
from dataclasses import replace
from typing import Final

from core import nftables
from core.nftables import Place, Ruleset, attribute
from shell.failure import AdapterError

COMPONENT: Final = "firewall"
_NETLINK_NETFILTER: Final = 12
_NFTABLES: Final = 10 << 8  # the subsystem's number, in the upper byte of a message's type
_REQUEST, _DUMP = 0x1, 0x300
_INTERRUPTED: Final = 0x10  # somebody changed the rules while they were read
_ERROR, _DONE = 2, 3
_LIMIT_S: Final = 5.0
_LARGEST: Final = 64 * 1024**2  # of one answer; ten times what a large server has
_ONE_ANSWER: Final = 64 * 1024  # the kernel makes no longer ones
_MOST_SETS: Final = 500
_MOST_ELEMENTS_BYTES: Final = (
    256 * 1024
)  # of one set: block lists have a hundred thousand addresses, and none of them is ours
_TRIES: Final = 5
_NOT_THERE: Final = (errno.EPROTONOSUPPORT, errno.EOPNOTSUPP, errno.EINVAL, errno.EAFNOSUPPORT)


class _ChangedError(Exception):
    """The rules were changed while they were read."""


class _TooLargeError(Exception):
    """An answer is larger than what is read of it."""


def generation() -> int | None:
    """The number of the ruleset in this network namespace; None when the kernel has no nftables. Raises AdapterError."""
    try:
        with _failures("ask for the generation of nftables"), connected() as connection:
            send(connection, nftables.GET_GENERATION, b"", dump=False)
            found = next(messages(connection), None)
            return None if found is None else nftables.number(dict(nftables.attributes(found[2])).get(1))
    except AdapterError as error:
        if isinstance(error.__cause__, OSError) and error.__cause__.errno in _NOT_THERE:
            return None
        raise


def read() -> tuple[int, Ruleset]:
    """The ruleset and its generation. Raises AdapterError, also when it changes so fast that no moment of it is seen."""
    for _ in range(_TRIES):
        before = generation()
        if before is None:
            raise AdapterError(COMPONENT, "read the rules", "the kernel has no nftables")
        try:
            with _failures("read the rules of nftables"), connected() as connection:
                found = _read(connection)
        except _ChangedError:
            continue
        if generation() == before:
            return before, found
    raise AdapterError(COMPONENT, "read the rules of nftables", "they change all the time", "tried again")


def _read(connection: socket.socket) -> Ruleset:
    answers: list[tuple[int, int, bytes]] = []
    for kind in (nftables.GET_CHAIN, nftables.GET_RULE, nftables.GET_SET):
        send(connection, kind, b"", dump=True)
        answers += messages(connection)
    found = nftables.parse(answers)
    sets = {place: replace(one, elements=_elements(one)) for place, one in sorted(found.sets.items())[:_MOST_SETS]}
    return replace(found, sets={**found.sets, **sets})


def _elements(one: nftables.Set) -> tuple[nftables.Element, ...] | None:
    """What is in a set; None when that is too much. On a connection of its own, since the rest of a large answer is left unread."""
    try:
        with connected() as connection:
            ask_elements(connection, one.place)
            return nftables.parse_elements(data for _, _, data in messages(connection, _MOST_ELEMENTS_BYTES))
    except _TooLargeError:
        return None
    except FileNotFoundError as error:  # it has gone since the sets were listed
        raise _ChangedError from error


def ask_elements(connection: socket.socket, place: Place) -> None:
    """Send a request for what is in a set."""
    family, table, name = place
    number = next(number for number, word in nftables.FAMILIES.items() if word == family)
    asked = attribute(1, table.encode() + b"\0") + attribute(2, name.encode() + b"\0")
    send(connection, nftables.GET_ELEMENTS, asked, dump=True, family=number)


def send(connection: socket.socket, kind: int, asked: bytes, *, dump: bool, family: int = 0) -> None:
    """Send a request with these attributes, for one thing or for all of its kind."""
    body = struct.pack("=BBH", family, 0, 0) + asked
    flags = _REQUEST | (_DUMP if dump else 0)
    connection.sendall(struct.pack("=IHHII", 16 + len(body), _NFTABLES | kind, flags, 1, 0) + body)


def messages(connection: socket.socket, largest: int = _LARGEST) -> Iterator[tuple[int, int, bytes]]:
    """Type, family and attributes of each message of an answer. Raises OSError for what the kernel refuses."""
    size = 0
    while True:
        data = connection.recv(_ONE_ANSWER)
        size += len(data)
        if size > largest:
            raise _TooLargeError
        offset = 0
        while offset + 16 <= len(data):
            length, kind, flags = struct.unpack_from("=IHH", data, offset)
            if flags & _INTERRUPTED:
                raise _ChangedError
            if kind == _ERROR:
                (number,) = struct.unpack_from("=i", data, offset + 16)
                raise OSError(-number, os.strerror(-number))
            if kind == _DONE:
                return
            yield kind & 0xFF, data[offset + 16], data[offset + 20 : offset + length]
            offset += (length + 3) & ~3


@contextmanager
def connected() -> Iterator[socket.socket]:
    """A connection to the kernel, in this thread's network namespace. Raises OSError."""
    with socket.socket(socket.AF_NETLINK, socket.SOCK_RAW | socket.SOCK_CLOEXEC, _NETLINK_NETFILTER) as connection:
        connection.settimeout(_LIMIT_S)
        connection.bind((0, 0))
        yield connection


@contextmanager
def _failures(what: str) -> Iterator[None]:
    """Turn the system's errors, and answers that are not understood, into AdapterError."""
    try:
        yield
    except (OSError, ValueError, _TooLargeError) as error:
        reason = (error.strerror if isinstance(error, OSError) else None) or str(error) or "the answer is too large"
        raise AdapterError(COMPONENT, what, reason, "tried again") from error
