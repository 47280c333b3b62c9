"""The real dnsmasq as a process: dead, adopted, replaced, and outliving the agent."""

import os
import signal
import socket
import subprocess
import sys
from dataclasses import replace
from pathlib import Path

import anyio
import psutil
import pytest

from core import dnsmasq as texts
from shell.adapters.dnsmasq import Dnsmasq, DnsmasqSettings
from shell.failure import AdapterError
from tests.lab.wait import PATIENCE_S, wait_for
from tests.real.dnsmasq.server import GATEWAY, LOOPBACK, RECORDS, WEB, agents_limits, ask, ours, pid

pytestmark = pytest.mark.real

_AGENT = """
import sys
from pathlib import Path
import anyio
from core.dns import Record
from shell.adapters.dnsmasq import Dnsmasq, DnsmasqSettings
from tests.lab.wait import PATIENCE_S
from tests.real.dnsmasq.server import LIMITS

for module, name in LIMITS:
    setattr(module, name, PATIENCE_S)
folder = Path(sys.argv[1])
settings = DnsmasqSettings(gateway=sys.argv[2], directory=folder / "run" / "dns", resolv_conf=folder / "resolv.conf",
                           resolved=folder / "resolve", resolved_drop_ins=folder / "resolved.conf.d")
anyio.run(Dnsmasq(settings).apply, (Record("web.internal", ("10.200.1.2", "10.200.2.2", "10.200.3.2")),))
print("applied", flush=True)
sys.stdin.read()
"""


def test_a_dead_dnsmasq_is_seen_and_brought_up(adapter: Dnsmasq, settings: DnsmasqSettings) -> None:
    """L4: killed behind the agent's back, then dead as it never started."""
    with pytest.raises(AdapterError):
        anyio.run(adapter.fetch)
    anyio.run(adapter.apply, RECORDS)
    before = pid(settings)
    os.kill(before, signal.SIGKILL)
    wait_for(lambda: not ours(settings), PATIENCE_S, "the end of dnsmasq")
    with pytest.raises(AdapterError, match="does not run"):
        anyio.run(adapter.fetch)
    anyio.run(adapter.apply, RECORDS)
    assert anyio.run(adapter.fetch) == RECORDS
    assert pid(settings) != before


def test_a_stopped_dnsmasq_is_seen_within_seconds(adapter: Dnsmasq, settings: DnsmasqSettings) -> None:
    """L13: a process that hangs holds nothing up, and cannot be read."""
    anyio.run(adapter.apply, RECORDS)
    os.kill(pid(settings), signal.SIGSTOP)
    try:
        with agents_limits(), pytest.raises(AdapterError, match="does not answer"):
            anyio.run(_within, PATIENCE_S, adapter)
    finally:
        os.kill(pid(settings), signal.SIGCONT)


def test_the_next_agent_adopts_what_runs(adapter: Dnsmasq, settings: DnsmasqSettings) -> None:
    """The same process, whether the next agent only looks or changes something."""
    anyio.run(adapter.apply, RECORDS)
    before = pid(settings)
    following = Dnsmasq(settings)
    assert anyio.run(following.fetch) == RECORDS
    anyio.run(following.apply, (WEB,))
    assert anyio.run(following.fetch) == (WEB,)
    assert ours(settings) == [before]


def test_another_configuration_replaces_it(adapter: Dnsmasq, settings: DnsmasqSettings) -> None:
    """Only then is it restarted, and nothing of the old one stays."""
    anyio.run(adapter.apply, RECORDS)
    before = pid(settings)
    following = Dnsmasq(replace(settings, loopback="127.0.0.154"))
    with pytest.raises(AdapterError, match="does not run with our configuration"):
        anyio.run(following.fetch)
    anyio.run(following.apply, RECORDS)
    assert anyio.run(following.fetch) == RECORDS
    assert ask("web.internal", server="127.0.0.154") == ("NOERROR", set(WEB.ips))
    assert ours(settings) == [pid(settings)] != [before]
    assert len(list(settings.directory.glob("*.conf"))) == 1


def test_a_configuration_edited_by_hand_is_put_right(adapter: Dnsmasq, settings: DnsmasqSettings) -> None:
    """L4: it would open the resolver to the world with the next start."""
    anyio.run(adapter.apply, RECORDS)
    (configuration,) = settings.directory.glob("*.conf")
    configuration.write_text("port=53\n")
    with pytest.raises(AdapterError):
        anyio.run(adapter.fetch)
    anyio.run(adapter.apply, RECORDS)
    assert anyio.run(adapter.fetch) == RECORDS


