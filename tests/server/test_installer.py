"""`install.sh` and the Debian package on a Debian that does not run: an image that is being built, or a chroot."""

import os
import subprocess
from collections.abc import Iterator
from pathlib import Path

import anyio
import pytest

from shell.adapters.firewall import Firewall, FirewallSettings
from tests.lab import debian_tree
from tests.lab.bundles import Bundle
from tests.lab.debian_tree import ROOT, Overlay
from tests.lab.private_network import outside
from tests.lab.process import run

# The first test on a machine makes its Debian.
pytestmark = [pytest.mark.real, pytest.mark.timeout(3600)]

INSTALL = "/mnt/install.sh"
ADMIN_FOLDER = "etc/systemd/system/caddy.service.d/techulus-agent-admin.conf"
GIVEN = {
    "CONTROL_PLANE_URL": "https://control.example.org",
    "REGISTRATION_TOKEN": 'to"k\\en$x',
    "TECHULUS_PROXY": "true",
    "LOGS_ENDPOINT": "http://user:p@logs.example.org:9428",
    "TECHULUS_LOG_LEVEL": "debug",
}


@pytest.fixture
def server(tmp_path: Path, bundle: Bundle) -> Overlay:
    """With the packages that an agent drives, and the bundle as /mnt."""
    return Overlay(debian_tree.server(), tmp_path, bundle.folder)


def files(server: Overlay) -> dict[str, tuple[int, str]]:
    """Mode and content of what was installed beside the release."""
    found = {}
    for name in (
        "etc/techulus",
        "etc/systemd/system",
        "etc/sysctl.d",
        "usr/local",
        "usr/share/bash-completion",
    ):
        for path in sorted((server.upper / name).rglob("*")):
            content = str(path.readlink()) if path.is_symlink() else path.read_text() if path.is_file() else ""
            found[str(path.relative_to(server.upper))] = (path.lstat().st_mode & 0o777, content)
    return found


def test_install_twice_and_take_away(server: Overlay) -> None:
    """What is given stands in the service's file, quoted and private; the second run changes nothing; only state is left behind."""
    said = server.run(INSTALL, env=GIVEN)
    assert "the service starts with it" in said and "installed agent" in said
    there = files(server)
    mode, environment = there["etc/techulus/agent.env"]
    assert mode == 0o600 and (server.upper / "etc/techulus").stat().st_mode & 0o777 == 0o700
    assert 'TECHULUS_TOKEN="to\\"k\\\\en$x"\n' in environment
    assert 'TECHULUS_PROXY="true"\n' in environment and 'TECHULUS_LOG_LEVEL="debug"\n' in environment
    assert server.run("agent", "--version").startswith("agent 0.")
    assert "complete -o default" in server.run(
        "bash", "-c", ". /usr/share/bash-completion/completions/agent; complete -p agent"
    )
    assert there["usr/local/share/man/man1/agent.1"][1].startswith(".TH AGENT 1")
    unit = "/etc/systemd/system/techulus-agent.service"
    assert server.run("systemd-analyze", "verify", "--man=no", unit) == ""
    assert there["etc/systemd/system/multi-user.target.wants/techulus-agent.service"][1] == unit
    assert "RuntimeDirectory=techulus-caddy" in there[ADMIN_FOLDER][1]
    assert "--resume" in there["etc/systemd/system/caddy.service.d/techulus-agent.conf"][1]

    server.run(INSTALL, env={})  # what an earlier run was told stays
    server.run(INSTALL, env=GIVEN)
    assert files(server) == there
    assert len(list((server.upper / "opt/techulus-agent/releases").iterdir())) == 1

    # The distribution's Python has become another; an earlier run was killed while packages were installed.
    server.run("sh", "-c", "ln -sfn /usr/bin/python3.99 /opt/techulus-agent/current/bin/python3")
    server.run(
        "sh", "-c", "printf '#!/bin/sh\n# of the installer of techulus-agent\nexit 101\n' >/usr/sbin/policy-rc.d"
    )
    server.run(INSTALL, env={})
    assert server.run("agent", "--version").startswith("agent 0.")
    assert files(server) == there and server.ask("test", "-e", "/usr/sbin/policy-rc.d")[0] == 1

    # A person's Caddy has its admin API there, too: it is to come up after the next reboot.
    server.run("sh", "-c", "echo '{ admin unix//run/techulus-caddy/admin.sock }' >/etc/caddy/Caddyfile")
    said = server.run("/opt/techulus-agent/current/installer/install.sh", "--uninstall")
    assert "are kept" in said and "is kept: the admin socket" in said
    left = {name for name, (_, content) in files(server).items() if content}
    assert {name for name in left if "techulus" in name or "agent" in name} == {"etc/techulus/agent.env", ADMIN_FOLDER}
    assert not list((server.upper / "opt").glob("techulus-agent/*"))
    server.run("rm", "/etc/caddy/Caddyfile")
    server.run(INSTALL, "--uninstall", "--purge")
    assert ADMIN_FOLDER not in files(server)
    assert not (server.upper / "etc/techulus").exists()


