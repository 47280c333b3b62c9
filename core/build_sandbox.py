"""What a build's sandbox lets through: which of the host's files it sees, where its network leads, and how much it may use.

A build runs other people's code. Its root is nobody on the host (`USER`), and its network is a program of this server that sends for it
(slirp4netns), filtered by rules that nothing inside can change: no loopback, link-local (a cloud's metadata), mesh or containers' bridge of
this server, and of the server's own addresses the two ports that are public anyway. What the operator has named (the registry, BuildKit) is
reached wherever it is, and so is the clone's host, within bounds since users choose it; each by the commands alone that need it. IPv4 only:
there is no IPv6 inside.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from ipaddress import IPv4Address, IPv4Network, IPv6Address
from typing import Final
from urllib.parse import urlsplit

USER: Final = 0x7000_0000
"""The first of the ids that the ids 0 to 65,535 inside become: above systemd's for containers, in a range that it gives to nobody."""

BUILD: Final = "/build"
"""Where the build's own folder is, inside; commands run there."""
GIT: Final = "/git"
SECRETS: Final = "/secrets"
LOGIN: Final = "/login"
STORE: Final = "/store"
TOOLS: Final = "/tools"
"""Where a tool is that lies on the host where no system has its tools."""
REPOSITORY: Final = "/repository"
"""Where a repository is that is a folder of the host."""
BUILDKIT: Final = "/run/buildkit/buildkitd.sock"
GROUP: Final = "techulus-builds"

_PATH: Final = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"
_TOOLS: Final = (
    *("/usr", "/sys", "/etc/ssl", "/etc/pki", "/etc/ca-certificates", "/etc/crypto-policies", "/etc/alternatives"),
    *(
        "/etc/ld.so.cache",
        "/etc/ld.so.conf",
        "/etc/ld.so.conf.d",
        "/etc/localtime",
        "/etc/os-release",
        "/etc/protocols",
    ),
    *("/etc/services", "/etc/mime.types", "/etc/gai.conf", "/etc/containers/policy.json"),
    *(
        "/etc/containers/containers.conf",
        "/etc/containers/containers.conf.d",
        "/etc/containers/registries.conf",
        "/etc/containers/registries.conf.d",
        "/etc/containers/certs.d",
    ),
)
_FILES_IN_VARIABLES: Final = ("CONTAINERS_CONF", "CONTAINERS_REGISTRIES_CONF", "SSL_CERT_FILE", "SSL_CERT_DIR")
_CONFIG: Final = "/config"
_PASSED_ON: Final = frozenset(("BUILDAH_RUNTIME", "BUILDAH_FORMAT"))
_PROXIES: Final = frozenset(("http_proxy", "https_proxy", "no_proxy"))
_RESOLVER: Final = "192.0.2.3"  # slirp4netns's, which asks the host's own resolver; RFC 5737: nobody's network
_CLOUDS: Final = ("0.0.0.0/8", "169.254.0.0/16", "168.63.129.16/32", "100.100.100.200/32")  # clouds' own services
_REFUSED: Final = (*_CLOUDS, "10.100.0.0/16", "10.200.0.0/16", "192.0.2.0/24")
_PUBLIC_PORTS: Final = "80,443"
_PORTS: Final = {"http": 80, "https": 443}
_SHARES: Final = 1024  # of the first version's groups, which is weight 100
_WEIGHT: Final = 100


@dataclass(frozen=True, slots=True)
class Limits:
    """How much one build may use. The weights are against everything else on this server, each of which has 100."""

    memory_bytes: int
    tasks: int
    cpu_weight: int
    io_weight: int
    disk_bytes: int


NO_LIMITS: Final = Limits(0, 0, 0, 0, 0)


@dataclass(frozen=True, slots=True, order=True)
class Endpoint:
    """Where a build must get to: a host by name or address, and a TCP port."""

    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Place:
    """An endpoint and the addresses that its name has here; whether a user of the platform has chosen it, and not the operator."""

    endpoint: Endpoint
    addresses: tuple[IPv4Address | IPv6Address, ...]
    is_users: bool = False


