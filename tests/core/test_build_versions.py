"""`core.build_versions`: a tool with a known way out is named, one that is mended is not, and no text breaks the judgement."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.build_versions import known_open, parse_version, refuse_railpack, shares_host_network, worker_networks

BIND, CACHE = "CVE-2024-1753", "CVE-2024-9675"
DEBIAN_12 = """golang-github-containers-buildah (1.28.2+ds1-3+deb12u1) bookworm; urgency=medium

  * Backport 0005-Disable-TestDeviceFromPath.patch:
    fix FTBFS by skipping TestDeviceFromPath (closes: #1072147)
"""
WORKERS = (
    "ID:\t\tvk1f5oyj0fzq2rcsapazhnpnh\n"
    "Platforms:\tlinux/amd64,linux/amd64/v2\n"
    "BuildKit:\tgithub.com/moby/buildkit v0.32.2 0a1b2c\n"
    "Labels:\n"
    "\torg.mobyproject.buildkit.worker.executor:\t\toci\n"
    "\torg.mobyproject.buildkit.worker.hostname:\t\tnetwork: cni\n"
    "\torg.mobyproject.buildkit.worker.network:\t\t{network}\n"
    "\torg.mobyproject.buildkit.worker.oci.process-mode:\tsandbox\n"
    "\torg.mobyproject.buildkit.worker.snapshotter:\t\toverlayfs\n"
    "GC Policy rule#0:\n"
    "\tAll:\tfalse\n"
    "\tFilters:\ttype==source.local,type==exec.cachemount,type==source.git.checkout\n"
    "\n"
)


@pytest.mark.parametrize(
    ("text", "version"),
    [
        ("railpack version 0.15.1", (0, 15, 1)),
        ("railpack 0.37.0", (0, 37, 0)),
        ("railpack version v0.37.0", (0, 37, 0)),
        ("buildah version 1.28.2 (image-spec 1.1.0-rc2, runtime-spec 1.0.2-dev)", (1, 28, 2)),
        ("podman version 4.9.4-rhel", (4, 9, 4)),
        ("podman version 5.4", (5, 4, 0)),
        ("buildctl github.com/moby/buildkit v0.32.2 0a1b2c3", (0, 32, 2)),
        ("railpack dev", None),
        ("", None),
    ],
)
def test_versions(text: str, version: tuple[int, int, int] | None) -> None:
    """As the tools print them."""
    assert parse_version(text) == version


@pytest.mark.parametrize(
    ("text", "reason"),
    [
        (
            "railpack version 0.36.0",
            "railpack 0.36.0 runs what a repository's mise.toml says on this server; 0.36.1 or newer is needed",
        ),
        (
            "railpack version 0.15.1",
            "railpack 0.15.1 runs what a repository's mise.toml says on this server; 0.36.1 or newer is needed",
        ),
        ("railpack dev", "railpack does not say its version; 0.36.1 or newer is needed"),
        ("railpack 0.36.1", ""),
        ("railpack version 0.37.0", ""),
        ("railpack version 1.0.0", ""),
    ],
)
def test_railpack(text: str, reason: str) -> None:
    """L65: an older one lets a repository run programs on this server."""
    assert refuse_railpack(text) == reason


@pytest.mark.parametrize(
    ("tool", "version", "flaws"),
    [
        ("buildah", "1.23.1", (CACHE,)),
        ("buildah", "1.24.6", (BIND, CACHE)),
        ("buildah", "1.24.7", (CACHE,)),
        ("buildah", "1.25.9", (BIND, CACHE)),
        ("buildah", "1.26.6", (BIND, CACHE)),
        ("buildah", "1.26.7", (CACHE,)),
        ("buildah", "1.26.8", ()),
        ("buildah", "1.28.2", (BIND, CACHE)),
        ("buildah", "1.33.7", (CACHE,)),
        ("buildah", "1.33.9", (CACHE,)),
        ("buildah", "1.33.10", ()),
        ("buildah", "1.34.1", (BIND, CACHE)),
        ("buildah", "1.34.2", (CACHE,)),
        ("buildah", "1.35.0", (BIND, CACHE)),
        ("buildah", "1.35.1", (CACHE,)),
        ("buildah", "1.35.5", ()),
        ("buildah", "1.36.0", (CACHE,)),
        ("buildah", "1.37.4", (CACHE,)),
        ("buildah", "1.37.5", ()),
        ("buildah", "1.38.0", ()),
        ("buildah", "1.39.3", ()),
        ("podman", "3.4.4", (CACHE,)),
        ("podman", "4.3.1", (BIND, CACHE)),
        ("podman", "4.9.3", (BIND, CACHE)),
        ("podman", "4.9.4", (CACHE,)),
        ("podman", "5.0.0", (BIND, CACHE)),
        ("podman", "5.0.1", (CACHE,)),
        ("podman", "5.2.4", (CACHE,)),
        ("podman", "5.2.5", ()),
        ("podman", "5.3.0", ()),
        ("podman", "5.4.2", ()),
        ("buildctl", "0.1.0", ()),
    ],
)
def test_known_ways_out(tool: str, version: str, flaws: tuple[str, ...]) -> None:
    """L66: on both sides of each release that closed one."""
    assert known_open(tool, f"{tool} version {version} (image-spec 9.9.9)") == flaws


@pytest.mark.parametrize(
    ("changelog", "flaws"),
    [
        ("", (BIND, CACHE)),
        (DEBIAN_12, (BIND, CACHE)),
        (f"{DEBIAN_12}\n  * Fix {BIND}\n", (CACHE,)),
        (f"  * Fix {CACHE} and {BIND}.\n", ()),
        (f"  * Fix {CACHE}1, {BIND}0\n", (BIND, CACHE)),
    ],
)
def test_a_distribution_mends_without_a_new_version(changelog: str, flaws: tuple[str, ...]) -> None:
    """Its package's changelog says so; a longer number is another flaw."""
    assert known_open("buildah", "buildah version 1.28.2", changelog) == flaws


def test_a_version_that_cannot_be_read() -> None:
    """Nothing is known to be closed."""
    assert known_open("podman", "podman version unknown") == (BIND, CACHE)


@pytest.mark.parametrize(
    ("text", "networks", "shares"),
    [
        (WORKERS.format(network="host"), ("host",), True),
        (WORKERS.format(network="cni"), ("cni",), False),
        (WORKERS.format(network="bridge") + WORKERS.format(network="host"), ("bridge", "host"), True),
        (WORKERS.format(network="cni") * 2, ("cni", "cni"), False),
        (WORKERS.replace("worker.network", "worker.other").format(network="host"), ("",), True),
        ("", (), True),
        ("org.mobyproject.buildkit.worker.network: host\n", (), True),
    ],
)
def test_the_network_of_steps(text: str, networks: tuple[str, ...], shares: bool) -> None:
    """L65: a worker that does not say counts as one that has the server's own."""
    assert worker_networks(text) == networks
    assert shares_host_network(text) is shares


@given(
    st.one_of(st.text(), st.from_regex(r"(podman|buildah) version [0-9]{1,12}\.[0-9]{1,12}(\.[0-9]{1,12})?")),
    st.sampled_from(["buildah", "podman", "railpack", ""]),
    st.one_of(st.text(), st.just(WORKERS)),
)
def test_any_text(text: str, tool: str, other: str) -> None:
    """A value, never an exception; a changelog only ever takes flaws away."""
    assert set(known_open(tool, text, other)) <= set(known_open(tool, text))
    assert known_open(tool, text, f"{BIND} {CACHE}") == ()
    assert isinstance(refuse_railpack(text), str)
    assert len(worker_networks(other + text)) <= (other + text).count("ID:")
    assert isinstance(shares_host_network(text), bool)


@given(st.integers(0, 3), st.integers(0, 60), st.integers(0, 20))
def test_a_newer_one_of_a_series_has_no_more_flaws(major: int, minor: int, patch: int) -> None:
    """What is closed stays closed."""
    for tool in ("buildah", "podman"):
        older, newer = (known_open(tool, f"{major}.{minor}.{number}") for number in (patch, patch + 1))
        assert set(newer) <= set(older)
