"""Which images this agent has pulled, on disk: only those may ever be removed. A ledger that is lost costs room, never an image."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from core import image_gc
from core.image import Image
from core.image_gc import Pulled, Store
from core.state import ExpectedState
from shell.state_file import StateFile, json_format

NAME: Final = "images.json"
VERSION: Final = 1


class _File(msgspec.Struct, frozen=True):
    version: int
    pulled: dict[str, Pulled]


_FORMAT: Final = json_format(
    _File,
    "image ledger",
    lost="images pulled so far stay for ever",
    unwritten="images pulled meanwhile may stay for ever",
    version=VERSION,
)


class ImageLedger:
    """The images that this agent has pulled. What changes is written by `file.run`."""

    def __init__(self, data_dir: Path, wall_clock: Callable[[], float]) -> None:
        self.file = StateFile(data_dir / NAME, _FORMAT)
        self._wall_clock = wall_clock
        found = self.file.load()
        self.entries = {} if found is None else found.pulled

    def pulled(self, image: Image, image_id: str) -> None:
        """An image has come."""
        self._keep(image_gc.pulled(self.entries, image, image_id, self._wall_clock()))

    def needed(self, expected: ExpectedState) -> None:
        """This is expected now."""
        self._keep(image_gc.needed(self.entries, expected, self._wall_clock()))

    def present(self, store: Store) -> None:
        """This is there now."""
        self._keep(image_gc.present(self.entries, store, self._wall_clock()))

    def _keep(self, entries: dict[str, Pulled]) -> None:
        if entries != self.entries:
            self.entries = entries
            self.file.put(_File(VERSION, entries))
