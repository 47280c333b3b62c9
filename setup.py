"""What pyproject.toml cannot say: a wheel knows the commit that it was built from, so that `agent --version` can tell it."""

import os
import subprocess
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

ROOT = Path(__file__).parent
DESCRIBE = ("git", "-C", str(ROOT), "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty")


class BuildWithCommit(build_py):
    """The packages, and beside the shell's modules the file `COMMIT`; a checkout that is installed to be edited asks Git instead."""

    def run(self) -> None:
        """Build, then write the commit: what AGENT_COMMIT says (for a build from copied files), else Git."""
        super().run()
        if self.editable_mode:
            return
        commit = os.environ.get("AGENT_COMMIT", "")
        if not commit and (ROOT / ".git").exists():
            done = subprocess.run(DESCRIBE, capture_output=True, text=True, check=True, timeout=60)  # noqa: S603 - no shell; a constant
            commit = done.stdout.strip()
        if commit:
            Path(self.build_lib, "shell", "COMMIT").write_text(f"{commit}\n", encoding="ascii")


setup(cmdclass={"build_py": BuildWithCommit})
