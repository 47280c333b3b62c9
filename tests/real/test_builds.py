"""Builds end to end: a Git server with a token, buildah, a registry; then deployed by the same agent and answering."""

import json
import os
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest

from shell.building import sandbox
from tests.lab.agent import AGENT, Agent, Plane
from tests.lab.git_server import GitServer
from tests.lab.log_store import LogStore
from tests.lab.podman_store import PodmanStore
from tests.lab.registry import Registry
from tests.lab.wait import wait_for

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

_PATIENCE_S = 180
_SLEEP = f"987{os.getpid()}"
_TOKEN = "ghs_0123456789abcdefTOKEN"
_SECRET = "sup3r-secret-value-of-npm"


@pytest.fixture
def git(private_network: None, tmp_path: Path) -> Iterator[GitServer]:
    """Repositories for those who know the token."""
    with GitServer(tmp_path / "git", _TOKEN) as server:
        yield server


@pytest.fixture
def logs(private_network: None) -> Iterator[LogStore]:
    """Where the build logs go."""
    with LogStore() as store:
        yield store


@pytest.fixture
def builder(
    plane: Plane,
    store: PodmanStore,
    registry: Registry,
    logs: LogStore,
    tmp_path: Path,
    monkeypatch: pytest.MonkeyPatch,
) -> Iterator[Agent]:
    """An agent that may build from loopback. crun does not work where both versions of control groups are mounted."""
    monkeypatch.setenv("BUILDAH_RUNTIME", "runc")
    unmanaged = tuple(part for name in ("dns", "caddy", "wireguard") for part in ("--unmanaged", name))
    lab = ("--build-allow-scheme", "http", "--builder", "podman", "--logs-endpoint", logs.url)
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
    plane: Plane, builder: Agent, git: GitServer, registry: Registry, store: PodmanStore, logs: LogStore
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
    builder.stop()  # so that it need not wait for the next poll
    builder.start()
    _build(plane, second)
    wait_for(lambda: (row := _running(plane)) and _page(row) == "second", _PATIENCE_S, "the second page")
    wait_for(lambda: sum("pushed" in one["_msg"] for one in logs.of("build")) == 2, _PATIENCE_S, "both logs")
    assert (logs.faults, logs.out_of_order("build")) == ([], [])
    assert {one["service_id"] for one in logs.of("build")} == {row["serviceId"]}
    everything = builder.log.read_text() + json.dumps(plane.lab("reports?limit=1000")) + json.dumps(logs.lines)
    assert _TOKEN not in everything
    assert _SECRET not in everything
    wait_for(lambda: not _folders(builder), _PATIENCE_S, "the folder to go")
    assert builder.stop() == 0


def test_a_large_repository_on_a_slow_link(
    plane: Plane, builder: Agent, git: GitServer, registry: Registry, store: PodmanStore
) -> None:
    """Cancelled in the middle of the clone: noticed within 5 s, Git is ended, the folder goes; the reconciler never waited."""
    commit = git.commit("site", {"Dockerfile": "FROM scratch\n"}, zeros={"big": 100_000_000})
    git.bytes_per_s = 500_000  # so that it is not over before the other service runs
    plane.want({"site": a_service(git), "web": {"image": registry.offer("web")}}, registry=registry.address)
    builder.start(plane.token("one", store.subnet_id))
    made = plane.lab_post("builds", {"service": "site", "commitSha": commit})
    wait_for(lambda: git.sent_bytes > 1_000_000, _PATIENCE_S, "the clone to be in its middle")
    wait_for(lambda: _running(plane), _PATIENCE_S, "the other service")
    assert _row_of(plane, made["id"])["status"] == "cloning"
    assert builder.status()["builds"][0]["status"] == "cloning"
    plane.lab_post(f"builds/{made['id']}/cancel")
    cancelled_at = time.monotonic()
    wait_for(lambda: not _folders(builder), _PATIENCE_S, "the folder to go")
    assert (
        time.monotonic() - cancelled_at < 30
    )  # 4 s until it is asked for, and the machine's share; the clone alone would take 200 s
    assert git.sent_bytes < 100_000_000
    wait_for(lambda: git.broken_off, _PATIENCE_S, "Git to be ended")
    assert _row_of(plane, made["id"])["status"] == "cancelled"
    assert builder.stop() == 0


