"""What makes sense as an option: its type, by pydantic off the fields of `Options`, and its own rule, by the table here.

Loaded by commands before they begin. The daemon runs in a process of its own, which is handed what was checked (`shell.handover`).
"""

import re
from collections.abc import Callable, Mapping
from dataclasses import fields, replace
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any, Final
from urllib.parse import urlsplit

from pydantic import TypeAdapter, ValidationError

from core import image
from core.local_rules import port_range
from shell.failure import CommandError
from shell.options import Options

_HOST_AND_PORT: Final = re.compile(r"(\[[0-9a-fA-F:]+\]|[a-zA-Z0-9_.-]+):[0-9]{1,5}")
_NETWORK: Final = re.compile(r"[a-zA-Z0-9][a-zA-Z0-9_.-]*")
_INTERFACE: Final = re.compile(r"[a-zA-Z0-9_.-]{1,15}")


def checked(given: Mapping[str, object]) -> Options:
    """The options as one value. Raises CommandError naming the first that makes no sense."""
    assert given.keys() <= {one.name for one in fields(Options)}, "the command line declares what there is not"
    try:
        options = TypeAdapter(Options).validate_python({k: value for k, value in given.items() if value is not None})
    except ValidationError as error:
        first = error.errors(include_url=False)[0]
        raise CommandError(f"{_flag(str(first['loc'][0]))}: {first['msg']}") from error
    ruled: dict[str, Any] = {}
    for name, rule in _RULES.items():
        value = getattr(options, name)
        try:
            ruled[name] = None if value is None else rule(value)
        except ValueError as error:
            raise CommandError(f"{_flag(name)}: {error}") from error
    return replace(options, **ruled)


def _flag(name: str) -> str:
    return "--" + name.replace("_", "-")


def _between(least: int, most: int) -> Callable[[int], int]:
    def rule(number: int) -> int:
        if not least <= number <= most:
            raise ValueError(f"{number} is not between {least:,} and {most:,}")
        return number

    return rule


def _matching(pattern: re.Pattern[str], what: str) -> Callable[[str], str]:
    def rule(text: str) -> str:
        if not pattern.fullmatch(text):
            raise ValueError(f"{text!r} is not {what}")
        return text

    return rule


def _reachable(address: IPv4Address | IPv6Address) -> IPv4Address | IPv6Address:
    if address.is_unspecified or address.is_loopback or address.is_multicast:
        raise ValueError(f"{address} is not an address of a server")
    return address


def _service(url: str) -> str | None:
    if url == "none":
        return None
    try:
        parts = urlsplit(url)
        is_usable = parts.scheme in ("http", "https") and bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_usable = False
    if not is_usable or not url.isprintable() or " " in url:
        raise ValueError("neither an http or https URL nor none")
    return url


def _reference(text: str) -> str:
    if image.parse(text) is None:
        raise ValueError(f"{text!r} is not an image reference")
    return text


def _listening(text: str) -> str:
    if not _HOST_AND_PORT.fullmatch(text) or not 0 < int(text.rpartition(":")[2]) < 65_536:
        raise ValueError(f"{text!r} is not HOST:PORT, such as 127.0.0.1:9469")
    return text


def _port_ranges(texts: tuple[str, ...]) -> tuple[str, ...]:
    for text in texts:
        if port_range(text) is None:
            raise ValueError(f"{text!r} is neither a port nor a range of ports, such as 8080 or 8000-8100")
    return texts


def _authorities(path: Path) -> Path:
    from shell.http_client import trusted  # takes a while to import, and nearly nobody needs it

    trusted(path.absolute())
    return path.absolute()


# What an option becomes; a ValueError says why it cannot be. One that is not given has no rule to keep.
_RULES: Final[Mapping[str, Callable[[Any], object]]] = {
    "data_dir": Path.absolute,
    "log_spool_mib": _between(1, 1_048_576),
    "log_settle": _between(0, 3600),
    "metrics_listen": _listening,
    "ca_file": _authorities,
    "podman_socket": Path.absolute,
    "network": _matching(_NETWORK, "a network's name"),
    "registry_auth_file": Path.absolute,
    "pull_concurrency": _between(1, 8),
    "container_log_mib": _between(1, 65_536),
    "allow_host_port": _port_ranges,
    "run_dir": Path.absolute,
    "caddy_access_log": Path.absolute,
    "wireguard_interface": _matching(_INTERFACE, "an interface's name (up to 15 characters)"),
    "wireguard_port": _between(1, 65_535),
    "public_ip": _reachable,
    "public_ip_service": _service,
    "build_concurrency": _between(1, 64),
    "build_timeout": _between(1, 1440),
    "build_memory_mib": _between(0, 1_048_576),
    "build_tasks": _between(64, 1_048_576),
    "build_disk_mib": _between(64, 1_048_576),
    "build_cpu_weight": _between(1, 10_000),
    "build_io_weight": _between(1, 10_000),
    "build_cache": _reference,
    "railpack_frontend": _reference,
    "image_gc_high": _between(1, 100),
}
