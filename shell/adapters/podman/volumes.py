"""The folders behind a container's volumes: `<volumes>/<service>/<name>`, and nothing that a link could turn into another place.

The services' folders are closed to everybody but root; the volume itself is open, like an `emptyDir`, since the container's user may be
anybody and only containers that have it mounted can get there.
"""

import contextlib
import errno
import os
import shutil
from collections.abc import Iterator
from pathlib import Path
from typing import Final

from core.containers import Volume
from shell.failure import AdapterError

_COMPONENT: Final = "volumes"
_FOLDER: Final = os.O_RDONLY | os.O_DIRECTORY | os.O_NOFOLLOW | os.O_CLOEXEC
_CLOSED: Final = 0o700
_OPEN: Final = 0o777
_UNFINISHED: Final = ".new"  # a folder before it has its mode and its name
_THEN: Final = "the container is not made"


def make_volumes(volumes_dir: Path, service_id: str, volumes: tuple[Volume, ...]) -> None:
    """Make the folders that are missing; those that are there keep their owner and mode.

    Raises AdapterError when a step below `volumes_dir` is a symbolic link, is no folder, or would lead elsewhere.
    """
    for volume in volumes:
        what = f"make volume {service_id}/{volume.name}"
        _require_single(what, service_id)
        _require_single(what, volume.name)
        try:
            volumes_dir.mkdir(mode=_CLOSED, parents=True, exist_ok=True)
            with (
                _folder(str(volumes_dir), None) as top,
                _folder(service_id, top, _CLOSED) as service,
                _folder(volume.name, service, _OPEN),
            ):
                continue
        except OSError as error:
            is_link = error.errno in (errno.ENOTDIR, errno.ELOOP)
            why = "is a symbolic link, or not a folder" if is_link else error.strerror
            raise AdapterError(_COMPONENT, what, f"{error.filename!r} below {volumes_dir}: {why}", _THEN) from error


def folders_of(volumes_dir: Path, service_id: str) -> tuple[str, ...]:
    """Everything that a container could have mounted of a service's volumes; empty when there is nothing."""
    what = f"remove the volumes of {service_id!r}"
    _require_single(what, service_id)
    target = volumes_dir / service_id
    try:
        return (str(target), *sorted(str(one) for one in target.iterdir()))
    except FileNotFoundError:
        return ()
    except OSError as error:
        raise AdapterError(_COMPONENT, what, f"{error.filename!r}: {error.strerror}", "nothing is deleted") from error


def remove_volumes(volumes_dir: Path, service_id: str) -> None:
    """Delete a service's folder with everything in it; fine when there is none.

    A link is never followed: one in the place of the folder is refused, and those inside go without what they point at.
    """
    what = f"remove the volumes of {service_id!r}"
    _require_single(what, service_id)
    target = volumes_dir / service_id
    try:
        if volumes_dir.is_symlink() or target.is_symlink():
            raise AdapterError(_COMPONENT, what, f"{target} is a symbolic link", "nothing is deleted")
        shutil.rmtree(target)
    except FileNotFoundError:
        return
    except OSError as error:
        raise AdapterError(_COMPONENT, what, f"{error.filename!r}: {error.strerror}", "what is left stays") from error


@contextlib.contextmanager
def _folder(name: str, parent: int | None, mode: int | None = None) -> Iterator[int]:
    """A folder opened relative to its parent, without following a link, so that nothing can be swapped in between."""
    if mode is not None and parent is not None:
        _make(name, parent, mode)
    descriptor = os.open(name, _FOLDER, dir_fd=parent)
    try:
        yield descriptor
    finally:
        os.close(descriptor)


def _make(name: str, parent: int, mode: int) -> None:
    """Make a folder of exactly this mode, whatever the umask is, in one step, whatever interrupts it."""
    with contextlib.suppress(FileNotFoundError):
        os.stat(name, dir_fd=parent, follow_symlinks=False)
        return
    with contextlib.suppress(FileExistsError):  # left by an interruption
        os.mkdir(_UNFINISHED, dir_fd=parent)
    descriptor = os.open(_UNFINISHED, _FOLDER, dir_fd=parent)
    try:
        os.fchmod(descriptor, mode)
    finally:
        os.close(descriptor)
    os.rename(_UNFINISHED, name, src_dir_fd=parent, dst_dir_fd=parent)


def _require_single(what: str, name: str) -> None:
    if name in ("", ".", "..") or "/" in name or "\x00" in name:
        raise AdapterError(_COMPONENT, what, f"{name!r} is not the name of one folder", _THEN)