def firewall_rules() -> list[str]:
    """What iptables has in this process's network, which is the installer's as well."""
    return [rule for table in ("filter", "mangle") for rule in run(("iptables", "-t", table, "-S")).splitlines()]


@pytest.fixture
def others_rules() -> Iterator[list[str]]:
    """The agent's rules are set beside some of an administrator's: which there were before."""
    run(
        (
            "iptables",
            "-A",
            "FORWARD",
            "-s",
            "192.0.2.1/32",
            "-m",
            "comment",
            "--comment",
            "not TECHULUS-FORWARD",
            "-j",
            "ACCEPT",
        )
    )
    run(("iptables", "-t", "mangle", "-N", "TECHULUSES"))
    before = firewall_rules()
    firewall = Firewall(FirewallSettings(7, "wg0", 51_820, is_proxy=False, names=True))
    anyio.run(firewall.apply)
    assert len(firewall_rules()) > len(before)
    yield before
    run(("nft", "flush", "ruleset"))


def test_a_purge_takes_the_firewall_rules_with_it(server: Overlay, others_rules: list[str]) -> None:
    """L64: the agent's chains and what leads there, and nothing of anybody else's; without a purge they stay, as the containers do."""
    there = firewall_rules()
    server.run(INSTALL, "--uninstall")
    assert firewall_rules() == there
    server.run(INSTALL, "--uninstall", "--purge")
    assert firewall_rules() == others_rules
    server.run(INSTALL, "--uninstall", "--purge")
    server.run("mv", "/usr/sbin/iptables", "/usr/sbin/iptables.away")
    assert "uninstalled" in server.run(INSTALL, "--uninstall", "--purge")


def test_a_purge_is_refused_while_a_process_has_a_volume(server: Overlay, others_rules: list[str]) -> None:
    """L47: as a container that Podman has forgotten has; with the process's number, and everything is left, the firewall's rules too."""
    data = "/var/lib/techulus-agent"
    there = firewall_rules()
    script = f"""
        mkdir -p {data}/volumes/service-77/data /tmp/mounted && touch {data}/agent.lock {data}/volumes/service-77/data/kept
        unshare --mount sh -c 'mount --bind {data}/volumes/service-77/data /tmp/mounted && touch /tmp/up && exec sleep infinity' &
        timeout 60 sh -c 'until [ -e /tmp/up ]; do sleep 0.1; done'
        echo "holder: $!"
        {INSTALL} --uninstall --purge; echo "status: $?"
        [ ! -e {data}/volumes/service-77/data/kept ] || echo kept
        iptables -S >/tmp/rules && grep -q TECHULUS-FORWARD /tmp/rules && echo "rules kept"
        kill $! && wait $! 2>/dev/null
        {INSTALL} --uninstall --purge; echo "status: $?"
        [ -e {data} ] || echo gone
    """
    said = server.run("bash", "-c", script)
    holder = said.partition("holder: ")[2].split()[0]
    assert f"process {holder} has a volume in {data} mounted, so the rest was left; end it first" in said
    first, _, second = said.partition("status: 1\n")
    assert second.startswith("kept\nrules kept\n") and second.endswith("status: 0\ngone\n"), said
    assert "uninstalled" not in first
    assert firewall_rules() == others_rules != there


