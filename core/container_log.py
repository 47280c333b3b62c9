"""Podman's log files (`k8s-file`) to log lines: one line of the file is `<time> <stream> <F|P> <text>`, `P` a part that goes on.

Decides what a line is, where it is cut and which time it gets. Parts are joined per stream; text that is not UTF-8 is repaired; blank
lines, which the store would drop, are left out.

A power cut leaves blocks of NUL bytes in a file that was being written. NUL bytes are left out, and a line that begins after some of them
without a newline is a line of its own.
"""

import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass
from datetime import UTC, datetime
from functools import lru_cache
from itertools import groupby
from operator import lt
from typing import Final, TypeAlias

import msgspec

from core.log_lines import next_time, rfc3339

LONGEST_ENCODED: Final = 200_000
"""Bytes of one line as it is sent; the store drops longer ones, and what follows them."""

_PIECE: Final = 30_000  # bytes of text: JSON makes at most six of each, and the fields want some
_MARK: Final = " …".encode()
_BILLION: Final = 1_000_000_000
_LONGEST_STAMP: Final = 64
_SECONDS: Final = 19  # of `2026-11-23T11:30:04.877028358+00:00`
_USUAL: Final = re.compile(
    r"^([0-9]{4}-[0-9]{2}-[0-9]{2}T[0-9]{2}:[0-9]{2}:[0-9]{2}\.[0-9]{9})([+-][0-9]{2}:[0-9]{2}) (stdout|stderr) F (.*)\n",
    re.MULTILINE,
)
"""Nearly every line: whole, and as Podman writes it. Many taken apart at once take a fifth of the time."""
_BLANK: Final = " \t\n\r\x0b\x0c"
_LONGEST_USUAL: Final = _PIECE // 4  # characters, each of four bytes at most
_STREAMS: Final = (b"stdout", b"stderr")
_NULS: Final = re.compile(rb"\0+")

Begun: TypeAlias = tuple[tuple[str, bytes], ...]
"""Stream and text of lines that are not at their end, each shorter than a piece."""


class _Line(msgspec.Struct, gc=False):
    msg: str = msgspec.field(name="_msg")
    time: str = msgspec.field(name="_time")
    stream: str


@dataclass(frozen=True, slots=True)
class Source:
    """Whose log it is."""

    deployment_id: str
    service_id: str


class Assembler:
    """Bytes of one log file in, encoded lines out.

    `last_ns` is the time of the last line before, so that times increase over a restart; `begun` are the lines of which only a part had
    come by then. (Reading them again instead would cut the other stream's lines, whose parts may lie on either side of any place.)
    """

    def __init__(self, source: Source, last_ns: int = 0, begun: Begun = ()) -> None:
        self.last_ns = last_ns
        self.lines = 0
        self.nul_bytes = 0
        """How many were left out."""
        self._left = b""
        self._held_bytes = 0
        self._parts = {name: text for stream, text in begun if (name := stream.encode("utf-8", "replace")) in _STREAMS}
        self._encoder = msgspec.json.Encoder()
        self._ends = {stream: _end(source, stream) for stream in _STREAMS}

    @property
    def held_bytes(self) -> int:
        """Bytes at the end of what was fed that are no whole line of the file yet: so far back, reading goes on after a crash."""
        return self._held_bytes

    @property
    def begun(self) -> Begun:
        """The lines of which only a part has come."""
        return tuple((stream.decode(), text) for stream, text in sorted(self._parts.items()))

    def feed(self, chunk: bytes) -> bytes:
        """The encoded lines that are whole now, each with its newline."""
        at = chunk.rfind(b"\n")
        self._held_bytes = (self._held_bytes if at == -1 else 0) + len(chunk) - at - 1
        if b"\0" in chunk:
            chunk = self._shortened(chunk)
        chunk = self._left + chunk
        at = chunk.rfind(b"\n") + 1
        whole, self._left = chunk[:at], chunk[at:]
        found = self._usual(whole)
        if found is None:
            found = b"".join(map(self._encoded, whole.split(b"\n")[:-1]))
        if len(self._left) > _PIECE * 4:  # no line of Podman's is that long: its parts are a few KiB
            found += self._encoded(self._left)
            self._left, self._held_bytes = b"", 0
        return found

    def _usual(self, block: bytes) -> bytes | None:
        """The lines of a block, when each is as Podman writes nearly all. None when one is not: then none has been taken."""
        if self._parts or b"\0" in block:
            return None
        text = block.decode("utf-8", "replace")
        if _USUAL.match(text) is None:  # nor will the others be
            return None
        found = _USUAL.findall(text)
        if len(found) != text.count("\n"):
            return None
        found = [one for one in found if one[3].strip(_BLANK)]
        if not found:
            return b""
        local, zones, streams, texts = zip(*found, strict=True)
        stamps = _in_utc(local, zones)
        if stamps is None or max(map(len, texts)) > _LONGEST_USUAL:
            return None
        lines = self._encoder.encode_lines(list(map(_Line, texts, self._times(stamps), streams)))
        self.lines += len(found)
        for stream in {*streams}:
            lines = lines.replace(f'","stream":"{stream}"}}\n'.encode(), self._ends[stream.encode()])
        return lines

    def _times(self, stamps: tuple[str, ...]) -> Iterable[str]:
        """Each later than the one before; Podman gives what it reads at once the same time."""
        first, last = _time_ns(stamps[0]), _time_ns(stamps[-1])
        if first > self.last_ns and all(map(lt, stamps, stamps[1:])):
            self.last_ns = last
            return map("{}Z".format, stamps)
        made: list[str] = []
        for stamp, same in groupby(stamps):
            time_ns = next_time(_time_ns(stamp), self.last_ns)
            count = len([*same])
            made += map(rfc3339, range(time_ns, time_ns + count))
            self.last_ns = time_ns + count - 1
        return made

    def _shortened(self, chunk: bytes) -> bytes:
        """With one NUL byte for each run of them, so that a block of any size takes no memory."""
        self.nul_bytes += chunk.count(b"\0")
        chunk = _NULS.sub(b"\0", chunk)
        return chunk[1:] if self._left.endswith(b"\0") and chunk.startswith(b"\0") else chunk

    def end(self) -> bytes:
        """What is left when the file is complete. What is fed next is another file, or the same from its beginning: with its own times."""
        rest = self._encoded(self._left) if self._left else b""
        self._left, self._held_bytes = b"", 0
        for stream in sorted(self._parts):
            rest += self._text(stream, self._parts[stream], self.last_ns)
        self._parts.clear()
        self.last_ns = 0
        return rest

    def _encoded(self, line: bytes) -> bytes:
        if b"\0" in line:
            return b"".join(map(self._encoded, _around_nuls(line)))
        fields = line.split(b" ", 3)
        if len(fields) != 4 or fields[1] not in _STREAMS or fields[2] not in (b"F", b"P"):
            return self._text(b"stdout", line, self.last_ns) if line.strip() else b""
        stamp, stream, kind, text = fields
        if self._parts:
            text = self._parts.pop(stream, b"") + text
        if kind == b"P" and len(text) < _PIECE:
            self._parts[stream] = text
            return b""
        return self._text(stream, text, parse_time(stamp), goes_on=kind == b"P")

    def _text(self, stream: bytes, text: bytes, time_ns: int, *, goes_on: bool = False) -> bytes:
        if len(text) <= _PIECE and not goes_on:
            return self._line(stream, text, time_ns) if text.strip() else b""
        pieces = list(_pieces(text))
        marked = [piece + _MARK for piece in pieces[:-1]] + [pieces[-1] + (_MARK if goes_on else b"")]
        return b"".join(self._line(stream, piece, time_ns) for piece in marked)

    def _line(self, stream: bytes, text: bytes, time_ns: int) -> bytes:
        self.last_ns = next_time(time_ns, self.last_ns)
        self.lines += 1
        encoded = self._encoder.encode(text.decode("utf-8", "replace"))
        return b'{"_msg":' + encoded + b',"_time":"' + rfc3339(self.last_ns).encode() + self._ends[stream]


