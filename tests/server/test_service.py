"""The agent as the installer leaves it under a real systemd: its life as a service, and upgrades that nobody notices."""

import re
import threading
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from tests.lab.agent import Plane
from tests.lab.bundles import Bundle, another
from tests.lab.images import custom_image, image
from tests.lab.log_store import LogStore
from tests.lab.registry import Registry
from tests.lab.systemd_host import SystemdHost
from tests.lab.wait import PATIENCE_S, wait_for

# The first test on a machine makes its Debian.
pytestmark = [pytest.mark.real, pytest.mark.timeout(3600)]

UNIT = "techulus-agent.service"
UNIT_FILE = f"/etc/systemd/system/{UNIT}"
_BUILDS = ("systemctl", "list-units", "--plain", "--no-legend", "--state=active", "techulus-build-*")
INSTALL = "/mnt/bundle/install.sh"
DROP_IN = "/run/systemd/system/techulus-agent.service.d"
_PATIENCE_S = 180
_COUNT = "i=0; while :; do i=$((i+1)); echo line $i; sleep 0.05; done & trap 'exit 0' TERM; wait"


@pytest.fixture
def plane(host: SystemdHost, tmp_path: Path) -> Iterator[Plane]:
    """A control plane that the server reaches over its wire."""
    with Plane(tmp_path / "plane", host.host_address) as running:
        yield running


def installed(host: SystemdHost, plane: Plane, **more: str) -> str:
    """What the installer says."""
    given = {
        "CONTROL_PLANE_URL": plane.url,
        "REGISTRATION_TOKEN": plane.token("one", host.subnet_id),
        "TECHULUS_ALLOW_HTTP": "true",
        "TECHULUS_PUBLIC_IP_SERVICE": "none",
        "TECHULUS_PULL_POLICY": "missing",  # its images were loaded: it has no registry
    }
    return host.run(INSTALL, env={**given, **more})


def running(host: SystemdHost) -> list[str]:
    """The containers that run, each with its process and the time of its start."""
    said = host.run("podman", "ps", "--quiet", "--no-trunc")
    ids = sorted(said.split())
    if not ids:
        return []
    return sorted(
        host.run("podman", "inspect", "--format", "{{.Name}} {{.State.Pid}} {{.State.StartedAt}}", *ids).splitlines()
    )


def wait_running(host: SystemdHost, count: int) -> list[str]:
    """Once so many run."""
    wait_for(lambda: len(running(host)) == count, _PATIENCE_S, f"{count} containers")
    return running(host)


def ended_and_restarted(host: SystemdHost, signal: str) -> None:
    """Send the agent a signal; returns once systemd has started another in its place, and that is ready."""
    before = host.show(UNIT, "MainPID")
    host.run("systemctl", "kill", f"--signal={signal}", "--kill-whom=main", UNIT)
    wait_for(
        lambda: host.show(UNIT, "MainPID") not in (before, "0") and host.show(UNIT, "ActiveState") == "active",
        _PATIENCE_S,
        "a restart",
    )


def it_is_hardened(host: SystemdHost) -> None:
    """The unit's exposure by systemd's own measure (here in tenths), and what of it a kernel shows of the process."""
    host.run("systemd-analyze", "security", "--offline=yes", "--threshold=50", UNIT_FILE)
    agent = host.show(UNIT, "MainPID")
    status = host.run("cat", f"/proc/{agent}/status")
    assert "Seccomp:\t2" in status and "NoNewPrivs:\t1" in status
    assert host.run("readlink", f"/proc/{agent}/ns/mnt") != host.run("readlink", "/proc/1/ns/mnt")


