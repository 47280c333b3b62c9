"""The project as a server gets it: the bundle of this checkout, made once for a run of tests, and bundles of versions that never were.

Decides nothing about what is in them; that is the project's own scripts'.
"""

import fcntl
import os
import re
import shutil
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from tests.lab.debian_tree import ROOT
from tests.lab.private_network import outside
from tests.lab.process import run

_MAKE_S: Final = 1200
_SOURCES: Final = ("core", "shell", "deploy", "pyproject.toml", "setup.py", "README.md", "LICENSE")


@dataclass(frozen=True, slots=True)
class Bundle:
    """An unpacked bundle."""

    folder: Path
    version: str

    @property
    def wheel(self) -> Path:
        """The agent's own package."""
        (found,) = self.folder.glob("*.whl")
        return found

    @property
    def archive(self) -> Path:
        """What it was unpacked from."""
        return self.folder.with_name(f"{self.folder.name}.tar.gz")

    def copy_to(self, target: Path) -> None:
        """The same again, where a server sees it."""
        shutil.copytree(self.folder, target)


def bundle(folder: Path) -> Bundle:
    """The bundle of this checkout, below a folder that all processes of a test run share."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "bundle.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not (folder / "ready").exists():
            environment = {**os.environ, "AGENT_DIST": str(folder)}
            archive = run(outside((str(ROOT / "deploy/bundle.sh"),)), timeout_s=_MAKE_S, env=environment).strip()
            run(("tar", "--extract", "--file", archive, "--directory", str(folder)))
            (folder / "ready").touch()
    (found,) = folder.glob("techulus-agent-*/")
    return Bundle(found, found.name.removeprefix("techulus-agent-"))


def another(one: Bundle, folder: Path, version: str, changed: Mapping[str, str]) -> Bundle:
    """The same bundle with a wheel of another version, in whose sources these files have another text."""
    sources = folder / "sources"
    sources.mkdir(parents=True)
    for name in _SOURCES:
        run(("cp", "-r", str(ROOT / name), str(sources)))
    (sources / ".venv").symlink_to(ROOT / ".venv")
    project = sources / "pyproject.toml"
    project.write_text(re.sub(r'^version = ".*"$', f'version = "{version}"', project.read_text(), flags=re.MULTILINE))
    for name, text in changed.items():
        (sources / name).write_text(text)
    target = folder / f"techulus-agent-{version}"
    shutil.copytree(one.folder, target)
    Bundle(target, version).wheel.unlink()
    environment = {**os.environ, "AGENT_DIST": str(target)}
    run((str(sources / "deploy/bundle.sh"), "--wheel"), timeout_s=_MAKE_S, env=environment)
    shutil.rmtree(sources)
    return Bundle(target, version)