@dataclass(frozen=True, slots=True)
class Surroundings:
    """This server's addresses, and the networks of its bridges."""

    own: frozenset[IPv4Address]
    bridges: frozenset[IPv4Network]


@dataclass(frozen=True, slots=True)
class Network:
    """A sandbox's network: rules for iptables-restore(8), sockets inside that lead to one of the host's, and the text of `/etc/hosts`."""

    rules: str
    relays: tuple[tuple[str, str], ...]
    hosts: str


@dataclass(frozen=True, slots=True)
class Groups:
    """Control groups (cgroups(7)): folders with what is written into their files (`?` before the name of one that may be missing), and
    those that a build's processes are in."""

    made: tuple[tuple[str, Mapping[str, str]], ...]
    joined: tuple[str, ...]


def endpoint_of_registry(registry: str, *, is_insecure: bool) -> Endpoint | None:
    """Where a registry (`host[:port]`, `[address]:port`) listens; None for what is no such thing."""
    return _endpoint(f"//{registry}", 80 if is_insecure else 443)


def endpoint_of_url(url: str) -> Endpoint | None:
    """Where a URL leads; None for one without a host or of an unknown scheme without a port."""
    return _endpoint(url, _PORTS.get(url.partition(":")[0].lower()))


def proxies(environ: Mapping[str, str]) -> tuple[Endpoint, ...]:
    """The proxies that this environment names."""
    urls = (value for name, value in environ.items() if name.lower() in _PROXIES and name.lower() != "no_proxy")
    found = (endpoint_of_url(url if "://" in url else f"http://{url}") for url in urls)
    return tuple(one for one in found if one is not None)


def network(places: Iterable[Place], surroundings: Surroundings) -> Network:
    """The network of a command that must get to these places."""
    relays: dict[str, str] = {}
    hosts = ["127.0.0.1 localhost build"]
    opened: list[str] = []
    for place in sorted(places, key=lambda place: place.endpoint):
        port = place.endpoint.port
        for address in (one for one in place.addresses if _is_allowed(place, one)):
            if address.is_loopback:
                if address.version == 6 and any(one.version == 4 for one in place.addresses):
                    continue  # `localhost` is 127.0.0.1 inside, and some servers have no IPv6
                where = f"{address}:{port}"
                relays[where] = where  # not by the name, which may have another address by then
                hosts.append(f"{address} {place.endpoint.host}")
            elif address.version == 4:
                opened.append(f"-A OUTPUT -p tcp -d {address} --dport {port} -j ACCEPT")
    return Network(_rules(opened, surroundings), tuple(relays.items()), "\n".join(dict.fromkeys(hosts)) + "\n")


def _is_allowed(place: Place, address: IPv4Address | IPv6Address) -> bool:
    """Whether a place may be reached there. The name that a user has chosen may have any address: loopback has to be meant, and a cloud's
    own services are no place to clone from.
    """
    if not place.is_users:
        return True
    if address.is_loopback:
        return place.endpoint.host in ("localhost", str(address))
    return address.version == 4 and not any(address in IPv4Network(one) for one in _CLOUDS)


def environment(environ: Mapping[str, str]) -> dict[str, str]:
    """What a command in a sandbox gets of this process's environment, and what it needs."""
    passed = {name: value for name, value in environ.items() if name in _PASSED_ON or name.lower() in _PROXIES}
    named = {name: f"{_CONFIG}/{name}" for name in _FILES_IN_VARIABLES if name in environ}
    return {**passed, **named, "LC_ALL": "C.UTF-8", "PATH": _PATH, "HOME": BUILD}


def read_only(environ: Mapping[str, str]) -> dict[str, str]:
    """The host's files and folders that a sandbox sees, and where: tools, certificates, which registries there are."""
    named = {environ[name]: f"{_CONFIG}/{name}" for name in _FILES_IN_VARIABLES if name in environ}
    return {**{path: path for path in _TOOLS}, **named}


def files(network: Network) -> dict[str, str]:
    """The small files that a sandbox has of its own."""
    return {
        "/etc/passwd": f"root:x:0:0:root:{BUILD}:/bin/sh\nnobody:x:65534:65534:nobody:/nonexistent:/bin/false\n",
        "/etc/group": "root:x:0:\nnogroup:x:65534:\n",
        "/etc/hosts": network.hosts,
        "/etc/hostname": "build\n",
        "/etc/nsswitch.conf": "passwd: files\ngroup: files\nhosts: files dns\n",
        "/etc/resolv.conf": f"nameserver {_RESOLVER}\n",
    }


