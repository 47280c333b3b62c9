"""A server for DNS: resolvers of its own, a place for our files, and our adapter."""

import shutil
import subprocess
import tempfile
from collections.abc import Iterator
from functools import partial
from pathlib import Path

import anyio
import pytest

from shell.adapters.dnsmasq import Dnsmasq, DnsmasqSettings
from tests.lab.process import Child
from tests.lab.wait import PATIENCE_S, wait_for
from tests.real.dnsmasq.server import GATEWAY, LIMITS, OUTSIDE, UPSTREAMS, answers, ours

_UPSTREAM = """\
port=53
listen-address={address}
bind-interfaces
no-resolv
no-hosts
user=root
address=/#/{answer}
log-queries
log-facility=-
pid-file=
"""


@pytest.fixture(autouse=True)
def patience(monkeypatch: pytest.MonkeyPatch) -> None:
    """The adapter waits long enough for a machine that stands still for seconds: the agent tries again, and these tests do not.

    `agents_limits` gives it its own again, where a test is about them.
    """
    for module, name in LIMITS:
        monkeypatch.setattr(module, name, PATIENCE_S)


@pytest.fixture
def folder() -> Iterator[Path]:
    """In memory, as on a server; and not pytest's own, which is closed to the user that dnsmasq becomes."""
    path = Path(tempfile.mkdtemp(prefix="agent-dns-", dir="/dev/shm"))
    path.chmod(0o755)
    yield path
    shutil.rmtree(path)


@pytest.fixture
def upstreams(folder: Path) -> Iterator[dict[str, Child]]:
    """Two resolvers of this server, each with one answer for everything, and logs of what they were asked."""
    children = {}
    for address in UPSTREAMS:
        configuration = folder / f"{address}.conf"
        configuration.write_text(_UPSTREAM.format(address=address, answer=OUTSIDE[address]))
        command = ("/usr/sbin/dnsmasq", "--keep-in-foreground", f"--conf-file={configuration}")
        children[address] = Child(command, folder / f"{address}.log")
    for address in UPSTREAMS:
        wait_for(partial(answers, address, "ready.example"), PATIENCE_S, f"the resolver at {address}")
    yield children
    for child in children.values():
        child.stop()


@pytest.fixture
def settings(folder: Path, upstreams: dict[str, Child]) -> DnsmasqSettings:
    """A server whose resolver is the first one, and that has no systemd-resolved."""
    (folder / "resolv.conf").write_text(f"nameserver {UPSTREAMS[0]}\n")
    return DnsmasqSettings(
        gateway=GATEWAY,
        directory=folder / "run" / "dns",
        resolv_conf=folder / "resolv.conf",
        resolved=folder / "resolve",
        resolved_drop_ins=folder / "resolved.conf.d",
    )


@pytest.fixture
def adapter(settings: DnsmasqSettings) -> Iterator[Dnsmasq]:
    """Ended, with whatever other configuration it then has, after the test."""
    adapter = Dnsmasq(settings)
    yield adapter
    anyio.run(adapter.stop)
    assert ours(settings) == []


@pytest.fixture
def bridge() -> Iterator[str]:
    """The name of the containers' bridge, which the test makes and removes."""
    yield "dnsbridge0"
    subprocess.run(("ip", "link", "delete", "dnsbridge0"), check=False, capture_output=True)