def _end(source: Source, stream: bytes) -> bytes:
    """What follows the time in each line of a stream. (To encode it once for all lines saves a third of their time.)"""
    fixed = {"deployment_id": source.deployment_id, "service_id": source.service_id, "log_type": "container"}
    return b'",' + msgspec.json.encode({**fixed, "stream": stream.decode()})[1:] + b"\n"


def _around_nuls(line: bytes) -> list[bytes]:
    """The lines of which one consists that has lost its newlines to NUL bytes: each begins as Podman's do."""
    found: list[list[bytes]] = [[]]
    for part in line.split(b"\0"):
        fields = part[: _LONGEST_STAMP * 2].split(b" ", 3)
        if len(fields) == 4 and fields[1] in _STREAMS and parse_time(fields[0]):
            found.append([])
        found[-1].append(part)
    return [b"".join(parts) for parts in found if any(parts)]


def parse_time(stamp: bytes) -> int:
    """Nanoseconds since the epoch of a time as Podman writes it; 0 for anything else."""
    if len(stamp) > _LONGEST_STAMP:
        return 0
    at = stamp.rfind(b".", _SECONDS, _SECONDS + 1)
    end = _SECONDS if at == -1 else at + 1
    while end < len(stamp) and 0x30 <= stamp[end] <= 0x39:
        end += 1
    fraction = stamp[at + 1 : end] if at != -1 else b""
    seconds = _epoch(stamp[:_SECONDS], stamp[end:])
    return 0 if seconds is None else seconds * _BILLION + int((fraction + b"000000000")[:9])


def _in_utc(stamps: tuple[str, ...], zones: tuple[str, ...]) -> tuple[str, ...] | None:
    """The same times without their zones; None when one is none."""
    seconds = {
        one: _utc_second(*one) for one in {(stamp[:_SECONDS], zone) for stamp, zone in zip(stamps, zones, strict=True)}
    }
    if None in seconds.values():
        return None
    if {*zones} == {"+00:00"}:
        return stamps
    return tuple(
        f"{seconds[stamp[:_SECONDS], zone]}{stamp[_SECONDS:]}" for stamp, zone in zip(stamps, zones, strict=True)
    )


def _utc_second(second: str, zone: str) -> str | None:
    """A local time in UTC."""
    epoch = _epoch(second.encode(), zone.encode())
    return None if epoch is None else rfc3339(epoch * _BILLION)[:_SECONDS]


def _time_ns(stamp: str) -> int:
    """Of a time in UTC with nanoseconds."""
    return (_epoch(stamp[:_SECONDS].encode(), b"") or 0) * _BILLION + int(stamp[_SECONDS + 1 :])


@lru_cache(maxsize=64)
def _epoch(second: bytes, zone: bytes) -> int | None:
    """Seconds since the epoch; lines come many to a second."""
    try:
        whole = datetime.fromisoformat(
            second.decode("ascii") + (zone.decode("ascii") or "+00:00").replace("Z", "+00:00")
        )
        return int(whole.astimezone(UTC).timestamp())
    except (ValueError, OverflowError):
        return None


def _pieces(text: bytes) -> Iterator[bytes]:
    """Cut between characters."""
    at = 0
    while at < len(text) or at == 0:
        end = min(at + _PIECE, len(text))
        while at < end < len(text) and text[end] & 0xC0 == 0x80:
            end -= 1
        yield text[at:end]
        at = max(end, at + 1)