def a_build_is_a_unit_of_its_own(host: SystemdHost, registry: Registry) -> None:
    """L65, L68: in the builds' slice, with bounds; it is gone as soon as who has asked for it is."""
    step = "RUN hostname; echo it is built; if [ -e wait ]; then sleep 600; fi"
    host.run(
        "sh",
        "-ec",
        f"""
        git init --quiet --initial-branch=main /srv/site && cd /srv/site
        printf 'FROM {registry.offer("web")}\nCOPY . /\n{step}\n' >Dockerfile
        commit() {{ git add . && git -c user.name=t -c user.email=t@t commit --quiet --message site; }}
        commit && git checkout --quiet -b slow && touch wait && commit""",
    )
    build = "agent build --repo file:///srv/site --build-allow-scheme file --builder podman --build-memory-mib 300"
    build += f" --insecure-registry {registry.address} --image {registry.address}/site:1"
    build += " --data-dir /var/lib/containers/by-hand"  # the only place that is no overlay
    said = host.run("sh", "-c", f"{build} --branch main 2>&1")
    assert "it is built" in said and f"{registry.address}/site:1@sha256:" in said, said
    host.run("sh", "-c", f"setsid {build} --branch slow >/tmp/slow.log 2>&1 & echo $! >/tmp/slow.pid")
    wait_for(lambda: "it is built" in host.run("cat", "/tmp/slow.log"), _PATIENCE_S, "the step")
    (unit,) = host.run(*_BUILDS).split("\n")[0].split()[:1]
    assert host.show(unit, "Slice") == "techulus-builds.slice"
    assert host.show(unit, "MemoryMax") == str(300 * 1024**2)
    assert host.show("techulus.slice", "CPUWeight") == "20"
    host.run("sh", "-c", "kill -9 $(cat /tmp/slow.pid)")
    wait_for(lambda: not host.run(*_BUILDS).strip(), _PATIENCE_S, "the unit to end")
    assert host.ask("sh", "-c", "ps ax | grep '[s]leep 600'")[0] == 1
    assert "build-" not in host.run("cat", "/proc/self/mountinfo")


def what_ends_it_ends_nothing_else(host: SystemdHost) -> None:
    """SIGKILL and a hang end in a restart; containers, tunnel and names go on, and are known again (L5)."""
    there, around = running(host), components(host)
    assert "wireguard-go" in str(around) and "dnsmasq" in str(around)
    # As they are, these take ten seconds and a minute.
    settings = "RestartSec=1\\nWatchdogSec=2\\nTimeoutAbortSec=1\\n"
    host.run("sh", "-c", f"mkdir {DROP_IN}; printf '[Service]\\n{settings}' >{DROP_IN}/quick.conf")
    host.run("sh", "-c", f"systemctl daemon-reload && systemctl restart {UNIT}")
    ended_and_restarted(host, "KILL")
    ended_and_restarted(host, "STOP")
    assert "Watchdog timeout" in host.run("journalctl", "--unit", UNIT)
    assert (running(host), components(host)) == (there, around)
    # Two seconds are soon over on a busy machine: from here on a restart would be its fault.
    host.run("sh", "-c", f"rm -r {DROP_IN}; systemctl daemon-reload && systemctl restart {UNIT}")


def a_flushed_firewall_is_mended(host: SystemdHost) -> None:
    """Podman's rules by Podman itself, which the unit is not allowed to do."""
    host.run("iptables", "--table", "nat", "--flush")
    wait_for(lambda: "MASQUERADE" in host.run("iptables-save", "--table", "nat"), _PATIENCE_S, "Podman's rules")


def what_does_not_come_up_is_not_kept(host: SystemdHost, there: list[str]) -> None:
    """An option that makes no sense; and a run that was killed is made good by the next."""
    status, said = host.ask(INSTALL, env={"TECHULUS_IMAGE_GC_HIGH": "150"})
    assert status == 1 and "--image-gc-high" in said and "the agent runs as before" in said, said
    assert "IMAGE_GC_HIGH" not in host.run("cat", "/etc/techulus/agent.env")
    assert host.show(UNIT, "ActiveState") == "active" and running(host) == there
    assert host.ask("sh", "-c", "ls -A /opt/techulus-agent | grep '^[.]'")[0] == 1, (
        "nothing is left that has secrets in it"
    )
    host.run("sh", "-c", "echo an-interrupted-run >/opt/techulus-agent/.pending")
    assert "nothing to do" not in host.run(INSTALL) and "nothing to do" in host.run(INSTALL)


