"""Which work items are done, and which are begun, on disk: an item is done once, and only its acknowledgement is repeated.

Written after the work and before the acknowledgement, so that an agent that is killed between the two finds out; for work that must not
be done twice also before it, with a mark by which to see later whether it was done. Bounded: of the items that the control plane no longer
asks for, the oldest are forgotten first, and so are those that it asks for in endless numbers.
"""

from collections.abc import Set
from pathlib import Path
from typing import Final

import msgspec

from core import bounds
from shell.state_file import StateFile, json_format

NAME: Final = "work-done.json"
VERSION: Final = 2  # 2 added `begun`; a file of version 1 is read as it is
_KEPT: Final = 1000
_MOST: Final = (
    2 * bounds.WORK_ITEMS
)  # no more than half of them wait for an acknowledgement in a queue that keeps its order


class _Entry(msgspec.Struct, frozen=True, omit_defaults=True):
    id: str
    error: str | None = None


class _Begun(msgspec.Struct, frozen=True):
    id: str
    mark: str


class _File(msgspec.Struct, frozen=True):
    version: int = VERSION
    done: tuple[_Entry, ...] = ()
    begun: tuple[_Begun, ...] = ()


_FORMAT: Final = json_format(
    _File,
    "work ledger",
    lost="an item that was done and not acknowledged may be done twice",
    unwritten="should the agent be killed before, an item may be done twice",
    version=VERSION,
)


class Ledger:
    """The items that are done, with the error of those that failed, and those that are begun."""

    def __init__(self, data_dir: Path) -> None:
        self.file = StateFile(data_dir / NAME, _FORMAT)
        found = self.file.load() or _File()
        self._done = {entry.id: entry for entry in found.done}
        self._begun = {entry.id: entry for entry in found.begun}
        self._pending: Set[str] = frozenset()

    def __contains__(self, item_id: str) -> bool:
        return item_id in self._done

    def error_of(self, item_id: str) -> str | None:
        """Why a done item failed, None when it did not."""
        return self._done[item_id].error

    def mark_of(self, item_id: str) -> str | None:
        """The mark with which an item was begun that is not done, None when it was not."""
        entry = self._begun.get(item_id)
        return None if entry is None else entry.mark

    def still_pending(self, item_ids: Set[str]) -> None:
        """The items that the control plane asks for now: these are not forgotten."""
        self._pending = item_ids

    async def begin(self, item_id: str, mark: str) -> None:
        """Remember that an item is about to be done. Raises OSError while the disk does not take it; until then only this run knows."""
        self._begun[item_id] = _Begun(id=item_id, mark=mark)
        await self._write()

    async def add(self, item_id: str, error: str | None) -> None:
        """Remember that an item is done. Raises OSError while the disk does not take it; until then only this run knows."""
        self._done.pop(item_id, None)
        self._done[item_id] = _Entry(id=item_id, error=error)
        old = [one for one in self._done if one not in self._pending and one != item_id]
        for one in old[: max(0, len(old) - _KEPT)]:
            del self._done[one]
        for one in [*self._done][: max(0, len(self._done) - _MOST)]:
            del self._done[one]
        self._begun = {one: mark for one, mark in self._begun.items() if one != item_id and one in self._pending}
        await self._write()

    async def _write(self) -> None:
        await self.file.save(_File(done=tuple(self._done.values()), begun=tuple(self._begun.values())))
