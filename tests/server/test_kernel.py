"""The adapter on the kernel's WireGuard, by netlink, in a virtual machine that has one."""

import json
from pathlib import Path

import pytest

from tests.lab.vm import Guest, run_module
from tests.real.wireguard.checks import CHECKS
from tests.real.wireguard.guest import KERNEL_ONLY
from tests.real.wireguard.tunnel import module_folders

# Two minutes on two cores that do nothing else; the first time on a machine, its kernel is downloaded. The limits are for what hangs.
pytestmark = [pytest.mark.real, pytest.mark.timeout(2400)]
_LIMIT_S = 1800
_ROOT = Path(__file__).parents[2]
_PROGRAMS = ("ip", "wg", "ping")


def test_the_kernels_wireguard_passes_every_check() -> None:
    """L4, L5, L10, L20, L21: one machine runs them all, so this is one test; it names the checks that failed, with their traces."""
    folders = (_ROOT / "core", _ROOT / "shell", _ROOT / "tests")
    said = run_module(Guest(_PROGRAMS, module_folders(), folders), "tests.real.wireguard.guest", _LIMIT_S)
    print(said)
    lines = [json.loads(line) for line in said.splitlines() if line.startswith('{"name"')]
    assert "\n".join(f"{line['name']}: {line['trouble']}" for line in lines if line["trouble"]) == ""
    assert [line["name"] for line in lines] == [check.__name__ for check in (*CHECKS, *KERNEL_ONLY)]
