"""Scenarios as files: an expected and an actual state, and the dry run's whole answer. A file in `tests/scenarios` is a test."""

import json
from pathlib import Path
from typing import Any

import pytest
import yaml

from core import plan, render
from core.state import NodeType, hashes
from tests.builders import actual_of, expected_of

FILES = sorted((Path(__file__).parents[1] / "scenarios").glob("*.yaml"))


def test_there_are_scenarios() -> None:
    """A folder that has moved must not make these tests pass on nothing."""
    assert len(FILES) >= 5


@pytest.mark.parametrize("path", FILES, ids=lambda path: path.stem)
def test_scenario(path: Path) -> None:
    """The answer without its hashes, word by word; of the hashes, which ones differ."""
    scenario: dict[str, Any] = yaml.safe_load(path.read_text(encoding="utf-8"))
    expected, actual = expected_of(scenario["expected"]), actual_of(scenario["actual"])
    node_type = NodeType(scenario["node_type"])
    following = plan.next_action(expected, actual, node_type)
    whole = plan.plan(expected, actual, node_type)
    answer = json.loads(json.dumps(render.answer(node_type, expected, following, whole, hashes(expected, actual))))
    found = answer.pop("hashes")
    assert answer == scenario["answer"]
    assert [name for name, both in found.items() if both["expected"] != both["actual"]] == scenario["hashes_differ"]