def test_a_worker_as_a_service(host: SystemdHost, plane: Plane) -> None:
    """Active with its state in words; reload; stop within ten seconds; SIGKILL and a hang end in a restart; containers go on. L5."""
    plane.want({"web": {"image": host.load(image("web")), "replicas": 2}})
    said = installed(host, plane)
    assert "running: IDLE" in said or "running: PROCESSING" in said
    there = wait_running(host, 2)
    assert host.show(UNIT, "ActiveState") == "active"
    assert host.run("systemd-analyze", "verify", "--man=no", UNIT) == ""
    it_is_hardened(host)
    wait_for(
        lambda: host.show(UNIT, "StatusText") == "IDLE: waiting for the next poll; 2 containers",
        _PATIENCE_S,
        "the state",
    )
    environment = host.run("cat", "/etc/techulus/agent.env")
    assert "TECHULUS_TOKEN" not in environment, "it is used once, and not kept"
    assert "nothing to do" in host.run(INSTALL)
    assert "2 containers" in host.run("systemctl", "status", UNIT) and "containers  2" in host.run("agent", "status")

    host.run("sh", "-c", "echo TECHULUS_LOG_LEVEL=debug >>/etc/techulus/agent.env")
    host.run("systemctl", "reload", UNIT)
    wait_for(lambda: "log_level=debug" in host.run("journalctl", "--unit", UNIT), _PATIENCE_S, "the new level")
    assert host.show(UNIT, "ActiveState") == "active"

    host.run("timeout", "10", "systemctl", "stop", UNIT)
    assert host.show(UNIT, "Result") == "success" and running(host) == there

    what_ends_it_ends_nothing_else(host)
    a_flushed_firewall_is_mended(host)
    what_does_not_come_up_is_not_kept(host, there)

    host.run("/opt/techulus-agent/current/installer/install.sh", "--uninstall")
    assert running(host) == there and host.ask("test", "-e", "/var/lib/techulus-agent/config.json")[0] == 0
    assert "running: " in host.run(INSTALL), "it goes on where it was"
    assert running(host) == there
    host.run(INSTALL, "--uninstall", "--purge")
    assert running(host) == []
    assert host.ask("test", "-e", "/var/lib/techulus-agent")[0] == 1 and host.ask("ip", "link", "show", "wg0")[0] == 1
    host.run("ip", "link", "add", "wg0", "type", "bridge")
    host.run(INSTALL, "--uninstall", "--purge")
    assert "wg0" in host.run("ip", "link", "show", "wg0"), "L10: somebody else's"


@contextmanager
def visited(url: str) -> Iterator[list[str]]:
    """A client that asks all the time; what went wrong."""
    failures: list[str] = []
    done = threading.Event()

    def visit() -> None:
        while not done.wait(0.02):
            try:
                with urllib.request.urlopen(url, timeout=PATIENCE_S) as answer:
                    answer.read()
            except OSError as error:
                failures.append(str(error))

    visitor = threading.Thread(target=visit)
    visitor.start()
    try:
        yield failures
    finally:
        done.set()
        visitor.join()


@contextmanager
def visited_within(host: SystemdHost, url: str) -> Iterator[list[str]]:
    """The same from the server itself: nobody else reaches its containers but through the tunnel (L64)."""
    failures: list[str] = []
    enough = host.mnt / "enough"
    once = f"curl --silent --show-error --max-time {PATIENCE_S:.0f} --output /dev/null {url}"

    def visit() -> None:
        failures.extend(host.run("sh", "-c", _VISITING.format(once), timeout_s=3600).splitlines())

    visitor = threading.Thread(target=visit)
    visitor.start()
    try:
        yield failures
    finally:
        enough.touch()
        visitor.join()


