"""L65, L68: what a build may not reach, and what it may not use up: by real buildah, whose known holes lead no further than the sandbox."""

import http.server
import os
import socket
import subprocess
import threading
from collections.abc import Iterator
from contextlib import ExitStack, contextmanager, suppress
from dataclasses import dataclass, field, replace
from functools import partial
from pathlib import Path
from typing import ClassVar

import anyio
import pytest
from returns.pipeline import is_successful

from core import build_source
from core.build_plan import Settings, Stage
from core.build_sandbox import Limits
from shell.building import pipeline, sandbox
from shell.building.pipeline import BuildError, Job, Listener, Workshop
from shell.building.workplace import Workplace
from tests.lab.git_server import GitServer
from tests.lab.registry import Registry
from tests.lab.wait import PATIENCE_S, wait_for

pytestmark = [pytest.mark.real, pytest.mark.anyio, pytest.mark.timeout(600)]

MARK = f"MARK-{os.getpid()}-OF-THE-HOST"
METADATA = "169.254.169.254"
MESH = "10.200.9.9"
NEIGHBOUR = "198.51.100.7"
LIMITS = Limits(memory_bytes=256 * 1024**2, tasks=200, cpu_weight=20, io_weight=20, disk_bytes=300 * 1024**2)


@dataclass
class Bench:
    """A workshop whose builder is buildah, a repository, and what was heard."""

    workshop: Workshop
    git: GitServer
    image: str
    lines: list[str] = field(default_factory=list)
    stages: list[Stage] = field(default_factory=list)

    def job(self, dockerfile: str) -> Job:
        """A build of a repository with this Dockerfile."""
        commit = self.git.commit("site", {"Dockerfile": dockerfile, "page": "1"})
        source = build_source.parse(self.git.url("site"), commit, "main", ("http",))
        assert is_successful(source)
        return Job("b", source.unwrap(), self.image, "service", {"TOKEN": "sup3r-secret-0f-it"})

    async def build(self, job: Job) -> str:
        """Build, and remove the folder as the loop does."""

        async def stage(entered: Stage) -> None:
            self.stages.append(entered)

        try:
            return await pipeline.build(self.workshop, job, Listener(stage, self.lines.append))
        finally:
            Workplace(self.workshop.top, job.id).remove()

    async def failure(self, dockerfile: str) -> str:
        """Why it fails."""
        with pytest.raises(BuildError) as caught:
            await self.build(self.job(dockerfile))
        return str(caught.value)


