"""Builds end to end: a Git server with a token, buildah, a registry; then deployed by the same agent and answering."""

import json
import urllib.request
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from tests.lab.agent import Agent, Plane
from tests.lab.git_server import GitServer
from tests.lab.podman_store import PodmanStore
from tests.lab.registry import Registry
from tests.lab.wait import wait_for

pytestmark = pytest.mark.real

_PATIENCE_S = 90
_TOKEN = "ghs_0123456789abcdefTOKEN"
_SECRET = "sup3r-secret-value-of-npm"


@pytest.fixture
def git(private_network: None, tmp_path: Path) -> Iterator[GitServer]:
    """Repositories for those who know the token."""
    with GitServer(tmp_path / "git", _TOKEN) as server:
        yield server


@pytest.fixture
def builder(
    plane: Plane, store: PodmanStore, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Agent]:
    """An agent that may build from loopback. No container runtime works without a cgroup of its own here: chroot isolation does."""
    monkeypatch.setenv("BUILDAH_ISOLATION", "chroot")
    unmanaged = tuple(part for name in ("dns", "caddy", "wireguard") for part in ("--unmanaged", name))
    lab = ("--build-allow-scheme", "http", "--builder", "podman")
    options = ("--podman-socket", str(store.socket_path), "--insecure-registry", registry.address, *unmanaged, *lab)
    made = Agent(tmp_path / "agent", plane.url, options)
    yield made
    made.kill()


def a_service(git: GitServer, name: str = "site") -> dict[str, Any]:
    """A service that is built from a repository."""
    return {"repository": {"url": git.url(name), "token": _TOKEN}, "env": {"NPM_TOKEN": _SECRET}}


def dockerfile(registry: Registry, *more: str) -> str:
    """A web page built on the lab's image; the secret is used, and shows up nowhere."""
    return "\n".join(
        [
            f"FROM {registry.offer('web')}",
            "RUN --mount=type=secret,id=NPM_TOKEN test $(wc -c </run/secrets/NPM_TOKEN) = 25",
            *more,
            "COPY page /page",
            'CMD ["/bin/sh", "-c", "cp /page /www/index.html; trap \'exit 0\' TERM; httpd -f -p 80 -h /www & wait"]',
        ]
    )


def test_from_a_commit_to_a_page(
    plane: Plane, builder: Agent, git: GitServer, registry: Registry, store: PodmanStore
) -> None:
    """Cloned with the token, built, pushed, confirmed, deployed, answering; and again for the next commit."""
    first = git.commit("site", {"Dockerfile": dockerfile(registry), "page": "first"})
    plane.want({"site": a_service(git)}, registry=registry.address)
    builder.start(plane.token("one", store.subnet_id))
    _build(plane, first)
    row = wait_for(lambda: _running(plane), _PATIENCE_S, "the deployment")
    assert _page(row) == "first"
    (build,) = plane.lab("builds")
    assert build["imageUri"].endswith(f":{first}")
    said = [one["body"]["status"] for one in plane.lab("reports?limit=1000") if one["kind"] == f"build {build['id']}"]
    assert said == ["cloning", "building", "pushing", "completed"]

    second = git.commit("site", {"Dockerfile": dockerfile(registry), "page": "second"})
    _build(plane, second)
    wait_for(lambda: (row := _running(plane)) and _page(row) == "second", _PATIENCE_S, "the second page")
    everything = builder.log.read_text() + json.dumps(plane.lab("reports?limit=1000")) + _logs(builder)
    assert _TOKEN not in everything
    assert _SECRET not in everything
    assert sorted(one.name for one in (builder.data_dir / "builds").iterdir() if one.name.startswith("build-")) == []
    assert builder.stop() == 0


def _build(plane: Plane, commit: str) -> dict[str, Any]:
    """A build that a user has asked for, ended."""
    made = plane.lab_post("builds", {"service": "site", "commitSha": commit})

    def ended() -> dict[str, Any]:
        (row,) = [one for one in plane.lab("builds") if one["id"] == made["id"]]
        return row if row["status"] in ("completed", "failed", "cancelled") else {}

    return wait_for(ended, _PATIENCE_S, f"the build of {commit}")


def _running(plane: Plane) -> dict[str, Any]:
    rows: list[dict[str, Any]] = [one for one in plane.lab("deployments") if one["status"] == "running"]
    return rows[0] if rows else {}


def _page(row: dict[str, Any]) -> str:
    with urllib.request.urlopen(f"http://{row['ipAddress']}/", timeout=5) as answer:
        text: str = answer.read().decode()
    return text.strip()


def _logs(agent: Agent) -> str:
    return "".join(one.read_text() for one in (agent.data_dir / "builds" / "logs").glob("*.jsonl"))