_VISITING = "until [ -e /mnt/enough ]; do {0} 2>&1; sleep 0.02; done"


def components(host: SystemdHost) -> list[str]:
    """The processes beside the agent that traffic depends on."""
    return host.run("pgrep", "--list-full", "^(dnsmasq|wireguard-go|caddy)$").splitlines()


def numbers(store: LogStore) -> list[int]:
    """The numbers of the lines that were shipped, in the order in which they came."""
    return [int(line["_msg"].split()[1]) for line in store.of("container") if re.fullmatch(r"line \d+", line["_msg"])]


def as_if_killed_before_the_restart(host: SystemdHost) -> None:
    """Leave what an upgrade leaves that is killed once the links say the new release, while the one before still runs."""
    top = "/opt/techulus-agent"
    steps = (
        f"ln -s $(readlink {top}/current) {top}/.before",
        f"cp -a $(readlink {top}/current) {top}/releases/never-started",
        f"echo {top}/releases/never-started >{top}/.pending",
        f"ln -sfn {top}/releases/never-started {top}/current",
    )
    host.run("sh", "-c", " && ".join(steps))


def test_upgrade_and_rollback(host: SystemdHost, plane: Plane, bundle: Bundle, tmp_path: Path) -> None:
    """L5: no container, tunnel, name or log line notices; a release that does not come up is not kept."""
    newer = another(bundle, tmp_path, "7.0.0", {})
    broken = another(bundle, tmp_path, "8.0.0", {"shell/commands/running.py": "raise SystemExit(3)\n"})
    newer.copy_to(host.mnt / "newer")
    broken.copy_to(host.mnt / "broken")
    with LogStore(host=host.host_address) as store:
        counting = custom_image("counting", "v1", ("sh", "-c", _COUNT))
        plane.want({"web": {"image": host.load(image("web"))}, "count": {"image": host.load(counting)}})
        installed(host, plane, IS_PROXY="true", LOGS_ENDPOINT=f"http://{host.host_address}:{store.port}")
        there = wait_running(host, 2)
        wait_for(lambda: len(components(host)) == 3, _PATIENCE_S, "dnsmasq, the tunnel and Caddy")
        wait_for(lambda: len(numbers(store)) > 20, _PATIENCE_S, "the first lines")
        around, first = components(host), host.run("agent", "--version")
        (web,) = [one["ipAddress"] for one in plane.lab("deployments") if one["service"] == "web"]
        with visited_within(host, f"http://{web}/") as failures:
            assert "installed agent 7.0.0" in host.run("/mnt/newer/install.sh")
            assert "agent 7.0.0" in host.run("agent", "--version")
            status, said = host.ask("/mnt/broken/install.sh")
            assert status == 1 and "was not kept" in said and "7.0.0" in said.splitlines()[-1]
            assert "agent 7.0.0" in host.run("agent", "--version") and host.show(UNIT, "ActiveState") == "active"
            runs = host.run("readlink", "/opt/techulus-agent/current")
            as_if_killed_before_the_restart(host)
            assert host.ask("/mnt/broken/install.sh")[0] == 1 and host.show(UNIT, "ActiveState") == "active"
            assert host.run("readlink", "/opt/techulus-agent/current") == runs, "what ran, and not what never has"
            assert "went back to" in host.run("/mnt/newer/install.sh", "--rollback")
            assert host.run("agent", "--version") == first
        assert failures == []
        assert (running(host), components(host)) == (there, around)
        last = max(numbers(store))
        wait_for(lambda: max(numbers(store)) > last + 20, _PATIENCE_S, "the lines after it")
        found = numbers(store)
        assert found == list(range(1, len(found) + 1)), "each line once, in order"
        assert store.faults == []


def caddys_admin(host: SystemdHost) -> str:
    """Where Caddy's admin API listens: the folder's owner and mode, and whether TCP has it."""
    folder = host.ask("stat", "-c", "%U %a", "/run/techulus-caddy")[1].strip()
    return f"{folder}{' and TCP' if ':2019' in host.run('ss', '-ltnH') else ''}"


