"""From what a build's command printed to the one message that a user reads when it fails: reason and last words (L42, L67).

The full output is in the build's log. The message has what a person looks for first, and nothing that the person knows: not the quoted
instruction, not the lines of the Dockerfile, not progress.
"""

import re
from collections import deque
from dataclasses import replace
from typing import Final, Protocol

from core import buildah_progress, buildkit_progress
from core.build_output import MARK, Cause, LastWords, shorten

LONGEST_MESSAGE: Final = 4_000
"""Characters."""

_LONGEST_REASON: Final = 1_200
_LONGEST_HINT: Final = 600
_LONGEST_JOINED: Final = 4_000
_SHORTEST_PIECE: Final = (
    1_024  # a piece of a long line has thousands of bytes, and at most four of them are one character
)
_MOST_OF_GIT: Final = 6

_GIT: Final = re.compile(r"(fatal|error|remote): *(\S.*)", re.DOTALL)
_GIT_PROGRESS: Final = re.compile(r"(?:Enumerating|Counting|Compressing|Total|Resolving|Receiving)\b.*", re.DOTALL)
# What Git says because something else has failed, which it says before.
_GIT_FOLLOWS: Final = (
    "Could not read from remote repository",
    "clone of ",
    "the remote end hung up unexpectedly",
    "early EOF",
    "fetch-pack: ",
    "index-pack failed",
)
_BOX: Final = "".join(map(chr, range(0x2500, 0x2580))) + " \t"
_RAILPACK_TITLE: Final = re.compile(r"Railpack v?[0-9][0-9.]{0,20}")
_RAILPACK_ERROR: Final = re.compile(r"(?:✖|ERRO|ERROR|Error:|error:) *(\S.*)", re.DOTALL)


class _Reader(Protocol):
    def add(self, line: str) -> None:
        """One more line."""

    def cause(self, ended: str) -> Cause:
        """Why it failed, where `ended` says how the command ended."""


class CommandOutput:
    """What one command prints, whole lines without secrets, in; the message at the end. Memory is bounded whatever a tool prints.

    `tool` is the program's name: `git`, `buildctl`, `buildah`, `podman`, `railpack`; of another one, the message has the last lines.
    """

    def __init__(self, tool: str) -> None:
        self._tool = tool
        self._reader: _Reader = _READERS.get(tool, _Plain)()
        self._begun = ""
        self.hint = ""
        """What to do, as far as the last message says it."""

    def add(self, line: str) -> None:
        """One more line, as `build_output.Lines` gives it: the pieces of a long one are put together again, without its middle."""
        text = self._begun + line
        if len(line) >= _SHORTEST_PIECE and line.endswith(MARK):
            self._begun = shorten(text.removesuffix(MARK), _LONGEST_JOINED)
            return
        self._begun = ""
        self._reader.add(shorten(text, _LONGEST_JOINED))

    def message(self, status: int) -> str:
        """Why the command failed, at most `LONGEST_MESSAGE` characters. Signal 9 is a `status` of 137, as shells say, or of -9."""
        self._finish_line()
        return self._composed(self._reader.cause(f"{self._tool} {_ended(status)}"))

    def interrupted(self, reason: str) -> str:
        """The message where the command did not end by itself: the reason, and what was printed last by what ran then."""
        self._finish_line()
        return self._composed(replace(self._reader.cause(reason), reason=reason))

    def _composed(self, cause: Cause) -> str:
        self.hint = shorten(cause.hint, _LONGEST_HINT)
        return _composed(cause)

    def _finish_line(self) -> None:
        begun, self._begun = self._begun, ""
        if begun:
            self._reader.add(begun)


class _Plain:
    """The last lines."""

    def __init__(self) -> None:
        self._words = LastWords()

    def add(self, line: str) -> None:
        self._words.append(line)

    def cause(self, ended: str) -> Cause:
        return Cause(ended, tuple(self._words))


class _Git:
    """Git says why behind `fatal:` or `error:`, and the server behind `remote:`; the rest is progress and advice."""

    def __init__(self) -> None:
        self._plain = _Plain()
        self._told: deque[tuple[str, str]] = deque(maxlen=_MOST_OF_GIT)

    def add(self, line: str) -> None:
        self._plain.add(line)
        found = _GIT.fullmatch(line)
        if found is not None and not _GIT_PROGRESS.fullmatch(found[2]):
            self._told.append((found[1], found[2]))

    def cause(self, ended: str) -> Cause:
        own = [one for one in self._told if one[0] != "remote"] or list(self._told)
        if not own:
            return self._plain.cause(ended)
        causes = [one for one in own if not one[1].startswith(_GIT_FOLLOWS)] or own
        last = next((one for one in reversed(causes) if one[0] == "fatal"), causes[-1])
        others = dict.fromkeys(f"{who}: {words}" for who, words in self._told if (who, words) != last)
        return Cause(last[1], tuple(others))


class _Railpack:
    """Railpack draws a box around its name, and marks its errors with a cross."""

    def __init__(self) -> None:
        self._words = LastWords()

    def add(self, line: str) -> None:
        text = line.strip(_BOX)
        if text and not _RAILPACK_TITLE.fullmatch(text):
            self._words.append(text)

    def cause(self, ended: str) -> Cause:
        words = list(self._words)
        for at in reversed(range(len(words))):
            found = _RAILPACK_ERROR.fullmatch(words[at])
            if found is not None:
                return Cause(found[1], (*words[:at], *words[at + 1 :]))
        return Cause(ended, tuple(words))


_READERS: Final[dict[str, type[_Reader]]] = {
    "git": _Git,
    "buildctl": buildkit_progress.Progress,
    "buildah": buildah_progress.Progress,
    "podman": buildah_progress.Progress,
    "railpack": _Railpack,
}


def _ended(status: int) -> str:
    signal = -status if status < 0 else status - 128
    return f"was ended by signal {signal}" if signal > 0 else f"ended with exit status {status}"


def _composed(cause: Cause) -> str:
    """Reason, the last lines that there is room for, and what to do."""
    reason, hint = shorten(cause.reason, _LONGEST_REASON), shorten(cause.hint, _LONGEST_HINT)
    room = LONGEST_MESSAGE - len(reason) - len(hint) - len("\n")
    lines: list[str] = [hint] if hint else []
    for line in reversed(cause.words):
        room -= len("\n") + len(line)
        if room < 0:
            break
        lines.append(line)
    return "\n".join([reason, *reversed(lines)])
