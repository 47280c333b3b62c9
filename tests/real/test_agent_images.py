"""The agent as a person runs it: a deployment is exactly the image that was asked for, and stays it (L52, L50, L5)."""

import shutil
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from tests.lab.agent import Agent, Plane
from tests.lab.agents_podman import page
from tests.lab.images import custom_image, image
from tests.lab.podman_store import PodmanStore
from tests.lab.registry import Registry
from tests.lab.relay import Relay
from tests.lab.wait import wait_for

pytestmark = pytest.mark.real

_CONVERGE_S = 120


def rows(plane: Plane) -> list[dict[str, Any]]:
    """The deployments that the control plane knows."""
    found: list[dict[str, Any]] = plane.lab("deployments")
    return found


def shown(plane: Plane) -> set[str]:
    """What the services say; empty while not all of them run."""
    found = rows(plane)
    is_up = bool(found) and all(one["status"] == "running" and not one["leaving"] for one in found)
    return {page(one["ipAddress"]).strip() for one in found} if is_up else set()


def until_shown(plane: Plane, *texts: str) -> None:
    """Wait until the services say exactly this."""
    wait_for(lambda: shown(plane) == set(texts), _CONVERGE_S, f"the pages {texts}, not {rows(plane)}")


def redeploy(plane: Plane) -> None:
    """A user presses "Deploy" for the one service, and the rollout ends."""
    before = {one["id"] for one in rows(plane)}
    plane.lab_post(f"services/{rows(plane)[0]['serviceId']}/redeploy")
    wait_for(lambda: not before & {one["id"] for one in rows(plane)}, _CONVERGE_S, "the old deployments to go")


def image_ids(store: PodmanStore) -> list[str]:
    """What the containers were made from."""
    return store.cli("ps", "-a", "--format", "{{.ImageID}}").split()


def pulls(agent: Agent) -> int:
    """How often the agent has asked a registry."""
    return agent.log.read_text().count('event="pull started"')


class Pings:
    """Counts what asks a registry for anything: a pull begins with the one question whether it is there."""

    def __init__(self) -> None:
        self.seen = 0

    def __call__(self, chunk: bytes) -> bool:
        """Nothing is broken."""
        self.seen += chunk.count(b"GET /v2/ HTTP")
        return False


def test_a_tag_that_was_pushed_anew_goes_live_with_the_next_deployment(
    plane: Plane, agent: Agent, store: PodmanStore, registry: Registry
) -> None:
    """L52: at once, however recently it was asked for; one request for each deployment, also where the old one waits to be replaced."""
    pings = Pings()
    with Relay((registry.host, registry.port), trips=pings) as relay:
        agent.add_options("--insecure-registry", relay.address)
        moving = registry.retag(registry.offer("web", "v1"), "moving").replace(registry.address, relay.address)
        plane.want({"web": {"image": moving, "ports": [{"container": 80}]}})
        agent.start(plane.token("one", store.subnet_id))
        until_shown(plane, "v1")
        assert pings.seen == 1
        registry.retag(registry.offer("web", "v2"), "moving")
        redeploy(plane)
        until_shown(plane, "v2")
        assert (pings.seen, pulls(agent)) == (2, 2)
    assert agent.stop() == 0


@pytest.mark.parametrize("lost", ["the container", "the container and its image"])
def test_a_repair_never_changes_the_image(
    plane: Plane, agent: Agent, store: PodmanStore, registry: Registry, lost: str
) -> None:
    """L52: the tag has moved, and another service of it runs; what is kept is used, or fetched by its digest. None of it is drift."""
    moving = registry.retag(registry.offer("web", "v1"), "moving")
    services = {"one": {"image": moving, "ports": [{"container": 80}]}}
    plane.want(services)
    agent.start(plane.token("one", store.subnet_id))
    until_shown(plane, "v1")
    first, (first_id,) = rows(plane)[0], image_ids(store)
    registry.retag(registry.offer("web", "v2"), "moving")
    plane.want({**services, "two": {"image": moving, "ports": [{"container": 80}]}})
    until_shown(plane, "v1", "v2")
    assert agent.plan()["converged"], "its image has lost its name to the other one, and that is no drift"
    agent.kill()  # what it knows is on the disk
    store.cli("rm", "-f", "-t", "0", first["containerId"])
    if lost != "the container":
        store.cli("rmi", first_id)
    agent.start()
    wait_for(lambda: page(first["ipAddress"]) == "v1\n", _CONVERGE_S, "the first service's own image")
    assert first_id in image_ids(store)
    assert agent.plan()["converged"]
    assert agent.stop() == 0


