"""The `/etc/hosts` of each container: `<data>/hosts/<container's name>`.

Podman 4.3 copies the server's own into every container, where on Debian the server's name means loopback, and can be told otherwise only
for all containers of the server. A file of our own that is mounted over it is the same with every Podman.
"""

import contextlib
from pathlib import Path
from typing import Final

import anyio.to_thread

from core.podman import hosts_text, original_name
from shell.failure import AdapterError

_COMPONENT: Final = "podman"
_MODE: Final = 0o644  # whoever the container's users are, they read it; the folder is closed to the server's
_UNFINISHED: Final = ".new"


class Hosts:
    """The files below one folder. Everything may raise AdapterError."""

    def __init__(self, folder: Path, gateway: str) -> None:
        self._folder = folder
        self._gateway = gateway

    async def write(self, name: str, address: str | None, host_name: str = "") -> None:
        """Write a container's file anew: before it is made, and again with the host name that Podman has given to it."""
        text = hosts_text(name, address, self._gateway, host_name)
        await anyio.to_thread.run_sync(self._write, name, text)

    async def ensure(self, name: str, host_name: str) -> None:
        """Write the file of a container that exists, if it is missing or was not written whole: it could never start.

        Its address is not known here.
        """
        with contextlib.suppress(OSError):
            if (self._folder / name).stat().st_size > 0:
                return
        await self.write(name, None, host_name)

    async def remove(self, name: str) -> None:
        """Remove the file of a container that is gone; fine when there is none."""
        with contextlib.suppress(OSError):  # a hundred bytes, which the next container of this name overwrites
            (self._folder / original_name(name)).unlink()

    def _write(self, name: str, text: str) -> None:
        target = self._folder / name
        unfinished = self._folder / f"{name}{_UNFINISHED}"
        try:
            self._folder.mkdir(mode=0o700, parents=True, exist_ok=True)
            unfinished.write_text(text, encoding="ascii")
            unfinished.chmod(_MODE)
            unfinished.replace(target)
        except OSError as error:
            what = f"write {target}"
            raise AdapterError(_COMPONENT, what, error.strerror or str(error), "the container is not made") from error
