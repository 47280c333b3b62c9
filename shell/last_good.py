"""The last good expected state on disk, exactly as the control plane sent it, for a start without the control plane.

Secrets in it are still encrypted; the file is readable by its owner only. A torn or foreign file is moved aside and is not fatal.
"""

from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
from returns.pipeline import is_successful

from core.state import ExpectedState, parse_expected_after
from shell import files
from shell.failure import CommandError
from shell.log import logger

NAME = "expected-state.json"
AGAIN_S: Final = 10.0


class LastGood:
    """Keeps the document that is in force."""

    def __init__(self, data_dir: Path, subnet_id: int, own_key: str | None = None) -> None:
        self._path = data_dir / NAME
        self._subnet_id, self._own_key = subnet_id, own_key
        self._wanted: bytes | None = None
        self._is_saving = False

    def load(self) -> ExpectedState | None:
        """What was in force last, or None."""
        try:
            raw = self._path.read_bytes()
        except FileNotFoundError:
            return None
        except OSError as error:
            self._not_usable(str(error.strerror), "left where it is; waiting for the control plane")
            return None
        parsed = parse_expected_after(None, raw, self._subnet_id, self._own_key)
        if is_successful(parsed):
            return parsed.unwrap().expected
        try:
            then = f"moved to {files.move_aside(self._path)}; waiting for the control plane"
        except CommandError as error:
            then = f"{error}; waiting for the control plane"
        self._not_usable(str(parsed.failure()), then)
        return None

    def _not_usable(self, why: str, then: str) -> None:
        logger().warning("last good state not usable", path=str(self._path), why=why, then=then)

    async def save(self, raw: bytes) -> None:
        """Keep this document, or a later one that is given meanwhile, as soon as the disk takes it; why it does not is said once.

        Until then a start without the control plane would take an older one for good. One writer at a time, whoever asks.
        """
        self._wanted = raw
        if self._is_saving:
            return
        self._is_saving = True
        complaint: str | None = None
        try:
            while (latest := self._wanted) is not None:
                try:
                    await anyio.to_thread.run_sync(files.write_atomic, self._path, latest)
                except OSError as error:
                    if str(error) != complaint:
                        complaint = str(error)
                        then = f"tried again every {AGAIN_S:.0f} s"
                        logger().warning("last good state not kept", path=str(self._path), why=complaint, then=then)
                    await anyio.sleep(AGAIN_S)
                else:
                    self._wanted = None if self._wanted is latest else self._wanted
        finally:
            self._is_saving = False
