"""Every call of the client by name, and how one ends at a server of the test's choice."""

from collections.abc import Awaitable, Callable
from typing import Any, TypeAlias

import anyio
import pytest

from core.protocol import RegistrationRequest
from shell.adapters.control_plane import ControlPlane, ControlPlaneError, Signer
from tests.lab.odd_server import Behaviour, OddServer
from tests.lab.wait import PATIENCE_S

SIGNER = Signer("a-server", bytes(range(32)))
TOKEN = "d0" * 32
REQUEST = RegistrationRequest(token=TOKEN, wireguard_public_key="w", signing_public_key="s", is_proxy=False)
Action: TypeAlias = Callable[[ControlPlane], Awaitable[Any]]

FETCH: Action = ControlPlane.fetch_expected_state
REPEATED: dict[str, Action] = {
    "expected state": FETCH,
    "status": lambda plane: plane.post_status(b'{"containers":[]}'),
    "work queue": ControlPlane.fetch_work,
    "work done": lambda plane: plane.complete_work("w"),
    "pending build": ControlPlane.fetch_pending_build,
    "build building": lambda plane: plane.post_build_status("b", "building"),
    "build failed": lambda plane: plane.post_build_status("b", "failed", "why"),
    "build status": lambda plane: plane.fetch_build_status("b"),
}
ONCE: dict[str, Action] = {
    "register": lambda plane: plane.register(REQUEST),
    "claim": lambda plane: plane.claim_build("b"),
    "build completed": lambda plane: plane.post_build_status("b", "completed"),
}
ALL = REPEATED | ONCE


def called(
    url: str, *actions: Action, signer: Signer = SIGNER, timeout_s: float = PATIENCE_S, pause_s: float = 0.005
) -> list[Any]:
    """What the calls of one client give, in turn."""

    async def run() -> list[Any]:
        plane = ControlPlane(url, signer, timeout_s=timeout_s, register_s=timeout_s, pause_s=pause_s)
        try:
            return [await action(plane) for action in actions]
        finally:
            await plane.aclose()

    return anyio.run(run)


def refused(
    url: str, action: Action = FETCH, timeout_s: float = PATIENCE_S, pause_s: float = 0.005
) -> ControlPlaneError:
    """How a call fails; its message is one line that holds nothing secret (L37)."""
    with pytest.raises(ControlPlaneError) as caught:
        called(url, action, timeout_s=timeout_s, pause_s=pause_s)
    said = str(caught.value)
    assert "\n" not in said
    assert len(said) < 600
    assert TOKEN not in said
    return caught.value


def refusal(behaviour: Behaviour, action: Action = FETCH, timeout_s: float = PATIENCE_S) -> ControlPlaneError:
    """How a call fails when every request is answered like this."""
    with OddServer([behaviour]) as server:
        return refused(server.url, action, timeout_s)
