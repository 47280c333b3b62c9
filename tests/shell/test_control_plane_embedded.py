"""The client and the embedded control plane, over real HTTP between two processes: the whole conversation of an agent."""

import json
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import yaml
from returns.pipeline import is_successful

from core import work_queue
from core.protocol import BuildStatus, ClaimedBuild, PendingBuilds, RegistrationAnswer, RegistrationRequest
from core.protocol import parse as parsed
from core.state import parse_expected
from shell.adapters.control_plane import ControlPlane, ControlPlaneError, Signer
from shell.identity import Keys
from shell.local_plane.serving import new_token
from tests.lab.agent import Plane
from tests.shell.calling import SIGNER, Action, called

SITE = {"image": "registry.test/site:1", "repository": {"url": "https://git.test/acme/site"}}


@pytest.fixture(scope="module")
def plane(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Plane]:
    """One control plane for all of these tests; each registers servers of its own."""
    with Plane(tmp_path_factory.mktemp("embedded") / "plane") as running:
        yield running


KEYS = Keys(bytes(range(32)), bytes(range(64, 96)))


def registering(token: str) -> Action:
    """A registration with the test's keys."""
    request = RegistrationRequest(
        token=token,
        wireguard_public_key=KEYS.wireguard_public,
        signing_public_key=KEYS.signing_public,
        is_proxy=False,
        public_ip="203.0.113.7",
    )
    return lambda client: client.register(request)


def registered(plane: Plane, name: str) -> tuple[Signer, RegistrationAnswer]:
    """A new server."""
    (raw,) = called(plane.url, registering(new_token(plane.directory, name)))
    answer = parsed(raw, RegistrationAnswer).unwrap()
    return Signer(answer.server_id, KEYS.signing), answer


def calls(plane: Plane, signer: Signer, *actions: Action) -> list[Any]:
    """What a server's calls give."""
    return called(plane.url, *actions, signer=signer)


def refused(plane: Plane, signer: Signer, action: Action = ControlPlane.fetch_work) -> ControlPlaneError:
    """How a server's call fails."""
    with pytest.raises(ControlPlaneError) as caught:
        calls(plane, signer, action)
    return caught.value


def test_a_registration(plane: Plane) -> None:
    """L25: once for each token; the second time says so."""
    token = new_token(plane.directory, "registering")
    (raw,) = called(plane.url, registering(token))
    assert parsed(raw, RegistrationAnswer).unwrap().encryption_key is not None
    for unknown in (token, "ab" * 32):
        error = refused(plane, SIGNER, registering(unknown))
        assert (error.status, error.why) == (401, "HTTP 401 'Invalid, expired, or already used token'")
        assert unknown not in str(error)


def test_a_wrong_signature(plane: Plane) -> None:
    """With another key, and of a server that is not there."""
    signer, _ = registered(plane, "forged")
    error = refused(plane, Signer(signer.server_id, bytes(32)))
    assert (error.status, error.why) == (401, "HTTP 401 'Invalid signature'")
    assert error.then == "the control plane does not know this server's key"
    error = refused(plane, Signer("nobody", KEYS.signing))
    assert (error.status, error.then) == (404, "was this server deleted in the control plane?")


@pytest.mark.parametrize(("off_s", "side"), [(-90, "90 s behind"), (90, "90 s ahead of"), (-86400, "86400 s behind")])
def test_a_clock_that_is_off(plane: Plane, monkeypatch: pytest.MonkeyPatch, off_s: int, side: str) -> None:
    """A stale timestamp is refused, and the message says whose clock is how far off."""
    signer, _ = registered(plane, f"late{off_s}")
    now, now_ns = time.time, time.time_ns
    monkeypatch.setattr(time, "time", lambda: now() + off_s)
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() + off_s * 10**9)
    error = refused(plane, signer)
    assert (error.status, error.why) == (401, "HTTP 401 'Request timestamp expired or invalid'")
    seconds, rest = side.split(" ", 1)
    assert error.then.endswith(f" s {rest.removeprefix('s ')} the control plane's; set it (NTP)")
    assert abs(int(error.then.split("clock is ")[1].split(" ")[0]) - int(seconds)) <= 2


