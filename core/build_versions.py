"""What versions of the build tools a server must not build with, and whether BuildKit gives its steps the server's own network (L65, L66).

Judges the texts that `--version` and `buildctl debug workers -v` print; every function takes any text.

Sources for the ways out of buildah (`podman build` is buildah inside Podman):

- CVE-2024-1753, a bind mount through a symbolic link. Since 1.24.0, for which the maintainers agree in containers/buildah discussion 5420;
  closed by pull requests 5411 (1.36), 5416 (1.35.1), 5419 (1.34.2), 5424 (1.32.3), 5450 (1.26.7), 5451 (1.24.7), and of containers/podman
  22119 (1.33.7), 22214 (1.31.5), 22194 (1.29.3), 22193 (1.27.4). In Podman: the releases 4.9.4 and, by the advisory GHSA-874v-pj72-92f3,
  5.0.1 (the notes of 5.0.0 name it, too; the later one is taken).
- CVE-2024-9675, a cache mount whose id is a path (GHSA-586p-749j-fhwp, CVE record: all before 1.38.0); closed on older branches by pull
  requests 5789 (1.37.5), 5920 (1.35.5), 5790 (1.33.10), 5794 (1.26.8). In Podman: the releases 5.3.0 and 5.2.5.

Branches that got a change of which no release is known are not in the table: they count as open, until a changelog says otherwise.
"""

import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Final, TypeAlias

Version: TypeAlias = tuple[int, int, int]

OLDEST_RAILPACK: Final[Version] = (0, 36, 1)
"""The first that reads a repository's `mise.toml` in mise's safe mode (railwayapp/railpack pull request 686)."""

_VERSION: Final = re.compile(r"(?<![0-9.])([0-9]{1,9})\.([0-9]{1,9})(?:\.([0-9]{1,9}))?")
_LONGEST: Final = 1_000  # characters of a tool's text that are looked at
_NETWORK: Final = "org.mobyproject.buildkit.worker.network:"


@dataclass(frozen=True, slots=True)
class _Flaw:
    """A known way out. `series` are the older ones that got the change, and the first number of each that has it; `closed` is the first
    version of which all later ones have it, and `since` the first that has the flaw."""

    name: str
    since: Version
    closed: Version
    series: Mapping[tuple[int, int], int]

    def is_in(self, version: Version) -> bool:
        """Whether this version has it, as it was released by its authors."""
        first = self.series.get(version[:2])
        if first is not None:
            return version[2] < first
        return self.since <= version < self.closed


_BIND: Final = "CVE-2024-1753"
_CACHE: Final = "CVE-2024-9675"
_NEVER: Final[Version] = (0, 0, 0)
_FLAWS: Final[Mapping[str, tuple[_Flaw, ...]]] = {
    "buildah": (
        _Flaw(
            _BIND,
            (1, 24, 0),
            (1, 36, 0),
            {
                (1, 24): 7,
                (1, 26): 7,
                (1, 27): 4,
                (1, 29): 3,
                (1, 31): 5,
                (1, 32): 3,
                (1, 33): 7,
                (1, 34): 2,
                (1, 35): 1,
            },
        ),
        _Flaw(_CACHE, _NEVER, (1, 38, 0), {(1, 26): 8, (1, 33): 10, (1, 35): 5, (1, 37): 5}),
    ),
    "podman": (
        _Flaw(_BIND, (4, 0, 0), (5, 0, 1), {(4, 9): 4}),
        _Flaw(_CACHE, _NEVER, (5, 3, 0), {(5, 2): 5}),
    ),
}


def parse_version(text: str) -> Version | None:
    """The first dotted number of what `--version` prints, `(1, 28, 2)` of `buildah version 1.28.2 (image-spec 1.1.0-rc2, …)`."""
    found = _VERSION.search(text[:_LONGEST])
    return None if found is None else (int(found[1]), int(found[2]), int(found[3] or 0))


def refuse_railpack(text: str) -> str:
    """Why this Railpack is not used, for a person; empty when it may be. `text` is what `railpack --version` prints."""
    version = parse_version(text)
    if version is not None and version >= OLDEST_RAILPACK:
        return ""
    oldest = ".".join(map(str, OLDEST_RAILPACK))
    if version is None:
        return f"railpack does not say its version; {oldest} or newer is needed"
    found = ".".join(map(str, version))
    return f"railpack {found} runs what a repository's mise.toml says on this server; {oldest} or newer is needed"


def known_open(tool: str, text: str, changelog: str = "") -> tuple[str, ...]:
    """The known ways out of the build's sandbox that this `buildah` or `podman` has, as names of CVEs; none for another tool.

    `text` is what `--version` prints; of a version that cannot be read nothing is known to be closed. `changelog` is that of the
    distribution's package, if there is one: what it names it has mended, which the version does not tell.
    """
    version = parse_version(text)
    flaws = (one.name for one in _FLAWS.get(tool, ()) if version is None or one.is_in(version))
    return tuple(name for name in flaws if not _names(changelog, name))


def worker_networks(text: str) -> tuple[str, ...]:
    """The network that the steps of each of BuildKit's workers have: `host`, `cni`, `bridge`, or empty where a worker does not say.

    `text` is what `buildctl debug workers -v` prints (moby/buildkit `cmd/buildctl/debug/workers.go`; the label came with pull request
    2702).
    """
    return tuple(_networks(text))


def shares_host_network(text: str) -> bool:
    """Whether steps may reach the server's own loopback: a worker has its network, or does not say which, or there is none that says."""
    networks = worker_networks(text)
    return not networks or any(one in ("", "host") for one in networks)


def _networks(text: str) -> Iterator[str]:
    """A worker begins with `ID:`; its labels stand below, each with a tab before it and after its name."""
    network: str | None = None
    for line in text.splitlines():
        words = line.split(None, 2)
        if line.startswith("ID:"):
            if network is not None:
                yield network
            network = ""
        elif network is not None and len(words) == 2 and words[0] == _NETWORK:
            network = words[1]
    if network is not None:
        yield network


def _names(changelog: str, flaw: str) -> bool:
    """Whether it stands there, and not only the beginning of a longer number."""
    return re.search(re.escape(flaw) + r"(?![0-9])", changelog) is not None
