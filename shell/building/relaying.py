"""From a socket inside a sandbox to one of the host: for the one registry or BuildKit on this server that a build was given.

Only whoever made the sandbox can open such a way. Imports nothing of the agent.
"""

import os
import socket
import threading
from contextlib import suppress
from pathlib import Path
from typing import Final

_CONNECT_S: Final = 30.0
_CHUNK: Final = 65_536


def listen(inside: str, root: str, user: int) -> socket.socket:
    """Listen at `host:port` of this network namespace, or at a path below `root` that `user` may open. Raises OSError."""
    if not inside.startswith("/"):
        host, _, port = inside.rpartition(":")
        return socket.create_server((host, int(port)), family=socket.AF_INET6 if ":" in host else socket.AF_INET)
    path = Path(root + inside)
    path.parent.mkdir(parents=True, exist_ok=True)
    before = Path.cwd()
    os.chdir(path.parent)  # an address has at most 107 bytes (unix(7))
    try:
        found = socket.socket(socket.AF_UNIX)
        found.bind(path.name)
    finally:
        os.chdir(before)
    os.chown(path, user, user)
    found.listen()
    return found


def start(ways: list[tuple[socket.socket, str]]) -> None:
    """Pass on what comes at these sockets, for ever, in one thread: it counts as one of the build's."""
    if ways:
        threading.Thread(target=_run, args=(ways,), daemon=True).start()


def _run(ways: list[tuple[socket.socket, str]]) -> None:
    import asyncio  # only where there is something to pass on: it takes longer to load than all else here

    async def copy(source: asyncio.StreamReader, target: asyncio.StreamWriter) -> None:
        with suppress(OSError):
            while chunk := await source.read(_CHUNK):
                target.write(chunk)
                await target.drain()
            target.write_eof()

    async def connected(outside: str) -> tuple[asyncio.StreamReader, asyncio.StreamWriter]:
        if outside.startswith("/"):
            return await asyncio.open_unix_connection(outside)
        host, _, port = outside.rpartition(":")
        async with asyncio.timeout(_CONNECT_S):
            return await asyncio.open_connection(host, int(port))

    async def serve(listener: socket.socket, outside: str) -> None:
        async def pass_on(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            with suppress(OSError):
                others_reader, others_writer = await connected(outside)
                await asyncio.gather(copy(reader, others_writer), copy(others_reader, writer))
                others_writer.close()
            writer.close()

        start = asyncio.start_unix_server if listener.family == socket.AF_UNIX else asyncio.start_server
        async with await start(pass_on, sock=listener) as server:
            await server.serve_forever()

    async def everything() -> None:
        await asyncio.gather(*(serve(listener, outside) for listener, outside in ways))

    asyncio.run(everything())