def test_a_tolerable_clock(plane: Plane, monkeypatch: pytest.MonkeyPatch) -> None:
    """Half a minute is fine."""
    signer, _ = registered(plane, "nearly")
    now_ns = time.time_ns
    monkeypatch.setattr(time, "time_ns", lambda: now_ns() - 30 * 10**9)
    assert calls(plane, signer, ControlPlane.fetch_work)


def test_a_report_that_makes_no_sense(plane: Plane) -> None:
    """The control plane's words reach the log."""
    signer, _ = registered(plane, "senseless")
    error = refused(plane, signer, lambda client: client.post_status(b"{"))
    assert (error.status, error.why) == (400, "HTTP 400 'Invalid JSON body'")


def test_a_path_that_is_not_there(plane: Plane) -> None:
    """A wrong --url answers with pages."""
    with pytest.raises(ControlPlaneError, match=r"HTTP 404; is --url the control plane's\?"):
        called(f"{plane.url}/wrong", registering("x" * 64))


def test_the_life_of_an_agent(tmp_path: Path) -> None:
    """Expected state, work and its acknowledgement, report; then a build, claimed once."""
    with Plane(tmp_path / "plane") as plane:
        signer, answer = registered(plane, "one")
        (plane.directory / "services.yaml").write_text(
            yaml.safe_dump({"services": {"site": SITE}, "registry": "registry.test"})
        )
        raw, work = calls(plane, signer, ControlPlane.fetch_expected_state, ControlPlane.fetch_work)
        (container,) = parse_expected(raw, answer.subnet_id).unwrap().containers
        (item,) = work_queue.parse(work).unwrap().items
        assert item.type == "deploy"

        one = {"deploymentId": container.deployment_id, "containerId": "c" * 64, "status": "running"}
        report = json.dumps({"containers": [{**one, "healthStatus": "none"}]}).encode()
        calls(plane, signer, lambda client: client.complete_work(item.id), lambda client: client.post_status(report))
        (left,) = calls(plane, signer, ControlPlane.fetch_work)
        assert work_queue.parse(left).unwrap().items == ()
        assert [row["status"] for row in plane.lab("deployments")] == ["running"]
        _build(plane, signer)


def _build(plane: Plane, signer: Signer) -> None:
    build = plane.lab_post("builds", {"service": "site"})["id"]
    (raw,) = calls(plane, signer, ControlPlane.fetch_pending_build)
    pending = parsed(raw, PendingBuilds).unwrap().build
    assert pending is not None
    assert pending.id == build
    (raw,) = calls(plane, signer, lambda client: client.claim_build(build))
    assert parsed(raw, ClaimedBuild).unwrap().clone_url == "https://git.test/acme/site.git"
    error = refused(plane, signer, lambda client: client.claim_build(build))
    assert (error.status, error.then) == (409, "")
    answers = calls(
        plane,
        signer,
        lambda client: client.post_build_status(build, "building"),
        lambda client: client.post_build_status(build, "failed", "no compiler\0"),
        lambda client: client.fetch_build_status(build),
    )
    assert all(is_successful(parsed(raw, BuildStatus)) for raw in answers)
    assert parsed(answers[-1], BuildStatus).unwrap().status == "failed"


def test_a_control_plane_that_comes_back(plane: Plane, tmp_path: Path) -> None:
    """The same client goes on, on a new connection."""
    with Plane(tmp_path / "plane") as other:
        signer, _ = registered(other, "steady")

        async def stop_and_start(client: ControlPlane) -> bytes:
            await client.fetch_work()
            other.stop()
            with pytest.raises(ControlPlaneError, match="cannot be reached"):
                await client.fetch_work()
            other.start()
            return await client.fetch_work()

        (raw,) = calls(other, signer, stop_and_start)
        assert work_queue.parse(raw).unwrap().items == ()
