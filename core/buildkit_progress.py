"""BuildKit's plain progress (`buildctl build --progress=plain`) to the cause of a failure: step, reason, the program's last words.

A line is `#<step> <text>`. A step begins with its name; `<seconds> <words>` is what its program printed; it ends with `DONE`, `CACHED`,
`CANCELED` or `ERROR: <reason>`. Steps run at the same time. A line without a number goes on with what the last program printed: a carriage
return was there. At the end come, for each step that failed, its name and last words between lines of six dashes; then lines of the
Dockerfile between lines of twenty dashes; and `error: failed to solve: <reason>`. (Sources: moby/buildkit `util/progress/progressui/` and
`util/progress/logs/`; `tests/captures_builds`.)
"""

import re
from collections import deque
from dataclasses import dataclass, field
from typing import Final

from core import registry_fault
from core.build_output import Cause, LastWords, shorten

_MOST_RUNNING: Final = (
    32  # BuildKit runs as many steps at once as there are processors; those heard of least recently go first
)
_MOST_FAILED: Final = 8
_LONGEST_ERROR: Final = 2_000
_LONGEST_NAME: Final = 120

_STEP: Final = re.compile(r"#([0-9]{1,9})(?: (.*))?", re.DOTALL)
_PRINTED: Final = re.compile(r"[0-9]{1,9}\.[0-9]{1,3}(?: (.*))?", re.DOTALL)
_ENDED: Final = re.compile(r"DONE [0-9.]{1,20}s|CACHED|CANCELED")
_CLIPPED: Final = re.compile(r"\[output clipped, log limit (.{1,40}) reached\]")
_PLACE: Final = re.compile(r"[^\s:]{1,200}:([0-9]{1,9})")
_BLOCK: Final = "-" * 6
_QUOTE: Final = "-" * 20
_ERROR: Final = "ERROR: "
_OF_PROGRAM: Final = 'process "'
_PROCESS: Final = " did not complete successfully: "
_DIALING: Final = "Error while dialing"
_CODE: Final = re.compile(r"(?:failed to solve: )?(?:rpc error: code = \w{1,40} desc = )?")
# These steps may fail without the build: there is no cache at first, and the agent asks BuildKit to ignore a cache that cannot be written.
_NO_REASON: Final = ("importing cache manifest", "exporting cache")
_PUSHING: Final = ("exporting to image", "pushing")
_WHO_ASKS: Final = {
    "[internal] load metadata for ": " (named by FROM in the Dockerfile)",
    "resolve image config for docker-image://": " (named by the Dockerfile's line `# syntax=`)",
}
_KILLED: Final = "exit code 137"


@dataclass(slots=True)
class _Step:
    name: str
    words: LastWords = field(default_factory=LastWords)
    limit: str = ""

    def add(self, printed: str) -> None:
        clipped = _CLIPPED.fullmatch(printed)
        if clipped is not None:
            self.limit = clipped[1]
        elif printed.strip():
            self.words.append(printed)


