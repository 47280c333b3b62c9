"""Files that people edit, looked at on every access: read again only when their size, time or identity has changed."""

import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path

from shell.local_plane.documents import Fault, Format

# A person's file; anything longer is the wrong file.
_LONGEST_BYTES = 1024 * 1024
# Two edits within one tick of the file system's clock look the same, so a file this young is read again at the next look.
_YOUNG_NS = 50_000_000

SUFFIXES = (".yaml", ".yml", ".json")


@dataclass(frozen=True, slots=True)
class Content:
    """A file's text, or why it could not be read."""

    path: Path
    text: str | Fault

    @property
    def kind(self) -> Format:
        """How the text is to be read, by the file's name."""
        return "json" if self.path.suffix == ".json" else "yaml"


_Signature = tuple[tuple[Path, int, int, int], ...]


class Watched:
    """A set of files that `find` lists."""

    def __init__(self, find: Callable[[], Sequence[Path]]) -> None:
        self._find = find
        self._signature: _Signature | None = None
        self._contents: tuple[Content, ...] | None = None

    def look(self) -> tuple[Content, ...] | None:
        """All of them when anything has changed since the last look, else None. The first look counts as a change."""
        signature, young = _signature(self._find())
        if signature == self._signature:
            return None
        contents = tuple(Content(path, _text(path)) for path, *_ in signature)
        self._signature = None if young else signature
        if contents == self._contents:
            return None
        self._contents = contents
        return contents


def candidates(folder: Path, stem: str) -> Sequence[Path]:
    """The files of that name in any of the formats."""
    return [path for suffix in SUFFIXES if (path := folder / f"{stem}{suffix}").exists()]


def _signature(paths: Sequence[Path]) -> tuple[_Signature, bool]:
    found, young = [], False
    for path in sorted(paths):
        try:
            stat = path.stat()
        except OSError:
            continue
        young = young or time.time_ns() - stat.st_mtime_ns < _YOUNG_NS
        found.append((path, stat.st_ino, stat.st_mtime_ns, stat.st_size))
    return tuple(found), young


def _text(path: Path) -> str | Fault:
    try:
        with path.open("rb") as file:
            raw = file.read(_LONGEST_BYTES + 1)
        if len(raw) > _LONGEST_BYTES:
            return Fault("", f"is longer than {_LONGEST_BYTES} bytes")
        return raw.decode()
    except UnicodeDecodeError as error:
        return Fault("", f"is not UTF-8 (byte {error.start})")
    except OSError as error:
        return Fault("", f"could not be read: {error.strerror}")
