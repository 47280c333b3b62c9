"""The agent on a server of a company: one way out through a forward proxy, a control plane with a private authority."""

from pathlib import Path

import httpx
import pytest

from tests.lab.agent import Agent, Plane
from tests.lab.certificates import self_signed
from tests.lab.forward_proxy import ForwardProxy
from tests.lab.odd_server import Behaviour, Exchange, OddServer, head
from tests.lab.podman_store import PodmanStore
from tests.lab.registry import Registry
from tests.lab.wait import PATIENCE_S, wait_for

pytestmark = pytest.mark.real

_HOST = "plane.company.test"  # which only the proxy knows
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
    """It registers, runs a container and reports it; Podman's socket is asked without the proxy."""
    authority, tls = self_signed(tmp_path / "tls", _HOST)
    with (
        OddServer([passing_on(plane.url)], tls=tls) as front,
        ForwardProxy({f"{_HOST}:443": front.port}, "me:hush") as proxy,
    ):
        agent.add_options("--url", f"https://{_HOST}", "--ca-file", str(authority))
        url = f"http://me:hush@{proxy.address}"
        plane.want({"web": {"image": registry.offer("web")}})
        agent.start(plane.token("one", store.subnet_id), {"HTTP_PROXY": url, "https_proxy": url})
        wait_for(
            lambda: any(one["status"] == "running" for one in plane.lab("deployments")),
            PATIENCE_S,
            f"the container to be reported; {agent.last_words()}",
        )
        assert agent.stop() == 0
        assert set(proxy.requests) == {f"CONNECT {_HOST}:443"}
    assert "hush" not in agent.last_words()
