"""The agent on a server of a company: one way out through a forward proxy, a control plane with a private authority."""

from pathlib import Path

import httpx
import pytest

from tests.lab.agent import Agent, Plane
from tests.lab.certificates import self_signed
from tests.lab.forward_proxy import ForwardProxy
from tests.lab.log_store import LogStore
from tests.lab.odd_server import Behaviour, Exchange, OddServer, answer, head
from tests.lab.podman_store import PodmanStore
from tests.lab.registry import Registry
from tests.lab.wait import PATIENCE_S, wait_for

pytestmark = pytest.mark.real

_HOST, _LOGS, _ADDRESS = (f"{one}.company.test" for one in ("plane", "logs", "address"))  # which only the proxy knows
_PASSED = ("content-type", "content-length", "date")


def passing_on(url: str) -> Behaviour:
    """Answers as the server at this URL does."""

    async def behave(exchange: Exchange) -> bool:
        asked = exchange.request
        async with httpx.AsyncClient(timeout=PATIENCE_S, trust_env=False) as client:
            headers = {name: value for name, value in asked.headers.items() if name != "host"}
            told = await client.request(asked.method, f"{url}{asked.path}", headers=headers, content=asked.body)
        kept = {name: value for name, value in told.headers.items() if name in _PASSED}
        await exchange.send(head(told.status_code, kept) + told.content)
        return True

    return behave


def test_a_server_behind_a_forward_proxy(
    plane: Plane, agent: Agent, store: PodmanStore, registry: Registry, tmp_path: Path
) -> None:
    """It registers, runs a container, reports it with its public address and ships logs; Podman's socket is asked without the proxy."""
    authority, tls = self_signed(tmp_path / "tls", "*.company.test")
    with (
        LogStore() as logs,
        OddServer([passing_on(plane.url)], tls=tls) as front,
        OddServer([passing_on(logs.url)], tls=tls) as log_front,
        OddServer([answer(body=b"93.184.215.14\n", kind="text/plain")], tls=tls) as address,
        ForwardProxy(
            {f"{_HOST}:443": front.port, f"{_LOGS}:443": log_front.port, f"{_ADDRESS}:443": address.port}, "me:hush"
        ) as proxy,
    ):
        agent.add_options("--url", f"https://{_HOST}", "--ca-file", str(authority))
        agent.add_options("--logs-endpoint", f"https://{_LOGS}", "--public-ip-service", f"https://{_ADDRESS}/")
        url = f"http://me:hush@{proxy.address}"
        plane.want({"web": {"image": registry.offer("web")}})
        agent.start(plane.token("one", store.subnet_id), {"HTTP_PROXY": url, "https_proxy": url})
        wait_for(
            lambda: any(one["status"] == "running" for one in plane.lab("deployments")),
            PATIENCE_S,
            f"the container to be reported; {agent.last_words()}",
        )
        wait_for(lambda: logs.of("agent"), PATIENCE_S, "the agent's own log in the store")
        wait_for(lambda: plane.lab("servers")[0]["publicIp"] == "93.184.215.14", PATIENCE_S, "the address")
        assert agent.stop() == 0
        assert set(proxy.requests) == {f"CONNECT {one}:443" for one in (_HOST, _LOGS, _ADDRESS)}
    assert "hush" not in agent.last_words()