def groups(limits: Limits, name: str, *, is_unified: bool, root: str = "/sys/fs/cgroup") -> Groups:
    """The control groups of one build where no systemd makes them."""
    if is_unified:
        parent, own = f"{root}/{GROUP}", f"{root}/{GROUP}/{name}"
        control = {"?cgroup.subtree_control": "+memory +pids +cpu"}
        weights = {"?cpu.weight": str(limits.cpu_weight), "?io.weight": str(limits.io_weight)}
        bounds = {"memory.max": str(limits.memory_bytes), "?memory.swap.max": "0", "pids.max": str(limits.tasks)}
        return Groups(((root, control), (parent, {**control, **weights}), (own, bounds)), (own,))
    shares = max(2, limits.cpu_weight * _SHARES // _WEIGHT)
    made: tuple[tuple[str, dict[str, str]], ...] = (
        (f"{root}/cpu/{GROUP}", {"?cpu.shares": str(shares)}),
        (f"{root}/cpu/{GROUP}/{name}", {}),
        (f"{root}/memory/{GROUP}/{name}", {"memory.limit_in_bytes": str(limits.memory_bytes)}),
        (f"{root}/pids/{GROUP}/{name}", {"pids.max": str(limits.tasks)}),
    )
    return Groups(made, tuple(folder for folder, _ in made[1:]))


def unit(limits: Limits, name: str) -> tuple[str, ...]:
    """The command before the supervisor's where systemd runs: a service of its own, in the builds' slice (systemd-run(1))."""
    properties = (
        f"MemoryMax={limits.memory_bytes}",
        "MemorySwapMax=0",
        f"TasksMax={limits.tasks}",
        f"CPUWeight={limits.cpu_weight}",
        f"IOWeight={limits.io_weight}",
        "OOMPolicy=continue",
        "OOMScoreAdjust=-500",
        "TimeoutStopSec=5",
        "LimitNOFILE=65536",
    )
    return (
        *("systemd-run", "--quiet", "--collect", "--pipe", "--wait", "--service-type=exec"),
        *(f"--unit={name}.service", f"--slice={GROUP}.slice", "--description=A build of the Techulus agent"),
        *(f"--property={one}" for one in properties),
        "--",
    )


def slice_weights(limits: Limits) -> tuple[str, ...]:
    """The command that has the weights count against everything else: `techulus-builds.slice` is in `techulus.slice` (systemd.slice(5))."""
    weights = (f"CPUWeight={limits.cpu_weight}", f"IOWeight={limits.io_weight}")
    return ("systemctl", "set-property", "--runtime", f"{GROUP.partition('-')[0]}.slice", *weights)


def _endpoint(url: str, usual_port: int | None) -> Endpoint | None:
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port or usual_port
    except ValueError:
        return None
    return Endpoint(host, port) if host and port else None


def _rules(opened: list[str], surroundings: Surroundings) -> str:
    reject = "-j REJECT"
    lines = [
        "*filter",
        ":INPUT ACCEPT [0:0]",
        ":FORWARD DROP [0:0]",
        ":OUTPUT ACCEPT [0:0]",
        "-A OUTPUT -o lo -j ACCEPT",
    ]
    lines += [f"-A OUTPUT -p {kind} -d {_RESOLVER} --dport 53 -j ACCEPT" for kind in ("udp", "tcp")]
    lines += dict.fromkeys(opened)
    lines += [f"-A OUTPUT -d {one} {reject}" for one in _REFUSED]
    for address in sorted(surroundings.own):
        lines.append(f"-A OUTPUT -p tcp -d {address} -m multiport --dports {_PUBLIC_PORTS} -j ACCEPT")
        lines.append(f"-A OUTPUT -d {address} {reject}")
    lines += [f"-A OUTPUT -d {one} {reject}" for one in sorted(surroundings.bridges)]
    return "\n".join((*lines, "COMMIT", ""))
