"""What a WireGuard interface says of itself, and the text that its userspace implementation takes and gives.

The protocol is that of wireguard.com/xplatform: lines of `key=value`, keys of 32 bytes in hexadecimal, an empty line at the end, `errno=0`
for success. A set request is not atomic: what stands before a bad line stays applied, so the result is always read back.
"""

import base64
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from typing import Final

from returns.result import Failure, Result, Success

from core import address
from core.wireguard import KEY_BYTES, Peer, canonical_peers

KEEPALIVE_S: Final = 25  # below the time after which common firewalls forget a UDP flow
GET: Final = "get=1\n\n"


@dataclass(frozen=True, slots=True)
class DevicePeer:
    """A peer as the interface has it: base64 key, networks in CIDR form, the endpoint it last heard from or was given.

    `handshake_ns` is when the last handshake was completed, in nanoseconds since the epoch; 0 when there was none.
    """

    public_key: str
    networks: tuple[str, ...]
    endpoint: str | None
    handshake_ns: int = 0


@dataclass(frozen=True, slots=True)
class Device:
    """An interface: its raw private key (None while it has none), port and peers."""

    private_key: bytes | None = field(repr=False)
    listen_port: int
    peers: tuple[DevicePeer, ...]


def peers_of(device: Device, endpoints: Mapping[str, str | None]) -> tuple[Peer, ...]:
    """The peers in canonical form. A key in `endpoints` has the endpoint that it was given there, wherever it has roamed since."""
    return canonical_peers(
        Peer(
            peer.public_key,
            tuple(sorted(peer.networks)),
            endpoints.get(peer.public_key, peer.endpoint),
        )
        for peer in device.peers
    )


def clamped(private_key: bytes) -> bytes:
    """The key as an interface keeps it: X25519 (RFC 7748) fixes five bits, and a key file may have them otherwise."""
    return bytes((private_key[0] & 248, *private_key[1:31], (private_key[31] & 127) | 64))


def render_interface(private_key: bytes, listen_port: int) -> str:
    """The request that gives an interface its key and port, and touches no peer."""
    return f"set=1\nprivate_key={private_key.hex()}\nlisten_port={listen_port}\n\n"


def render_peers(upsert: Iterable[Peer], remove: Iterable[str]) -> str:
    """The request that removes and sets these peers and touches no other.

    Removals come first, so that a network that moves from one of them to another ends where it should.
    """
    lines = ["set=1"]
    for key in remove:
        lines += [f"public_key={_hex(key)}", "remove=true"]
    for peer in upsert:
        lines += [f"public_key={_hex(peer.public_key)}", "replace_allowed_ips=true"]
        lines += [f"endpoint={peer.endpoint}"] if peer.endpoint is not None else []
        lines += [f"persistent_keepalive_interval={KEEPALIVE_S}"]
        lines += [f"allowed_ip={network}" for network in peer.networks]
    return "\n".join(lines) + "\n\n"


def parse_errno(answer: str) -> Result[None, str]:
    """Whether a set request was taken."""
    values = [line.partition("=")[2] for line in answer.splitlines() if line.startswith("errno=")]
    return Success(None) if values == ["0"] else Failure(f"it answered {answer.strip()[:100]!r}")


def parse_device(answer: str) -> Result[Device, str]:
    """The interface from the answer to a get request."""
    private_key: bytes | None = None
    port = 0
    peers: list[tuple[str, dict[str, list[str]]]] = []
    done = False
    try:
        for line in answer.splitlines():
            name, _, value = line.partition("=")
            match name:
                case "private_key":
                    private_key = _key(value)
                case "listen_port":
                    port = int(value)
                case "public_key":
                    peers.append((base64.b64encode(_key(value)).decode("ascii"), {}))
                case "allowed_ip" | "endpoint" | "last_handshake_time_sec" | "last_handshake_time_nsec":
                    peers[-1][1].setdefault(name, []).append(value)
                case "errno":
                    done = value == "0"
        found = tuple(_peer(key, values) for key, values in peers)
    except (ValueError, IndexError):
        done = False
    if not done:
        return Failure("its answer makes no sense")
    return Success(Device(private_key if private_key and any(private_key) else None, port, found))


def _peer(key: str, values: Mapping[str, list[str]]) -> DevicePeer:
    """Of what stands more than once, the last counts; allowed networks add up. Raises ValueError for a time that is no number."""
    last = {name: found[-1] for name, found in values.items()}
    endpoint = last.get("endpoint")
    seconds, rest = (int(last.get(f"last_handshake_time_{unit}", 0)) for unit in ("sec", "nsec"))
    return DevicePeer(
        key,
        tuple(values.get("allowed_ip", ())),
        None if endpoint is None else address.endpoint(endpoint) or endpoint,
        seconds * 10**9 + rest,
    )


def _hex(key: str) -> str:
    return base64.b64decode(key).hex()


def _key(text: str) -> bytes:
    raw = bytes.fromhex(text)
    if len(raw) != KEY_BYTES:
        raise ValueError("a key has 32 bytes")
    return raw
