"""House rules that a machine can check: short files, short functions, a docstring for every module, no machine's paths."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

ROOT = Path(__file__).parents[1]
FILES = sorted(path for folder in ("core", "shell", "tests", "benchmarks") for path in (ROOT / folder).rglob("*.py"))
LONGEST_FILE = 400
LONGEST_BODY = 50
USUAL_BODY = 25
BROAD = ("Exception", "BaseException")
CATCHES_ALL = ("shell/parts.py", "contained")  # the one place where what nobody foresaw is caught
ANY_FUNCTION = ast.FunctionDef | ast.AsyncFunctionDef


def spelled(path: Path) -> str:
    """The path inside the project."""
    return str(path.relative_to(ROOT))


def bodies(path: Path) -> Iterator[tuple[str, int]]:
    """Name and length in lines of every function's body, its docstring left out."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ANY_FUNCTION):
            body = node.body[1:] if ast.get_docstring(node) is not None else node.body
            last = (body[-1].end_lineno or 0) if body else 0
            yield f"{spelled(path)}:{node.name}", last - body[0].lineno + 1 if body else 0


def goes_on_up(handler: ast.ExceptHandler) -> bool:
    """Whether a handler only cleans up and raises the same again."""
    last = handler.body[-1]
    return isinstance(last, ast.Raise) and last.exc is None


@pytest.mark.parametrize("path", FILES, ids=spelled)
def test_a_file_can_be_read_in_one_sitting(path: Path) -> None:
    """At most 400 lines."""
    assert len(path.read_text(encoding="utf-8").splitlines()) <= LONGEST_FILE


@pytest.mark.parametrize("path", FILES, ids=spelled)
def test_a_function_is_short(path: Path) -> None:
    """At most 50 lines."""
    assert [(name, length) for name, length in bodies(path) if length > LONGEST_BODY] == []


@pytest.mark.parametrize("folder", ["core", "shell"])
def test_most_functions_are_very_short(folder: str) -> None:
    """Nine of ten below 25 lines."""
    lengths = [length for path in FILES if spelled(path).startswith(folder) for _, length in bodies(path)]
    assert sum(length >= USUAL_BODY for length in lengths) <= len(lengths) / 10


@pytest.mark.parametrize("path", [path for path in FILES if path.stat().st_size > 0], ids=spelled)
def test_a_module_says_what_it_is(path: Path) -> None:
    """A docstring at its top."""
    assert ast.get_docstring(ast.parse(path.read_text(encoding="utf-8")))


@pytest.mark.parametrize("path", FILES, ids=spelled)
def test_errors_are_neither_hidden_nor_handed_to_a_shell(path: Path) -> None:
    """No bare or broad `except` that swallows, no `shell=True`."""
    tree = ast.parse(path.read_text(encoding="utf-8"))
    allowed = [
        inner
        for node in ast.walk(tree)
        if isinstance(node, ANY_FUNCTION) and (spelled(path), node.name) == CATCHES_ALL
        for inner in ast.walk(node)
    ]
    for node in ast.walk(tree):
        if isinstance(node, ast.ExceptHandler) and node not in allowed:
            caught = node.type.elts if isinstance(node.type, ast.Tuple) else [node.type]
            broad = any(one is None or (isinstance(one, ast.Name) and one.id in BROAD) for one in caught)
            assert not broad or goes_on_up(node), f"line {node.lineno}"
        if isinstance(node, ast.keyword) and node.arg == "shell":
            assert isinstance(node.value, ast.Constant) and node.value.value is False, f"line {node.value.lineno}"