def test_caddys_admin_api_is_its_users_and_the_agents(
    host: SystemdHost, plane: Plane, bundle: Bundle, tmp_path: Path
) -> None:
    """L61: on a new server, after a restart without the agent, and on one that an older agent has left, without a restart of Caddy.

    Going back to that one, it is where it looks.
    """
    installed(host, plane, IS_PROXY="true", TECHULUS_DATA_DIR="/home/the agent")
    closed, ask = "caddy 700", "curl -sS --fail -H 'Host;' --unix-socket /run/techulus-caddy/admin.sock http://caddy"
    wait_for(lambda: caddys_admin(host) == closed, _PATIENCE_S, "the socket")
    for user, reaches in (("caddy", True), ("root", True), ("nobody", False)):
        assert (host.ask("runuser", "-u", user, "--", "sh", "-c", f"{ask}/config/")[0] == 0) is reaches, user

    host.run("systemctl", "stop", UNIT)
    host.run("systemctl", "restart", "caddy.service")
    wait_for(lambda: host.ask("sh", "-c", f"{ask}/id/techulus")[0] == 0, _PATIENCE_S, "the routes of before")
    assert caddys_admin(host) == closed

    # As it was before there was a socket: the address, and nothing that makes a folder.
    body = '-X PATCH -H "Content-Type: application/json" -d \'{"listen":"localhost:2019"}\''
    host.run("sh", "-c", f"{ask}/config/admin {body}")
    host.run("rm", "/etc/systemd/system/caddy.service.d/techulus-agent-admin.conf")
    host.run("sh", "-c", "systemctl daemon-reload && systemctl restart caddy.service && rm -rf /run/techulus-caddy")
    wait_for(lambda: "TCP" in caddys_admin(host), _PATIENCE_S, "the old address")
    before = host.show("caddy.service", "MainPID")
    host.run(INSTALL)
    wait_for(lambda: caddys_admin(host) == closed, _PATIENCE_S, "the move")
    assert host.show("caddy.service", "MainPID") == before, "L69: nobody noticed"

    another(bundle, tmp_path, "7.0.0", {}).copy_to(host.mnt / "newer")
    host.run("/mnt/newer/install.sh")
    assert caddys_admin(host) == closed
    host.run("rm", "/opt/techulus-agent/previous/installer/caddy-admin.conf")
    host.run("sh", "-c", "echo TECHULUS_CADDY_ADMIN=localhost:2019 >>/etc/techulus/agent.env")
    host.run("/mnt/newer/install.sh", "--rollback")
    assert "TCP" in caddys_admin(host) and host.show("caddy.service", "MainPID") == before


def the_daemon_builds(host: SystemdHost, plane: Plane, registry: Registry) -> None:
    """The same as the hardened unit's, for the control plane, and deployed."""
    plane.want({"site": {"repository": {"url": "file:///srv/site", "token": "t"}}}, registry=registry.address)
    commit = host.run("git", "-C", "/srv/site", "rev-parse", "main").strip()
    plane.lab_post("builds", {"service": "site", "commitSha": commit})
    wait_for(lambda: plane.lab("builds")[0]["status"] == "completed", _PATIENCE_S, "the build")
    wait_running(host, 1)


def test_a_build(host: SystemdHost, plane: Plane, tmp_path: Path) -> None:
    """By hand and by the daemon: cloned, built by buildah, pushed, confirmed."""
    plane.want({})
    with Registry(tmp_path / "registry", host=host.host_address) as registry:
        installed(
            host,
            plane,
            TECHULUS_BUILDER="podman",
            TECHULUS_BUILD_ALLOW_SCHEME="file",
            TECHULUS_INSECURE_REGISTRY=registry.address,
            TECHULUS_DATA_DIR="/var/lib/containers/agent",  # the only place that is no overlay
        )
        a_build_is_a_unit_of_its_own(host, registry)
        the_daemon_builds(host, plane, registry)
