"""Which work items are done, on disk: an item is done once, and only its acknowledgement is repeated.

Written after the work and before the acknowledgement, so that an agent that is killed between the two finds out. Bounded; the oldest are
forgotten first, long after the control plane has stopped asking for them.
"""

from pathlib import Path
from typing import Final

from pydantic import BaseModel, ConfigDict, ValidationError

from shell import files
from shell.log import logger

NAME: Final = "work-done.json"
VERSION: Final = 1
_KEPT: Final = 1000


class _Entry(BaseModel):
    model_config = ConfigDict(frozen=True)

    id: str
    error: str | None = None


class _File(BaseModel):
    model_config = ConfigDict(frozen=True)

    version: int = VERSION
    done: tuple[_Entry, ...] = ()


class Ledger:
    """The items that are done, with the error of those that failed."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / NAME
        self._done = {entry.id: entry for entry in self._load().done}

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._done

    def error_of(self, item_id: str) -> str | None:
        """Why a done item failed, None when it did not."""
        return self._done[item_id].error

    def add(self, item_id: str, error: str | None) -> None:
        """Remember, on disk, that an item is done. Raises OSError when the disk does not take it."""
        self._done.pop(item_id, None)
        self._done[item_id] = _Entry(id=item_id, error=error)
        while len(self._done) > _KEPT:
            self._done.pop(next(iter(self._done)))
        content = _File(done=tuple(self._done.values())).model_dump_json(exclude_none=True)
        files.write_atomic(self._path, content.encode())

    def _load(self) -> _File:
        try:
            return _File.model_validate_json(self._path.read_bytes())
        except FileNotFoundError:
            return _File()
        except ValidationError as error:
            moved = files.move_aside(self._path)
            why = error.errors(include_input=False, include_url=False)[0]["msg"]
            logger().warning("work ledger makes no sense", path=str(self._path), why=why, then=f"moved to {moved}")
            return _File()
