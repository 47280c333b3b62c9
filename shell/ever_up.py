"""Which containers have been up, on disk: after a power cut Podman does not know how long one has run, and one that has is always reported.

Without it each of them would be left out of the reports until it runs again, and the control plane takes that for a container that is gone.
A file that is lost costs that.
"""

from pathlib import Path
from typing import Final

import anyio
import anyio.to_thread
import msgspec

from core.containers import ContainerId
from shell import files
from shell.log import logger

NAME: Final = "ever-up.json"
VERSION: Final = 1
AGAIN_S: Final = 10.0


class _File(msgspec.Struct, frozen=True):
    version: int
    containers: tuple[str, ...]


class EverUp:
    """The ids of the containers that are known to have been up; those that are gone are forgotten by whoever lists them."""

    def __init__(self, data_dir: Path) -> None:
        self._path = data_dir / NAME
        self.known = self._load()
        self._changed = anyio.Event()

    def keep(self, known: frozenset[ContainerId]) -> None:
        """These are known now; `run` writes them."""
        if known != self.known:
            self.known = known
            self._changed.set()

    async def run(self) -> None:
        """Write what is known whenever it changes, as soon as the disk takes it; why it does not is said once."""
        complaint: str | None = None
        while True:
            await self._changed.wait()
            self._changed = anyio.Event()
            content = msgspec.json.encode(_File(VERSION, tuple(sorted(self.known))))
            try:
                await anyio.to_thread.run_sync(files.write_atomic, self._path, content)
            except OSError as error:
                if str(error) != complaint:
                    complaint = str(error)
                    then = f"tried again every {AGAIN_S:.0f} s; until then a power cut would leave out containers that had run"
                    logger().warning(
                        "containers that have run not kept", path=str(self._path), why=complaint, then=then
                    )
                self._changed.set()
                await anyio.sleep(AGAIN_S)
            else:
                complaint = None

    def _load(self) -> frozenset[ContainerId]:
        try:
            found = msgspec.json.decode(self._path.read_bytes(), type=_File)
        except FileNotFoundError:
            return frozenset()
        except OSError as error:
            then = "left where it is; containers that do not run are reported once they run again"
            logger().warning("containers that have run not known", path=str(self._path), why=error.strerror, then=then)
            return frozenset()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            moved = files.move_aside(self._path)
            then = f"moved to {moved}; containers that do not run are reported once they run again"
            logger().warning("containers that have run not known", path=str(self._path), why=str(error), then=then)
            return frozenset()
        files.refuse_newer(self._path, found.version, VERSION)
        return frozenset(map(ContainerId, found.containers))