class Progress:
    """Whole lines in; the cause at the end. What is kept is bounded: the last lines of the steps that run, and the steps that failed."""

    def __init__(self) -> None:
        self._running: dict[str, _Step] = {}
        self._printing = ""  # the number of the step whose program printed the last line
        self._failed: deque[tuple[_Step, str]] = deque(maxlen=_MOST_FAILED)
        self._others = LastWords()
        self._between = ""  # the dashes between which lines stand
        self._block: _Step | None = None
        self._blocks: deque[_Step] = deque(maxlen=_MOST_FAILED)
        self._place = ""
        self._solved = ""  # what `error:` says

    def add(self, line: str) -> None:
        """One more line."""
        step = _STEP.fullmatch(line)
        if step is not None:
            self._words_after_all()
            self._of_step(step[1], step[2] or "")
        elif line in (_BLOCK, _QUOTE):
            self._dashes(line)
        elif self._between == _BLOCK:
            self._in_block(line)
        elif self._between != _QUOTE:
            self._of_all(line)

    def cause(self, ended: str) -> Cause:
        """Why it failed; `ended` says how the command ended, for when nothing else says more."""
        failed = self._culprit()
        if failed is None:
            step = next((one for one in reversed(self._running.values()) if one.words), None)
            reason = self._placed(_lost_connection(_plain(self._solved))) or ended
            return Cause(reason, tuple(step.words if step else self._others), _clip_hint(step))
        step, error = failed
        name = step.name or (self._blocks[-1].name if self._blocks else "")
        pushing = name.startswith(_PUSHING)
        is_ours = " ADD " in name or error.startswith(_OF_PROGRAM)  # an instruction's own words are quoted in it
        known = None if is_ours else registry_fault.explain(error, "buildkit", pushing=pushing)
        if known is not None:
            return Cause(known[0], (), known[1])
        reason = _process_reason(error)
        words = step.words or next((one.words for one in self._blocks if one.name == name), ())
        hint = "a program is mostly killed (137) because the memory is used up" if reason == _KILLED else ""
        return Cause(self._placed(reason + _where(name)), tuple(words), _clip_hint(step) or hint)

    def _words_after_all(self) -> None:
        """A step goes on, so that dashes and `error:` were a program's."""
        if self._solved and self._printing in self._running:
            self._running[self._printing].add(f"error: {self._solved}")
        self._solved = self._between = ""

    def _of_step(self, number: str, text: str) -> None:
        printed = _PRINTED.fullmatch(text)
        if printed is not None:
            self._printing = number
            self._step(number, "").add(printed[1] or "")
        elif text.startswith(_ERROR):
            step = self._running.pop(number, None) or _Step("")
            self._failed.append((step, shorten(text.removeprefix(_ERROR), _LONGEST_ERROR)))
        elif _ENDED.fullmatch(text):
            self._running.pop(number, None)
        elif number not in self._running:
            self._step(number, shorten(text, _LONGEST_ERROR))

    def _step(self, number: str, name: str) -> _Step:
        """The step that is heard of now, behind all others."""
        step = self._running.pop(number, None) or _Step(name)
        if len(self._running) >= _MOST_RUNNING:
            del self._running[next(iter(self._running))]
        self._running[number] = step
        return step

    def _dashes(self, line: str) -> None:
        opens = self._between != line
        self._between, self._block = (line, None) if opens else ("", None)
        if line == _QUOTE and opens and self._others and _PLACE.fullmatch(self._others[-1]):
            self._place = self._others.pop()

    def _in_block(self, line: str) -> None:
        if self._block is None:
            self._block = _Step(shorten(line.removeprefix(" > ").removesuffix(":"), _LONGEST_ERROR))
            self._blocks.append(self._block)
        else:
            printed = _PRINTED.fullmatch(line)
            self._block.add(line if printed is None else printed[1] or "")

    def _of_all(self, line: str) -> None:
        if line.lower().startswith("error: "):
            self._solved = shorten(line[len("error: ") :], _LONGEST_ERROR)
        elif self._solved:
            self._solved = shorten(f"{self._solved}\n{line}", _LONGEST_ERROR)
        elif self._printing in self._running:
            self._running[self._printing].add(line)
        else:
            self._others.append(line)

    def _culprit(self) -> tuple[_Step, str] | None:
        """The failed step that the last line speaks of, or else the last one; a cache that is not there is none."""
        failed = [one for one in self._failed if not one[0].name.startswith(_NO_REASON)]
        named = [one for one in failed if one[1] in self._solved]
        return next(reversed(named or failed), None)

    def _placed(self, reason: str) -> str:
        """With the line of the Dockerfile before it, if there is one that the reason itself does not name."""
        place = _PLACE.fullmatch(self._place)
        if not reason or place is None or f"line {place[1]}" in reason:
            return reason
        return f"{self._place}: {reason}"


def _plain(solved: str) -> str:
    """The last line without what is there whatever failed."""
    found = _CODE.match(solved)
    return _process_reason(solved[found.end() if found else 0 :])


def _process_reason(error: str) -> str:
    """Of `process "…" did not complete successfully: exit code: 3` its end, since the process is quoted in full."""
    at = error.rfind(_PROCESS)
    if at == -1 or not error.startswith('process "'):
        return error
    return error[at + len(_PROCESS) :].replace("exit code: ", "exit code ", 1)


def _lost_connection(reason: str) -> str:
    """A reason that gRPC gives, in other words."""
    at = reason.find(_DIALING)
    if at != -1:
        cause = reason[at + len(_DIALING) :].strip(': "')
        return f"BuildKit does not answer: {cause}"
    return f"the connection to BuildKit was lost: {reason}" if "Unavailable" in reason else reason


def _where(name: str) -> str:
    for prefix, words in _WHO_ASKS.items():
        if name.startswith(prefix):
            return words
    words = " ".join(name.split())
    short = words if len(words) <= _LONGEST_NAME else f"{words[: _LONGEST_NAME - 1]}…"
    return f" in {short}" if short else ""


def _clip_hint(step: _Step | None) -> str:
    if step is None or not step.limit:
        return ""
    return (
        f"BuildKit clipped this output at its limit of {step.limit}, and the last words of the program may be missing: "
        "set BUILDKIT_STEP_LOG_MAX_SPEED=-1 and BUILDKIT_STEP_LOG_MAX_SIZE=-1 in buildkitd's environment"
    )
