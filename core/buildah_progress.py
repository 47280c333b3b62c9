"""The output of `buildah build` and `podman build` to the cause of a failure: instruction, reason, the program's last words.

An instruction begins with `STEP 2/3: RUN …` (`[1/2] STEP …` where there are several stages); its program's output stands behind it as it
is. The last line is `Error: building at STEP "RUN …": while running runtime: exit status 3` and quotes all of the instruction, with no
escape for a quote inside. Isolation by chroot leaves `while running runtime` out; buildah before 1.28 writes
`error building at STEP "…": error while …`. (Sources: containers/buildah `imagebuildah/stage_executor.go` and `run_common.go`;
`tests/captures_builds`, by buildah 1.28.2.)
"""

import re
from typing import Final

from core import registry_fault
from core.build_output import Cause, LastWords, shorten

_LONGEST_ERROR: Final = 2_000
_LONGEST_NAME: Final = 120
_LAST: Final = 3  # how many lines from the end the error of the command may stand

_STEP: Final = re.compile(r"(?:\[[0-9]{1,9}/[0-9]{1,9}\] )?STEP [0-9]{1,9}(?:/[0-9]{1,9})?: (.*)", re.DOTALL)
_AT_STEP: Final = re.compile(r"(?:Error: )?(?:error )?building at STEP \"")
_EXITED: Final = re.compile(r"(?:(?:error )?while running runtime: )?((?:exit status|signal:) .{1,40})")
_COMMAND_ERROR: Final = re.compile(r"Error: (?:error )?")
# What is printed beside the error and says the same with fewer words.
_NOISE: Final = re.compile(
    r"(?:ERRO\[[0-9]{1,9}\]|time=\"[^\"]{1,40}\" level=error msg=\"?) ?exit status [0-9]{1,3}\"?"
    r"|time=\"[^\"]{1,40}\" level=error msg=\"\+\(UNHANDLED LOGLEVEL\) .*"
    r"|subprocess exited with status [0-9]{1,3}|--> (?:Using cache )?[0-9a-f]{6,64}",
    re.DOTALL,
)
_DUMP: Final = " &imagebuilder.Step{"
_PUSHING: Final = "pushing image"


class Progress:
    """Whole lines in; the cause at the end. What is kept is bounded: the last lines since the last instruction began, and the error."""

    def __init__(self) -> None:
        self._instruction = ""
        self._words = LastWords()
        self._error = ""  # from the instruction that it quotes on

    def add(self, line: str) -> None:
        """One more line."""
        if _NOISE.fullmatch(line):
            return
        if self._error and _exited(self._error) is None:  # the instruction that is quoted may have several lines
            self._error = shorten(f"{self._error}\n{line}", _LONGEST_ERROR)
            return
        step, error = _STEP.fullmatch(line), _AT_STEP.match(line)
        if error is not None:
            self._error = shorten(line[error.end() :], _LONGEST_ERROR)
        elif step is not None:
            self._instruction = shorten(step[1], _LONGEST_ERROR)
            self._words.clear()
        else:
            self._words.append(line)

    def cause(self, ended: str) -> Cause:
        """Why it failed; `ended` says how the command ended, for when nothing else says more."""
        words = list(self._words)
        if self._error:
            instruction, reason = _exited(self._error) or _told(self._error, self._instruction)
            where = f" in {_short(self._instruction or instruction)}"
        else:
            where = ""
            at = next((at for at in reversed(range(len(words))[-_LAST:]) if _COMMAND_ERROR.match(words[at])), None)
            if at is None:
                return Cause(ended, tuple(words))
            reason = _COMMAND_ERROR.sub("", words.pop(at), count=1)
        known = registry_fault.explain(reason, "buildah", pushing=reason.startswith(_PUSHING))
        if known is not None and not where.startswith(" in ADD "):
            return Cause(known[0], (), known[1])
        return Cause(reason + where, tuple(words), "")


def _exited(error: str) -> tuple[str, str] | None:
    """The instruction and how its program ended; None where no program has ended, or not all of the quoted instruction is here."""
    instruction, end, reason = error.rpartition('": ')
    exited = _EXITED.fullmatch(reason)
    return (instruction, exited[1]) if end and exited is not None else None


def _told(error: str, instruction: str) -> tuple[str, str]:
    """The instruction and what is wrong with it."""
    if instruction and error.startswith(f'{instruction}": '):
        return instruction, error[len(instruction) + len('": ') :]
    quoted, _, reason = error.partition('": ')
    return quoted, reason.partition(_DUMP)[0] or "failed"


def _short(instruction: str) -> str:
    first, *more = instruction.split("\n")
    first = " ".join(first.split())
    if len(first) > _LONGEST_NAME:
        return f"{first[: _LONGEST_NAME - 1]}…"
    return first + "…" * bool(more)
