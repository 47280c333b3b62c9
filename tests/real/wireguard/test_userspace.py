"""The adapter on wireguard-go: what holds for both implementations, and what is its own: a process that outlives the agent."""

import os
import signal
import socket
import subprocess
import sys
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path

import pytest
from structlog.testing import capture_logs

from core.wireguard import canonical_peers
from shell.adapters.wireguard import process
from shell.adapters.wireguard.userspace import SOCKETS, listens
from shell.failure import AdapterError
from tests.lab.lease import Group, Lease
from tests.lab.process import Child, children_of
from tests.lab.wait import PATIENCE_S, wait_for
from tests.real.wireguard.checks import CHECKS, ENDPOINT_COLUMN
from tests.real.wireguard.far import ADDRESS, FarEnd, Ping
from tests.real.wireguard.tunnel import ADDRESS as OWN_ADDRESS
from tests.real.wireguard.tunnel import Tunnel, command, key, peer, same
from tests.shell import hostile

pytestmark = pytest.mark.real


@pytest.fixture
def far(tmp_path: Path, lease: Lease, tunnel: Tunnel) -> Iterator[FarEnd]:
    """The other end; `far.peer` is not yet set on the near one."""
    made = FarEnd(tmp_path, lease, tunnel)
    yield made
    made.cleanup()


@pytest.fixture
def agent(tmp_path: Path, lease: Lease, tunnel: Tunnel) -> Iterator[Callable[[], Child]]:
    """Starts an agent on the tunnel, which changes peers until it is killed; returns when it has begun."""
    started: list[Child] = []

    def start() -> Child:
        settings = tunnel.settings
        log = tmp_path / f"agent-{len(started)}.log"
        words = (
            settings.interface,
            settings.address.split(".")[2],
            str(settings.listen_port),
            settings.private_key.hex(),
        )
        child = Child((sys.executable, "-m", "tests.real.wireguard.agent", *words, str(settings.state_dir)), log)
        lease.remember(Group(child.identity))
        started.append(child)
        wait_for(lambda: "round" in log.read_text() or not child.running(), PATIENCE_S, "a first round of the agent")
        assert child.running(), child.last_words()
        return child

    yield start
    for child in started:
        child.kill()


def served_by(tunnel: Tunnel) -> int:
    """The process id of the tunnel's wireguard-go, of which there is one."""
    (found,) = process.find(tunnel.settings.binary, tunnel.name)
    return int(found.pid)


@pytest.mark.parametrize("check", CHECKS, ids=lambda check: check.__name__)
def test_userspace(check: Callable[[Tunnel], None], tunnel: Tunnel) -> None:
    """The check's own sentence says what."""
    check(tunnel)


def test_a_socket_is_there_before_anybody_listens(tunnel: Tunnel) -> None:
    """What asks in between is refused, and wg(8) takes the socket away and says that the protocol is not supported."""
    path = SOCKETS / f"{tunnel.name}.sock"
    path.parent.mkdir(exist_ok=True)
    with socket.socket(socket.AF_UNIX) as made:
        assert not listens(tunnel.name)
        made.bind(str(path))
        try:
            assert path.exists() and not listens(tunnel.name)
            made.listen()
            assert listens(tunnel.name)
        finally:
            path.unlink()


@pytest.mark.parametrize("spoil", hostile.CONTENTS)
def test_whatever_lies_in_the_place_of_the_endpoints(tunnel: Tunnel, spoil: str) -> None:
    """L60: it is moved aside with one line, the interface's own endpoints count as given, and the next update is kept."""
    one, two = peer(1), peer(2)
    tunnel.apply(one)
    path = tunnel.settings.state_dir / "endpoints.json"
    path.unlink()
    hostile.CONTENTS[spoil](path)
    again = tunnel.again()
    with capture_logs() as said:
        same(again.fetch(), (one,))
        again.apply(two)
        same(again.fetch(), canonical_peers((one, two)))
    same([(line["event"], line["path"]) for line in said], [("state file not usable", str(path))])
    assert os.path.lexists(path.with_name("endpoints.json.corrupt-1"))
    assert two.public_key in path.read_text()


