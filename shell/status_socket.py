"""The socket in the data directory at which the running agent says what it is doing: connect, read one JSON document, done.

Only who may enter the data directory can connect. A caller that reads slowly is left behind; nothing waits for it.
"""

import contextlib
import os
import socket
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Final

import anyio
import anyio.abc
import msgspec

from core.render import Json
from shell.beside import beside_if
from shell.failure import AdapterError, CommandError
from shell.files import PRIVATE_FILE, make_way
from shell.log import logger
from shell.parts import Parts, Turned, no_turn

NAME: Final = "agent.sock"
_CALL_S: Final = 5.0
_LARGEST: Final = 64 * 1024**2


@contextlib.contextmanager
def address(data_dir: Path) -> Iterator[str]:
    """The socket's address, through the open folder, since a socket's path must be shorter than a folder's may be."""
    folder = os.open(data_dir, os.O_RDONLY | os.O_DIRECTORY)
    try:
        yield f"/proc/self/fd/{folder}/{NAME}"
    finally:
        os.close(folder)


async def run(
    data_dir: Path,
    document: Callable[[], dict[str, Json]],
    turned: Turned = no_turn,
    parts: Parts | None = None,
    is_large: Callable[[], bool] = lambda: False,
) -> None:
    """Answer until cancelled, with a document that takes long to make beside the loop.

    The caller holds the directory's lock, so that a socket that is here is a dead one.
    """
    try:
        with address(data_dir) as path:
            make_way(data_dir / NAME)
            listener = await anyio.create_unix_listener(path, mode=PRIVATE_FILE)
    except (OSError, CommandError) as error:
        logger().warning("no status socket", why=str(error), then="`agent status` does not work")
        return

    contained = (Parts() if parts is None else parts).contained

    async def answer(caller: anyio.abc.SocketStream) -> None:
        async with caller:
            with (
                contextlib.suppress(AdapterError, anyio.BrokenResourceError, OSError),
                contained("status", "", (anyio.BrokenResourceError, OSError)),
                anyio.move_on_after(_CALL_S),
            ):
                await caller.send(await beside_if(is_large(), lambda: msgspec.json.encode(document()) + b"\n"))

    try:
        turned()
        async with listener:
            await listener.serve(answer)
    finally:
        (data_dir / NAME).unlink(missing_ok=True)


def ask(data_dir: Path) -> bytes | None:
    """The running agent's document; None when no agent runs. Raises OSError, TimeoutError included."""
    with contextlib.ExitStack() as stack:
        try:
            path = stack.enter_context(address(data_dir))
            connection = stack.enter_context(socket.socket(socket.AF_UNIX, socket.SOCK_STREAM))
            connection.settimeout(_CALL_S)
            connection.connect(path)
        except (FileNotFoundError, NotADirectoryError, ConnectionRefusedError):
            return None
        document = bytearray()
        while part := connection.recv(64 * 1024):
            document += part
            if len(document) > _LARGEST:
                raise OSError(f"it says more than {_LARGEST // 1024**2} MiB")
        return bytes(document)
