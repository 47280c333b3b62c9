"""`shell.adapters.podman` before a service that is not Podman, or answers what no Podman should."""

import json
import socket
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from pathlib import Path

import anyio
import anyio.to_thread
import pytest

from shell.adapters.podman import Podman, PodmanSettings
from shell.failure import AdapterError
from tests.builders import an_image
from tests.lab.wait import PATIENCE_S, wait_for


def answer(body: bytes, status: str = "200 OK", length: int | None = None) -> bytes:
    """A whole answer; another `length` than the body's is a lie."""
    return f"HTTP/1.1 {status}\r\nContent-Length: {len(body) if length is None else length}\r\n\r\n".encode() + body


@contextmanager
def answering(path: Path, *answers: bytes) -> Iterator[None]:
    """A service that gives one answer to each connection, whatever is asked, and closes it."""
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(path))
        listener.listen()

        def serve() -> None:
            for one in answers:
                connection, _ = listener.accept()
                with connection:
                    connection.recv(65536)
                    connection.sendall(one)

        thread = threading.Thread(target=serve)
        thread.start()
        yield
        thread.join(5)
        assert not thread.is_alive()


def listing_fails(tmp_path: Path, reply: bytes) -> str:
    """What is said when a listing is answered like this."""

    async def fetch() -> None:
        podman = Podman(PodmanSettings(socket=tmp_path / "p.sock", subnet_id=1, volumes_dir=tmp_path))
        try:
            await podman.containers(0)
        finally:
            await podman.aclose()

    with answering(tmp_path / "p.sock", reply), pytest.raises(AdapterError) as caught:
        anyio.run(fetch)
    return str(caught.value)


@pytest.mark.parametrize(
    ("reply", "said"),
    [
        (answer(b"<html>"), "makes no sense"),
        (answer(b"{}"), "makes no sense"),
        (answer(b"null"), "makes no sense"),
        (answer(b"[]", length=50), "the connection broke"),
        (answer(b"")[:-2], "makes no sense"),
        (b"", "the connection broke"),
        (b"SSH-2.0-OpenSSH_9.2\r\n", "the connection broke"),
        (answer(b'{"cause": "c", "message": "database is\\nlocked"}', "500 Oh"), "list containers: database is locked"),
        (answer(b"<html>\n</html>", "502 Bad Gateway"), "list containers: <html> </html>"),
        (answer(b"[]", "500 Oh"), "makes no sense"),
        (answer(b"", "404 Not Found"), "could not list containers"),
        (answer(b"", "301 Moved\r\nLocation: http://127.0.0.1:1/"), "the answer leads elsewhere"),
    ],
)
def test_an_answer_that_is_no_listing(tmp_path: Path, reply: bytes, said: str) -> None:
    """L3: one clear line, and never an empty list."""
    message = listing_fails(tmp_path, reply)
    assert said in message
    assert "\n" not in message


def test_an_image_is_not_missing_because_podman_fails(tmp_path: Path) -> None:
    """L3: a failure is not a no; it would lead to a pull that nobody needs."""

    async def ask() -> bool:
        podman = Podman(PodmanSettings(socket=tmp_path / "p.sock", subnet_id=1, volumes_dir=tmp_path))
        return await podman.images.find(an_image()) is not None

    locked = answer(b'{"cause": "", "message": "locked"}', "500 Oh")
    with (
        answering(tmp_path / "p.sock", locked),
        pytest.raises(AdapterError, match=r"look for image .*nginx:1\.27: locked"),
    ):
        anyio.run(ask)


def refusal(why: str) -> bytes:
    """Podman's answer to what it cannot do."""
    return answer(json.dumps({"cause": why, "message": why}).encode(), "500 Oh")


@pytest.mark.parametrize(
    ("reply", "fault"),
    [
        (answer(b"all of it"), None),
        (refusal('file integrity checksum failed for "bin/app"'), 'file integrity checksum failed for "bin/app"'),
        (refusal("layer not known"), "layer not known"),
        (refusal("write /var/tmp/x: no space left on device"), None),
        (refusal("open /var/tmp/x: Read-only file system"), None),
        (refusal("write /var/tmp/x: disk quota exceeded"), None),
        (answer(b"half", length=8), None),
    ],
)
def test_only_damage_is_taken_for_damage(tmp_path: Path, reply: bytes, fault: str | None) -> None:
    """L50, L19: what keeps Podman from reading an image must not keep its containers down."""

    async def look() -> str | None:
        podman = Podman(PodmanSettings(socket=tmp_path / "p.sock", subnet_id=1, volumes_dir=tmp_path))
        return await podman.images.fault("abc")

    with answering(tmp_path / "p.sock", reply):
        assert anyio.run(look) == fault


@pytest.mark.parametrize(
    ("progress", "said"),
    [
        (b'{"stream":"Trying"}\n{"error":"no such\\nhost"}\n', "pull image docker.io/library/nginx:1.27: no such host"),
        (b'{"stream":"Trying"}\n', "stopped in the middle"),
        (b"", "stopped in the middle"),
        (b"<html>\n", "makes no sense"),
        (b'{"error": 3}\n', "makes no sense"),
    ],
)
def test_a_pull_without_an_image_at_its_end_has_failed(tmp_path: Path, progress: bytes, said: str) -> None:
    """Although the status was 200 before it began."""

    async def pull() -> None:
        podman = Podman(PodmanSettings(socket=tmp_path / "p.sock", subnet_id=1, volumes_dir=tmp_path))
        await podman.images.pull(an_image(), timeout_s=5)

    with answering(tmp_path / "p.sock", answer(progress)), pytest.raises(AdapterError, match=said):
        anyio.run(pull)


def test_a_registry_that_hangs_leaves_the_others_their_turn(tmp_path: Path) -> None:
    """L11: however many images are wanted of it; and nobody's time runs while it waits for its turn."""
    asked: list[str] = []

    def hear(listener: socket.socket) -> None:
        while True:
            try:
                connection, _ = listener.accept()
            except OSError:
                return
            asked.append(connection.recv(65536).decode().split()[1])
            silent.append(connection)

    async def pulls() -> None:
        podman = Podman(PodmanSettings(socket=tmp_path / "p.sock", subnet_id=1, volumes_dir=tmp_path))
        async with anyio.create_task_group() as tasks:
            for number in range(20):
                tasks.start_soon(partial(podman.images.pull, an_image(f"silent.test/a:{number}"), timeout_s=60))
            await anyio.to_thread.run_sync(lambda: wait_for(lambda: len(asked) == 8, PATIENCE_S, "the first pulls"))
            tasks.start_soon(partial(podman.images.pull, an_image("other.test/b:1"), timeout_s=60))
            await anyio.to_thread.run_sync(
                lambda: wait_for(lambda: len(asked) == 9, PATIENCE_S, "the other registry's turn")
            )
            tasks.cancel_scope.cancel()
        await podman.aclose()

    silent: list[socket.socket] = []
    with socket.socket(socket.AF_UNIX, socket.SOCK_STREAM) as listener:
        listener.bind(str(tmp_path / "p.sock"))
        listener.listen(50)
        threading.Thread(target=hear, args=(listener,), daemon=True).start()
        anyio.run(pulls)
        listener.shutdown(socket.SHUT_RDWR)
        for connection in silent:
            connection.close()
    assert "other.test" in asked[8] and all("silent.test" in one for one in asked[:8])
