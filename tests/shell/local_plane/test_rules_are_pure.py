"""The rules of the control plane read no clock, no file and no socket."""

import ast
from pathlib import Path

import pytest

import shell.local_plane

FOLDER = Path(shell.local_plane.__file__).parent
SHELL = frozenset({"plane", "edited", "store", "sealing", "agent_http", "lab_http", "app", "serving", "__init__"})
RULES = sorted(path.stem for path in FOLDER.glob("*.py") if path.stem not in SHELL)
PURE = frozenset(
    {
        "base64",
        "binascii",
        "collections",
        "cryptography",
        "dataclasses",
        "datetime",
        "enum",
        "json",
        "math",
        "pydantic",
        "re",
        "typing",
        "urllib",
        "yaml",
    }
)


def _imports(path: Path) -> set[str]:
    found: set[str] = set()
    for node in ast.walk(ast.parse(path.read_text())):
        if isinstance(node, ast.Import):
            found |= {alias.name for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module == "shell.local_plane":
            found |= {f"{node.module}.{alias.name}" for alias in node.names}
        elif isinstance(node, ast.ImportFrom) and node.module:
            found.add(node.module)
    return found


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_imports_rules_and_pure_libraries_only(rule: str) -> None:
    """What reads the outside world stands in its own modules."""
    for name in _imports(FOLDER / f"{rule}.py"):
        top, *rest = name.split(".")
        assert (top == "shell" and rest[0] == "local_plane" and rest[1] in RULES) or top in PURE, name


@pytest.mark.parametrize("rule", RULES)
def test_a_rule_reads_no_clock(rule: str) -> None:
    """Time is a parameter."""
    called = (
        node.attr
        for node in ast.walk(ast.parse((FOLDER / f"{rule}.py").read_text()))
        if isinstance(node, ast.Attribute)
    )
    assert not {"now", "utcnow", "today"} & set(called)