@pytest.mark.parametrize(
    ("words", "given", "why"),
    [
        ((), {}, "give CONTROL_PLANE_URL"),
        ((), {"CONTROL_PLANE_URL": "https://c.example.org"}, "give REGISTRATION_TOKEN"),
        ((), {**GIVEN, "CONTROL_PLANE_URL": "ftp://c.example.org"}, "CONTROL_PLANE_URL is not an http"),
        ((), {**GIVEN, "CONTROL_PLANE_URL": "http://c.example.org"}, "has no TLS"),
        ((), {**GIVEN, "IS_PROXY": "perhaps"}, "IS_PROXY is neither true nor false"),
        ((), {**GIVEN, "LOGS_ENDPOINT": "logs"}, "LOGS_ENDPOINT is not"),
        ((), {**GIVEN, "REGISTRATION_TOKEN": "two\nlines"}, "REGISTRATION_TOKEN has a control character"),
        (("--purge",), {}, "--purge goes with --uninstall"),
        (("--rollback",), {}, "no release to go back to"),
        (("--bogus",), {}, "unknown: --bogus"),
    ],
)
def test_what_makes_no_sense_changes_nothing(
    server: Overlay, words: tuple[str, ...], given: dict[str, str], why: str
) -> None:
    """L39 and plain mistakes: one line says which, before anything was touched."""
    status, said = server.ask(INSTALL, *words, env=given)
    assert (status, why in said) == (1, True), said
    assert not (server.upper / "opt").exists() and not (server.upper / "etc").exists()


def test_the_wheel_alone(tmp_path: Path, bundle: Bundle) -> None:
    """In an empty environment on a clean Debian: installed from the bundle's files without any index, and it plans."""
    clean = Overlay(debian_tree.clean(), tmp_path, bundle.folder)
    clean.run("python3", "-m", "venv", "/root/venv")
    pip = ("/root/venv/bin/pip", "install", "--quiet", "--no-index", "--find-links", "/mnt/wheels")
    clean.run(*pip, f"/mnt/{bundle.wheel.name}")
    head = run(("git", "-C", str(ROOT), "describe", "--always", "--abbrev=12", "--exclude=*", "--dirty")).strip()
    assert clean.run("/root/venv/bin/agent", "--version") == f"agent {bundle.version} ({head})\n"
    nothing = '{"containers": [], "dns": {"records": []}, "caddy": {"routes": []}, "wireguard": {"peers": []}}'
    clean.run("sh", "-c", f"echo '{nothing}' >/root/nothing.json")
    said = clean.run(
        "/root/venv/bin/agent", "plan", "--expected", "/root/nothing.json", "--actual", "/root/nothing.json"
    )
    assert "nothing to do" in said.lower()


def test_the_debian_package(tmp_path: Path, bundle: Bundle, others_rules: list[str]) -> None:
    """Built by one command; installs, refuses a server where the installer has been, and is taken away without what it keeps; a purge
    takes the firewall's rules as well.
    """
    environ = {**os.environ, "AGENT_DIST": str(tmp_path / "dist"), "AGENT_BUNDLE": str(bundle.archive)}
    made = run(outside((str(ROOT / "deploy/deb.sh"),)), timeout_s=1200, env=environ).strip()
    assert made.endswith("_amd64.deb")
    debian = Overlay(debian_tree.server(), tmp_path / "debian", Path(made).parent)
    package = f"/mnt/{Path(made).name}"
    debian.run("dpkg", "--install", package)
    assert debian.run("agent", "--version").startswith("agent 0.")
    assert debian.run("systemd-analyze", "verify", "--man=no", "techulus-agent.service") == ""
    assert "RuntimeDirectory=techulus-caddy" in debian.run(
        "cat", "/lib/systemd/system/caddy.service.d/techulus-agent-admin.conf"
    )
    environment = debian.upper / "etc/techulus/agent.env"
    assert environment.stat().st_mode & 0o777 == 0o600
    environment.write_text('TECHULUS_URL="https://control.example.org"\n')
    debian.run("dpkg", "--install", package)
    assert "TECHULUS_URL" in environment.read_text()
    assert not subprocess.run(
        ("grep", "-rlF", str(tmp_path), str(debian.upper / "opt")), capture_output=True, check=False
    ).stdout
    debian.run("dpkg", "--remove", "techulus-agent")
    assert environment.exists() and not list((debian.upper / "opt").glob("techulus-agent/*"))
    assert firewall_rules() != others_rules
    debian.run("dpkg", "--purge", "techulus-agent")
    assert not environment.exists() and firewall_rules() == others_rules

    debian.run("sh", "-c", "mkdir -p /opt/techulus-agent && ln -s releases/1 /opt/techulus-agent/current")
    status, said = debian.ask("dpkg", "--install", package)
    assert status != 0 and "install.sh --uninstall" in said
