"""The lab itself: what it builds works, and nothing of it stays."""

import signal
import socket
import subprocess
import sys
import threading
from contextlib import ExitStack
from datetime import timedelta
from pathlib import Path

import psutil
import pytest

from tests.lab.agents_podman import page
from tests.lab.certificates import self_signed
from tests.lab.https_client import HttpsClient
from tests.lab.images import custom_image, image
from tests.lab.podman_store import PodmanStore
from tests.lab.ports import free_port
from tests.lab.process import LabError, commands_about, run
from tests.lab.registry import PASSWORD, USER, Registry
from tests.lab.relay import Relay
from tests.lab.server import LabServer
from tests.lab.switch import Switch
from tests.lab.wait import PATIENCE_S, WaitedTooLongError, wait_for

pytestmark = pytest.mark.real

_OWNER = """
import sys
from pathlib import Path
from tests.lab.agents_podman import page
from tests.lab.images import image
from tests.lab.podman_store import PodmanStore
from tests.lab.private_network import enter_private_network

enter_private_network()
store = PodmanStore(Path(sys.argv[1]))
store.start()
store.cli("run", "--detach", store.load(image("stubborn")))
print("up", flush=True)
sys.stdin.read()
"""

_DRAW = """
import sys
from tests.lab.ports import free_port

print(*(free_port() for _ in range(50)), flush=True)
sys.stdin.read()
"""


def test_ports_are_given_out_once() -> None:
    """Not to two callers, not to two processes, and none that the kernel may give to a connection meanwhile."""
    with ExitStack() as stack:
        children = [
            stack.enter_context(
                subprocess.Popen((sys.executable, "-c", _DRAW), stdin=subprocess.PIPE, stdout=subprocess.PIPE)
            )
            for _ in range(2)
        ]
        drawn = [int(word) for child in children if child.stdout for word in child.stdout.readline().split()]
        drawn += [free_port() for _ in range(50)]
        for child in children:
            child.communicate()
    assert len(set(drawn)) == len(drawn) == 150
    first_of_connections = int(Path("/proc/sys/net/ipv4/ip_local_port_range").read_text().split()[0])
    assert max(drawn) < first_of_connections


def test_a_port_that_somebody_listens_on_is_left_out() -> None:
    """Also by a listener on all addresses."""
    taken = free_port()
    with socket.create_server(("0.0.0.0", taken)):
        assert taken not in [free_port() for _ in range(200)]


def test_a_container_is_reached_at_its_static_address(store: PodmanStore, registry: Registry) -> None:
    """Pulled from the registry, and served from the agent's network."""
    container = _run_web(store, registry.offer("web", "v2"), 5)
    assert _page(store, 5) == "v2\n"
    assert _page(store, 5, "hostname").strip() == container[:12]


def test_two_stores_do_not_meet(store: PodmanStore, registry: Registry, tmp_path: Path) -> None:
    """Same network name and container name, other bridge and subnet; the end of one leaves the other alone."""
    _run_web(store, registry.offer("web", "v1"), 5)
    with PodmanStore(tmp_path / "other") as other:
        other.trust_registry(registry.address)
        _run_web(other, registry.offer("web", "v2"), 5)
        assert (_page(store, 5), _page(other, 5)) == ("v1\n", "v2\n")
    assert _page(store, 5) == "v1\n"


def test_a_store_leaves_nothing_behind(registry: Registry, tmp_path: Path) -> None:
    """No process, mount, bridge, firewall rule, control group or file."""
    before = _traces(tmp_path)
    with PodmanStore(tmp_path / "store") as store:
        store.trust_registry(registry.address)
        container = _run_web(store, registry.offer("web"), 5)
        assert {kind for kind, _ in _traces(tmp_path) - before} == {"process", "link", "rule"}
        assert _cgroups(container)
    # The kernel takes links away in its own time.
    wait_for(lambda: _traces(tmp_path) <= before, PATIENCE_S, f"the last trace to vanish; {_traces(tmp_path) - before}")
    assert _cgroups(container) == []
    assert not (tmp_path / "store").exists()


