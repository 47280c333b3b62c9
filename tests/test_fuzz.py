"""`tests.fuzz`: what was found before, and a short run of each kind. (`make fuzz` and `python -m tests.fuzz.daemon` are the long ones.)"""

import itertools
import json
from collections import Counter
from pathlib import Path
from random import Random

import pytest

from benchmarks.parsers import PARSERS
from core.state import parse_expected
from shell.beside import LARGE_BYTES
from tests.builders import a_container_entry, an_expected_document
from tests.fuzz import __main__ as fuzzing
from tests.fuzz import daemon
from tests.fuzz.__main__ import FOUND, PUMPED, examples, feed, fuzz
from tests.fuzz.mutation import enlarged

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


def test_a_document_is_enlarged() -> None:
    """To a megabyte and more, with entries of each list that are served; what is no expected state is large all the same."""
    raw = json.dumps(an_expected_document([a_container_entry(ipAddress=None, ports=[])])).encode()
    large = enlarged(raw, 1024**2)
    found = parse_expected(large).unwrap()
    assert len(large) > LARGE_BYTES
    assert min(map(len, (found.containers, found.dns, found.caddy, found.wireguard))) > 1_000
    assert {len(enlarged(odd, 1024**2)) > LARGE_BYTES for odd in (b"{", b'{"containers":""}', b'{"dns":[1]}')} == {True}


def test_large_documents_are_among_the_others() -> None:
    """What is done with them in a thread is fuzzed as well."""
    drawn = itertools.islice(daemon._documents(Random(1), 1_000), 450)
    assert [len(raw) > LARGE_BYTES for raw in drawn].count(True) == 3


def test_no_document_escapes() -> None:
    """L55, L57: hostile documents and work items through the whole daemon; none fails a part, none takes a turn for long."""
    outcome = daemon.run(DOCUMENTS)
    assert not outcome.failures, outcome
    assert outcome.slowest_s <= daemon.SLOW_S, outcome
    assert min(outcome.polls.values()) > DOCUMENTS / 10, outcome