def test_a_repair_needs_no_registry(plane: Plane, agent: Agent, store: PodmanStore, tmp_path: Path) -> None:
    """L19, L52: with the registry away and the tag moved, the container that was lost comes back from the image that it was."""
    with Registry(tmp_path / "own") as own:
        store.trust_registry(own.address)
        agent.add_options("--insecure-registry", own.address)
        moving = own.retag(own.offer("web", "v1"), "latest")
        plane.want({"web": {"image": moving, "ports": [{"container": 80}]}})
        agent.start(plane.token("one", store.subnet_id))
        until_shown(plane, "v1")
        own.retag(own.offer("web", "v2"), "latest")
        own.kill()
        (row,) = rows(plane)
        store.cli("rm", "-f", "-t", "0", row["containerId"])
        wait_for(lambda: rows(plane)[0]["containerId"] != row["containerId"], _CONVERGE_S, "another container")
        until_shown(plane, "v1")
        assert pulls(agent) == 1
    assert agent.stop() == 0


@pytest.mark.parametrize("form", ["tag", "digest", "tag and digest"])
def test_no_form_of_a_reference_is_drift_for_ever(
    plane: Plane, agent: Agent, store: PodmanStore, registry: Registry, form: str
) -> None:
    """L5: what Podman makes of the name does not matter. Pinning what runs to its digest is a change, and one only (L52)."""
    tagged = registry.offer("web", "v1")
    digest = registry.digest(tagged)
    reference = {
        "tag": tagged,
        "digest": f"{tagged.removesuffix(':v1')}@{digest}",
        "tag and digest": f"{tagged}@{digest}",
    }[form]
    plane.want({"web": {"image": reference, "ports": [{"container": 80}]}})
    agent.start(plane.token("one", store.subnet_id))
    until_shown(plane, "v1")
    assert agent.plan()["converged"]
    assert agent.stop() == 0


def test_pinning_what_runs_to_its_digest_is_a_change(
    plane: Plane, agent: Agent, store: PodmanStore, registry: Registry, tmp_path: Path
) -> None:
    """L52: seen on a real listing, and gone once the container was made from the digest."""
    tagged = registry.offer("web", "v1")
    plane.want({"web": {"image": tagged, "ports": [{"container": 80}]}})
    agent.start(plane.token("one", store.subnet_id))
    until_shown(plane, "v1")
    pinned = f"{tagged}@{registry.digest(tagged)}"
    expected = agent.data_dir / "expected-state.json"
    wanted = tmp_path / "pinned.json"
    wanted.write_text(expected.read_text().replace(tagged, pinned))
    code, text = agent.command("plan", "--expected", str(wanted), "--detailed-exitcode")
    assert (code, "redeploy" in text, f"expected {pinned}" in text) == (2, True, True)
    assert agent.stop() == 0


def test_a_server_without_a_registry(plane: Plane, agent: Agent, store: PodmanStore) -> None:
    """Its own images are never asked for; with `--pull-policy missing` others that are here are not, which the status says."""
    own = store.load(image("web", "1.0"))  # with a dot, or the control plane takes `localhost` for a user of Docker Hub
    store.cli("tag", own, "docker.io/library/web:v1")
    agent.add_options("--pull-policy", "missing")
    plane.want(
        {
            "own": {"image": own, "ports": [{"container": 80}]},
            "short": {"image": "web:v1", "ports": [{"container": 80}]},
        }
    )
    agent.start(plane.token("one", store.subnet_id))
    until_shown(plane, "v1")
    assert pulls(agent) == 0
    (unasked,) = agent.status()["registryNotAsked"]
    assert unasked["image"] == "docker.io/library/web:v1"
    assert agent.plan()["converged"], "a short name is no drift either"
    assert agent.stop() == 0


def _zeros(layer: Path) -> None:
    binary = layer / "diff" / "bin" / "busybox"
    binary.write_bytes(bytes(binary.stat().st_size))


def _lost(layer: Path) -> None:
    shutil.rmtree(layer / "diff")


@pytest.mark.parametrize("damage", [_zeros, _lost], ids=["a binary of zeros", "a lost layer"])
def test_a_damaged_image_is_fetched_anew(
    plane: Plane, agent: Agent, store: PodmanStore, registry: Registry, damage: Callable[[Path], None]
) -> None:
    """L50: Podman calls it complete, and a pull brings nothing; after two failed starts it is verified, removed and fetched."""
    serve = "echo fine >/www/index.html; trap 'exit 0' TERM; httpd -f -p 80 -h /www & wait"
    reference = registry.push(custom_image("fragile", "v1", ("sh", "-c", serve)))
    plane.want({"web": {"image": reference, "ports": [{"container": 80}]}})
    agent.start(plane.token("one", store.subnet_id))
    until_shown(plane, "fine")
    (layer,) = [one.parents[2] for one in store.directory.glob("storage/overlay/*/diff/bin/busybox")]
    damage(layer)
    store.cli("kill", rows(plane)[0]["containerId"])
    wait_for(lambda: 'event="image damaged"' in agent.log.read_text(), _CONVERGE_S, "the damage to be found")
    until_shown(plane, "fine")
    assert pulls(agent) == 3, "to begin with, to see that the registry has it, and anew"
    assert agent.stop() == 0
