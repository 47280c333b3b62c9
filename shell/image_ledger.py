"""Which images this agent has pulled, on disk: only those may ever be removed. A ledger that is lost costs room, never an image."""

from collections.abc import Callable
from pathlib import Path
from typing import Final

import msgspec

from core import image_gc
from core.image import Image
from core.image_gc import Pulled, Store
from core.state import ExpectedState
from shell import files
from shell.log import logger

NAME: Final = "images.json"
VERSION: Final = 1


class _File(msgspec.Struct, frozen=True):
    version: int
    pulled: dict[str, Pulled]


class ImageLedger:
    """The images that this agent has pulled."""

    def __init__(self, data_dir: Path, wall_clock: Callable[[], float]) -> None:
        self._path = data_dir / NAME
        self._wall_clock = wall_clock
        self.entries = self._load()

    def pulled(self, image: Image) -> None:
        """An image has come."""
        self._keep(image_gc.pulled(self.entries, image, self._wall_clock()))

    def needed(self, expected: ExpectedState) -> None:
        """This is expected now."""
        self._keep(image_gc.needed(self.entries, expected, self._wall_clock()))

    def present(self, store: Store) -> None:
        """This is there now."""
        self._keep(image_gc.present(self.entries, store, self._wall_clock()))

    def _keep(self, entries: dict[str, Pulled]) -> None:
        if entries == self.entries:
            return
        self.entries = entries
        try:
            files.write_atomic(self._path, msgspec.json.encode(_File(VERSION, entries)))
        except OSError as error:
            logger().warning("image ledger not written", why=str(error), then="some images may stay for ever")

    def _load(self) -> dict[str, Pulled]:
        try:
            found = msgspec.json.decode(self._path.read_bytes(), type=_File)
        except FileNotFoundError:
            return {}
        except (msgspec.DecodeError, UnicodeDecodeError) as error:
            moved = files.move_aside(self._path)
            then = f"moved to {moved}; images pulled so far stay for ever"
            logger().warning("image ledger makes no sense", path=str(self._path), why=str(error), then=then)
            return {}
        files.refuse_newer(self._path, found.version, VERSION)
        return found.pulled