def test_killed_while_it_builds(
    plane: Plane, builder: Agent, git: GitServer, registry: Registry, store: PodmanStore
) -> None:
    """L27, L68: everything of the build ends with the agent; the next run says that the build failed and why, and cleans up."""
    commit = git.commit("site", {"Dockerfile": dockerfile(registry, f"RUN sleep {_SLEEP}"), "page": ""})
    plane.want({"site": a_service(git)}, registry=registry.address)
    builder.start(plane.token("one", store.subnet_id))
    made = plane.lab_post("builds", {"service": "site", "commitSha": commit})
    wait_for(lambda: _sleepers(), _PATIENCE_S, "the build to be in its middle")
    folders = _folders(builder)
    builder.kill()
    wait_for(lambda: not _sleepers(), _PATIENCE_S, "the build's own command to end")
    wait_for(lambda: not _contents(builder), _PATIENCE_S, "what it has written to go")
    wait_for(lambda: not _groups(folders), _PATIENCE_S, "its control groups to go")
    builder.start()
    wait_for(lambda: _row_of(plane, made["id"])["status"] == "failed", _PATIENCE_S, "the failure")
    assert "restarted" in _row_of(plane, made["id"])["error"]
    wait_for(lambda: not _folders(builder), _PATIENCE_S, "the folder to go")
    assert builder.stop() == 0


def test_a_command_that_fails(
    plane: Plane, builder: Agent, git: GitServer, registry: Registry, store: PodmanStore, logs: LogStore
) -> None:
    """L42: the user reads the stage and the last lines, without the secret that the command printed."""
    lines = ("RUN --mount=type=secret,id=NPM_TOKEN cat /run/secrets/NPM_TOKEN; echo it is broken; exit 3",)
    commit = git.commit("site", {"Dockerfile": dockerfile(registry, *lines), "page": ""})
    plane.want({"site": a_service(git)}, registry=registry.address)
    builder.start(plane.token("one", store.subnet_id))
    build = _build(plane, commit)
    assert build["status"] == "failed"
    assert build["error"].startswith("building failed: ")
    assert "exit status 3" in build["error"] or "exit code 3" in build["error"], build["error"]
    assert "it is broken" in build["error"]
    wait_for(lambda: any("it is broken" in one["_msg"] for one in logs.of("build")), _PATIENCE_S, "the log")
    assert _SECRET not in build["error"] + json.dumps(logs.lines)
    assert "***" in build["error"]
    assert builder.stop() == 0


def test_by_hand(git: GitServer, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """`agent build`: the same pipeline with its progress on the terminal; the image's digest is its answer."""
    monkeypatch.setenv("BUILDAH_RUNTIME", "runc")
    commit = git.commit("site", {"Dockerfile": dockerfile(registry), "page": ""})
    argv = [
        str(AGENT),
        "build",
        "--repo",
        git.url("site"),
        "--ref",
        commit,
        "--image",
        f"{registry.address}/hand/made:1",
    ]
    argv += ["--data-dir", str(tmp_path / "hand"), "--build-allow-scheme", "http", "--secret-env", "NPM_TOKEN"]
    argv += ["--insecure-registry", registry.address, "--builder", "podman"]
    environment = {**os.environ, "TECHULUS_CLONE_TOKEN": _TOKEN, "NPM_TOKEN": _SECRET}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    assert done.returncode == 0, done.stderr
    assert done.stdout.startswith(f"{registry.address}/hand/made:1@sha256:")
    assert [line for line in done.stderr.splitlines() if line.startswith("==")] == [
        "== cloning",
        "== building",
        "== pushing",
    ]
    assert _TOKEN not in done.stderr
    del environment["TECHULUS_CLONE_TOKEN"]
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, timeout=_PATIENCE_S, check=False)
    assert done.returncode == 1
    assert "cloning failed: could not read Username" in done.stderr


def _unmount(folder: Path) -> None:
    """What the builder's store has mounted; else the folder could not be removed."""
    mounts = [line.split()[4] for line in Path("/proc/self/mountinfo").read_text().splitlines()]
    for mount in reversed([one for one in mounts if Path(one).is_relative_to(folder)]):
        subprocess.run(["umount", "--lazy", mount], check=True)


def _row_of(plane: Plane, build_id: str) -> dict[str, Any]:
    (row,) = [one for one in plane.lab("builds") if one["id"] == build_id]
    found: dict[str, Any] = row
    return found


def _folders(agent: Agent) -> list[Path]:
    return list((agent.data_dir / "builds").glob("build-*"))


def _contents(agent: Agent) -> list[str]:
    """What is left of builds but their records, control groups and mounts' places."""
    return [
        one.name
        for folder in _folders(agent)
        for one in (folder / "guest", folder / "secrets", folder / "git")
        if one.exists()
    ]


def _groups(folders: list[Path]) -> list[Path]:
    """The control groups of the builds in these folders."""
    names = [sandbox._name(folder) for folder in folders]
    return [one for name in names for one in Path("/sys/fs/cgroup").glob(f"*/techulus-builds/{name}")]


def _sleepers() -> list[str]:
    """The processes of the command that a build hangs in."""
    found = []
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            if path.read_bytes().split(b"\0")[:2] == [b"sleep", _SLEEP.encode()]:
                found.append(path.parent.name)
    return found


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
    with urllib.request.urlopen(f"http://{row['ipAddress']}/", timeout=_PATIENCE_S) as answer:
        text: str = answer.read().decode()
    return text.strip()
