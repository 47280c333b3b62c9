"""The agent's options as one value. What each means stands with the command line's help and in docs/options.md.

They are checked by `shell.option_checks`, once, before anything of the agent runs.
"""

from dataclasses import dataclass
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Literal

from core.build_plan import RAILPACK_FRONTEND as DEFAULT_RAILPACK_FRONTEND
from core.build_plan import Choice
from core.state import Component

DEFAULT_DATA_DIR = Path("/var/lib/techulus-agent")
DEFAULT_RUN_DIR = Path("/run/techulus-agent")
DEFAULT_ACCESS_LOG = Path("/var/log/caddy/techulus.log")
DEFAULT_CADDY_ADMIN = "unix//run/techulus-caddy/admin.sock"
DEFAULT_DNS_LOOPBACK = IPv4Address("127.0.0.153")
DEFAULT_PUBLIC_IP_SERVICE = "https://api.ipify.org"
DEFAULT_PODMAN_SOCKET = Path("/run/podman/podman.sock")


@dataclass(frozen=True, slots=True)
class Options:
    """How this agent runs. The token is not here: it is used once and not kept."""

    url: str | None = None
    data_dir: Path = DEFAULT_DATA_DIR
    logs_endpoint: str | None = None
    log_spool_mib: int = 256
    log_settle: int = 10
    metrics_listen: str | None = None
    proxy: bool = False
    allow_http: bool = False
    ca_file: Path | None = None
    podman_socket: Path = DEFAULT_PODMAN_SOCKET
    network: str = "techulus"
    registry_auth_file: Path | None = None
    insecure_registry: tuple[str, ...] = ()
    pull_policy: Literal["always", "missing"] = "always"
    pull_concurrency: int = 3
    container_log_mib: int = 64
    allow_host_port: tuple[str, ...] = ()
    unmanaged: tuple[Component, ...] = ()
    run_dir: Path = DEFAULT_RUN_DIR
    dns_loopback: IPv4Address = DEFAULT_DNS_LOOPBACK
    tls_issuer: Literal["acme", "internal"] = "acme"
    caddy_admin: str = DEFAULT_CADDY_ADMIN
    caddy_access_log: Path = DEFAULT_ACCESS_LOG
    wireguard_interface: str = "wg0"
    wireguard_port: int = 51_820
    public_ip: IPv4Address | IPv6Address | None = None
    public_ip_service: str | None = DEFAULT_PUBLIC_IP_SERVICE
    no_builds: bool = False
    builder: Choice = "auto"
    build_concurrency: int = 1
    build_timeout: int = 30
    build_memory_mib: int = 0
    build_tasks: int = 4096
    build_disk_mib: int = 20_480
    build_cpu_weight: int = 20
    build_io_weight: int = 20
    build_cache: str | None = None
    build_allow_scheme: tuple[Literal["http", "file"], ...] = ()
    railpack_frontend: str = DEFAULT_RAILPACK_FRONTEND
    image_gc_high: int = 85
