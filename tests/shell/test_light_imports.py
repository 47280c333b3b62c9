"""`shell.light_imports`: what the daemon does not load."""

import subprocess
import sys

import pytest

_HEAVY = (
    *(
        "typer",
        "click",
        "rich",
        "pygments",
        "pydantic",
        "pydantic_core",
        "starlette",
        "uvicorn",
        "prometheus_client",
        "yaml",
    ),
    *("pyroute2.ndb", "podman.client", "charset_normalizer", "unittest.case", "sqlite3"),
)


def run(program: str) -> str:
    """What a fresh interpreter says."""
    return subprocess.run(
        (sys.executable, "-c", program), capture_output=True, text=True, timeout=30, check=True
    ).stdout.strip()


def test_the_daemon_does_not_load_what_it_never_calls() -> None:
    """An idle agent's memory is mostly modules."""
    loaded = run("import shell.agent_process, sys; print(*sys.modules)").split()
    assert not set(_HEAVY) & set(loaded)
    assert {"pyroute2.iproute", "httpx", "structlog", "podman.api.client"} <= set(loaded)


@pytest.mark.parametrize("package", ["rich", "click"])
def test_what_was_left_out_can_be_loaded_afterwards(package: str) -> None:
    """By whoever really wants it."""
    assert run(f"import shell.daemon, {package}; print({package}.__name__)") == package


def test_a_podman_answer_is_read_without_guessing() -> None:
    """What requests would guess encodings with is not loaded; it takes what says nothing for UTF-8."""
    program = "import shell.agent_process, requests; r = requests.Response(); r._content = 'n\u00e9'.encode(); print(ascii(r.text))"
    assert run(program) == r"'n\xe9'"


def test_a_package_that_is_not_there() -> None:
    """Said as Python says it; a loaded one is left as it is."""
    tried = (
        "from shell import light_imports as l\ntry: l.alone('nowhere')\nexcept ModuleNotFoundError as e: print(e.name)"
    )
    assert run(tried) == "nowhere"
    assert run("import json; from shell import light_imports as l; l.alone('json'); print(json.loads('1'))") == "1"
