"""Containers that end, or do not, while an agent looks after them: stops by others, processes killed unseen, the agent killed within."""

import json
from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.lab.agent import Agent, Plane
from tests.lab.container_processes import a_persons_stop, kill_unseen, monitor_of, processes_of
from tests.lab.doomed_agent import DoomedAgent, doomed_agent
from tests.lab.images import custom_image, image
from tests.lab.podman_store import PodmanStore
from tests.lab.registry import Registry
from tests.lab.wait import wait_for

pytestmark = pytest.mark.real

_PATIENCE_S = 60
# Writes away what it has before it ends, as a data base does.
_SLOW = "echo start >>/data/log; trap 'sleep 4; echo clean >>/data/log; exit 0' TERM; while :; do sleep 0.2; done"


def running_row(plane: Plane, but: str = "") -> dict[str, str]:
    """The one deployment once it runs, in another container than `but`."""

    def found() -> dict[str, str]:
        rows: list[dict[str, str]] = plane.lab("deployments")
        runs = len(rows) == 1 and rows[0]["status"] == "running" and rows[0]["containerId"] != but
        return rows[0] if runs else {}

    return wait_for(found, _PATIENCE_S, "the service to run")


def test_a_persons_slow_stop(
    plane: Plane, agent: Agent, store: PodmanStore, registry: Registry, tmp_path: Path
) -> None:
    """L47: it ends by itself, nothing is started beside it meanwhile, the agent goes on reporting, and starts it again."""
    reference = registry.push(custom_image("slow-db", "v1", ("sh", "-c", _SLOW)))
    plane.want({"db": {"image": reference, "volumes": [{"name": "data", "path": "/data"}]}})
    agent.start(plane.token("one", store.subnet_id))
    container_id = running_row(plane)["containerId"]
    (log,) = agent.data_dir.glob("volumes/*/data/log")
    reports = len(plane.lab("reports?limit=1000"))
    command = store.spawn(("podman", "stop", "--time=40", container_id), tmp_path / "stop.log")
    wait_for(lambda: log.read_text().split()[-2:] == ["clean", "start"], _PATIENCE_S, "its end and its next start")
    assert log.read_text().split() == ["start", "clean", "start"]
    assert len(plane.lab("reports?limit=1000")) > reports
    assert command.wait(_PATIENCE_S) == 0
    assert "Traceback" not in agent.log.read_text()


def test_others_go_on_and_the_agent_ends_within_a_stop(
    plane: Plane, agent: Agent, store: PodmanStore, registry: Registry, tmp_path: Path
) -> None:
    """L47: a stop that is waited for holds up nobody else, not even the agent's own end."""
    plane.want({"db": {"image": registry.push(image("stubborn"))}})
    agent.start(plane.token("one", store.subnet_id))
    container_id = running_row(plane)["containerId"]
    with a_persons_stop(store, container_id, 60, tmp_path / "stop.log"):
        plane.want({"web": {"image": registry.offer("web")}})  # the other is an orphan now
        wait_for(
            lambda: [one["status"] for one in plane.lab("deployments") if one["service"] == "web"] == ["running"],
            _PATIENCE_S,
            "another service",
        )
        assert processes_of(container_id)
        assert agent.stop() == 0
        assert processes_of(container_id)
    agent.start()
    wait_for(lambda: not processes_of(container_id), _PATIENCE_S, "the orphan to end, since nobody ends it any more")
    wait_for(lambda: container_id not in store.cli("ps", "-aq", "--no-trunc"), _PATIENCE_S, "its removal")


def test_a_process_that_is_gone_unseen(plane: Plane, agent: Agent, store: PodmanStore, registry: Registry) -> None:
    """L48: Podman says `Up`; the next look sees it, nothing false is reported, and the service runs again."""
    plane.want({"web": {"image": registry.offer("web")}})
    agent.start(plane.token("one", store.subnet_id))
    container_id = running_row(plane)["containerId"]
    kill_unseen(container_id)
    again = running_row(plane, but=container_id)["containerId"]
    assert monitor_of(again) and processes_of(again)
    assert store.cli("ps", "--all", "--quiet", "--no-trunc").split() == [again]


_STEPS = (b"/stop?timeout=0", b"DELETE /v", b"/containers/create")


@pytest.fixture(params=_STEPS, ids=["stop", "removal", "creation"])
def doomed(
    request: pytest.FixtureRequest, plane: Plane, store: PodmanStore, registry: Registry, tmp_path: Path
) -> Iterator[DoomedAgent]:
    """An agent that is killed, once armed, before a step of the cure reaches Podman."""
    unmanaged = tuple(part for name in ("dns", "caddy", "wireguard") for part in ("--unmanaged", name))
    options = ("--insecure-registry", registry.address, *unmanaged)
    with doomed_agent(tmp_path / "agent", plane.url, store.socket_path, request.param, *options) as made_one:
        yield made_one


def test_the_agent_is_killed_at_each_step_of_ending_an_abandoned_stop(
    plane: Plane, doomed: DoomedAgent, store: PodmanStore, registry: Registry, tmp_path: Path
) -> None:
    """L47: whatever it had done, there is one container in the end, and no process of the old one."""
    agent = doomed.agent
    volumes = [{"name": "data", "path": "/data"}]
    plane.want({"db": {"image": registry.push(image("stubborn")), "volumes": volumes}})
    agent.start(plane.token("one", store.subnet_id))
    row = running_row(plane)
    container_id = row["containerId"]
    with a_persons_stop(store, container_id, 60, tmp_path / "stop.log") as command:
        command.kill()
    doomed.arm()
    payload = json.dumps({"serviceId": row["serviceId"], "containerIds": [container_id]})
    server = plane.lab("servers")[0]["id"]
    plane.lab_post("work", {"server": server, "type": "force_cleanup", "payload": payload})
    assert doomed.wait_killed(), agent.last_words()
    agent.start()
    again = running_row(plane, but=container_id)["containerId"]
    assert (processes_of(container_id), len(processes_of(again)) > 0) == ([], True)
    assert store.cli("ps", "--all", "--quiet", "--no-trunc").split() == [again]
