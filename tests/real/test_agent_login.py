"""The agent with a login file that a person has edited: it costs the images that it is for, and nothing else."""

import json
from pathlib import Path

import pytest

from tests.lab.agent import Agent, Plane
from tests.lab.podman_store import PodmanStore
from tests.lab.registry import Registry
from tests.lab.wait import wait_for

pytestmark = pytest.mark.real

_PATIENCE_S = 60


def test_a_letter_outside_ascii(
    plane: Plane, agent: Agent, store: PodmanStore, registry: Registry, tmp_path: Path
) -> None:
    """L57: it ended the whole agent. Now its image is put aside with the reason; the other runs, and the agent is well."""
    guarded, free = registry.offer("web"), registry.offer("exits")
    login = tmp_path / "auth.json"
    entry = {guarded.rpartition(":")[0]: {"auth": "c2VjcmV0é"}}
    login.write_text(json.dumps({"auths": entry}, ensure_ascii=False))
    agent.add_options("--registry-auth-file", str(login))
    plane.want({"aaa": {"image": guarded}, "web": {"image": free}})
    agent.start(plane.token("one", store.subnet_id))
    wait_for(lambda: "is not base64 of user:password" in agent.log.read_text(), _PATIENCE_S, "the failure to be logged")
    wait_for(lambda: store.cli("ps", "-aq").strip() != "", _PATIENCE_S, "the other container")
    status = agent.status()
    assert status["running"]
    assert status["failing"] == []
    assert "c2VjcmV0" not in agent.log.read_text()
    assert "Traceback" not in agent.log.read_text()
    _, text = agent.command("doctor")
    assert "runs, and all of its parts work" in text
    login.write_text("{}")
    wait_for(lambda: len(store.cli("ps", "-aq").split()) == 2, _PATIENCE_S, "the image with a login that is none")
    assert agent.stop() == 0