@pytest.fixture
def bench(
    private_network: None, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[Bench]:
    """On a server with a file that everybody may read, and one that only root may."""
    monkeypatch.setenv("BUILDAH_RUNTIME", "runc")
    (tmp_path / "open").write_text(MARK)
    (tmp_path / "closed").write_text(MARK)
    (tmp_path / "closed").chmod(0o600)
    settings = Settings(
        "podman", insecure_registries=frozenset({registry.address}), store=str(tmp_path / "b" / "store")
    )
    with GitServer(tmp_path / "git") as git:
        workshop = Workshop(tmp_path / "b", settings, LIMITS, ("http",))
        yield Bench(workshop, git, f"{registry.address}/lab/site:1")


class _Page(http.server.BaseHTTPRequestHandler):
    def do_GET(self) -> None:
        self.send_response(200)
        self.end_headers()
        self.wfile.write(MARK.encode())

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""


class _Guide(_Page):
    """Sends whoever asks for `/HOST:PORT` there."""

    asked: ClassVar[set[str]] = set()

    def do_GET(self) -> None:
        self.asked.add(self.path)
        self.send_response(302)
        self.send_header("Location", f"http:/{self.path}/page")
        self.end_headers()


@contextmanager
def serving(host: str, pages: type[_Page]) -> Iterator[str]:
    """Where these pages are."""
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    kind = type("Server", (http.server.ThreadingHTTPServer,), {"address_family": family})
    with kind((host, 0), pages) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        yield f"{f'[{host}]' if family == socket.AF_INET6 else host}:{server.socket.getsockname()[1]}"
        server.shutdown()


@pytest.fixture
def addresses(private_network: None) -> Iterator[dict[str, str]]:
    """Servers of this host: on loopback, at a cloud's metadata address, in the mesh, at an address of its own on an odd port."""
    links = ("ip link add bench0 type bridge", "ip link set bench0 up")
    for words in (*links, *(f"ip addr add {one}/32 dev bench0" for one in (METADATA, MESH, NEIGHBOUR))):
        subprocess.run(words.split(), check=True)
    with ExitStack() as running:
        hosts = ("127.0.0.1", "::1", METADATA, MESH, NEIGHBOUR)
        yield {one: running.enter_context(serving(one, _Page)) for one in hosts}
    subprocess.run(["ip", "link", "del", "bench0"], check=True)


def hole(mount: str, registry: Registry, folder: Path) -> str:
    """A Dockerfile that has something of the builder's own file system at `/host`, looks there for the host's files, and writes."""
    web = registry.offer("web")
    wanted = (
        "/etc/shadow",
        "/proc/1/environ",
        f"{folder}/open",
        f"{folder}/closed",
        "/root/.bashrc",
        "/var/lib/dpkg/status",
    )
    look = "; ".join((*(f"cat /host{one}" for one in wanted), "ls -la /host /host/tmp /host/var"))
    return "\n".join(
        (
            f"FROM {web} AS first",
            "RUN ln -s / /link",
            f"FROM {web}",
            f"RUN {mount} {look}; touch /host/tmp/PLANTED-{MARK} /host/etc/PLANTED-{MARK}; echo the end",
        )
    )


@pytest.mark.parametrize(
    "mount",
    [
        "--mount=type=bind,from=first,source=/link,target=/host,rw",
        "--mount=type=cache,id=../../../../../../../..,target=/host",
    ],
    ids=["bind", "cache"],
)
async def test_a_known_hole_of_buildah(bench: Bench, registry: Registry, tmp_path: Path, mount: str) -> None:
    """CVE-2024-1753, CVE-2024-9675: whatever a step gets at is the sandbox's. Nothing of the host is read or written."""
    with suppress(BuildError):
        await bench.build(bench.job(hole(mount, registry, tmp_path)))
    text = "\n".join(line for line in bench.lines if "STEP" not in line)
    assert "the end" in text
    assert MARK not in text.replace(f"PLANTED-{MARK}", "")
    assert not {"root:", "Package: ", "TECHULUS_"} & {
        word for word in ("root:", "Package: ", "TECHULUS_") if word in text
    }
    assert not _planted()


@pytest.mark.parametrize("where", ["127.0.0.1", "::1", METADATA, MESH, NEIGHBOUR])
async def test_an_address_of_the_host(bench: Bench, registry: Registry, addresses: dict[str, str], where: str) -> None:
    """By the builder itself and by a step of the build; the build fails, with the reason."""
    url = f"http://{addresses[where]}/page"
    why = await bench.failure(f"FROM {registry.offer('web')}\nADD {url} /page\n")
    assert "connection refused" in why
    why = await bench.failure(f"FROM {registry.offer('web')}\nRUN wget -O - {url}\n")
    assert "building failed" in why
    assert MARK not in "\n".join(bench.lines)


async def test_who_is_sent_on_to_an_address_of_the_host(
    bench: Bench, registry: Registry, addresses: dict[str, str]
) -> None:
    """By a server that a build may ask: here one that was named as a registry."""
    with serving("127.0.0.1", _Guide) as guide:
        named = frozenset({registry.address, guide})
        bench.workshop = replace(bench.workshop, settings=replace(bench.workshop.settings, insecure_registries=named))
        for where in ("127.0.0.1", METADATA):
            base = f"FROM {registry.offer('web')}\n"
            assert "connection refused" in await bench.failure(f"{base}ADD http://{guide}/{addresses[where]} /page\n")
            assert f"/{addresses[where]}" in _Guide.asked
    assert MARK not in "\n".join(bench.lines)


async def test_the_clones_host_is_gits_alone(bench: Bench, registry: Registry) -> None:
    """L65: users choose it, so a step of the build does not reach what Git has just cloned from."""
    job = bench.job(f"FROM {registry.offer('web')}\nRUN wget -O - {bench.git.url('site')}/info/refs\n")
    with pytest.raises(BuildError, match="building failed"):
        await bench.build(job)
    assert any("Connection refused" in line for line in bench.lines)


async def test_a_steps_own_254(bench: Bench, registry: Registry) -> None:
    """It is npm's for a file that is missing, and no fault of the sandbox."""
    why = await bench.failure(f"FROM {registry.offer('web')}\nRUN echo its own words; exit 254\n")
    assert "its own words" in why
    assert "sandbox" not in why


async def test_a_step_that_looks_for_every_file(bench: Bench, registry: Registry) -> None:
    """It finds what is in its image."""
    await bench.build(
        bench.job(
            f"FROM {registry.offer('web')}\nRUN find / -xdev -type f -exec grep -l MARK- {{}} +; find / -name closed; true\n"
        )
    )
    assert MARK not in "\n".join(line for line in bench.lines if "STEP" not in line)


@pytest.mark.parametrize(
    ("step", "why"),
    [
        ("f() { f | f & }; f; sleep 300", "it started more than 200 processes and threads at a time (--build-tasks)"),
        ("dd if=/dev/zero of=/big bs=1M count=10000", "it wrote more than 300 MiB (--build-disk-mib)"),
        ("awk 'BEGIN { s = \"x\"; while (1) s = s s }'", "it needed more than 256 MiB of memory (--build-memory-mib)"),
    ],
    ids=["processes", "disk", "memory"],
)
async def test_a_bound(bench: Bench, registry: Registry, step: str, why: str) -> None:
    """The build fails with the true reason, and nothing of it is left."""
    assert f"building failed: {why}" in await bench.failure(f"FROM {registry.offer('web')}\nRUN {step}\n")
    _nothing_is_left(bench)


@pytest.mark.parametrize("way", ["cancelled", "out of time"])
async def test_a_build_that_is_ended(bench: Bench, registry: Registry, way: str) -> None:
    """L68: no process, mount, control group, container or folder is left."""
    job = bench.job(f"FROM {registry.offer('web')}\nRUN echo in its middle; sleep 600{os.getpid()}\n")
    if way == "out of time":
        bench.workshop = replace(bench.workshop, limit_s=20.0)
        with pytest.raises(BuildError, match="took longer"):
            await bench.build(job)
    else:
        async with anyio.create_task_group() as tasks:
            tasks.start_soon(bench.build, job)
            began = partial(lambda: "in its middle" in bench.lines)
            await anyio.to_thread.run_sync(lambda: wait_for(began, PATIENCE_S, "the step"))
            tasks.cancel_scope.cancel()
    _nothing_is_left(bench)


def _planted() -> list[Path]:
    return [*Path("/tmp").glob("PLANTED-*"), *Path("/etc").glob("PLANTED-*")]


def _nothing_is_left(bench: Bench) -> None:
    top, folder = str(bench.workshop.top), Workplace(bench.workshop.top, "b").folder

    def left() -> list[str]:
        found = [*map(str, Path(bench.workshop.top).glob("build-*"))]
        found += [*map(str, Path("/sys/fs/cgroup").glob(f"*/techulus-builds/{sandbox._name(folder)}"))]
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                words = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                if f"600{os.getpid()}" in words or "if=/dev/zero of=/big" in words:
                    found.append(words)
                found += [line for line in (path / "mountinfo").read_text().splitlines() if top in line]
        return found

    wait_for(lambda: not left(), PATIENCE_S, "nothing to be left")
