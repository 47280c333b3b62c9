"""Host names, addresses, ports and networks as text: what is valid, and the one spelling of each.

Used by the rooms for DNS, routes and peers, which must agree on these and on nothing else. Resolves nothing.
"""

import re
from functools import lru_cache
from ipaddress import AddressValueError, IPv4Network, IPv6Address, NetmaskValueError

from core import bounds

MESH_NETWORK = IPv4Network("10.100.0.0/16")
CONTAINER_NETWORK = IPv4Network("10.200.0.0/16")

_PRIVATE_ZONES = frozenset({"internal", "localhost"})
_LABEL = r"[a-z0-9](?:[a-z0-9-]{0,61}[a-z0-9])?"
_LABELS = re.compile(rf"(?:{_LABEL}\.)*{_LABEL}")
# As the last label it makes an address of a name (inet_aton(3), WHATWG's URL).
_NUMBER = re.compile(r"[0-9]+|0x[0-9a-f]*")
_BYTE = r"(?:25[0-5]|2[0-4][0-9]|1[0-9][0-9]|[1-9]?[0-9])"
_CONTAINER = re.compile(rf"10\.200\.(?!0\.){_BYTE}\.(?![01]:|255:){_BYTE}:[1-9][0-9]{{0,4}}")
# As `ipaddress.IPv4Address` has it, at a tenth of its cost: an expected state has tens of thousands of them.
_IPV4 = re.compile(rf"{_BYTE}\.{_BYTE}\.{_BYTE}\.{_BYTE}")
_PORT = re.compile(r"[0-9]{1,5}")
_LONGEST_NETWORK = len("255.255.255.255/255.255.255.255")
_MAX_HOST_NAME = 253  # RFC 1035, without the trailing dot


def is_host_name(text: str) -> bool:
    """Whether a lower-case text is a host name (RFC 1123): labels of letters, digits and inner hyphens, the last not all digits."""
    if not 0 < len(text) <= _MAX_HOST_NAME:
        return False
    return _LABELS.fullmatch(text) is not None and not text[text.rfind(".") + 1 :].isdigit()


def is_public_name(text: str) -> bool:
    """Whether a host name in lower case may be one of the internet's: two labels or more, no address in any spelling, not `localhost`'s.

    `127.1`, `0177.0.0.1` and `0x7f.0.0.1` are addresses to who connects, whatever they look like.
    """
    last = text[text.rfind(".") + 1 :]
    return last != text and last not in _PRIVATE_ZONES and _NUMBER.fullmatch(last) is None


def is_in_container_network(upstream: str) -> bool:
    """Whether an endpoint in its one spelling (`endpoint`) has an IPv4 address in 10.200.0.0/16."""
    return upstream.startswith("10.200.")


def is_container(upstream: str) -> bool:
    """Whether a text is an endpoint with an address that a container may have: 10.200.N.2 to .254 of the servers 1 to 255.

    Those below are the network's own and the gateway, which is the server itself; the last one is broadcast.
    """
    return _CONTAINER.fullmatch(upstream) is not None


def is_ipv4(text: str) -> bool:
    """Whether a text is a dotted IPv4 address without leading zeros, which is its only spelling."""
    return _IPV4.fullmatch(text) is not None


def port(text: str) -> int | None:
    """A port number from 1 to 65535, or None."""
    number = int(text) if _PORT.fullmatch(text) and text.isascii() else 0
    return number if 0 < number < 65_536 else None


def endpoint(text: str) -> str | None:
    """The one spelling of `address:port`, or None. IPv6 may be bracketed or bare with the port after the last colon."""
    if len(text) > bounds.ENDPOINT:
        return None
    host, colon, tail = text.rpartition(":")
    number = port(tail)
    if not colon or number is None:
        return None
    if is_ipv4(host):
        return f"{host}:{number}"
    bare = host[1:-1] if host.startswith("[") and host.endswith("]") else host
    if "%" in bare:  # a zone index means nothing on another server
        return None
    try:
        return f"[{IPv6Address(bare)}]:{number}"
    except AddressValueError:
        return None


def network(text: str) -> IPv4Network | None:
    """An IPv4 network in CIDR form with its host bits cleared, or None."""
    return _network(text) if len(text) <= _LONGEST_NETWORK else None


@lru_cache(maxsize=4096)  # each server has two; a megabyte or two at most, since what it keeps is short
def _network(text: str) -> IPv4Network | None:
    try:
        return IPv4Network(text, strict=False)
    except (AddressValueError, NetmaskValueError):
        return None
