"""Runs the control plane until it is told to stop, and makes registration tokens beside a running one.

For one machine, labs and tests: no TLS, no users, one folder, one thread.
"""

import fcntl
import secrets
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import uvicorn

from shell.failure import CommandError
from shell.files import write_atomic
from shell.local_plane.app import create_app
from shell.local_plane.edited import candidates
from shell.local_plane.entries import token_text
from shell.local_plane.plane import TOKENS
from shell.local_plane.servers import NamedToken
from shell.log import logger

_TOKEN_BYTES = 32
_SHUTDOWN_S = 5
_LONGEST_NAME = 64

_EXAMPLE = """\
# What runs where. Saved changes are in force at once; see docs/control-plane.md.
#
# services:
#   web:
#     image: docker.io/library/nginx:1.27
#     replicas: 2
#     ports: [{container: 80, domain: app.test}]

services: {}
"""


def serve(state_dir: Path, host: str = "127.0.0.1", port: int = 8000) -> None:
    """Serve this folder until SIGTERM or SIGINT. Port 0 takes a free one, named in the start-up line.

    Raises `CommandError` when the folder, its state or the address cannot be used.
    """
    app = create_app(state_dir)
    with _only_one(state_dir):
        if not candidates(state_dir, "services"):
            write_atomic(state_dir / "services.yaml", _EXAMPLE.encode())
        with _listener(host, port) as listener:
            listen = f"{host}:{listener.getsockname()[1]}"
            logger().info("control plane for one machine, labs and tests only", listen=listen, state=str(state_dir))
            # uvicorn raises the signal that ended it once more when it is done; by then it has been obeyed.
            for number in (signal.SIGTERM, signal.SIGINT):
                signal.signal(number, signal.SIG_IGN)
            uvicorn.Server(_config(app)).run(sockets=[listener])


def new_token(state_dir: Path, name: str, subnet_id: int | None = None) -> str:
    """A registration token for the server of that name, good for 24 hours and one registration; `subnet_id` 1…255 or the lowest free.

    A file of its own in the folder, so that a running control plane need not be asked. Raises `CommandError`.
    """
    if not 0 < len(name) <= _LONGEST_NAME or not name.isprintable() or "/" in name or name.startswith("."):
        raise CommandError(
            f"a server's name is 1 to {_LONGEST_NAME} printable characters without a slash, not {name!r}"
        )
    if subnet_id is not None and not 1 <= subnet_id <= 255:
        raise CommandError(f"a subnet is 1 to 255, not {subnet_id}")
    token = secrets.token_hex(_TOKEN_BYTES)
    folder = state_dir / TOKENS
    try:
        for made in (state_dir, folder):
            made.mkdir(mode=0o700, parents=True, exist_ok=True)
        write_atomic(folder / f"{name}.json", token_text(NamedToken(name, token, subnet_id)).encode())
    except OSError as error:
        raise CommandError(f"{folder}: {error.strerror}") from error
    return token


def _config(app: object) -> uvicorn.Config:
    return uvicorn.Config(
        app,  # type: ignore[arg-type]  # uvicorn's own union does not name Starlette
        # The client's address decides who may use /lab: no header may change it.
        proxy_headers=False,
        server_header=False,
        access_log=False,
        log_config=None,
        lifespan="off",
        timeout_graceful_shutdown=_SHUTDOWN_S,
    )


def _listener(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    try:
        listener = socket.create_server((host, port), family=family, backlog=128)
    except OSError as error:
        raise CommandError(f"cannot listen on {host}:{port}: {error.strerror or error}") from error
    listener.setsockopt(
        socket.IPPROTO_TCP, socket.TCP_NODELAY, 1
    )  # inherited; else each answer waits 40 ms for its body
    return listener


@contextmanager
def _only_one(state_dir: Path) -> Iterator[None]:
    """Two control planes on one folder would overwrite each other's rows."""
    with (state_dir / ".lock").open("w") as lock:
        try:
            fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as error:
            raise CommandError(f"{state_dir}: another control plane serves this folder") from error
        yield
