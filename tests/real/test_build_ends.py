"""L68: builds that end early, one in its clone, one in a step, one in its push: nothing of them is left, and they say why."""

import os
import signal
import socket
import subprocess
from collections.abc import Iterator
from contextlib import ExitStack, suppress
from dataclasses import dataclass, field
from functools import partial
from pathlib import Path

import pytest

from shell.building import sandbox
from tests.lab.agent import AGENT
from tests.lab.git_server import GitServer
from tests.lab.registry import Registry
from tests.lab.wait import WaitedTooLongError, wait_for

pytestmark = [pytest.mark.real, pytest.mark.timeout(600)]

_PATIENCE_S = 180
_STEP = f"RUN echo in its middle; sleep 986{os.getpid()}"
_BEGUN = {"cloning": "== cloning", "building": "in its middle", "pushing": "== pushing"}
_BUILDERS = {"git", "git-remote-http", "buildah", "podman"}


@dataclass
class Halted:
    """Three builds, each a process of `agent build` with a data folder of its own, that come to a halt in the stage they are called by."""

    folder: Path
    children: dict[str, subprocess.Popen[bytes]] = field(default_factory=dict)
    groups: list[Path] = field(default_factory=list)

    def begin(self, stage: str, *arguments: str) -> None:
        """Begin one of them."""
        usual = ("--data-dir", str(self.folder / stage), "--builder", "podman", "--build-allow-scheme", "http")
        # Whoever runs the tests in the background ignores Ctrl-C, and so would the build.
        argv = ("env", "--default-signal=INT", str(AGENT), "build", *usual, *arguments)
        with self._log(stage).open("wb") as log:
            self.children[stage] = subprocess.Popen(argv, stdout=log, stderr=log)

    def said(self, stage: str) -> str:
        """What it said."""
        return self._log(stage).read_text()

    def wait_in_the_middle(self) -> None:
        """Until each is where it halts."""
        for stage, line in _BEGUN.items():
            wait_for(partial(self._has_said, stage, line), _PATIENCE_S, f"a build to be {stage}")
            wait_for(partial(self.builders, stage), _PATIENCE_S, f"what is {stage}")
        self.groups = [group for stage in self.children for group in self._groups(stage)]

    def _has_said(self, stage: str, line: str) -> bool:
        return line in self.said(stage).splitlines()

    def builders(self, stage: str) -> list[int]:
        """What does the work of this build: Git, or buildah."""
        found = []
        for group in self._groups(stage):
            with suppress(OSError):
                found += [int(one) for one in (group / "cgroup.procs").read_text().split()]
        return [pid for pid in {*found} if _name(pid) in _BUILDERS]

    def left(self) -> list[str]:
        """Processes, mounts, control groups, and what a build's folder held but its record."""
        found = [str(one) for one in self.groups if one.exists()]
        found += [str(one) for one in self.folder.glob("*/builds/build-*/[gst]*")]  # guest, git, secrets, tmp
        for path in Path("/proc").glob("[0-9]*"):
            with suppress(OSError):
                words = (path / "cmdline").read_bytes().replace(b"\0", b" ").decode("utf-8", "replace")
                if f"986{os.getpid()}" in words or str(self.folder) in words:
                    found.append(words)
                found += [one for one in (path / "mountinfo").read_text().splitlines() if str(self.folder) in one]
        return found

    def wait_for_nothing_left(self) -> None:
        """Or say what is."""
        with suppress(WaitedTooLongError):
            wait_for(lambda: not self.left(), _PATIENCE_S, "nothing to be left")
        assert self.left() == []

    def _log(self, stage: str) -> Path:
        return self.folder / f"{stage}.log"

    def _groups(self, stage: str) -> list[Path]:
        names = [sandbox._name(one) for one in (self.folder / stage / "builds").glob("build-*")]
        groups = Path("/sys/fs/cgroup")
        return [one for name in names for how in ("", "*/") for one in groups.glob(f"{how}techulus-builds/{name}")]


def _name(pid: int) -> str:
    with suppress(OSError):
        return Path(f"/proc/{pid}/comm").read_text().strip()
    return ""


@pytest.fixture
def sources(private_network: None, registry: Registry, tmp_path: Path) -> Iterator[dict[str, tuple[str, str]]]:
    """By stage, a repository and an image's name with which a build halts in it."""
    with ExitStack() as open_ones:
        slow, git = (open_ones.enter_context(GitServer(tmp_path / name)) for name in ("slow", "git"))
        slow.commit("site", {"Dockerfile": "FROM scratch\n"}, zeros={"big": 100_000_000})
        slow.bytes_per_s = 100_000
        base = f"FROM {registry.offer('web')}\n"
        git.commit("step", {"Dockerfile": base + _STEP})
        git.commit("push", {"Dockerfile": base + "RUN true\n"})
        silent = open_ones.enter_context(socket.create_server(("127.0.0.1", 0)))
        good, bad = f"{registry.address}/lab/site:1", f"127.0.0.1:{silent.getsockname()[1]}/lab/site:1"
        yield {
            "cloning": (slow.url("site"), good),
            "building": (git.url("step"), good),
            "pushing": (git.url("push"), bad),
        }


@pytest.fixture
def halted(sources: dict[str, tuple[str, str]], tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Halted]:
    """All three where they halt."""
    monkeypatch.setenv("BUILDAH_RUNTIME", "runc")
    made = Halted(tmp_path)
    insecure = tuple(word for _, image in sources.values() for word in ("--insecure-registry", image.split("/")[0]))
    try:
        for stage, (repository, image) in sources.items():
            made.begin(stage, "--repo", repository, "--image", image, *insecure)
        made.wait_in_the_middle()
        yield made
    finally:
        for child in made.children.values():
            child.kill()
            child.wait()


@pytest.mark.parametrize(
    "way", [signal.SIGINT, signal.SIGTERM, signal.SIGKILL], ids=["interrupted", "cancelled", "killed"]
)
def test_whose_agent_is_told_to_end(halted: Halted, way: signal.Signals) -> None:
    """By a person, by the control plane's cancellation (the same path), and without a word."""
    for child in halted.children.values():
        child.send_signal(way)
        child.send_signal(way)  # whoever is impatient
    for stage, child in halted.children.items():
        assert child.wait(_PATIENCE_S) != 0
        assert way is signal.SIGKILL or "nothing of the build is left" in halted.said(stage)
    halted.wait_for_nothing_left()


def test_whose_builder_is_killed(halted: Halted) -> None:
    """Git, or buildah: the build fails in its stage."""
    for stage in halted.children:
        for pid in halted.builders(stage):
            with suppress(ProcessLookupError):  # one falls with the other
                os.kill(pid, signal.SIGKILL)
    for stage, child in halted.children.items():
        assert child.wait(_PATIENCE_S) == 1
        assert f"{stage} failed: " in halted.said(stage)
    halted.wait_for_nothing_left()
