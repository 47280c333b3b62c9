"""The last good expected state on disk, exactly as the control plane sent it, for a start without the control plane.

Secrets in it are still encrypted; the file is readable by its owner only. A torn or foreign file is moved aside and is not fatal.
"""

from pathlib import Path

import anyio.to_thread
from returns.pipeline import is_successful

from core.state import ExpectedState, parse_expected
from shell import files
from shell.failure import CommandError
from shell.log import logger

NAME = "expected-state.json"


class LastGood:
    """Keeps the document that is in force."""

    def __init__(self, data_dir: Path, subnet_id: int) -> None:
        self._path = data_dir / NAME
        self._subnet_id = subnet_id
        self._unsaved: bytes | None = None
        self._complaint: str | None = None

    def load(self) -> ExpectedState | None:
        """What was in force last, or None."""
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._not_usable(str(error.strerror), "left where it is; waiting for the control plane")
            return None
        parsed = parse_expected(raw, self._subnet_id)
        if is_successful(parsed):
            return parsed.unwrap()
        try:
            then = f"moved to {files.move_aside(self._path)}; waiting for the control plane"
        except CommandError as error:
            then = f"{error}; waiting for the control plane"
        self._not_usable(str(parsed.failure()), then)
        return None

    def _not_usable(self, why: str, then: str) -> None:
        logger().warning("last good state not usable", path=str(self._path), why=why, then=then)

    async def save(self, raw: bytes) -> None:
        """Keep this document. A disk that does not take it costs only the start without the control plane, and is tried again."""
        self._unsaved = raw
        await self.save_again()

    async def save_again(self) -> None:
        """Keep what could not be kept before; said once."""
        if self._unsaved is None:
            return
        try:
            await anyio.to_thread.run_sync(files.write_atomic, self._path, self._unsaved)
        except OSError as error:
            if str(error) != self._complaint:
                self._complaint = str(error)
                then = "tried again at each poll; a start without the control plane would take an older one for good"
                logger().warning("last good state not kept", path=str(self._path), why=self._complaint, then=then)
        else:
            self._unsaved = self._complaint = None
