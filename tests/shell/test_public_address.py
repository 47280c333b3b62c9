"""The server's public address: asked for in the background, kept, and never waited for."""

import socket
from dataclasses import dataclass, field

import anyio
import pytest
from structlog.testing import capture_logs

from shell.adapters.public_address import PublicAddressService
from shell.failure import AdapterError
from shell.loops.public_address import REFRESH_S, PublicAddress
from tests.lab.odd_server import Exchange, OddServer
from tests.shell import virtual_time

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """As in the agent."""
    return "asyncio"


@dataclass
class Service:
    """Answers what the script says, and keeps when it was asked."""

    script: list[str | None]
    asked: list[float] = field(default_factory=list)

    async def fetch(self) -> str:
        """The next of the script; None fails; the last one stays."""
        await anyio.lowlevel.checkpoint()
        self.asked.append(anyio.current_time())
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


ANSWERS: dict[str, tuple[bytes, str]] = {
    "refused": (b"HTTP/1.1 503 No\r\ncontent-length: 0\r\n\r\n", "status 503"),
    "elsewhere": (b"HTTP/1.1 302 F\r\nlocation: http://127.0.0.1/\r\ncontent-length: 0\r\n\r\n", "status 302"),
    "private": (b"HTTP/1.1 200 OK\r\ncontent-length: 8\r\n\r\n10.0.0.1", "not an address of the internet"),
    "endless": (b"HTTP/1.1 200 OK\r\n\r\n" + b"8" * 9000, "too long"),
    "nonsense": (b"hello\r\n\r\n", "could not ask"),
    "cut": (b"HTTP/1.1 200 OK\r\ncontent-length: 80\r\n\r\n8", "could not ask"),
    "silent": (b"", "no answer within 0.5 s"),
}


async def asked(raw: bytes) -> str:
    """What the adapter makes of this answer on a real connection."""

    async def behave(exchange: Exchange) -> bool:
        await exchange.send(raw)
        if not raw:
            await exchange.reader.read()
        return False

    with OddServer([behave]) as server:
        return await PublicAddressService(server.url, limit_s=0.5).fetch()


async def test_a_good_answer() -> None:
    """As the usual services give it."""
    assert await asked(b"HTTP/1.1 200 OK\r\ncontent-length: 7\r\n\r\n8.8.4.4") == "8.8.4.4"


@pytest.mark.parametrize("case", ANSWERS)
async def test_other_answers(case: str) -> None:
    """L13, L14: a reason, in bounded time and size; no redirect is followed."""
    raw, why = ANSWERS[case]
    with pytest.raises(AdapterError, match=why):
        await asked(raw)


async def test_nobody_there() -> None:
    """A reason that names the host and not more of the URL."""
    with socket.create_server(("127.0.0.1", 0)) as unused:
        port = unused.getsockname()[1]
    with pytest.raises(AdapterError, match=r"ask 127\.0\.0\.1 for this server's address"):
        await PublicAddressService(f"http://127.0.0.1:{port}/?key=secret").fetch()
