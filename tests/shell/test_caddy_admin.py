"""`shell.adapters.caddy.admin`: a connection that breaks under a request, as when Caddy opens its admin address anew or is just ending."""

import os
import pwd
import socket
import stat
import struct
from collections.abc import AsyncIterator, Iterator
from contextlib import asynccontextmanager
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import anyio
import pytest
from anyio.abc import SocketAttribute, SocketStream
from structlog.testing import capture_logs

from core.caddy_base import Base
from core.doctor import Level
from shell import examination, node
from shell.adapters.caddy import Caddy, CaddySettings, process
from shell.adapters.caddy import admin as admin_module
from shell.adapters.caddy.admin import Admin, ConnectionBrokeError, NobodyListensError
from shell.failure import AdapterError
from shell.options import Options
from tests.lab.wait import PATIENCE_S
from tests.shell.listening import listening

ANSWER = b'HTTP/1.1 200 OK\r\nContent-Length: 2\r\nEtag: "e"\r\n\r\n{}'


@dataclass
class Breaking:
    """A server that breaks so many connections once it has read a request (with `only` that method), and answers the next ones."""

    breaks: int
    only: bytes = b""
    heard: list[bytes] = field(default_factory=list)

    async def serve(self, stream: SocketStream) -> None:
        async with stream:
            self.heard.append((await stream.receive()).partition(b" ")[0])
            if len(self.heard) > self.breaks or self.heard[-1] not in (self.only or self.heard[-1]):
                await stream.send(ANSWER)
            else:  # the kernel sends a reset instead of the end
                raw: socket.socket = stream.extra(SocketAttribute.raw_socket)
                raw.setsockopt(socket.SOL_SOCKET, socket.SO_LINGER, struct.pack("ii", 1, 0))


@asynccontextmanager
async def breaking(breaks: int, only: bytes = b"") -> AsyncIterator[tuple[Admin, Breaking]]:
    """The server, and the admin API as seen at its address."""
    server = Breaking(breaks, only)
    async with listening(server.serve) as there:
        yield Admin(there, timeout_s=PATIENCE_S), server


@pytest.mark.parametrize("breaks", [0, 1, 2])
def test_a_read_is_tried_again(breaks: int) -> None:
    """Reading changes nothing, so it can be done again; up to three times."""

    async def main() -> None:
        async with breaking(breaks) as (admin, server):
            answer = await admin.get("/config/")
            assert (answer.status, answer.body, answer.etag) == (200, b"{}", '"e"')
            assert server.heard == [b"GET"] * (breaks + 1)

    anyio.run(main)


def test_a_read_is_not_tried_for_ever() -> None:
    """The third break is a failure, which the machine's own backoff takes over."""

    async def main() -> None:
        async with breaking(3) as (admin, server):
            with pytest.raises(ConnectionBrokeError, match="the connection broke"):
                await admin.get("/config/")
            assert server.heard == [b"GET"] * 3

    anyio.run(main)


