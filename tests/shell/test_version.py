"""`shell.version`: what a wheel was built from, and what a checkout is at."""

import subprocess
from pathlib import Path

import pytest

from shell import version


def test_a_wheel_knows_its_commit(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Written into it when it was built; nothing is asked."""
    (tmp_path / "COMMIT").write_text("3f2a9c0d1e2f\n")
    monkeypatch.setattr(version, "_RECORD", tmp_path / "COMMIT")
    assert version.commit() == "3f2a9c0d1e2f"
    assert version.full() == f"agent {version.number()} (3f2a9c0d1e2f)"


def test_neither_wheel_nor_checkout(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then the version alone is told."""
    monkeypatch.setattr(version, "_RECORD", tmp_path / "COMMIT")
    monkeypatch.setattr(version, "_HERE", tmp_path / "shell")
    assert version.full() == f"agent {version.number()}"


@pytest.mark.parametrize("changed", [False, True])
def test_a_checkout_asks_git(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, changed: bool) -> None:
    """Files that differ from the commit are told too."""
    git = ("git", "-C", str(tmp_path), "-c", "user.name=n", "-c", "user.email=e@example.org")
    (tmp_path / "file").write_text("1")
    for command in (("init", "-q"), ("add", "."), ("commit", "-qm", "first")):
        subprocess.run((*git, *command), check=True, timeout=30)
    if changed:
        (tmp_path / "file").write_text("2")
    monkeypatch.setattr(version, "_RECORD", tmp_path / "COMMIT")
    monkeypatch.setattr(version, "_HERE", tmp_path / "shell")
    head = subprocess.run((*git, "rev-parse", "HEAD"), check=True, capture_output=True, text=True, timeout=30).stdout
    assert version.commit() == head[:12] + ("-dirty" if changed else "")
