"""Which forward proxy a request goes through, by the variables HTTP_PROXY, HTTPS_PROXY and NO_PROXY.

The rules are those of Go's default transport (golang.org/x/net/http/httpproxy), which Podman, BuildKit, skopeo and Caddy on the same server
follow: names in capitals or not; NO_PROXY is a list with commas of `*`, host names (with their subdomains), `.suffix` and `*.suffix`
(subdomains only), addresses and networks in CIDR form, all but networks perhaps with a port. What stays on this machine never goes
through a proxy. Knows nothing of connections.
"""

from collections.abc import Mapping
from dataclasses import dataclass, field
from ipaddress import IPv4Address, IPv6Address, ip_address, ip_network
from typing import Final, TypeAlias
from urllib.parse import urlsplit

import idna
from returns.result import Failure, Result, Success

VARIABLES: Final = ("HTTP_PROXY", "HTTPS_PROXY", "NO_PROXY")
_SCHEMES: Final = ("http", "https")
_ALL: Final = "*"

Address: TypeAlias = IPv4Address | IPv6Address


@dataclass(frozen=True, slots=True)
class Destination:
    """Where a request goes: `http` or `https`, a host as in a URL (IPv6 without brackets), and the port."""

    scheme: str
    host: str
    port: int


@dataclass(frozen=True, slots=True)
class Proxies:
    """The proxy for each scheme as the environment names it, empty for none, and what is reached without. It may hold credentials."""

    http: str = field(default="", repr=False)
    https: str = field(default="", repr=False)
    exempt: tuple[str, ...] = ()

    def choose(self, to: Destination) -> Result[str | None, str]:
        """The URL of the proxy to go through; None to connect directly. Or which variable is wrong and why, if it is needed at all.

        The reason repeats nothing of a URL that may hold a password.
        """
        name, proxy = ("HTTPS_PROXY", self.https) if to.scheme == "https" else ("HTTP_PROXY", self.http)
        if not proxy or _is_here(to.host) or any(_matches(entry, to) for entry in self.exempt):
            return Success(None)
        return _usable(name, proxy)


def from_environment(environment: Mapping[str, str]) -> Proxies:
    """The proxies of an environment, whether or not they make sense."""
    entries = (entry.strip().lower() for entry in _value(environment, "NO_PROXY").split(","))
    return Proxies(_value(environment, "HTTP_PROXY"), _value(environment, "HTTPS_PROXY"), tuple(filter(None, entries)))


def _value(environment: Mapping[str, str], name: str) -> str:
    return environment.get(name, "").strip() or environment.get(name.lower(), "").strip()


def _usable(name: str, text: str) -> Result[str | None, str]:
    url = text if "://" in text else f"http://{text}"
    try:
        parts = urlsplit(url)
        is_complete = bool(parts.hostname) and parts.port != 0
    except ValueError:
        is_complete = False
    if not is_complete or not url.isprintable() or " " in url:
        return Failure(f"{name} is not the URL of a proxy")
    if parts.scheme not in _SCHEMES:
        return Failure(f"{name} names a proxy of a kind that is not supported; give an http or https URL")
    return Success(url)


def _is_here(host: str) -> bool:
    address = _address(host)
    return host == "localhost" if address is None else address.is_loopback


def _address(text: str) -> Address | None:
    try:
        found = ip_address(text)
    except ValueError:
        return None
    mapped = found.ipv4_mapped if isinstance(found, IPv6Address) else None
    return mapped or found


def _matches(entry: str, to: Destination) -> bool:
    """Whether one entry of NO_PROXY, in lower case, covers a destination."""
    host, address = to.host.lower(), _address(to.host)
    if entry == _ALL:
        return True
    if "/" in entry:
        return address is not None and _contains(entry, address)
    name, port = _split_port(entry)
    if port not in ("", str(to.port)):
        return False
    if (exempt := _address(name)) is not None:
        return exempt == address
    name = name[1:] if name.startswith("*.") else name
    if name.startswith("."):
        return host.endswith(_ascii(name))
    return bool(name) and (host == _ascii(name) or host.endswith(f".{_ascii(name)}"))


def _contains(network: str, address: Address) -> bool:
    try:
        return address in ip_network(network, strict=False)
    except ValueError:
        return False


def _split_port(entry: str) -> tuple[str, str]:
    """Host and port; the port is empty when there is none. A bare IPv6 address has none."""
    host, colon, port = entry.rpartition(":")
    if not colon or _address(entry) is not None or entry.endswith("]"):
        return entry.strip("[]"), ""
    return host.strip("[]"), port


def _ascii(name: str) -> str:
    if name.isascii():
        return name
    try:
        return "." * name.startswith(".") + idna.encode(name.strip("."), uts46=True).decode("ascii")
    except idna.IDNAError:
        return name
