"""The agent's options as one value, checked once. What each means stands with the command line's help and in docs/options.md."""

import re
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Annotated, Literal
from urllib.parse import urlsplit

from pydantic import BaseModel, ConfigDict, Field, field_validator

from core import image
from core.build_plan import RAILPACK_FRONTEND as DEFAULT_RAILPACK_FRONTEND
from core.build_plan import Choice
from core.state import COMPONENTS, Component

_HOST_AND_PORT = re.compile(r"(\[[0-9a-fA-F:]+\]|[a-zA-Z0-9_.-]+):[0-9]{1,5}")
DEFAULT_DATA_DIR = Path("/var/lib/techulus-agent")
DEFAULT_RUN_DIR = Path("/run/techulus-agent")
DEFAULT_ACCESS_LOG = Path("/var/log/caddy/techulus.log")
DEFAULT_DNS_LOOPBACK = IPv4Address("127.0.0.153")
DEFAULT_PUBLIC_IP_SERVICE = "https://api.ipify.org"
DEFAULT_PODMAN_SOCKET = Path("/run/podman/podman.sock")


class Options(BaseModel):
    """How this agent runs. The token is not here: it is used once and not kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str | None = None
    data_dir: Path = DEFAULT_DATA_DIR
    logs_endpoint: str | None = None
    log_spool_mib: Annotated[int, Field(ge=1, le=1_048_576)] = 256
    metrics_listen: str | None = None
    proxy: bool = False
    allow_http: bool = False
    podman_socket: Path = DEFAULT_PODMAN_SOCKET
    network: Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$")] = "techulus"
    registry_auth_file: Path | None = None
    insecure_registry: tuple[str, ...] = ()
    container_log_mib: Annotated[int, Field(ge=1, le=65_536)] = 64
    unmanaged: tuple[Component, ...] = ()
    run_dir: Path = DEFAULT_RUN_DIR
    dns_loopback: IPv4Address = DEFAULT_DNS_LOOPBACK
    tls_issuer: Literal["acme", "internal"] = "acme"
    caddy_admin: str = "localhost:2019"
    caddy_access_log: Path = DEFAULT_ACCESS_LOG
    wireguard_interface: Annotated[str, Field(pattern=r"^[a-zA-Z0-9_.-]{1,15}$")] = "wg0"
    wireguard_port: Annotated[int, Field(ge=1, le=65_535)] = 51_820
    public_ip: IPv4Address | IPv6Address | None = None
    public_ip_service: str | None = DEFAULT_PUBLIC_IP_SERVICE
    no_builds: bool = False
    builder: Choice = "auto"
    build_concurrency: Annotated[int, Field(ge=1, le=64)] = 1
    build_timeout: Annotated[int, Field(ge=1, le=1440)] = 30
    build_cache: str | None = None
    build_allow_scheme: tuple[Literal["http", "file"], ...] = ()
    railpack_frontend: str = DEFAULT_RAILPACK_FRONTEND
    image_gc_high: Annotated[int, Field(ge=1, le=100)] = 85

    @field_validator("data_dir", "podman_socket", "registry_auth_file", "run_dir", "caddy_access_log")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return None if path is None else path.absolute()

    @field_validator("public_ip")
    @classmethod
    def _reachable(cls, address: IPv4Address | IPv6Address | None) -> IPv4Address | IPv6Address | None:
        if address is not None and (address.is_unspecified or address.is_loopback or address.is_multicast):
            raise ValueError(f"{address} is not an address of a server")
        return address

    @field_validator("public_ip_service")
    @classmethod
    def _service(cls, url: str | None) -> str | None:
        if url is None or url == "none":
            return None
        try:
            parts = urlsplit(url)
            is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
        except ValueError:
            is_usable = False
        if not is_usable or not url.isprintable() or " " in url:
            raise ValueError("neither an http or https URL nor none")
        return url

    @field_validator("metrics_listen")
    @classmethod
    def _listens(cls, text: str | None) -> str | None:
        if text is not None and not _HOST_AND_PORT.fullmatch(text):
            raise ValueError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:9469")
        return text

    @field_validator("build_cache", "railpack_frontend")
    @classmethod
    def _reference(cls, text: str | None) -> str | None:
        if text is not None and image.parse(text) is None:
            raise ValueError(f"{text!r} is not an image reference")
        return text

    @field_validator("unmanaged", mode="before")
    @classmethod
    def _components(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in COMPONENTS:
                raise ValueError(f"{name!r} is not one of {', '.join(COMPONENTS)}")
        return tuple(names)
