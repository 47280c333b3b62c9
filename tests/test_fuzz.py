"""`tests.fuzz`: what was found before, and a short run of each kind. (`make fuzz` and `python -m tests.fuzz.daemon` are the long ones.)"""

from collections import Counter
from pathlib import Path

import pytest

from benchmarks.parsers import PARSERS
from tests.fuzz import __main__ as fuzzing
from tests.fuzz import daemon
from tests.fuzz.__main__ import FOUND, PUMPED, examples, feed, fuzz

INPUTS = 4_000
DOCUMENTS = 300


@pytest.mark.parametrize(("parser", "path"), [*examples()], ids=lambda one: getattr(one, "name", one))
def test_what_was_found_is_mended(parser: str, path: Path) -> None:
    """No exception, in a moment."""
    assert feed(parser, path.read_bytes()) < 0.5


def test_every_example_is_of_a_parser() -> None:
    """One whose parser has another name now is fed to nobody."""
    assert {path for _, path in examples()} == set(FOUND.iterdir())


def test_no_input_raises() -> None:
    """L55: whatever comes to a parser, from the control plane or a component, is a value or a failure that it names."""
    assert fuzz([*PARSERS], seed=20_261_130, count=INPUTS, seconds=None) == INPUTS


@pytest.mark.parametrize("count", [1, 10, 49, 50, len(PARSERS)])
def test_the_growth_of_every_parser_is_checked(count: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """L55: one input of so many of each, also where the number of parsers shares a divisor with that."""
    parsers = [*PARSERS][:count]
    checked: Counter[str] = Counter()
    monkeypatch.setattr(fuzzing, "feed", lambda parser, raw: 0.0)
    monkeypatch.setattr(fuzzing, "check_growth", lambda parser, raw, random: checked.update([parser]))
    fuzz(parsers, seed=1, count=2 * PUMPED * count, seconds=None)
    assert checked == dict.fromkeys(parsers, 2)


def test_no_document_escapes() -> None:
    """L55, L57: hostile documents and work items through the whole daemon; none fails a part, none takes a turn for long."""
    outcome = daemon.run(DOCUMENTS)
    assert not outcome.failures, outcome
    assert outcome.slowest_s <= daemon.SLOW_S, outcome
    assert min(outcome.polls.values()) > DOCUMENTS / 10, outcome
