"""The core is pure: it imports nothing that does I/O, reads a clock or draws at random, and calls nothing that does."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

CORE = Path(__file__).parents[2] / "core"
MODULES = sorted(CORE.rglob("*.py"))

PURE_STANDARD = frozenset(
    {
        "abc", "ast", "base64", "binascii", "bisect", "collections", "copy", "dataclasses",
        "datetime", "enum", "fractions", "functools", "graphlib",
        "hashlib", "hmac", "heapq", "ipaddress", "itertools", "json", "math", "operator", "re", "shlex", "string", "struct", "textwrap",
        "types", "typing", "typing_extensions", "unicodedata", "urllib", "__future__",
    }
)  # fmt: skip
PURE_LIBRARIES = frozenset({"core", "returns", "msgspec", "idna", "cryptography"})
IMPURE_CALLS = frozenset(
    {"open", "print", "input", "exec", "eval", "compile", "__import__", "breakpoint", "globals", "id", "hash"}
)
IMPURE_PARTS = frozenset({"urllib.request", "urllib.error", "msgspec.toml", "returns.io", "returns.future"})
IMPURE_ATTRIBUTES = frozenset(
    {"generate", "urandom", "now", "today", "utcnow", "token_bytes", "generate_key", "write_text", "read_text"}
)


def imports(tree: ast.AST) -> Iterator[str]:
    """The full names of everything that a module imports, at its top or anywhere else."""
    for node in ast.walk(tree):
        if isinstance(node, ast.Import):
            yield from (alias.name for alias in node.names)
        if isinstance(node, ast.ImportFrom):
            assert node.level == 0, "imports are absolute"
            yield from (f"{node.module}.{alias.name}" for alias in node.names)


def parsed(path: Path) -> ast.Module:
    """A module's syntax tree."""
    return ast.parse(path.read_text(encoding="utf-8"), str(path))


def is_pure(name: str) -> bool:
    """Whether a module may be imported by the core: a list of what is allowed, so that whatever is new has to be thought about."""
    top = name.partition(".")[0]
    return (top in PURE_STANDARD or top in PURE_LIBRARIES) and not any(name.startswith(part) for part in IMPURE_PARTS)


def test_there_are_modules() -> None:
    """A folder that has moved must not make these tests pass on nothing."""
    assert len(MODULES) > 15


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_imports_only_what_is_pure(path: Path) -> None:
    """No os, io, time, random, socket, subprocess, pathlib, logging, threading, no client library, no shell."""
    assert [name for name in imports(parsed(path)) if not is_pure(name)] == []


@pytest.mark.parametrize("path", MODULES, ids=lambda path: path.stem)
def test_a_module_calls_nothing_that_does_something(path: Path) -> None:
    """Nor anything that differs from run to run, such as `hash` of a text."""
    for node in ast.walk(parsed(path)):
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Name):
            assert node.func.id not in IMPURE_CALLS, f"line {node.lineno}"
        if isinstance(node, ast.Call) and isinstance(node.func, ast.Attribute):
            assert node.func.attr not in IMPURE_ATTRIBUTES, f"line {node.lineno}"
        assert not isinstance(node, ast.Global | ast.Nonlocal | ast.AsyncFunctionDef | ast.Await), f"line {node.lineno}"


def graph() -> dict[str, set[str]]:
    """Which module of the core imports which."""
    names = {f"core.{path.stem}": path for path in MODULES}
    found: dict[str, set[str]] = {}
    for name, path in names.items():
        reached = set(imports(parsed(path)))
        found[name] = {other for other in names if any(one == other or one.startswith(f"{other}.") for one in reached)}
    return found


def test_imports_run_in_no_circle() -> None:
    """Floors, from the ground up: whatever is imported stands lower."""
    left = graph()
    while left:
        ground = {name for name, below in left.items() if not below & left.keys()}
        assert ground, f"these import each other: {sorted(left)}"
        left = {name: below for name, below in left.items() if name not in ground}


def test_the_rooms_of_managed_things_do_not_know_each_other() -> None:
    """Containers, DNS, routes and peers: only the room above puts them in order."""
    rooms = {"core.containers", "core.dns", "core.caddy", "core.wireguard"}
    above = {
        "core.state",
        "core.action",
        "core.plan",
        "core.guard",
        "core.machine",
        "core.memory",
        "core.events",
        "core.status",
    }
    found = graph()
    for room in rooms:
        assert not found[room] & (rooms | above), room
