"""`shell.handover`: the daemon is the same process with another program in it, and shows no token."""

import os
import subprocess
import sys
from pathlib import Path

from shell.handover import Task
from shell.log_choices import LogFormat, LogLevel
from shell.options import Options

ROOT = Path(__file__).parents[2]
PROGRAM = """
import os, sys
from pathlib import Path
from shell import handover, option_checks
from shell.log_choices import LogFormat, LogLevel
options = option_checks.checked({"data_dir": "/srv/a", "public_ip": "192.0.2.7", "unmanaged": ["dns"]})
print(os.getpid(), flush=True)
handover.become_daemon(handover.Task(options, "hush-1", LogFormat.JSON, LogLevel.DEBUG), "tests.shell.told_task")
"""


def test_everything_arrives(tmp_path: Path) -> None:
    """In the same process; the file that it came in is closed; the command line shows the words that were given, but no token."""
    words = ("run", "--token", "hush-1", "--proxy", "--token=hush-1", "--url", "--token")
    argv = (sys.executable, "-c", PROGRAM, *words)
    env = {**os.environ, "PYTHONPATH": str(ROOT)}
    done = subprocess.run(argv, capture_output=True, text=True, timeout=30, check=True, cwd=tmp_path, env=env)
    pid, *told = done.stdout.splitlines()
    assert told == [
        pid,
        "/srv/a 192.0.2.7 ('dns',) hush-1 json debug",
        "files left open: 0",
        f"shown: {sys.executable} -P -m tests.shell.told_task N run --proxy --url",
    ]


def test_a_task_does_not_show_its_token() -> None:
    """L37: where a value is printed."""
    assert "hush" not in repr(Task(Options(), "hush-1", LogFormat.AUTO, LogLevel.INFO))
