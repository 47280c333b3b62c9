"""L58: every cache of the house is bounded in bytes, whatever is put into it. A new one is found here."""

import importlib
import pkgutil
import tracemalloc
from collections.abc import Callable, Iterator
from functools import _lru_cache_wrapper
from typing import Any, Final

import pytest

import core
import shell
from core import address, container_log, image, log_lines, state
from core.dns import Record

MIB: Final = 1024**2
_LONG: Final = "é" * 1_000_000


def references(number: int) -> str:
    """As long as a reference may be, and not one of them twice."""
    return f"{number:07}.example.test/{'a' * 200}:{'t' * 128}@sha512:{number:0128}"


# What fills each cache, and how many megabytes it may hold then.
CACHES: Final[dict[str, tuple[Callable[[int], object], int]]] = {
    "core.image._parsed": (lambda n: (image.parse(references(n)), image.parse(f"{n}{_LONG}")), 8),
    "core.address._network": (
        lambda n: (address.network(f"10.{n // 200 % 200}.{n % 200}.0/24"), address.network(f"{n}{_LONG}")),
        4,
    ),
    "core.log_lines._second": (lambda n: log_lines.rfc3339(n * 10**9), 1),
    "core.container_log._epoch": (
        lambda n: container_log.parse_time(f"2026-01-01T00:00:{n % 60:02}+{n}{_LONG}".encode()),
        1,
    ),
    # In number, and so by the longest document: two sets of names, routes and peers each.
    "core.state._digest_of": (lambda n: state.digest_of("dns", (Record(f"{n}.internal", ("10.200.1.2",)),)), 1),
}
OF_ONE: Final = {"shell.http_client.trusted"}


def caches() -> Iterator[tuple[str, "_lru_cache_wrapper[Any]"]]:
    """Every function of core and shell whose answers are kept."""
    for package in (core, shell):
        for found in pkgutil.walk_packages(package.__path__, f"{package.__name__}."):
            if found.name.endswith("__main__"):
                continue
            module = importlib.import_module(found.name)
            for name, value in vars(module).items():
                if isinstance(value, _lru_cache_wrapper) and value.__module__ == found.name:
                    yield f"{found.name}.{name}", value


def test_every_cache_is_known() -> None:
    """And has a bound in number."""
    found = dict(caches())
    assert found.keys() == CACHES.keys() | OF_ONE
    assert all(cache.cache_parameters()["maxsize"] is not None for cache in found.values())
    assert all(found[name].cache_parameters()["maxsize"] == 1 for name in OF_ONE)


@pytest.mark.parametrize("name", CACHES)
def test_a_full_cache_is_small(name: str) -> None:
    """Filled twice over with the longest that comes in."""
    fill, most_mib = CACHES[name]
    cache = dict(caches())[name]
    most: int = cache.cache_parameters()["maxsize"] or 0
    cache.cache_clear()
    tracemalloc.start()
    try:
        for number in range(min(2 * most, 5_000)):
            fill(number)
        held = tracemalloc.get_traced_memory()[0]
    finally:
        tracemalloc.stop()
        cache.cache_clear()
    assert held < most_mib * MIB
