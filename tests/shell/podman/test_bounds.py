"""L58: what Podman's socket answers is read bounded and never unpacked, whatever the call."""

import gc
import gzip
import socket
import threading
from collections.abc import Awaitable, Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path

import anyio
import pytest

from shell.adapters.podman import Podman, PodmanSettings
from shell.adapters.podman.service import (
    Service,
    image_exists,
    inspect_container,
    list_containers,
    run_health_check,
    version,
)
from shell.failure import AdapterError
from tests.builders import an_image
from tests.lab.wait import PATIENCE_S

MIB = 1024**2
_JOIN_S = 30


@contextmanager
def flooding(path: Path, head: bytes, piece: bytes, pieces: int) -> Iterator[list[int]]:
    """A service that sends so many pieces to its first caller, as fast as they are taken. Yields how many bytes were, once it has ended."""
    taken = [0]
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            connection, _ = listener.accept()
            with connection, suppress(OSError):
                connection.recv(65536)
                connection.sendall(head)
                for _ in range(pieces):
                    connection.sendall(piece)
                    taken[0] += len(piece)

        thread = threading.Thread(target=serve)
        thread.start()
        yield taken
        thread.join(_JOIN_S)
        assert not thread.is_alive()


def head(status: str, *lines: str) -> bytes:
    """Of an answer in chunks."""
    return "\r\n".join((f"HTTP/1.1 {status}", "Transfer-Encoding: chunked", *lines, "", "")).encode()


def chunk(content: bytes) -> bytes:
    """One."""
    return b"%x\r\n%b\r\n" % (len(content), content)


async def called(path: Path, work: Callable[[Service], Awaitable[object]]) -> None:
    """One call of a fresh client."""
    service = Service(path, PATIENCE_S)
    try:
        await work(service)
    finally:
        await service.aclose()


SMALL: dict[str, Callable[[Service], Awaitable[object]]] = {
    "version": lambda service: service.read("ask", version),
    "check": lambda service: service.read("ask", lambda client: run_health_check(client, "x", PATIENCE_S)),
}
ANY = SMALL | {
    "listing": lambda service: service.read("ask", list_containers),
    "container": lambda service: service.read("ask", lambda client: inspect_container(client, "x")),
    "image": lambda service: service.read("ask", lambda client: image_exists(client, "x")),
}


@pytest.mark.parametrize("status", ["500 Oh", "404 Not Found"])
@pytest.mark.parametrize("call", ANY)
def test_a_refusal_without_end(tmp_path: Path, call: str, status: str) -> None:
    """Its beginning says enough."""
    path = tmp_path / "p.sock"
    with flooding(path, head(status), chunk(b" " * MIB), 64) as taken, suppress(AdapterError):
        anyio.run(called, path, ANY[call])
    assert taken[0] < 8 * MIB


@pytest.mark.parametrize("call", SMALL)
def test_a_small_answer_without_end(tmp_path: Path, call: str) -> None:
    """It is an error."""
    path = tmp_path / "p.sock"
    with (
        flooding(path, head("200 OK"), chunk(b" " * MIB), 64) as taken,
        pytest.raises(AdapterError, match="the answer is larger than"),
    ):
        anyio.run(called, path, SMALL[call])
    assert taken[0] < 16 * MIB


@pytest.mark.parametrize("call", ANY)
@pytest.mark.parametrize("status", ["200 OK", "500 Oh"])
def test_a_packed_answer(tmp_path: Path, call: str, status: str) -> None:
    """Nobody asked for one; it is not unpacked."""
    path = tmp_path / "p.sock"
    bomb = chunk(gzip.compress(bytes(64 * MIB), 1)) + b"0\r\n\r\n"
    with (
        flooding(path, head(status, "Content-Encoding: gzip"), bomb, 1),
        pytest.raises(AdapterError, match="the answer is packed"),
    ):
        anyio.run(called, path, ANY[call])


def test_a_refusal_nested_without_end(tmp_path: Path) -> None:
    """L55: it makes no sense, and nothing more."""
    path = tmp_path / "p.sock"
    with flooding(path, head("500 Oh"), chunk(b"[" * 60_000) + b"0\r\n\r\n", 1), pytest.raises(AdapterError):
        anyio.run(called, path, ANY["listing"])


@pytest.mark.parametrize("as_one_chunk", [True, False])
def test_progress_of_a_pull_that_never_ends_its_line(tmp_path: Path, as_one_chunk: bool) -> None:
    """Not even when it comes as one chunk, which says that it is as long as a disk."""
    path = tmp_path / "p.sock"
    first, piece = (b"%x\r\n" % 2**40, b"x" * MIB) if as_one_chunk else (b"", chunk(b"x" * MIB))

    async def pull() -> None:
        podman = Podman(PodmanSettings(socket=path, subnet_id=1, volumes_dir=tmp_path))
        await podman.images.pull(an_image(), timeout_s=PATIENCE_S)

    with (
        flooding(path, head("200 OK") + first, piece, 64) as taken,
        pytest.raises(AdapterError, match="a line of more than"),
    ):
        anyio.run(pull)
    assert taken[0] < 16 * MIB


async def _pulled_from_many(socket: Path) -> int:
    service = Service(socket, PATIENCE_S)
    for number in range(50):
        with suppress(AdapterError):
            await service.pull("pull", {"reference": f"r{number}.test/a"}, {}, PATIENCE_S, lambda: None)
    gc.collect()
    return len(service._registry_limiters)


def test_registries_are_not_remembered(tmp_path: Path) -> None:
    """Other ones may be named with every poll."""
    assert anyio.run(_pulled_from_many, tmp_path / "nobody.sock") <= 1, "only the one that is asked"
