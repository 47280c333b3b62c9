"""A tool's output on its way to people: bytes to lines of bounded length, secrets masked, the last useful lines kept.

Lines of any length arrive in pieces of at most `LONGEST`; memory is bounded whatever a tool prints.
"""

import re
from collections import deque
from collections.abc import Iterator
from typing import Final

from core.secrets import mask

LONGEST: Final = 16 * 1024
_KEPT_LINES: Final = 20
_KEPT_CHARACTERS: Final = 4000
_CONTROL: Final = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\x1b\][^\x07]*\x07|[\x00-\x08\x0b-\x1f\x7f]")
_MARK: Final = " …"


class Lines:
    """Bytes in, lines out. A line that is too long is cut where no secret is cut in two."""

    def __init__(self, secrets: tuple[str, ...] = ()) -> None:
        self._secrets = tuple(one for one in secrets if one)
        words = {line.encode() for one in self._secrets for line in (one, *one.splitlines()) if line}
        self._words = tuple(sorted(words, key=len, reverse=True))
        self._overlap = max((len(one) for one in self._words), default=0)
        self._left = b""

    def feed(self, chunk: bytes) -> Iterator[str]:
        """The lines that are whole now."""
        *whole, self._left = (self._left + chunk).replace(b"\r", b"\n").split(b"\n")
        for line in whole:
            yield from self._pieces(line)
        while len(self._left) > LONGEST + self._overlap:
            piece, self._left = self._cut(self._left)
            yield self._shown(piece) + _MARK

    def end(self) -> Iterator[str]:
        """What is left when the output ends."""
        left, self._left = self._left, b""
        yield from self._pieces(left)

    def _pieces(self, line: bytes) -> Iterator[str]:
        while len(line) > LONGEST:
            piece, line = self._cut(line)
            yield self._shown(piece) + _MARK
        text = self._shown(line)
        if text:
            yield text

    def _cut(self, line: bytes) -> tuple[bytes, bytes]:
        """A piece of at most `LONGEST` bytes (more only for a secret that is longer) and the rest."""
        at = LONGEST
        while at > 0 and line[at] & 0xC0 == 0x80:  # in the middle of a character
            at -= 1
        for word in self._words:
            found = line.find(word, max(0, at - len(word) + 1), at + len(word) - 1)
            if found != -1:
                at = found or len(word)
        return line[:at], line[at:]

    def _shown(self, raw: bytes) -> str:
        return _CONTROL.sub("", mask(raw.decode("utf-8", "replace"), self._secrets)).rstrip()


class Tail:
    """The last lines of an output, for the one message that a user reads."""

    def __init__(self) -> None:
        self._lines: deque[str] = deque(maxlen=_KEPT_LINES)

    def add(self, line: str) -> None:
        """One more line."""
        self._lines.append(line[:_KEPT_CHARACTERS])

    def text(self) -> str:
        """The last lines, as many as are useful."""
        return "\n".join(self._lines)[-_KEPT_CHARACTERS:]
