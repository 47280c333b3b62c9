"""The one HTTP client: what it reads is bounded, and where it goes is the operator's word."""

import ast
import gzip
import json
import os
import subprocess
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from email.utils import formatdate
from pathlib import Path

import pytest

from shell.adapters.control_plane import ControlPlane
from shell.adapters.public_address import PublicAddressService
from shell.adapters.victorialogs import VictoriaLogs
from shell.failure import AdapterError, CommandError
from shell.http_client import Answer, HttpClient, HttpError, trusted
from tests.lab.agent import AGENT
from tests.lab.certificates import self_signed
from tests.lab.forward_proxy import ForwardProxy
from tests.lab.odd_server import Behaviour, OddServer, answer, endless, raw
from tests.lab.wait import PATIENCE_S
from tests.shell.calling import SIGNER

pytestmark = pytest.mark.anyio

ROOT = Path(__file__).parents[2]
MIB = 1024**2
OTHER_CLIENTS = ("httpx", "httpcore", "h11", "http.client", "urllib.request", "requests", "urllib3", "aiohttp")
OWN_WAY = {
    "shell/http_client.py": {"httpx"},
    "shell/adapters/podman/": {"requests", "urllib3"},
    "shell/adapters/caddy/admin.py": {"h11"},
}
BOMB = gzip.compress(bytes(512 * MIB), 1)


@pytest.fixture
def anyio_backend() -> str:
    """What the daemon runs on."""
    return "asyncio"


def imported(path: Path) -> Iterator[str]:
    """The modules that a file imports, anywhere in it."""
    for node in ast.walk(ast.parse(path.read_text(encoding="utf-8"))):
        if isinstance(node, ast.Import):
            yield from (one.name for one in node.names)
        elif isinstance(node, ast.ImportFrom) and node.module is not None:
            yield node.module
            yield from (f"{node.module}.{one.name}" for one in node.names)


def test_there_is_one_client() -> None:
    """L58: no second way out of the house. Podman's and Caddy's adapters have bounds of their own."""
    for path in (ROOT / "shell").rglob("*.py"):
        name = str(path.relative_to(ROOT))
        allowed = next((allowed for start, allowed in OWN_WAY.items() if name.startswith(start)), set())
        found = {
            client for client in OTHER_CLIENTS for module in imported(path) if f"{module}.".startswith(f"{client}.")
        }
        assert found <= allowed, name


async def exchanged(behaviour: Behaviour, most_bytes: int = MIB) -> Answer:
    """What becomes of an answer."""
    with OddServer([behaviour]) as server:
        client = HttpClient(server.url)
        try:
            return await client.exchange("GET", "/", limit_s=PATIENCE_S, most_bytes=most_bytes)
        finally:
            await client.aclose()


@pytest.mark.parametrize("status", [200, 400])
async def test_nothing_is_unpacked(status: int) -> None:
    """L58: what was packed stays so, whatever the answer says of itself, also in a refusal."""
    found = await exchanged(answer(status, BOMB, headers={"content-encoding": "gzip"}))
    assert found.body == BOMB[: len(found.body)]
    assert len(found.body) <= MIB


@pytest.mark.parametrize("announced", [True, False])
async def test_a_body_without_end(announced: bool) -> None:
    """L58: it is not read to its end."""
    with OddServer([endless(64 * MIB, announced=announced)]) as server:
        client = HttpClient(server.url)
        found = await client.exchange("GET", "/", limit_s=PATIENCE_S, most_bytes=1000)
        await client.aclose()
    assert (len(found.body), found.is_whole) == (0 if announced else 1000, False)
    assert server.sent_bytes < 16 * MIB


async def test_no_cookie_is_kept() -> None:
    """A server, or a proxy on the way, may send another with each answer."""
    with OddServer([answer(headers={"set-cookie": f"c{number}=v; Max-Age=99999"}) for number in range(3)]) as server:
        client = HttpClient(server.url)
        for _ in range(3):
            await client.exchange("GET", "/", limit_s=PATIENCE_S, most_bytes=1000)
        kept = len(client._client.cookies.jar)
        await client.aclose()
    assert kept == 0
    assert not [one for one in server.requests if "cookie" in one.headers]


async def test_a_length_that_no_number_holds() -> None:
    """L55: an answer with a length of thousands of digits is an error like any other."""
    with pytest.raises(HttpError):
        await exchanged(raw(b"HTTP/1.1 200 OK\r\ncontent-length: " + b"9" * 5000 + b"\r\n\r\n"))