def test_endpoints_of_a_newer_agent_stay(tunnel: Tunnel) -> None:
    """L60: one clear error from reading and from changing, and no other; the file and the peers stay as they are."""
    one = peer(1)
    tunnel.apply(one)
    path = tunnel.settings.state_dir / "endpoints.json"
    content = '{"version": 99, "endpoints": []}'
    path.write_text(content)
    before = tunnel.dump()
    for work in (tunnel.fetch, partial(tunnel.apply, peer(2))):
        with pytest.raises(AdapterError, match=r"endpoints\.json is of version 99, written by a newer agent"):
            work()
    same((path.read_text(), tunnel.dump()), (content, before))


def test_two_servers_reach_each_other(tunnel: Tunnel, far: FarEnd) -> None:
    """Packets pass both ways as soon as the peer is set, although the far end was never told where we are."""
    tunnel.apply(far.peer)
    command("ping", "-q", "-c", "1", "-W", "30", ADDRESS)
    far.ping_back(OWN_ADDRESS)
    same(tunnel.fetch(), (far.peer,))


def test_other_peers_come_and_go_without_a_lost_packet(tmp_path: Path, tunnel: Tunnel, far: FarEnd) -> None:
    """L20: twenty of them added, changed and removed, one at a time, during a ping every 20 ms."""
    tunnel.apply(far.peer)
    ping = Ping(tmp_path / "ping.log")
    others = tuple(peer(number) for number in range(20, 40))
    changed = tuple(replace(other, endpoint="127.0.0.1:7777", networks=other.networks[:1]) for other in others)
    for updates in (others, changed):
        for other in updates:
            tunnel.apply(other)
        same(tunnel.fetch(), canonical_peers((far.peer, *updates)))
    for other in others:
        tunnel.apply(remove=(other.public_key,))
    same(tunnel.fetch(), (far.peer,))
    assert ping.lost() == 0


def test_a_killed_agent_drops_no_packet(
    tmp_path: Path, tunnel: Tunnel, far: FarEnd, agent: Callable[[], Child]
) -> None:
    """What serves outlives the agent: one agent after another is killed in its work, the next one adopts the same wireguard-go."""
    tunnel.apply(far.peer)  # before the first agent: two writers at once are what the data directory's lock forbids
    first = agent()
    serving = served_by(tunnel)
    ping = Ping(tmp_path / "ping.log")
    first.kill()
    for _ in range(2):
        following = agent()
        ping.until(10)
        following.kill()
    assert ping.lost() == 0
    assert served_by(tunnel) == serving
    following_agent = tunnel.again()
    following_agent.apply(
        far.peer
    )  # the last one may have been killed between a peer and its route: the update puts that right
    assert far.peer in following_agent.fetch()


def test_a_killed_wireguard_go_is_seen_and_replaced(tunnel: Tunnel, far: FarEnd) -> None:
    """L4: what cannot be read is a failure and never an empty interface; the update brings interface and peers back, from any state."""
    peers = canonical_peers((far.peer, peer(2)))
    tunnel.apply(*peers)
    killed = served_by(tunnel)
    os.kill(killed, signal.SIGKILL)
    wait_for(lambda: "the interface is missing" in tunnel.trouble(), PATIENCE_S, "the interface to vanish")
    with pytest.raises(AdapterError, match="the interface is missing"):
        tunnel.fetch()
    tunnel.apply(*peers)
    same(tunnel.fetch(), peers)
    assert served_by(tunnel) != killed
    command("ping", "-q", "-c", "1", "-W", "30", ADDRESS)
    # Its parent took note of its end, or it would stand in the process list for as long as the agent runs.
    wait_for(lambda: killed not in children_of(os.getpid()), PATIENCE_S, "the end of the killed process to be noticed")


def test_a_hanging_wireguard_go_holds_nobody_up_for_long(tunnel: Tunnel) -> None:
    """L16: a read ends with its limit, and the tunnel is read again when it goes on."""
    tunnel.apply(peer(1))
    serving = served_by(tunnel)
    os.kill(serving, signal.SIGSTOP)
    try:
        assert "timed out" in tunnel.trouble()
    finally:
        os.kill(serving, signal.SIGCONT)
    same(tunnel.fetch(), (peer(1),))