def test_what_a_killed_owner_left_goes_with_the_next_store(tmp_path: Path) -> None:
    """The owner has no chance to clean up; the next store to start does it."""
    owner = subprocess.Popen(
        (sys.executable, "-c", _OWNER, str(tmp_path / "left")), stdin=subprocess.PIPE, stdout=subprocess.PIPE
    )
    with owner:
        assert owner.stdout is not None
        assert owner.stdout.readline() == b"up\n"
        owner.send_signal(signal.SIGKILL)
    assert _processes(tmp_path)
    with PodmanStore(tmp_path / "next"):
        assert _processes(tmp_path / "left") == []
        assert not (tmp_path / "left").exists()


def test_the_service_dies_and_the_containers_go_on(store: PodmanStore, registry: Registry) -> None:
    _run_web(store, registry.offer("web"), 5)
    store.kill()
    assert not store.answers()
    assert store.socket_path.exists()
    assert _page(store, 5) == "v1\n"
    store.start()
    store.hang()
    assert not store.answers()
    store.resume()
    wait_for(store.answers, PATIENCE_S, "an answer")
    store.stop()
    assert not store.socket_path.exists()


def test_after_a_power_cut_containers_are_there_and_do_not_run(store: PodmanStore, registry: Registry) -> None:
    container = _run_web(store, registry.offer("web"), 5)
    store.power_off()
    store.start()
    assert store.cli("inspect", "--format", "{{.State.Status}}", container).strip() == "created"
    store.cli("start", container)
    assert _page(store, 5) == "v1\n"


def test_a_small_disk_gets_full(registry: Registry, tmp_path: Path) -> None:
    big = registry.push(custom_image("big", "v1", ("true",), payload_bytes=8_000_000))
    with PodmanStore(tmp_path / "store", disk_size_bytes=6_000_000) as store:
        store.trust_registry(registry.address)
        with pytest.raises(LabError, match="no space left"):
            store.cli("pull", big)


def test_a_tag_is_moved(registry: Registry) -> None:
    first, second = registry.offer("web", "v1"), registry.offer("web", "v2")
    moving = registry.retag(first, "moving")
    assert registry.digest(moving) == registry.digest(first)
    registry.retag(second, "moving")
    assert registry.digest(moving) == registry.digest(second) != registry.digest(first)


def test_a_protected_registry_wants_a_login(store: PodmanStore, tmp_path: Path) -> None:
    with Registry(tmp_path / "registry", protected=True) as protected:
        store.trust_registry(protected.address)
        reference = protected.push(image("web"))
        with pytest.raises(LabError, match="unauthorized"):
            store.cli("pull", reference)
        store.cli("pull", "--creds", f"{USER}:{PASSWORD}", reference)


def test_a_pull_through_a_relay_hangs_and_goes_on(store: PodmanStore, registry: Registry) -> None:
    with Relay((registry.host, registry.port)) as relay:
        store.trust_registry(relay.address)
        reference = registry.offer("web").replace(registry.address, relay.address)
        relay.hang()
        with pytest.raises(LabError, match="longer than"):
            store.cli("pull", reference, timeout_s=0.5)
        relay.flow(bytes_per_s=10_000_000)
        store.cli("pull", reference)


