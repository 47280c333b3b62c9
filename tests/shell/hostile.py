"""What may lie in the place of a state file: each entry puts one thing there that no agent can use."""

import os
import stat
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Final

_NESTED: Final = b"[" * 200_000
_DEEP_INSIDE: Final = b'{"version": 1, "other": ' + b'{"a":' * 200_000


def _write(content: bytes, path: Path) -> None:
    path.write_bytes(content)


def _folder(path: Path) -> None:
    path.mkdir()
    (path / "file").write_bytes(b"")


def _link_to_nowhere(path: Path) -> None:
    path.symlink_to(path.with_name("nowhere"))


def _link_in_a_circle(path: Path) -> None:
    path.symlink_to(path)


def _device(path: Path) -> None:
    os.mknod(path, 0o600 | stat.S_IFCHR, os.makedev(1, 5))  # /dev/zero, which never ends


def _gigantic(path: Path) -> None:
    with path.open("wb") as file:
        file.truncate(1024**4)  # of holes


CONTENTS: Final[dict[str, Callable[[Path], None]]] = {
    "empty": partial(_write, b""),
    "torn": partial(_write, b'{"version": 1, "na'),
    "zeroes": partial(_write, bytes(4096)),
    "null": partial(_write, b"null"),
    "a list": partial(_write, b"[]"),
    "not UTF-8": partial(_write, b'\xff\xfe{"version": 1}'),
    "wrong types": partial(_write, b'{"version": "one"}'),
    "no version": partial(_write, b"{}"),
    "nested without end": partial(_write, _NESTED),
    "nested inside": partial(_write, _DEEP_INSIDE),
    "a number of many digits": partial(_write, b'{"version": ' + b"9" * 100_000 + b"}"),
    "a folder": _folder,
    "a pipe": os.mkfifo,
    "a device": _device,
    "a link to nowhere": _link_to_nowhere,
    "a link in a circle": _link_in_a_circle,
    "gigantic": _gigantic,
}