def test_a_missing_wireguard_go_is_named(tunnel: Tunnel) -> None:
    """The message says what to install."""
    with pytest.raises(AdapterError, match="install the package wireguard-go"):
        tunnel.again(binary="there-is-no-wireguard-go").ensure_up()


def test_a_peer_heard_from_elsewhere_is_no_drift(tunnel: Tunnel, far: FarEnd) -> None:
    """L5: it roams, the interface follows it, and the agent leaves it where it is."""
    tunnel.apply(far.peer)
    command("ping", "-q", "-c", "1", "-W", "30", ADDRESS)
    far.change_port()
    far.ping_back(OWN_ADDRESS)
    wait_for(partial(_is_at, tunnel, f"127.0.0.1:{far.port}"), PATIENCE_S, "the interface to follow its peer")
    same(tunnel.fetch(), (far.peer,))
    tunnel.apply(peer(2))
    assert _is_at(tunnel, f"127.0.0.1:{far.port}")
    tunnel.apply(remove=(key(2),))
    same(tunnel.again().fetch(), (far.peer,))


def test_a_peer_that_roamed_and_died_is_reached_again(tunnel: Tunnel, far: FarEnd) -> None:
    """L54: its host lost its power and came back where it was expected, and says nothing by itself."""
    watching = tunnel.again(silence_s=2.0)
    watching.apply(far.peer)
    roam_and_die(tunnel, far)
    assert not answers(1), "it should be dead where it was last heard from"
    wait_for(lambda: watching.fetch() != (far.peer,), PATIENCE_S, "the peer to count as drift")
    watching.apply(far.peer)
    same(watching.fetch(), (far.peer,))
    # The session of before is given up when nothing has come back for 15 s (KEEPALIVE_TIMEOUT and REKEY_TIMEOUT).
    wait_for(lambda: answers(1), PATIENCE_S, "a ping to come back")
    same(watching.fetch(), (far.peer,))


def test_a_peer_that_roamed_and_lives_is_left_there(tunnel: Tunnel, far: FarEnd) -> None:
    """L54: as long as handshakes are completed with it; one whose endpoint was never given is never touched."""
    unknown = replace(far.peer, endpoint=None)
    watching = tunnel.again(silence_s=0.0)
    watching.apply(unknown)
    far.call(f"127.0.0.1:{tunnel.settings.listen_port}")
    far.ping_back(OWN_ADDRESS)
    same(watching.fetch(), (unknown,))
    assert _is_at(tunnel, f"127.0.0.1:{far.port}")
    patient = tunnel.again(silence_s=30.0)
    patient.apply(far.peer)
    far.change_port()
    far.ping_back(OWN_ADDRESS)
    wait_for(partial(_is_at, tunnel, f"127.0.0.1:{far.port}"), PATIENCE_S, "the interface to follow its peer")
    same(patient.fetch(), (far.peer,))


def roam_and_die(tunnel: Tunnel, far: FarEnd) -> None:
    """Have the interface follow its peer to another port, and then the peer back at its own, with no memory and nobody to call."""
    command("ping", "-q", "-c", "1", "-W", "5", ADDRESS)
    own_port = far.port
    far.change_port()
    far.ping_back(OWN_ADDRESS)
    wait_for(partial(_is_at, tunnel, f"127.0.0.1:{far.port}"), PATIENCE_S, "the interface to follow its peer")
    far.restart_at(own_port)


def answers(limit_s: int) -> bool:
    """Whether one ping comes back within so many seconds."""
    done = subprocess.run(("ping", "-q", "-c", "1", "-W", str(limit_s), ADDRESS), capture_output=True, check=False)
    return done.returncode == 0


def _is_at(tunnel: Tunnel, endpoint: str) -> bool:
    return any(row[ENDPOINT_COLUMN] == endpoint for row in tunnel.dump()[1:])
