"""`shell.children`: what is started is ended, whole, whatever happens."""

import os
import signal
from pathlib import Path
from typing import cast

import anyio
import anyio.abc
import anyio.lowlevel
import pytest

from shell import children
from shell.children import Child, answer, environment, run
from shell.failure import AdapterError
from tests.lab.process import runs
from tests.lab.wait import PATIENCE_S, wait_for
from tests.shell import virtual_time

pytestmark = pytest.mark.anyio


@pytest.fixture
def anyio_backend() -> str:
    """As in the agent."""
    return "asyncio"


def shell(text: str, folder: Path, limit_s: float = 20) -> Child:
    """A shell that does this."""
    return Child(("sh", "-c", text), folder, {"ADDED": "yes"}, limit_s)


def gone(path: Path) -> None:
    """The process whose number stands in a file ends soon."""
    wait_for(lambda: not runs(int(path.read_text())), PATIENCE_S, "the grandchild to end")


async def test_status_and_output(tmp_path: Path) -> None:
    """Both streams, in order; the folder; what was added."""
    assert await answer(shell("pwd; echo $ADDED >&2; exit 3", tmp_path)) == (3, f"{tmp_path}\nyes")
    assert await answer(shell("kill -9 $$", tmp_path)) == (-9, "")


async def test_a_command_that_is_not_there(tmp_path: Path) -> None:
    """Said by its name."""
    with pytest.raises(AdapterError, match="no-such-tool: could not run: it is not installed"):
        await answer(Child(("no-such-tool",), tmp_path, {}, 5))


@pytest.mark.parametrize("child", [(("echo", "a\0b"), {}), (("echo",), {"A": "a\0b"})])
async def test_what_no_command_can_be_given(tmp_path: Path, child: tuple[tuple[str, ...], dict[str, str]]) -> None:
    """L2: words come from outside, too; a NUL ends this command and not the agent."""
    with pytest.raises(AdapterError, match="echo: could not run: embedded null byte"):
        await answer(Child(child[0], tmp_path, child[1], 5))


async def test_more_output_than_anybody_keeps(tmp_path: Path) -> None:
    """Read to the end, so that the command can end; the beginning is kept."""
    status, said = await answer(shell("head -c 5000000 /dev/zero | tr '\\0' x; echo; echo end", tmp_path))
    assert status == 0
    assert 0 < len(said) <= 65_536


async def test_a_time_limit_ends_the_group(tmp_path: Path) -> None:
    """L13: grandchildren too, also those that do not listen."""
    text = "trap '' TERM; (trap '' TERM; sleep 600) & echo $! >pid; mv pid child; sleep 600"

    async def hear(chunk: bytes) -> None:
        raise AssertionError("it says nothing")

    for limit_s in (1, 5, 25, 125):  # a busy machine may take its time until there is a grandchild
        with pytest.raises(AdapterError, match=f"it took longer than {limit_s} s"):
            await run(shell(text, tmp_path, limit_s=limit_s), hear)
        if (tmp_path / "child").exists():
            break
    gone(tmp_path / "child")


async def test_a_cancellation_ends_the_group(tmp_path: Path) -> None:
    """And waits until it has."""

    async def hear(chunk: bytes) -> None:
        tasks.cancel_scope.cancel()

    async with anyio.create_task_group() as tasks:
        await run(shell("sleep 600 & echo $! >child; echo begun; wait", tmp_path), hear)
    gone(tmp_path / "child")


async def test_a_grandchild_that_stays_behind(tmp_path: Path) -> None:
    """It keeps the output open: not waited for long, and ended."""
    with anyio.fail_after(PATIENCE_S):
        assert await answer(shell("sleep 600 & echo $! >child; echo done", tmp_path)) == (0, "done")
    gone(tmp_path / "child")


