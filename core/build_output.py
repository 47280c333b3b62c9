"""A tool's output on its way to people: bytes to lines of bounded length, secrets masked, the last useful lines kept.

Lines of any length arrive in pieces of at most `LONGEST`; memory is bounded whatever a tool prints. Colours and other control sequences go
first: tools that highlight put them in the middle of words, and a secret that has one inside would be whole again without it.
"""

import re
from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Final

from core.secrets import mask_words, masked_words

LONGEST: Final = 16 * 1024
_KEPT_LINES: Final = 20
_KEPT_CHARACTERS: Final = 4000
LONGEST_WORDS: Final = 1_000
"""Characters of one line of a program's last words."""
# The length of a sequence has a bound, and a title ends at the next escape: what never ends is looked through once, not once from each of
# its places. A title ends with a bell or with `ESC \\`.
_CONTROL_TEXT: Final = r"\x1b\[[0-9;?]{0,256}[A-Za-z]|\x1b\][^\x07\x1b]{0,256}(?:\x07|\x1b\\)|[\x00-\x08\x0b-\x1f\x7f]"
_CONTROL: Final = re.compile(_CONTROL_TEXT.encode())
_CONTROL_IN_SECRET: Final = re.compile(_CONTROL_TEXT)
_BEGUN: Final = re.compile(
    rb"\x1b(?:\[[0-9;?]{0,256}|\][^\x07\x1b]{0,256}\x1b?)?\Z"
)  # a control sequence whose end has not come yet
MARK: Final = " …"
"""The end of a piece of a line that goes on."""


class Lines:
    """Bytes in, lines out. A line that is too long is cut in pieces of nearly one length, and where no secret is cut in two.

    Every piece but the last ends with `MARK`. Of a line that comes in several chunks, the first pieces have `LONGEST` bytes and the last
    two share the rest, so that none has less than half of that.

    Masked are the words that `masked_words` finds in `secrets`, which people choose, and in `always`, which are secrets whatever they are.
    """

    def __init__(self, secrets: tuple[str, ...] = (), always: tuple[str, ...] = ()) -> None:
        self._masked = masked_words(map(_as_printed, secrets), map(_as_printed, always))
        self._words = tuple(sorted((one.encode("utf-8", "replace") for one in self._masked), key=len, reverse=True))
        self._overlap = max((len(one) for one in self._words), default=0)
        self._left = b""

    def feed(self, chunk: bytes) -> Iterator[str]:
        """The lines that are whole now."""
        *whole, self._left = (self._left + chunk).replace(b"\r", b"\n").split(b"\n")
        for line in whole:
            yield from self._pieces(_CONTROL.sub(b"", line))
        if len(self._left) > 2 * LONGEST + self._overlap:
            yield from self._from_long_line()

    def end(self) -> Iterator[str]:
        """What is left when the output ends."""
        left, self._left = self._left, b""
        yield from self._pieces(_CONTROL.sub(b"", left))

    def _from_long_line(self) -> Iterator[str]:
        """Pieces of a line that goes on; a control sequence whose end may still come is left for then."""
        begun = _BEGUN.search(self._left)
        at = begun.start() if begun else len(self._left)
        plain, rest = _CONTROL.sub(b"", self._left[:at]), self._left[at:]
        while len(plain) > 2 * LONGEST + self._overlap:  # what stays is enough for two pieces, should the line end here
            piece, plain = self._cut(plain, LONGEST)
            yield self._shown(piece) + MARK
        self._left = plain + rest

    def _pieces(self, line: bytes) -> Iterator[str]:
        while len(line) > LONGEST:
            pieces = -(-len(line) // LONGEST)
            piece, line = self._cut(line, -(-len(line) // pieces))
            yield self._shown(piece) + MARK
        text = self._shown(line)
        if text:
            yield text

    def _cut(self, line: bytes, at: int) -> tuple[bytes, bytes]:
        """A piece of at most `at` bytes (more only for a secret that is longer) and the rest."""
        # Not in the middle of a character, which has at most four bytes; more that look like its middle are no character's.
        at = next((one for one in range(at, at - 4, -1) if line[one] & 0xC0 != 0x80), at)
        for word in self._words:
            found = line.find(word, max(0, at - len(word) + 1), at + len(word) - 1)
            if found != -1:
                at = found or len(word)
        return line[:at], line[at:]

    def _shown(self, raw: bytes) -> str:
        return mask_words(raw.decode("utf-8", "replace"), self._masked).rstrip()


def _as_printed(secret: str) -> str:
    """A secret as it stands in a line from which control characters are gone."""
    return _CONTROL_IN_SECRET.sub("", secret.replace("\r", "\n"))


@dataclass(frozen=True, slots=True)
class Cause:
    """Why a command failed: the `reason` in one line, the last `words` of the program that failed, and a `hint` at what to do."""

    reason: str
    words: tuple[str, ...] = ()
    hint: str = ""


class LastWords(deque[str]):
    """The last lines of an output, as many as a person reads, the middle of long ones left out."""

    def __init__(self) -> None:
        super().__init__(maxlen=_KEPT_LINES)

    def append(self, line: str) -> None:
        """One more line."""
        super().append(shorten(line, LONGEST_WORDS))


def shorten(text: str, longest: int) -> str:
    """The text, without its middle if it has more than `longest` characters: both its beginning and its end say what it is."""
    if len(text) <= longest:
        return text
    end = (longest - len(MARK)) // 2
    return f"{text[: longest - len(MARK) - end]}{MARK}{text[len(text) - end :]}"
