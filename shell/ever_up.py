"""Which containers have been up, on disk: after a power cut Podman does not know how long one has run, and one that has is always reported.

Without it each of them would be left out of the reports until it runs again, and the control plane takes that for a container that is gone.
"""

from pathlib import Path
from typing import Final

import msgspec

from core.containers import ContainerId
from shell.state_file import StateFile, json_format

NAME: Final = "ever-up.json"
VERSION: Final = 1


class _File(msgspec.Struct, frozen=True):
    version: int
    containers: tuple[str, ...]


_FORMAT: Final = json_format(
    _File,
    "containers that have run",
    lost="containers that do not run are reported once they run again",
    unwritten="until then a power cut would leave out containers that had run",
    version=VERSION,
)


class EverUp:
    """The ids of the containers that are known to have been up; those that are gone are forgotten by whoever lists them."""

    def __init__(self, data_dir: Path) -> None:
        self.file = StateFile(data_dir / NAME, _FORMAT)
        found = self.file.load()
        self.known = frozenset(map(ContainerId, found.containers if found else ()))

    def keep(self, known: frozenset[ContainerId]) -> None:
        """These are known now; `file.run` writes them."""
        if known != self.known:
            self.known = known
            self.file.put(_File(VERSION, tuple(sorted(known))))