async def test_a_log_store_that_answers_with_a_bomb() -> None:
    """L58: a megabyte that would be half a gigabyte costs a megabyte at most."""
    with OddServer([answer(400, BOMB, headers={"content-encoding": "gzip"})]) as server:
        store = VictoriaLogs(server.url)
        with pytest.raises(AdapterError) as caught:
            await store.send(b"{}\n")
        await store.aclose()
    assert len(str(caught.value)) < 600
    assert str(caught.value).isprintable()


@dataclass(frozen=True)
class Company:
    """A network in which only the proxy knows where anything is, and everything has a certificate of a private authority."""

    proxy: ForwardProxy
    authority: Path
    plane: OddServer
    logs: OddServer
    address: OddServer


@pytest.fixture
def company(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Company]:
    """With the variables that its administrator sets on every server."""
    authority, tls = self_signed(tmp_path, "*.company.test")
    with (
        OddServer([answer(headers={"date": formatdate(usegmt=True)})], tls=tls) as plane,
        OddServer([answer(204, b"")], tls=tls) as logs,
        OddServer([answer(200, b"8.8.4.4", "text/plain")]) as address,
        ForwardProxy(
            {
                "plane.company.test:443": plane.port,
                "logs.company.test:9428": logs.port,
                "address.company.test": address.port,
            },
            "me:hush",
        ) as proxy,
    ):
        monkeypatch.setenv("HTTPS_PROXY", f"http://me:hush@{proxy.address}")
        monkeypatch.setenv("http_proxy", f"http://me:hush@{proxy.address}")
        yield Company(proxy, authority, plane, logs, address)


async def fetched(company: Company, ca_file: Path | None) -> bytes:
    """The expected state, from behind the proxy."""
    plane = ControlPlane("https://plane.company.test", SIGNER, ca_file=ca_file, pause_s=0.005)
    try:
        return await plane.fetch_expected_state()
    finally:
        await plane.aclose()


async def test_everything_goes_through_the_proxy(company: Company) -> None:
    """https through a tunnel, http in absolute form; a private authority is trusted where it is named."""
    assert await fetched(company, company.authority) == b"{}"
    store = VictoriaLogs("https://logs.company.test:9428", ca_file=company.authority)
    await store.send(b"{}\n")
    await store.aclose()
    assert (
        await PublicAddressService("http://address.company.test/ip?v=4", ca_file=company.authority).fetch() == "8.8.4.4"
    )
    assert company.proxy.requests == [
        "CONNECT plane.company.test:443",
        "CONNECT logs.company.test:9428",
        "GET http://address.company.test/ip?v=4",
    ]
    assert company.address.requests[0].path == "/ip?v=4"
    received = [one.headers for server in (company.plane, company.logs) for one in server.requests]
    assert not [headers for headers in received if "proxy-authorization" in headers], (
        "the proxy's password went further"
    )


async def test_an_authority_that_is_not_named_is_not_trusted(company: Company) -> None:
    """L39: also behind a proxy. The message names the way that was gone, without its password (L37)."""
    with pytest.raises(AdapterError, match="CERTIFICATE_VERIFY_FAILED") as caught:
        await fetched(company, None)
    assert f"plane.company.test through the proxy {company.proxy.address} cannot be reached" in str(caught.value)
    assert "hush" not in str(caught.value)