async def test_a_grandchild_that_left_the_group(tmp_path: Path) -> None:
    """What it still holds open is let go of here at once, not when it ends: a daemon's open files never grow."""

    def open_pipes() -> set[str]:
        links = (str(path.readlink()) for path in Path("/proc/self/fd").iterdir() if path.is_symlink())
        return {link for link in links if link.startswith("pipe:")}

    before = open_pipes()
    assert await answer(
        shell(
            "setsid sh -c 'echo $$ >child; exec sleep 600' & while [ ! -s child ]; do sleep 0.01; done; echo done",
            tmp_path,
        )
    ) == (0, "done")
    await anyio.lowlevel.checkpoint()  # asyncio closes with its next turn
    left = open_pipes() - before
    os.kill(int((tmp_path / "child").read_text()), signal.SIGKILL)
    assert left == set()


def test_what_a_child_inherits(monkeypatch: pytest.MonkeyPatch) -> None:
    """L37: what tools need, and nothing of the agent's own."""
    for name in ("TECHULUS_TOKEN", "LD_PRELOAD", "GIT_DIR", "PYTHONPATH"):
        monkeypatch.setenv(name, "planted")
    monkeypatch.setenv("BUILDAH_ISOLATION", "chroot")
    monkeypatch.setenv("HTTPS_PROXY", "http://proxy.example:3128")
    found = environment({"ADDED": "1"})
    assert "planted" not in found.values()
    assert found["PATH"] == os.environ["PATH"]
    assert found["BUILDAH_ISOLATION"] == "chroot"
    assert found["HTTPS_PROXY"] == "http://proxy.example:3128"
    assert found["ADDED"] == "1"


async def test_a_slow_listener_hears_the_last_words(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L67: also when it is not done with the first ones until long after the command has ended."""
    monkeypatch.setattr(children, "_LAST_WORDS_S", 0.1)
    heard = bytearray()

    async def hear(chunk: bytes) -> None:
        if not heard:
            pid = int(chunk.split()[-1])
            (tmp_path / "go").touch()
            with anyio.fail_after(PATIENCE_S):
                while runs(pid):  # noqa: ASYNC110  # a process tells nobody
                    await anyio.sleep(0.01)
            await anyio.sleep(0.5)
        heard.extend(chunk)

    text = "echo first $$; while [ ! -e go ]; do sleep 0.01; done; yes again | head -c 30000; echo last; exit 3"
    assert await run(shell(text, tmp_path), hear) == 3
    assert heard.splitlines()[0].startswith(b"first")
    assert heard.splitlines()[-1] == b"last"


class _Silent:
    """A process that says one thing, ends after a while, and leaves somebody behind who keeps its output open."""

    def __init__(self, ends_s: float) -> None:
        self.stdout, self.ends_s, self.said = self, ends_s, False

    async def receive(self) -> bytes:
        """Once."""
        if self.said:
            await anyio.sleep_forever()
        self.said = True
        return b"said"

    async def wait(self) -> int:
        """Until its end."""
        await anyio.sleep(self.ends_s)
        return 3


def test_a_listener_that_was_slow_before_the_end_earns_no_patience() -> None:
    """Of the time that it takes, what is after the command's end is given to the last words again, and no more."""

    async def main() -> None:
        began = anyio.current_time()

        async def hear(chunk: bytes) -> None:
            await anyio.sleep(100)

        process = cast("anyio.abc.Process", _Silent(ends_s=90))
        assert await children._to_the_end(process, hear) == 3
        assert anyio.current_time() - began == pytest.approx(100 + children._LAST_WORDS_S)

    virtual_time.run(main)


async def test_what_the_listener_raises_ends_the_group(tmp_path: Path) -> None:
    """As when the control plane says that nobody wants the build any more."""

    async def hear(chunk: bytes) -> None:
        raise LookupError(chunk.decode())

    with pytest.raises(LookupError, match="begun"):
        await run(shell("sleep 600 & echo $! >child; echo begun; wait", tmp_path), hear)
    gone(tmp_path / "child")
