"""The folders behind a container's volumes: `<volumes>/<service>/<name>`, and nothing that a link could turn into another place."""

import contextlib
import os
from pathlib import Path
from typing import Final

from core.containers import Volume
from shell.failure import AdapterError

COMPONENT: Final = "volumes"
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW
_OPEN_TO_CONTAINERS: Final = 0o755  # like a named volume's: the container's user is not this server's


def make_volumes(volumes_dir: Path, service_id: str, volumes: tuple[Volume, ...]) -> None:
    """Make the folders that are missing. Raises AdapterError when a step on the way is a link or no folder.

    Every step is opened without following links, relative to the one before, so that nothing can be swapped in between.
    """
    for volume in volumes:
        what = f"make volume {service_id}/{volume.name}"
        try:
            volumes_dir.mkdir(parents=True, exist_ok=True)
            _descend(volumes_dir, (service_id, volume.name))
        except OSError as error:
            raise AdapterError(COMPONENT, what, f"{error.strerror} ({error.filename})", "nothing is mounted") from error


def _descend(top: Path, names: tuple[str, ...]) -> None:
    current = os.open(top, _FOLDER)
    try:
        for name in names:
            made = False
            with contextlib.suppress(FileExistsError):
                os.mkdir(name, dir_fd=current)
                made = True
            following = os.open(name, _FOLDER, dir_fd=current)
            os.close(current)
            current = following
            if made:
                os.fchmod(current, _OPEN_TO_CONTAINERS)
    finally:
        os.close(current)
