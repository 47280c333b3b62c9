"""What a user reads when a build's command has printed a given text."""

from core.build_failure import CommandOutput
from core.build_output import Lines


def output(tool: str, text: str) -> CommandOutput:
    """After all of a text, as the pipeline reads it."""
    made, lines = CommandOutput(tool), Lines()
    for line in (*lines.feed(text.encode("utf-8", "replace")), *lines.end()):
        made.add(line)
    return made


def message(tool: str, text: str, status: int = 1) -> str:
    """What the user reads."""
    return output(tool, text).message(status)