async def test_a_proxy_that_refuses(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    """It is named as the one who refused."""
    monkeypatch.setenv("HTTPS_PROXY", f"http://me:wrong@{company.proxy.address}")
    with pytest.raises(AdapterError, match="cannot be reached: the proxy refused: 407") as caught:
        await fetched(company, company.authority)
    assert "wrong" not in str(caught.value)


async def test_no_proxy_exempts(company: Company, monkeypatch: pytest.MonkeyPatch) -> None:
    """Then nobody here knows the name."""
    monkeypatch.setenv("NO_PROXY", "10.0.0.0/8,company.test")
    with pytest.raises(AdapterError, match=r"plane\.company\.test cannot be reached"):
        await fetched(company, company.authority)
    assert company.proxy.requests == []


MAKERS: dict[str, Callable[[Path | None], object]] = {
    "control plane": lambda ca_file: ControlPlane("https://plane.test", ca_file=ca_file),
    "log store": lambda ca_file: VictoriaLogs("https://logs.test", ca_file=ca_file),
    "address service": lambda ca_file: PublicAddressService("https://address.test", ca_file=ca_file),
}


@pytest.mark.parametrize("who", MAKERS)
def test_what_cannot_be_used_is_said_at_the_start(who: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """In one line that names the option or the variable, and repeats no password."""
    broken = tmp_path / "broken.pem"
    broken.write_text("-----BEGIN CERTIFICATE-----\nnonsense\n-----END CERTIFICATE-----\n")
    with pytest.raises(CommandError, match=r"^--ca-file: .*broken\.pem: a certificate in it cannot be read$"):
        MAKERS[who](broken)
    monkeypatch.setenv("HTTPS_PROXY", "socks5://me:hush@proxy.test")
    with pytest.raises(CommandError, match=r"^HTTPS_PROXY .* give an http or https URL$"):
        MAKERS[who](None)


@pytest.mark.parametrize(("url", "no_proxy"), [("http://plane.test", ""), ("https://plane.test", "*")])
def test_a_proxy_that_is_not_needed_stops_nobody(url: str, no_proxy: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Its variable may be for another program, which takes what this one does not."""
    monkeypatch.setenv("HTTPS_PROXY", "socks5://proxy.test")
    monkeypatch.setenv("NO_PROXY", no_proxy)
    assert HttpClient(url).via == ""


def test_a_bundle_with_comments_is_read(tmp_path: Path) -> None:
    """As administrators keep them: in any language, several in one file."""
    one, _ = self_signed(tmp_path / "one", "a.test")
    two, _ = self_signed(tmp_path / "two", "b.test")
    bundle = tmp_path / "bundle.pem"
    bundle.write_text(f"# Schlüssel der Firma\n{one.read_text()}\n# второй\n{two.read_text()}", encoding="utf-8")
    assert len(trusted(bundle).get_ca_certs()) == len(trusted(None).get_ca_certs()) + 2


def doctor(tmp_path: Path, *options: str, url: str = "https://plane.company.test") -> dict[str, str]:
    """What `agent doctor` finds of the control plane, with the environment of this moment."""
    argv = [str(AGENT), "doctor", "--output", "json", "--data-dir", str(tmp_path / "none"), "--no-builds", *options]
    argv += ["--podman-socket", str(tmp_path / "none.sock"), "--url", url]
    done = subprocess.run(argv, capture_output=True, text=True, timeout=PATIENCE_S, check=False)
    checks: list[dict[str, str]] = json.loads(done.stdout)["checks"]
    return next(one for one in checks if one["check"] == "control plane")


def test_doctor_goes_the_way_of_the_agent(company: Company, tmp_path: Path) -> None:
    """It trusts whom the agent trusts, and names the proxy."""
    found = doctor(tmp_path, "--ca-file", str(company.authority))
    assert (found["level"], found["todo"]) == ("ok", "")
    assert f"answers through the proxy {company.proxy.address}" in found["found"]
    assert "CERTIFICATE_VERIFY_FAILED" in doctor(tmp_path)["found"]


@pytest.mark.parametrize(("options", "level"), [((), "failed"), (("--allow-http",), "warning")])
def test_doctor_refuses_the_address_that_the_agent_refuses(
    options: tuple[str, ...], level: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Plain HTTP to another machine; with the option all that is wrong is that nobody answers there."""
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:1")
    found = doctor(tmp_path, *options, url="http://plane.nowhere.test")
    assert found["level"] == level
    assert ("would send secrets in the clear" in found["found"]) == (level == "failed")


def test_doctor_knows_the_proxy_of_the_service(
    company: Company, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Run by hand it reads the service's own file of variables; what the person's environment says comes first."""
    settings = tmp_path / "agent.env"
    settings.write_text(f"HTTPS_PROXY={os.environ['HTTPS_PROXY']}\nTECHULUS_CA_FILE={company.authority}\nLANG=de\n")
    monkeypatch.setenv("TECHULUS_ENV_FILE", str(settings))
    monkeypatch.delenv("HTTPS_PROXY")
    assert doctor(tmp_path)["level"] == "ok"
    monkeypatch.setenv("https_proxy", "http://127.0.0.1:1")
    assert "127.0.0.1:1" in doctor(tmp_path)["found"]
