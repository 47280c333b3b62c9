"""`shell.adapters.caddy.reuse_port`: the kernel's setting is made where it can be, and what cannot be is said."""

from pathlib import Path

import pytest

from shell.adapters.caddy.reuse_port import migrate_connections


@pytest.mark.parametrize("before", ["0\n", "1\n"])
def test_it_is_in_force_afterwards(tmp_path: Path, before: str) -> None:
    """Whoever set it last."""
    setting = tmp_path / "tcp_migrate_req"
    setting.write_text(before)
    assert migrate_connections(setting) is None
    assert setting.read_text().strip() == "1"


def test_a_kernel_without_it(tmp_path: Path) -> None:
    """Before Linux 5.14."""
    assert migrate_connections(tmp_path / "none") == f"{tmp_path}/none: No such file or directory"