def test_servers_reach_each_other_until_the_cable_is_cut(switch: Switch, tmp_path: Path) -> None:
    """Each has its own Podman, and a server that lost its power comes back with its address."""
    with LabServer(tmp_path / "1", switch, 1) as one, LabServer(tmp_path / "2", switch, 2) as two:
        assert switch.plug_this_process() == "192.168.77.254"
        wait_for(lambda: _reaches(one, two.address), PATIENCE_S, "the other server")
        wait_for(lambda: _reaches(two, "192.168.77.254"), PATIENCE_S, "this process")
        switch.cut(2)
        wait_for(lambda: not _reaches(one, two.address), PATIENCE_S, "the cable to be cut")
        switch.mend(2)
        wait_for(lambda: _reaches(one, two.address), PATIENCE_S, "the cable to be there again")
        two.power_off()
        # Without a single process it answers until the kernel has taken its network away.
        wait_for(lambda: not _reaches(one, two.address), PATIENCE_S, "the network of the server that is off to vanish")
        two.start()
        wait_for(lambda: _reaches(one, two.address), PATIENCE_S, "the server to be back")
        two.cli("run", "--detach", "--name", "only-here", two.load(image("web")))
        assert one.cli("ps", "--quiet") == ""
        assert two.run(("podman", "--url", "unix:///run/podman/podman.sock", "ps", "--quiet")) != ""


def test_a_process_without_words_is_found_by_its_folder(tmp_path: Path) -> None:
    """Every process is one for a moment, when it is started and when it ends."""
    with subprocess.Popen([""], executable="/usr/bin/cat", stdin=subprocess.PIPE, cwd=tmp_path) as wordless:
        assert wait_for(lambda: commands_about(tmp_path) == [("",)], PATIENCE_S, "it to have no words")
        wordless.kill()


def test_waiting_ends() -> None:
    with pytest.raises(WaitedTooLongError, match=r"waited 0\.0 s for nothing; last answer: 0"):
        wait_for(lambda: 0, 0.01, "nothing")


def _run_web(store: PodmanStore, reference: str, host: int) -> str:
    store.cli("network", "create", "--subnet", store.subnet, "--disable-dns", store.network)
    network = ("--network", store.network, "--ip", store.address(host))
    return store.cli("run", "--detach", "--name", "web", *network, reference).strip()


def _page(store: PodmanStore, host: int, path: str = "") -> str:
    return page(store.address(host), path)


def _reaches(server: LabServer, address: str) -> bool:
    return "1 received" in server.run(("sh", "-c", f"ping -c 1 -W 1 {address} || true"))


def _processes(folder: Path) -> list[int]:
    """All processes with the folder in their command line."""
    found = psutil.process_iter(("cmdline",))
    return [process.pid for process in found if any(str(folder) in word for word in process.info["cmdline"] or ())]


def _traces(folder: Path) -> set[tuple[str, str]]:
    """Kind and name of what is there now: processes, mounts, links and firewall rules."""
    mounts = [line for line in Path("/proc/self/mounts").read_text().splitlines() if str(folder) in line]
    rules = [line for line in run(("iptables-save",)).splitlines() if "10.200." in line]
    found = {
        "process": [str(pid) for pid in _processes(folder)],
        "mount": mounts,
        "link": [line.split()[0] for line in run(("ip", "-brief", "link")).splitlines()],
        "rule": rules,
    }
    return {(kind, name) for kind, names in found.items() for name in names}


def _cgroups(container: str) -> list[Path]:
    return [folder for folder in Path("/sys/fs/cgroup").glob("*/libpod_parent/*") if container in folder.name]


def test_a_certificate_of_this_very_second_is_taken(tmp_path: Path) -> None:
    """Caddy's clock may be in the next second already."""
    root, context = self_signed(tmp_path, "app.test", age=timedelta(seconds=-60))
    with socket.create_server(("127.0.0.1", 0)) as listener:

        def serve() -> None:
            with context.wrap_socket(listener.accept()[0], server_side=True) as stream:
                stream.recv(4096)
                stream.sendall(b"HTTP/1.1 200 OK\r\nContent-Length: 4\r\n\r\nmade")

        thread = threading.Thread(target=serve, daemon=True)
        thread.start()
        with HttpsClient(listener.getsockname()[1], "app.test", root) as client:
            assert client.get().body == "made"
        thread.join(PATIENCE_S)
