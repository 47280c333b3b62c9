"""Packages of which the agent needs a part, without the rest that they load with it.

An idle agent's memory is mostly modules, so what is never called is not loaded: pyroute2's package imports all of its parts (databases,
wireless, network namespaces; 6 MiB), and the whole of unittest for one mock; podman's every kind of object and the guessing of encodings;
structlog and httpx rich, when it is there, for tracebacks and a command line (4 MiB).
Measured in docs/performance.md.
"""

import importlib.machinery
import importlib.util
import sys
from collections.abc import Iterator
from contextlib import contextmanager


def alone(package: str) -> None:
    """Let modules of a package be imported without what the package itself imports. Does nothing when it is loaded already."""
    if package in sys.modules:
        return
    spec = importlib.machinery.PathFinder.find_spec(package)
    if spec is None:
        raise ModuleNotFoundError(f"No module named {package!r}", name=package)
    sys.modules[package] = importlib.util.module_from_spec(spec)


@contextmanager
def without(package: str) -> Iterator[None]:
    """Within, a package that is not loaded yet counts as not installed."""
    if package in sys.modules:
        yield
        return
    sys.modules[package] = None  # type: ignore[assignment]  # how the import system is told that there is none
    try:
        yield
    finally:
        del sys.modules[package]
