"""The pipeline with real Git, a real registry, and recording stand-ins of `buildctl` and `railpack`."""

import os
import threading
from collections.abc import Iterator
from contextlib import suppress
from dataclasses import dataclass, field, replace
from pathlib import Path

import anyio
import pytest
from returns.pipeline import is_successful

from core import build_source
from core.build_plan import Settings, Stage
from core.build_sandbox import Limits
from shell.building import pipeline
from shell.building.pipeline import BuildError, Job, Listener, Workshop
from shell.building.workplace import Workplace
from tests.lab.build_tools import BuildTools
from tests.lab.git_server import GitServer
from tests.lab.registry import Registry
from tests.lab.small_disk import small_disk
from tests.lab.wait import PATIENCE_S, wait_for

pytestmark = [pytest.mark.real, pytest.mark.anyio]

TOKEN = "ghs_0123456789abcdefTOKEN"
SECRETS = {"NPM_TOKEN": "sup3r-secret-of-npm", "RAILPACK_NODE_VERSION": "22", "LINES": "one-line-of-it\nanother-line"}


@pytest.fixture
def git(private_network: None, tmp_path: Path) -> Iterator[GitServer]:
    """Repositories for those who know the token."""
    with GitServer(tmp_path / "git", TOKEN) as server:
        yield server


