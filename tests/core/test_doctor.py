"""`core.doctor`: what facts come to."""

import pytest

from core import doctor
from core.build_plan import Host
from core.doctor import Finding, Level, Port, Socket
from core.firewall import Blocked


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("podman version 4.3.1", (4, 3, 1)),
        ("git version 2.39.5 (Apple)", (2, 39, 5)),
        ("v5.0.0-dev", (5, 0, 0)),
        ("", ()),
        ("none", ()),
    ],
)
def test_versions(text: str, found: tuple[int, ...]) -> None:
    """However a tool says it."""
    assert doctor.version(text) == found


@pytest.mark.parametrize(
    ("text", "needed", "level"),
    [
        ("4.3.1", True, Level.OK),
        ("5.0", True, Level.OK),
        ("4.2.9", True, Level.FAILED),
        ("4.2.9", False, Level.WARNING),
        ("", True, Level.FAILED),
        ("", False, Level.WARNING),
        ("odd", True, Level.FAILED),
    ],
)
def test_old_and_missing_tools(text: str, needed: bool, level: Level) -> None:
    """What is needed fails, the rest warns; each with what to do."""
    found = doctor.at_least("tool", text, (4, 3), "install it", needed=needed)
    assert found.level is level
    assert bool(found.todo) is (level is not Level.OK)


@pytest.mark.parametrize(
    ("host", "findings"),
    [
        (Host("unix:///b", railpack_fault=""), [("builder", "ok", "")]),
        (Host("unix:///b"), [("builder", "warning", "install a Railpack")]),
        (Host(None, "connection refused", "/usr/bin/buildah"), [("builder", "warning", "start buildkitd")]),
        (Host(podman="/usr/bin/buildah"), [("builder", "warning", "run buildkitd")]),
        (Host(), [("builder", "warning", "--no-builds")]),
        (
            Host("unix:///b", railpack_fault="", shares_network=True),
            [("builder", "ok", ""), ("build network", "warning", "cni")],
        ),
        (
            Host(podman="/usr/bin/buildah", holes=("CVE-2024-1753",)),
            [("builder", "warning", "run buildkitd"), ("builder's version", "warning", "a newer one")],
        ),
    ],
)
def test_builders(host: Host, findings: list[tuple[str, str, str]]) -> None:
    """All of it, Dockerfiles only, nothing; what a build could reach; each with what to do."""
    found = [*doctor.builder(host)]
    assert [(one.check, one.level.value) for one in found] == [(check, level) for check, level, _ in findings]
    assert all(words in one.todo for one, (*_, words) in zip(found, findings, strict=True))


def test_what_a_build_could_reach() -> None:
    """L65: for the status and the log, with what to do; nothing where its network is its own."""
    (said,) = doctor.build_warnings(Host("unix:///b", railpack_fault="", shares_network=True))
    assert "loopback" in said and "cni" in said
    assert doctor.build_warnings(Host("unix:///b", railpack_fault="")) == ()


@pytest.mark.parametrize(
    ("finding", "level"),
    [
        (doctor.disk("/d", 4.9), Level.WARNING),
        (doctor.disk("/d", 5.0), Level.OK),
        (doctor.open_files(1024), Level.WARNING),
        (doctor.open_files(65_536), Level.OK),
        (doctor.open_files(-1), Level.OK),
        (doctor.clock(None), Level.WARNING),
        (doctor.clock(-29.0), Level.OK),
        (doctor.clock(300.0), Level.WARNING),
        (doctor.private("/d", None, 0o700), Level.OK),
        (doctor.private("/d", 0o700, 0o700), Level.OK),
        (doctor.private("/d", 0o750, 0o700), Level.FAILED),
    ],
)
def test_judgements(finding: Finding, level: Level) -> None:
    """At the limits and beyond them."""
    assert finding.level is level
    assert bool(finding.todo) is (level is not Level.OK)


def test_the_whole() -> None:
    """A warning stops nobody; a failure does. Both forms hold everything."""
    good, odd = Finding("a", Level.OK, "here"), Finding("b", Level.WARNING, "not here", "install it")
    bad = Finding("c", Level.FAILED, "broken", "mend it")
    assert doctor.can_work([good, odd])
    assert not doctor.can_work([good, odd, bad])
    assert doctor.lines([good, odd]) == ["ok      a  here", "warning b  not here", "           → install it"]
    assert doctor.document([bad]) == {
        "version": 1,
        "ok": False,
        "checks": [{"check": "c", "level": "failed", "found": "broken", "todo": "mend it"}],
    }