@pytest.mark.parametrize("content", ["", "no number", "-5", "0", "1", "99999999", "own", "9" * 40])
def test_a_pid_file_that_lies_is_not_believed(adapter: Dnsmasq, settings: DnsmasqSettings, content: str) -> None:
    """A stale one, and a number that belongs to somebody else now, who is left alone."""
    settings.directory.mkdir(parents=True)
    (settings.directory / "dnsmasq.pid").write_text(str(os.getpid()) if content == "own" else content)
    with pytest.raises(AdapterError):
        anyio.run(adapter.fetch)
    anyio.run(adapter.apply, RECORDS)
    assert anyio.run(adapter.fetch) == RECORDS


def test_dnsmasq_outlives_a_killed_agent(adapter: Dnsmasq, settings: DnsmasqSettings, folder: Path) -> None:
    """The agent's whole process group is killed; dnsmasq goes on, and the next agent adopts it."""
    agent = subprocess.Popen(
        (sys.executable, "-c", _AGENT, str(folder), GATEWAY),
        stdin=subprocess.PIPE,
        stdout=subprocess.PIPE,
        text=True,
        start_new_session=True,
    )
    with agent:
        assert agent.stdout is not None
        assert agent.stdout.readline() == "applied\n"
        before = pid(settings)
        os.killpg(agent.pid, signal.SIGKILL)
    assert ask("web.internal") == ("NOERROR", set(WEB.ips))
    assert anyio.run(adapter.fetch) == (WEB,)
    anyio.run(adapter.apply, RECORDS)
    assert ours(settings) == [before]


def test_nothing_of_the_agent_is_held_open(adapter: Dnsmasq, settings: DnsmasqSettings, folder: Path) -> None:
    """No file, folder, session or terminal of the agent's: its lock and its disk are free when it is gone."""
    with (folder / "lock").open("w"):
        anyio.run(adapter.apply, RECORDS)
    process = psutil.Process(pid(settings))
    assert process.cwd() == "/"
    assert {Path(one.path).name for one in process.open_files()} <= {"dnsmasq.log"}
    assert os.getsid(process.pid) != os.getsid(0)
    assert process.username() == "dnsmasq"


def test_a_missing_dnsmasq_is_said_with_what_to_install(settings: DnsmasqSettings) -> None:
    """L16: the part is missing, is said, and can be tried again."""
    adapter = Dnsmasq(replace(settings, binary=Path("/usr/sbin/no-such-dnsmasq")))
    with pytest.raises(AdapterError, match=r"no-such-dnsmasq is not installed; install the package dnsmasq-base"):
        anyio.run(adapter.apply, RECORDS)


def test_a_configuration_that_dnsmasq_refuses_costs_nothing(adapter: Dnsmasq, settings: DnsmasqSettings) -> None:
    """It is tried out while the old one serves."""
    anyio.run(adapter.apply, RECORDS)
    before = pid(settings)
    with pytest.raises(AdapterError, match="check its configuration"):
        anyio.run(Dnsmasq(replace(settings, port=99999)).apply, RECORDS)
    assert ours(settings) == [before]
    assert ask("web.internal") == ("NOERROR", set(WEB.ips))


def test_an_address_in_use_is_said(adapter: Dnsmasq) -> None:
    """With dnsmasq's own words, since another server would answer instead."""
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as other:
        other.bind((LOOPBACK, 53))
        with pytest.raises(AdapterError, match="in use"):
            anyio.run(adapter.apply, RECORDS)
    anyio.run(adapter.apply, RECORDS)
    assert anyio.run(adapter.fetch) == RECORDS


def test_the_log_is_bounded(adapter: Dnsmasq, settings: DnsmasqSettings) -> None:
    """Cut under the running dnsmasq, which goes on at its new end."""
    anyio.run(adapter.apply, RECORDS)
    log = settings.directory / "dnsmasq.log"
    with log.open("a") as file:
        file.write("x" * 2_000_000)
    anyio.run(adapter.apply, (WEB,))
    wait_for(lambda: "3 names" in log.read_text() or "4 names" in log.read_text(), PATIENCE_S, "the log to go on")
    assert log.stat().st_size < 10_000


def test_the_unit_is_one_that_systemd_takes(tmp_path: Path) -> None:
    """Not run here, but read by systemd's own verifier, which warns of what it does not know."""
    unit = tmp_path / "techulus-dnsmasq.service"
    unit.write_text(
        texts.render_unit(texts.command("/usr/sbin/dnsmasq", "/run/a/dnsmasq-1.conf"), "/run/a/dnsmasq.pid")
    )
    verified = subprocess.run(("systemd-analyze", "verify", str(unit)), capture_output=True, text=True, timeout=30)
    assert (verified.returncode, verified.stderr) == (0, "")


async def _within(limit_s: float, adapter: Dnsmasq) -> None:
    with anyio.fail_after(limit_s):
        await adapter.fetch()
