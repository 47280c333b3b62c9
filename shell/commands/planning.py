"""`agent plan`: what would be done, without doing it.

With both documents given nothing is contacted, no data directory is needed, and no privilege. What is missing is fetched from the control
plane or gathered from this server with the registered identity.
"""

import sys
from collections.abc import Callable
from pathlib import Path
from typing import NoReturn, TypeVar

import msgspec
from returns.result import Result

from core import plan, render, state
from core.printable import escape, json_text
from core.state import ActualState, ExpectedState, NodeType
from core.wire import ShapeFault
from shell.failure import CommandError

T = TypeVar("T")

_STDIN = "-"
MAX_DOCUMENT_BYTES = 256 * 1024**2  # far beyond a hundred thousand containers


class Answer(msgspec.Struct, frozen=True):
    """What the dry run found."""

    document: dict[str, render.Json]
    rows: tuple[tuple[str, str, str], ...]
    is_converged: bool


def plan_once(
    node: dict[str, object],
    expected_file: str | None,
    actual_file: str | None,
    node_type: str | None,
    *,
    whole: bool,
    as_json: bool,
) -> bool:
    """Print the dry run's answer; True when there is nothing to do. Raises CommandError."""
    given, actual = read_documents(expected_file, actual_file)
    expected = None if given is None else given[1]
    kind = NodeType(node_type) if node_type else NodeType.WORKER
    if expected is None or actual is None:
        from shell.commands.looking import complete

        expected, actual, registered = complete(node, None if given is None else given[0], actual)
        kind = NodeType(node_type) if node_type else registered
    answer = decide(expected, actual, kind, whole=whole)
    if as_json:
        show_json(answer)
    else:
        show_text(answer, expected)
    return answer.is_converged


def read_documents(
    expected: str | None, actual: str | None
) -> tuple[tuple[bytes, ExpectedState] | None, ActualState | None]:
    """Parse the documents that were given as files or `-` for standard input. Raises CommandError.

    The expected state also as it came: what it means depends on the server that it is for, too, when there is one.
    """
    if expected == _STDIN and actual == _STDIN:
        raise CommandError("only one of --expected and --actual can be standard input")
    wanted = None if expected is None else _parse("expected state", expected, state.parse_expected)
    there = None if actual is None else _parse("actual state", actual, state.parse_actual)
    return wanted, None if there is None else there[1]


def decide(expected: ExpectedState, actual: ActualState, node_type: NodeType, *, whole: bool) -> Answer:
    """The dry run's answer for two states."""
    if whole:
        actions = plan.plan(expected, actual, node_type)
        following = actions[0] if actions else None
    else:
        following = plan.next_action(expected, actual, node_type)
        actions = (following,) if following else ()
    document = render.answer(node_type, expected, following, actions if whole else None, state.hashes(expected, actual))
    return Answer(document, tuple(map(render.line, actions)), following is None)


def show_json(answer: Answer) -> None:
    """The answer on standard output, as one JSON object."""
    sys.stdout.write(json_text(answer.document) + "\n")


def show_text(answer: Answer, expected: ExpectedState) -> None:
    """The answer as a table for a person; plain lines where standard output is not a terminal."""
    for one in expected.rejected:
        sys.stderr.write(f"rejected and held: {escape(f'{one.path}: {one.reason}')}\n")
    if answer.is_converged:
        sys.stdout.write("converged: nothing to do\n")
    elif sys.stdout.isatty():
        _table(answer)
    else:
        for number, (kind, subject, reason) in enumerate(answer.rows, start=1):
            sys.stdout.write(f"{number:>4}  {kind:<16}  {subject}  ({reason})\n")


def _table(answer: Answer) -> None:
    from rich.console import Console
    from rich.table import Table
    from rich.text import Text

    table = Table("#", "change", "what", "why", box=None, pad_edge=False, header_style="bold")
    for number, row in enumerate(answer.rows, start=1):
        table.add_row(str(number), *(Text(cell) for cell in row))
    Console().print(table)


def _parse(what: str, source: str, parse: Callable[[bytes], Result[T, ShapeFault]]) -> tuple[bytes, T]:
    name = "standard input" if source == _STDIN else source

    def refuse(fault: ShapeFault) -> NoReturn:
        raise CommandError(f"{what} in {name}: {fault}")

    raw = _read(what, source)
    return raw, parse(raw).lash(refuse).unwrap()


def _read(what: str, source: str) -> bytes:
    try:
        if source == _STDIN:
            if sys.stdin is None:  # closed by the caller
                raise CommandError(f"{what}: standard input is closed")
            raw = sys.stdin.buffer.read(MAX_DOCUMENT_BYTES + 1)
        else:
            with Path(source).open("rb") as file:
                raw = file.read(MAX_DOCUMENT_BYTES + 1)
    except OSError as error:
        raise CommandError(f"{what}: cannot read {source}: {error.strerror}") from error
    if len(raw) > MAX_DOCUMENT_BYTES:
        raise CommandError(f"{what}: {source} is larger than {MAX_DOCUMENT_BYTES // 1024**2} MiB")
    return raw
