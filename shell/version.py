"""Which agent this is: its version, and the commit that it was built from."""

import subprocess
from importlib.metadata import version
from pathlib import Path
from typing import Final

_HERE: Final = Path(__file__).parent
_RECORD: Final = _HERE / "COMMIT"  # written into a wheel when it is built
_GIT_S: Final = 2.0


def number() -> str:
    """The version of the installed package, `0.1.0`."""
    return version("techulus-agent")


def commit() -> str:
    """The commit that the wheel was built from, or that of the checkout; with `-dirty` when files differed from it. Empty: not known."""
    if _RECORD.is_file():
        return _RECORD.read_text(encoding="ascii", errors="replace").strip()
    if not (_HERE.parent / ".git").exists():
        return ""
    argv = ("git", "-C", str(_HERE.parent), "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty")
    try:
        done = subprocess.run(argv, capture_output=True, text=True, timeout=_GIT_S, check=False)  # noqa: S603 - words of our own
    except (OSError, subprocess.TimeoutExpired):
        return ""
    return done.stdout.strip() if done.returncode == 0 else ""


def full() -> str:
    """Both, for a person: `agent 0.1.0 (3f2a9c…)`."""
    built_from = commit()
    return f"agent {number()}" + (f" ({built_from})" if built_from else "")