@pytest.fixture
def tools(
    private_network: None, registry: Registry, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> Iterator[BuildTools]:
    """The stand-ins, found first."""
    with BuildTools(tmp_path / "tools", registry.offer("web")) as made:
        for name, value in made.environment.items():
            monkeypatch.setenv(name, value)
        monkeypatch.setenv("PLANTED", "in the agent's own environment")
        yield made


@dataclass
class Bench:
    """A workshop, and what was heard."""

    workshop: Workshop
    git: GitServer
    image: str
    stages: list[Stage] = field(default_factory=list)
    lines: list[str] = field(default_factory=list)

    def job(self, commit: str, name: str = "site", branch: str = "main") -> Job:
        """One build."""
        url = self.git.url(name).replace("http://", f"http://x-access-token:{TOKEN}@")
        source = build_source.parse(url, commit, branch, ("http",))
        assert is_successful(source)
        return Job("b/../1", source.unwrap(), self.image, "service", SECRETS)

    async def build(self, job: Job) -> str:
        """Build, and remove the folder as the loop does."""

        async def stage(entered: Stage) -> None:
            self.stages.append(entered)

        try:
            return await pipeline.build(self.workshop, job, Listener(stage, self.lines.append))
        finally:
            Workplace(self.workshop.top, job.id).remove()

    async def failure(self, job: Job) -> str:
        """Why it fails."""
        with pytest.raises(BuildError) as caught:
            await self.build(job)
        return str(caught.value)

    @property
    def left(self) -> list[str]:
        """What lies about."""
        return sorted(path.name for path in self.workshop.top.glob("build-*"))


@pytest.fixture
def bench(git: GitServer, registry: Registry, tools: BuildTools, tmp_path: Path) -> Bench:
    """BuildKit by its stand-in."""
    settings = Settings(
        "buildkit", insecure_registries=frozenset({registry.address}), store=str(tmp_path / "b" / "store")
    )
    limits = Limits(memory_bytes=1024**3, tasks=512, cpu_weight=20, io_weight=20, disk_bytes=2 * 1024**3)
    return Bench(Workshop(tmp_path / "b", settings, limits, ("http",)), git, f"{registry.address}/lab/site:1")


async def test_a_dockerfile_by_buildkit(bench: Bench, git: GitServer, tools: BuildTools, tmp_path: Path) -> None:
    """What `buildctl` is given: files and no values, a clean environment, exactly the wanted commit; what is pushed is confirmed."""
    commit = git.commit("site", {"Dockerfile": "FROM scratch\n", "app/main.py": "1"})
    git.commit("site", {"Dockerfile": "FROM scratch\n", "app/later.py": "2"})
    digest = await bench.build(bench.job(commit))
    assert digest.startswith("sha256:")
    assert bench.stages == [Stage.CLONING, Stage.BUILDING, Stage.PUSHING]
    (call,) = tools.calls()
    assert call["secrets"] == {
        "LINES": ["one-line-of-it\nanother-line", "0o600"],
        "NPM_TOKEN": ["sup3r-secret-of-npm", "0o600"],
        "RAILPACK_NODE_VERSION": ["22", "0o600"],
    }
    assert "source/app/main.py" in call["files"]
    assert "source/app/later.py" not in call["files"]
    everything = " ".join([*call["argv"], *call["env"].values(), *bench.lines])
    assert "sup3r" not in everything
    assert TOKEN not in everything
    assert "PLANTED" not in call["env"]
    assert f"checked out {commit}" in bench.lines
    assert bench.left == []


async def test_no_dockerfile_by_railpack(bench: Bench, git: GitServer, tools: BuildTools) -> None:
    """The plan is written beside the checkout, and its folder is what the frontend gets."""
    commit = git.commit("site", {"package.json": "{}"})
    await bench.build(bench.job(commit))
    prepare, build = tools.calls()
    assert prepare["tool"] == "railpack"
    assert prepare["argv"][:2] == ["prepare", "source"]
    assert prepare["env"]["RAILPACK_NODE_VERSION"] == "22"
    assert "NPM_TOKEN" not in prepare["env"]
    assert "--env=NPM_TOKEN=set" in prepare["argv"]
    assert "plan/railpack-plan.json" in build["files"]
    assert "--frontend=gateway.v0" in build["argv"]


async def test_the_tip_of_a_branch(bench: Bench, git: GitServer) -> None:
    """HEAD is whatever the branch points at now."""
    git.commit("site", {"Dockerfile": "FROM scratch\n"})
    tip = git.commit("site", {"Dockerfile": "FROM scratch\n", "new": ""}, branch="main")
    await bench.build(bench.job("HEAD"))
    assert f"checked out {tip}" in bench.lines


@pytest.mark.parametrize(
    ("commit", "branch", "words"),
    [
        ("0" * 40, "main", "cloning failed: remote error: upload-pack: not our ref"),
        ("HEAD", "nope", "cloning failed: couldn't find remote ref refs/heads/nope"),
    ],
)
async def test_what_is_not_in_the_repository(
    bench: Bench, git: GitServer, commit: str, branch: str, words: str
) -> None:
    """L41: a fetch that failed is a failure, with Git's own words."""
    git.commit("site", {"Dockerfile": ""})
    why = await bench.failure(bench.job(commit, branch=branch))
    assert why.startswith(words)
    assert bench.left == []


async def test_a_token_that_is_not_taken(bench: Bench, git: GitServer) -> None:
    """Asked once, no prompt, and the token is in no message."""
    git.commit("site", {"Dockerfile": ""})
    git.token = "another"
    why = await bench.failure(bench.job("HEAD"))
    assert why.startswith("cloning failed: could not read Username")
    assert TOKEN not in why
    assert git.refused >= 1


async def test_a_build_that_fails(bench: Bench, git: GitServer, tools: BuildTools) -> None:
    """L42: the stage, the last lines, no secret; a line of a megabyte on the way harms nobody."""
    commit = git.commit("site", {"Dockerfile": ""})
    tools.tell(says=["x" * 1_000_000, "#9 0.123 token is sup3r-secret-of-npm", "#9 ERROR: no such file"], status=1)
    why = await bench.failure(bench.job(commit))
    assert why.startswith("building failed: no such file\n")
    assert "token is ***" in why
    assert "sup3r" not in why + "".join(bench.lines)
    assert max(map(len, bench.lines)) < 20_000


async def test_a_registry_that_has_something_else(bench: Bench, git: GitServer, tools: BuildTools) -> None:
    """L43: completed only when the registry confirms the digest."""
    commit = git.commit("site", {"Dockerfile": ""})
    tools.tell(digest="sha256:" + "0" * 64)
    assert "and sha256:" + "0" * 64 in await bench.failure(bench.job(commit))


async def test_a_build_that_takes_too_long(bench: Bench, git: GitServer, tools: BuildTools) -> None:
    """L13: ended with all of its group; the user hears how long it may take."""
    commit = git.commit("site", {"Dockerfile": ""})
    tools.tell(hangs=True)
    bench.workshop = replace(bench.workshop, limit_s=15.0)
    assert "the build took longer than" in await bench.failure(bench.job(commit))
    _all_gone(tools)


async def test_a_build_that_is_cancelled(bench: Bench, git: GitServer, tools: BuildTools) -> None:
    """L13: the whole group is ended, and the folder goes."""
    commit = git.commit("site", {"Dockerfile": ""})
    tools.tell(hangs=True)
    async with anyio.create_task_group() as tasks:
        tasks.start_soon(bench.build, bench.job(commit))
        await anyio.to_thread.run_sync(lambda: wait_for(tools.hanging.is_set, PATIENCE_S, "the build"))
        tasks.cancel_scope.cancel()
    _all_gone(tools)
    assert bench.left == []


async def test_secrets_are_in_nobodys_arguments(bench: Bench, git: GitServer, tools: BuildTools) -> None:
    """L37: of no process, at any moment of a build, as sampled; and in no file that is left."""
    commit = git.commit("site", {"Dockerfile": "", "big": os.urandom(3_000_000)})
    git.bytes_per_s = 3_000_000
    seen: set[str] = set()
    done = threading.Event()
    sampler = threading.Thread(target=_sample, args=(seen, done))
    sampler.start()
    await bench.build(bench.job(commit))
    done.set()
    sampler.join()
    assert any("git" in one and "fetch" in one for one in seen)
    assert not any(TOKEN in one or "sup3r" in one for one in seen)
    left = [path for path in bench.workshop.top.rglob("*") if path.is_file()]
    assert not any(word in path.read_bytes() for path in left for word in (TOKEN.encode(), b"sup3r"))


async def test_submodules(bench: Bench, git: GitServer, tools: BuildTools) -> None:
    """Shallow, with the same token on the same host; a scheme that is not allowed is not followed."""
    library = git.commit("library", {"lib.py": "1"})
    git.commit("site", {"Dockerfile": ""})
    git.submodule("site", "vendor/library", git.url("library"), library)
    await bench.build(bench.job("HEAD"))
    assert "source/vendor/library/lib.py" in tools.calls()[-1]["files"]
    git.submodule("site", "vendor/library", f"file://{git.directory}/library.git", library)
    assert "transport 'file' not allowed" in await bench.failure(bench.job("HEAD"))


async def test_a_dockerfile_that_is_a_link_out(bench: Bench, git: GitServer, tools: BuildTools) -> None:
    """It is none: nothing of this host is read through it."""
    git.commit("site", {"README": ""}, links={"Dockerfile": "/etc/passwd"})
    tools.remove("railpack")
    assert "the repository has no Dockerfile" in await bench.failure(bench.job("HEAD"))
    assert tools.calls() == []


async def test_nothing_that_can_build(bench: Bench, git: GitServer, tools: BuildTools) -> None:
    """BuildKit does not answer: said, in the build's own words."""
    git.commit("site", {"Dockerfile": ""})
    tools.close()
    assert "BuildKit does not answer" in await bench.failure(bench.job("HEAD"))


async def test_a_disk_that_is_full(bench: Bench, git: GitServer, tmp_path: Path) -> None:
    """The user reads so; what was written goes."""
    commit = git.commit("site", {"Dockerfile": "", "big": os.urandom(20_000_000)})
    with small_disk(tmp_path / "small", "size=4m") as disk:
        bench.workshop = replace(bench.workshop, top=disk)
        why = await bench.failure(bench.job(commit))  # Git's own words, or the sandbox was quicker
        assert "No space left on device" in why or "the disk has less than 512 MiB left" in why
        assert bench.left == []


def _all_gone(tools: BuildTools) -> None:
    def left() -> list[str]:
        return [one for one in _command_lines() if tools.marker in one or str(tools.folder) in one]

    wait_for(lambda: not left(), PATIENCE_S, "all processes of the build to end")


def _command_lines() -> Iterator[str]:
    for path in Path("/proc").glob("[0-9]*/cmdline"):
        with suppress(OSError):
            yield path.read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")


def _sample(seen: set[str], done: threading.Event) -> None:
    while not done.is_set():
        seen.update(_command_lines())