HELD_ELSEWHERE = Socket("udp", "0.0.0.0", 53, "unbound")
DNS = Port("udp", "10.200.3.1", 53, "dnsmasq")
TUNNEL = Port("udp", "0.0.0.0", 51_820, "wireguard-go")
HTTP = Port("tcp", "0.0.0.0", 80, "caddy")


@pytest.mark.parametrize(
    ("needed", "listening", "taken"),
    [
        ([], [], []),
        ([DNS, TUNNEL, HTTP], [], []),
        ([DNS], [HELD_ELSEWHERE], ["port 53/udp"]),
        ([DNS], [Socket("tcp", "0.0.0.0", 53, "unbound")], []),
        ([DNS], [Socket("udp", "127.0.0.53", 53, "systemd-resolve")], []),
        ([DNS], [Socket("udp", "10.200.3.1", 53, "dnsmasq")], []),
        ([DNS], [Socket("udp", "0.0.0.0", 53, "dnsmasq")], ["port 53/udp"]),
        ([TUNNEL], [Socket("udp", "0.0.0.0", 51_820, None)], []),
        ([TUNNEL], [Socket("udp", "192.0.2.1", 51_820, "openvpn")], ["port 51820/udp"]),
        ([HTTP], [Socket("tcp", "::", 80, "caddy")], []),
        ([HTTP], [Socket("tcp", "::", 80, "nginx"), Socket("tcp", "0.0.0.0", 80, "nginx")], ["port 80/tcp"]),
    ],
)
def test_ports(needed: list[Port], listening: list[Socket], taken: list[str]) -> None:
    """Held by whom they are for, or free; a system-wide dnsmasq is in the way of the agent's own."""
    found = doctor.ports(needed, listening)
    assert [one.check for one in found if one.level is Level.WARNING] == taken
    assert all(one.todo for one in found if one.level is not Level.OK)
    assert len(found) == (len(taken) or bool(needed))


def test_the_running_agents_own_parts() -> None:
    """L57: a part that fails is a warning, since everything else goes on."""
    (well,) = doctor.parts([])
    assert well.level is Level.OK
    (ill,) = doctor.parts([{"part": "pulls", "about": "nginx", "reason": "ValueError: no"}])
    assert (ill.level, ill.found) == (Level.WARNING, "pulls nginx fails: ValueError: no")
    assert doctor.can_work([ill])


def test_firewalls() -> None:
    """L54: one finding for each chain that drops what must pass, with the rules to add; one that all is well, or cannot be judged."""
    dropper = Blocked("inet", "filter", "forward", "policy drop", ("the mesh", "answers"), ("nft a", "nft b"))
    (found,) = doctor.firewalls((dropper,))
    assert (found.check, found.level) == ("firewall inet filter forward", Level.WARNING)
    assert (found.found, found.todo.endswith(": nft a; nft b")) == ("policy drop: drops the mesh, answers", True)
    for blocked, words in (((), "nothing drops"), (None, "not judged")):
        (found,) = doctor.firewalls(blocked)
        assert found.level is Level.OK and found.found.startswith(words)


def test_ports_that_must_be_open() -> None:
    """Said, since nobody can tell from here."""
    assert doctor.open_ports(["51820/udp", "80/tcp"]).found.startswith("51820/udp, 80/tcp must be open from outside")


@pytest.mark.parametrize(
    ("address", "mode", "foreign", "levels"),
    [
        ("unix//run/x/admin.sock", 0o700, (), [Level.OK]),
        ("unix//run/x/admin.sock", None, (), [Level.OK]),
        ("unix//run/x/admin.sock", 0o755, (), [Level.WARNING]),
        ("localhost:2019", None, (), [Level.WARNING]),
        ("unix//run/x/admin.sock", 0o700, ("evil.test by file_server in the server techulus",), [Level.OK, Level.WARNING]),
    ],
)  # fmt: skip
def test_who_reaches_caddys_admin_api(
    address: str, mode: int | None, foreign: tuple[str, ...], levels: list[Level]
) -> None:
    """L61: an address of TCP and an open folder are named, and so is what the agent has not made."""
    found = doctor.caddy_admin(address, "unix//run/x/admin.sock", mode, foreign)
    assert [one.level for one in found] == levels
    for one in found:
        assert (one.level is Level.OK) == (not one.todo)


def test_nobody_is_told_to_close_a_folder_that_is_everybodys() -> None:
    """`/run`, say: what else is in it would be cut off."""
    own, theirs = (
        doctor.caddy_admin(f"unix/{path}/admin.sock", "unix//run/x/admin.sock", 0o755, ())[0].todo
        for path in ("/run/x", "/run")
    )
    assert own == "chmod 700 /run/x"
    assert theirs == "give the socket a folder of its own: unix//run/x/admin.sock"
