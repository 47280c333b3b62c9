"""Builds a node from its options and identity: which components are managed here, and by what."""

from dataclasses import dataclass, field
from pathlib import Path

import psutil

from core.build_plan import Settings
from core.build_sandbox import Limits
from core.caddy_base import Base
from core.local_rules import NO_RULES, LocalRules, port_range
from core.state import COMPONENTS, NodeType
from shell import own_names
from shell.adapters.caddy import Caddy, CaddySettings, systemd_unit
from shell.adapters.control_plane import ControlPlane
from shell.adapters.dnsmasq import Dnsmasq, DnsmasqSettings, systemd_runs
from shell.adapters.firewall import Firewall, FirewallSettings
from shell.adapters.podman import Podman, PodmanSettings
from shell.adapters.podman.images import Images
from shell.adapters.public_address import PublicAddressService
from shell.adapters.victorialogs import VictoriaLogs
from shell.adapters.wireguard import WireGuard, WireGuardSettings
from shell.building.pipeline import Workshop
from shell.components import Components
from shell.identity import Identity
from shell.image_fetching import FetchSettings
from shell.last_good import LastGood
from shell.loops.public_address import Service as AddressService
from shell.options import DEFAULT_CADDY_ADMIN, Options

_MIB = 1024**2
# Where the agent has put it before another place was chosen, and Caddy's own choice: that of one that nobody has configured yet, and a
# person's.
_USUAL_ADMINS = (DEFAULT_CADDY_ADMIN, "localhost:2019")


@dataclass(frozen=True, slots=True)
class Node:
    """Everything that a command needs to look at this server or to work on it."""

    identity: Identity
    node_type: NodeType
    control_plane: ControlPlane
    components: Components
    last_good: LastGood
    public_ip: str | None
    data_dir: Path
    rules: LocalRules = NO_RULES
    public_address: AddressService | None = None
    workshop: Workshop | None = None
    build_concurrency: int = 1
    log_store: VictoriaLogs | None = None
    log_spool_bytes: int = 256 * _MIB
    log_settle_s: float = 10.0
    access_log: Path | None = None
    images: Images | None = None
    image_gc_high: int = 85
    image_fetching: FetchSettings = field(default_factory=FetchSettings)
    firewall: Firewall | None = None

    async def aclose(self) -> None:
        """Close the connections to the control plane and to Podman."""
        await self.control_plane.aclose()
        if isinstance(self.components.podman, Podman):
            await self.components.podman.aclose()
        if self.log_store is not None:
            await self.log_store.aclose()


def build(options: Options, identity: Identity, control_plane: ControlPlane) -> Node:
    """The node that these options and this identity describe. Workers get no Caddy at all."""
    managed = frozenset(COMPONENTS) - frozenset(options.unmanaged)
    dns = _dns(options, identity) if "dns" in managed else None
    podman = Podman(
        PodmanSettings(
            socket=options.podman_socket,
            network=options.network,
            subnet_id=identity.subnet_id,
            volumes_dir=options.data_dir / "volumes",
            registry_auth_file=options.registry_auth_file,
            insecure_registries=frozenset(options.insecure_registry),
            dns=() if dns is None else (dns.resolver_for_containers(),),
            log_size_bytes=options.container_log_mib * _MIB,
        )
    )
    wireguard = _wireguard(options, identity) if "wireguard" in managed else None
    proxy = caddy(options, control_plane.url) if "caddy" in managed and identity.is_proxy else None
    rules = _rules(options)
    return Node(
        identity=identity,
        node_type=NodeType.PROXY if identity.is_proxy else NodeType.WORKER,
        control_plane=control_plane,
        components=Components(podman, dns, proxy, wireguard),
        rules=rules,
        last_good=LastGood(options.data_dir, identity.subnet_id, identity.keys.wireguard_public, rules),
        public_ip=None if options.public_ip is None else str(options.public_ip),
        data_dir=options.data_dir,
        public_address=_public_address(options),
        workshop=None if options.no_builds else workshop(options),
        build_concurrency=options.build_concurrency,
        images=podman.images,
        firewall=Firewall(firewall_settings(options, identity.subnet_id, is_proxy=identity.is_proxy)),
        image_gc_high=options.image_gc_high,
        image_fetching=FetchSettings(options.pull_policy, options.pull_concurrency),
        log_spool_bytes=options.log_spool_mib * _MIB,
        log_settle_s=options.log_settle,
        access_log=options.caddy_access_log if proxy is not None else None,
        log_store=_log_store(options),
    )


def workshop(options: Options) -> Workshop:
    """What the builds of this host share."""
    top = options.data_dir / "builds"
    settings = Settings(
        builder=options.builder,
        cache=options.build_cache,
        insecure_registries=frozenset(options.insecure_registry),
        auth_file=None if options.registry_auth_file is None else str(options.registry_auth_file),
        railpack_frontend=options.railpack_frontend,
        store=str(top / "store"),
    )
    limit_s = options.build_timeout * 60.0
    limits = Limits(
        memory_bytes=options.build_memory_mib * _MIB or psutil.virtual_memory().total // 2,
        tasks=options.build_tasks,
        cpu_weight=options.build_cpu_weight,
        io_weight=options.build_io_weight,
        disk_bytes=options.build_disk_mib * _MIB,
    )
    return Workshop(top, settings, limits, options.build_allow_scheme, limit_s, options.registry_auth_file)


def firewall_settings(options: Options, subnet_id: int, *, is_proxy: bool) -> FirewallSettings:
    """What must pass the firewall of a server with these options."""
    is_managed = "wireguard" not in options.unmanaged
    return FirewallSettings(
        subnet_id=subnet_id,
        interface=options.wireguard_interface if is_managed else None,
        unmanaged_tunnel=None if is_managed else options.wireguard_interface,
        wireguard_port=options.wireguard_port,
        is_proxy=is_proxy and "caddy" not in options.unmanaged,
        names="dns" not in options.unmanaged,
    )


def _rules(options: Options) -> LocalRules:
    ranges = filter(None, map(port_range, options.allow_host_port))
    return LocalRules(own_names.find(), tuple(ranges), own_names.searched())


def _public_address(options: Options) -> PublicAddressService | None:
    url = options.public_ip_service
    return None if url is None else PublicAddressService(url, ca_file=options.ca_file)


def _log_store(options: Options) -> VictoriaLogs | None:
    return None if options.logs_endpoint is None else VictoriaLogs(options.logs_endpoint, ca_file=options.ca_file)


def _dns(options: Options, identity: Identity) -> Dnsmasq:
    return Dnsmasq(
        DnsmasqSettings(
            gateway=f"10.200.{identity.subnet_id}.1",
            directory=options.run_dir / "dns",
            loopback=str(options.dns_loopback),
            systemd=systemd_runs(),
        )
    )


def caddy(options: Options, control_plane: str) -> Caddy:
    """The adapter of a proxy's Caddy."""
    base = Base(control_plane, options.tls_issuer, access_log=str(options.caddy_access_log))
    elsewhere = tuple(one for one in _USUAL_ADMINS if one != options.caddy_admin)
    return Caddy(CaddySettings(base, options.data_dir / "caddy", options.caddy_admin, elsewhere, systemd_unit()))


def _wireguard(options: Options, identity: Identity) -> WireGuard:
    return WireGuard(
        WireGuardSettings(
            address=identity.wireguard_ip,
            private_key=identity.keys.wireguard,
            state_dir=options.data_dir / "wireguard",
            interface=options.wireguard_interface,
            listen_port=options.wireguard_port,
        )
    )
