"""The server's public address: asked for in the background, kept, and never waited for."""

import socket
from dataclasses import dataclass, field, replace
from itertools import pairwise
from pathlib import Path

import anyio
import pytest
from structlog.testing import capture_logs

from shell import daemon
from shell.adapters.public_address import PublicAddressService
from shell.failure import AdapterError
from shell.ledger import Ledger
from shell.loops.public_address import REFRESH_S, PublicAddress
from tests.lab.odd_server import Exchange, OddServer
from tests.shell import virtual_time
from tests.shell.scenery import Plane, Scenery, wanting

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """As in the agent."""
    return "asyncio"


@dataclass
class Service:
    """Answers what the script says, each time after so many seconds, and keeps when it was asked."""

    script: list[str | None]
    slow_s: float = 0
    asked: list[float] = field(default_factory=list)

    async def fetch(self) -> str:
        """The next of the script; None fails; the last one stays."""
        self.asked.append(anyio.current_time())
        await anyio.sleep(self.slow_s)
        answer = self.script.pop(0) if len(self.script) > 1 else self.script[0]
        if answer is None:
            raise AdapterError("public address", "ask", "nobody answers")
        return answer


def after(seconds: float, service: Service) -> tuple[str | None, list[str]]:
    """What is known after so long, and what was said."""
    address = PublicAddress(service)

    async def main() -> None:
        with anyio.move_on_after(seconds):
            await address.run()

    with capture_logs() as said:
        virtual_time.run(main)
    return address.value, [one["log_level"] for one in said]


def test_it_is_looked_at_every_hour() -> None:
    """L33: an address that changes is noticed; one that stays is not said again."""
    service = Service(["8.8.4.4", "8.8.4.4", "8.8.8.8"])
    assert after(2 * REFRESH_S + 1, service) == ("8.8.8.8", ["info", "info"])
    assert service.asked == [0, REFRESH_S, 2 * REFRESH_S]


def test_failures_wait_longer_and_are_said_once() -> None:
    """30 s, a minute, … an hour at most."""
    service = Service([None])
    assert after(451, service) == (None, ["warning"])
    assert service.asked == [0, 30, 90, 210, 450]


def test_the_last_address_outlives_failures() -> None:
    """A service that is away for a day does not make the server unreachable."""
    service = Service(["8.8.4.4", None])
    assert after(86_400, service) == ("8.8.4.4", ["info", "warning"])


def test_pauses_grow_to_an_hour_and_begin_anew() -> None:
    """L14: never longer than between two refreshes; what is known again may fail again, and that is said again."""
    service = Service([*[None] * 9, "8.8.4.4", None])
    assert after(19_000, service) == ("8.8.4.4", ["warning", "info", "warning"])
    pauses = [later - sooner for sooner, later in pairwise(service.asked)]
    assert pauses[:8] == [30, 60, 120, 240, 480, 960, 1920, REFRESH_S]
    assert pauses[8:12] == [REFRESH_S, REFRESH_S, 30, 60]


class Quiet(Plane):
    """A control plane without work."""

    async def fetch_work(self) -> bytes:
        """Nothing to do."""
        await anyio.lowlevel.checkpoint()
        return b'{"items": []}'


def reported(folder: Path, service: Service, public_ip: str | None = None) -> list[tuple[float, str | None]]:
    """When an agent reported in its first two minutes, and with which address."""
    scenery = Scenery(folder, wanting())
    scenery.plane = Quiet(scenery.plane.document)
    node = replace(scenery.node, public_ip=public_ip, public_address=service)

    async def main() -> None:
        with anyio.move_on_after(120):
            await daemon.Daemon(node, ledger=Ledger(folder)).run()

    virtual_time.run(main)
    return [(when, body.get("publicIp")) for when, body in scenery.plane.reports]


def test_nothing_waits_for_it(tmp_path: Path) -> None:
    """L16: a service that takes a minute delays no report; the address is left out until it is known, and then in each."""
    reports = reported(tmp_path, Service(["8.8.4.4"], slow_s=60))
    assert reports[0][0] < 5
    assert all(later - sooner <= 30 for (sooner, _), (later, _) in pairwise([*reports, (120.0, None)]))
    assert {said for when, said in reports if when < 60} == {None}
    assert {said for when, said in reports if when > 60} == {"8.8.4.4"}


def test_an_address_that_is_given_is_not_asked_for(tmp_path: Path) -> None:
    """It counts from the first report on, whatever a service would say."""
    service = Service(["8.8.4.4"])
    assert {said for _, said in reported(tmp_path, service, "198.51.100.7")} == {"198.51.100.7"}
    assert service.asked == []


ANSWERS: dict[str, tuple[bytes, str]] = {
    "refused": (b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", "status 503"),
    "elsewhere": (b"HTTP/1.1 302 F\r\nlocation: http://127.0.0.1/\r\ncontent-length: 0\r\n\r\n", "status 302"),
    "nowhere": (b"HTTP/1.1 302 F\r\nlocation: http://xn--zz--/\r\ncontent-length: 0\r\n\r\n", "could not ask"),
    "private": (b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n10.0.0.1", "not an address of the internet"),
    "endless": (b"HTTP/1.1 200 OK\r\n\r\n" + b"8" * 9000, "too long"),
    "long nonsense": (b"\x1b[31m" * 5000 + b"\r\n\r\n", "could not ask"),
    "nonsense": (b"hello\r\n\r\n", "could not ask"),
    "cut": (b"HTTP/1.1 200 OK\r\ncontent-length: 80\r\n\r\n8", "could not ask"),
    "silent": (b"", "no answer within 0.5 s"),
}


async def asked(raw: bytes, limit_s: float = 5) -> str:
    """What the adapter makes of this answer on a real connection."""

    async def behave(exchange: Exchange) -> bool:
        await exchange.send(raw)
        if not raw:
            await exchange.reader.read()
        return False

    with OddServer([behave]) as server:
        return await PublicAddressService(server.url, limit_s=limit_s).fetch()


async def test_a_good_answer() -> None:
    """As the usual services give it."""
    assert await asked(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n8.8.4.4") == "8.8.4.4"


@pytest.mark.parametrize("case", ANSWERS)
async def test_other_answers(case: str) -> None:
    """L13, L14: a reason, in bounded time and size; no redirect is followed."""
    raw, why = ANSWERS[case]
    with pytest.raises(AdapterError, match=why) as caught:
        await asked(raw, limit_s=5 if raw else 0.5)
    assert len(str(caught.value)) < 500
    assert str(caught.value).isprintable()


async def test_nobody_there() -> None:
    """A reason that names the host and not more of the URL."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(AdapterError, match=r"ask 127\.0\.0\.1 for this server's address"):
        await PublicAddressService(f"http://127.0.0.1:{port}/?key=secret").fetch()


@pytest.mark.parametrize("host", ["xn--zz--", "\u2603.invalid"])
async def test_a_host_that_cannot_be(host: str) -> None:
    """L16: whatever the libraries make of a mistyped URL, it ends no loop."""
    with pytest.raises(AdapterError, match="could not ask"):
        await PublicAddressService(f"http://{host}/", limit_s=2).fetch()