@pytest.mark.parametrize("most", [1, 2])
def test_an_answer_is_read_up_to_its_bound(most: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """L58: a longer one is a failure of its own, and is not asked for again."""
    monkeypatch.setattr(admin_module, "_LONGEST_ANSWER_BYTES", most)

    async def main() -> None:
        async with breaking(0) as (admin, server):
            if most == len(b"{}"):
                assert (await admin.get("/config/")).body == b"{}"
            else:
                with pytest.raises(AdapterError, match="the answer is longer than 1 bytes"):
                    await admin.get("/config/")
            assert server.heard == [b"GET"]

    anyio.run(main)


def test_a_change_is_not_sent_again() -> None:
    """It may have been carried out: whoever sent it looks first."""

    async def main() -> None:
        async with breaking(1) as (admin, server):
            with pytest.raises(ConnectionBrokeError):
                await admin.send("POST", "/config/", b"{}", '"e"')
            assert server.heard == [b"POST"]

    anyio.run(main)


def test_one_that_ends_while_it_is_read() -> None:
    """Then nobody listens, which is how the adapter knows that it is to start one."""

    async def main() -> None:
        listener = await anyio.create_tcp_listener(local_host="127.0.0.1")
        running = anyio.CancelScope()

        async def last(stream: SocketStream) -> None:
            await Breaking(1).serve(stream)
            running.cancel()

        async def run() -> None:
            with running:
                async with listener:
                    await listener.serve(last)

        async with anyio.create_task_group() as tasks:
            tasks.start_soon(run)
            with pytest.raises(NobodyListensError):
                await Admin(f"127.0.0.1:{listener.extra(SocketAttribute.local_port)}", timeout_s=PATIENCE_S).get(
                    "/config/"
                )

    anyio.run(main)


@pytest.mark.parametrize("usual", [0, 1], ids=["the agent's default", "Caddy's default"])
def test_one_that_listens_where_it_usually_does_is_found(usual: int, monkeypatch: pytest.MonkeyPatch) -> None:
    """L61: also once an operator has chosen another place; it is moved there by the next change."""

    async def main() -> None:
        async with breaking(0) as (admin, _):
            monkeypatch.setattr(node, "_USUAL_ADMINS", (admin.address, "unix//nowhere/b.sock")[:: 1 - 2 * usual])
            found = node.caddy(Options(caddy_admin="unix//nowhere/a.sock"), "http://127.0.0.1:1")
            assert await found.fetch_admin() == (admin.address, ())

    anyio.run(main)


@pytest.mark.parametrize("is_proxy", [True, False])
def test_doctor_names_an_address_that_everybody_reaches(is_proxy: bool) -> None:
    """L61: a person's Caddy keeps it, and its owner reads what to write where."""

    async def main() -> None:
        async with breaking(0) as (admin, _):
            options = Options(caddy_admin=admin.address)
            found = [one async for one in examination._components(options, is_proxy=is_proxy)]
            named = [one for one in found if one.check == "caddy admin"]
            assert [one.level for one in named] == [Level.WARNING] * is_proxy
            assert all(admin.address in one.found and "unix//run/techulus-caddy" in one.todo for one in named)

    anyio.run(main)


@pytest.mark.parametrize(("answer", "says"), [(None, None), (b"HTTP/1.1 403 No\r\nContent-Length: 0\r\n\r\n", "403")])
def test_doctor_and_a_caddy_that_cannot_be_read(
    answer: bytes | None, says: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """One that does not run is no fault; one that answers something else is said."""
    monkeypatch.setattr(node, "_USUAL_ADMINS", ())

    async def serve(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(answer or b"")

    async def main() -> None:
        async with listening(serve) as there:
            options = Options(caddy_admin="unix//nowhere/a.sock" if answer is None else there)
            found = [one.found for one in await examination._caddy_admin(options)]
            assert found == [] if says is None else says in found[0]

    anyio.run(main)


def test_somebody_else_at_caddys_usual_place_is_passed_over(monkeypatch: pytest.MonkeyPatch) -> None:
    """Port 2019 is free for others once Caddy listens elsewhere: then nobody listens, and ours is started."""

    async def not_caddy(stream: SocketStream) -> None:
        async with stream:
            await stream.receive()
            await stream.send(b"HTTP/1.1 404 Not Found\r\nContent-Length: 0\r\n\r\n")

    async def main() -> None:
        async with listening(not_caddy) as there:
            monkeypatch.setattr(node, "_USUAL_ADMINS", ("unix//nowhere/a.sock", there))
            with pytest.raises(NobodyListensError):
                await node.caddy(Options(caddy_admin="unix//nowhere/a.sock"), "http://127.0.0.1:1").fetch_admin()
            with pytest.raises(AdapterError, match="answered 404"):  # where it was told to be, that is said
                await node.caddy(Options(caddy_admin=there), "http://127.0.0.1:1").fetch_admin()

    anyio.run(main)


def test_the_usual_places_are_both_defaults() -> None:
    """The agent's, and the one of Caddy's documentation."""
    assert set(node._USUAL_ADMINS) == {Options().caddy_admin, "localhost:2019"}


@pytest.fixture
def strict_umask() -> Iterator[None]:
    """As the agent's unit has it."""
    before = os.umask(0o077)
    yield
    os.umask(before)


def access(folder: Path) -> tuple[int, int]:
    """Owner and mode."""
    return folder.stat().st_uid, stat.S_IMODE(folder.stat().st_mode)


def make_folder(folder: Path, unit: str | None = None) -> None:
    """Of an admin socket, as before Caddy's start and before each change."""
    anyio.run(process.make_socket_folder, f"unix/{folder}/admin.sock", unit)


@pytest.mark.usefixtures("strict_umask")
def test_the_sockets_folder_is_private_and_can_be_reached(tmp_path: Path) -> None:
    """L61: only Caddy's user opens it; the folders above, made with it, are closed to nobody."""
    folder = tmp_path / "above/between/caddy"
    make_folder(folder)
    assert [access(one)[1] for one in (folder, *folder.parents[:2])] == [0o700, 0o755, 0o755]


def test_the_agents_own_folder_is_put_right(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L61: one that somebody has opened, or that is left of a run that was killed before it was its user's."""
    folder, nobody = tmp_path / "caddy", pwd.getpwnam("nobody").pw_uid
    monkeypatch.setattr(process, "_OWN_FOLDER", folder)
    monkeypatch.setattr(process, "_SHOW_USER", ("sh", "-c", "echo nobody"))
    folder.mkdir()
    folder.chmod(0o755)
    for unit, owner in ((None, os.geteuid()), ("caddy.service", nobody), ("caddy.service", nobody)):
        make_folder(folder, unit)
        assert access(folder) == (owner, 0o700)
    make_folder(folder)
    assert access(folder) == (os.geteuid(), 0o700)
    monkeypatch.setattr(process, "_SHOW_USER", ("sh", "-c", f"echo {nobody}"))  # a user may be given by number
    make_folder(folder, "caddy.service")
    assert access(folder) == (nobody, 0o700)


def test_a_systemd_that_is_away_holds_up_no_change(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L16: the folder is there; where it is not, that is said."""
    folder = tmp_path / "caddy"
    monkeypatch.setattr(process, "_OWN_FOLDER", folder)
    monkeypatch.setattr(process, "_SHOW_USER", ("false",))
    with pytest.raises(AdapterError, match="ask who runs"):
        make_folder(folder, "caddy.service")
    folder.mkdir()
    make_folder(folder, "caddy.service")


def test_a_chosen_folder_that_is_there_stays_as_it_is(tmp_path: Path) -> None:
    """L20: it is its owner's, who may have put more into it than a socket (`/run`)."""
    tmp_path.chmod(0o755)
    make_folder(tmp_path)
    assert access(tmp_path) == (os.geteuid(), 0o755)


@pytest.mark.parametrize("odd", [b'{"apps":{"http":{"servers":{"\\ud800":{}}}}}', b"[" * 200_000, b"\xff", b"[]"])
def test_a_configuration_of_any_text_is_said_and_left_alone(tmp_path: Path, odd: bytes) -> None:
    """L55, L57: half a character in the name of a server, say; nothing is written over what cannot be read."""
    heard: list[bytes] = []

    async def serve(stream: SocketStream) -> None:
        async with stream:
            heard.append((await stream.receive()).partition(b" ")[0])
            await stream.send(b'HTTP/1.1 200 OK\r\nContent-Length: %d\r\nEtag: "e"\r\n\r\n' % len(odd) + odd)

    async def main() -> None:
        async with listening(serve) as there:
            caddy = Caddy(CaddySettings(Base("http://127.0.0.1:1"), folder=tmp_path, admin=there))
            for work in (caddy.fetch, partial(caddy.apply, ())):
                with pytest.raises(AdapterError, match="caddy"):
                    await work()

    anyio.run(main)
    assert set(heard) == {b"GET"}


def test_a_change_that_always_breaks_keeps_its_reason(tmp_path: Path) -> None:
    """A Caddy that fails over a configuration: looked at after each break, and given up after three."""

    async def main() -> None:
        async with breaking(99, only=b"POST") as (admin, server):
            base = Base(control_plane="http://127.0.0.1:1", issuer="internal", access_log=str(tmp_path / "access.log"))
            caddy = Caddy(CaddySettings(base, folder=tmp_path, admin=admin.address))
            with capture_logs(), pytest.raises(ConnectionBrokeError, match="the connection broke"):
                await caddy.apply(())
            assert server.heard == [b"GET", b"POST"] * 3

    anyio.run(main)
