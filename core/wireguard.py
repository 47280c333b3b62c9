"""WireGuard peers: checked, brought into one form, compared.

Keys are 32 bytes of base64, networks lie in the mesh or the containers' range, an endpoint has one spelling. A peer is the same
whatever the order of its networks.
"""

import base64
import binascii
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from ipaddress import IPv4Network

from core import address, bounds
from core.digest import Plain, canonical_order
from core.rejection import Fault, Rejection, Sifted, shown, sift
from core.wire import MisshapenPeer, WirePeer

KEY_BYTES = 32
_KEY_CHARACTERS = 44


@dataclass(frozen=True, slots=True)
class Peer:
    """Base64 public key, sorted networks in CIDR form, and `address:port` or None."""

    public_key: str
    networks: tuple[str, ...]
    endpoint: str | None


def normalise_expected(
    entries: Sequence[WirePeer | MisshapenPeer], subnet_id: int | None = None, own_key: str | None = None
) -> Sifted[Peer]:
    """The peers in canonical order, the held keys and the rejected entries.

    With the own subnet known, peers that claim a part of it are rejected, and so are two peers that claim the same network: the
    interface would give it to whichever came last, and the other would count as drift for ever. So would one with this server's own key,
    which no interface takes for a peer.
    """

    def parse(entry: WirePeer | MisshapenPeer) -> Peer | Fault:
        if isinstance(entry, MisshapenPeer):
            return entry.fault
        if own_key is not None and entry.public_key == own_key:
            return Fault("publicKey", "it is this server's own")
        return _parse(entry)

    sifted = sift("wireguard.peers", entries, _key, parse, bounds.PEERS)
    if subnet_id is None:
        return Sifted(canonical_peers(sifted.values), sifted.held, sifted.rejected)
    faults = _claims(sifted.values, subnet_id)
    index = {entry.public_key: number for number, entry in reversed(list(enumerate(entries)))}
    rejected = [Rejection(f"wireguard.peers[{index[k]}].allowedIps", k, reason) for k, reason in faults.items()]
    good = canonical_peers(peer for peer in sifted.values if peer.public_key not in faults)
    return Sifted(good, sifted.held | faults.keys(), tuple(sorted((*sifted.rejected, *rejected))))


def normalise_actual(entries: list[WirePeer]) -> tuple[Peer, ...]:
    """What is configured, in the same form; what cannot be parsed stays visible as it is, so that it counts as drift."""
    return canonical_peers(
        Peer(
            entry.public_key,
            tuple(sorted({str(address.network(text) or text) for text in _split(entry.allowed_ips)})),
            (address.endpoint(entry.endpoint) or entry.endpoint) if entry.endpoint else None,
        )
        for entry in entries
    )


def canonical_peers(peers: Iterable[Peer]) -> tuple[Peer, ...]:
    """Distinct peers in canonical order."""
    return canonical_order(peers, plain)


def plain(peer: Peer) -> Plain:
    """The canonical form of one peer."""
    return (peer.public_key, peer.networks, peer.endpoint)


def public_key(peer: Peer) -> str:
    """The key of a peer."""
    return peer.public_key


def is_key(text: str) -> bool:
    """Whether a text is the base64 form of exactly 32 bytes."""
    if len(text) != _KEY_CHARACTERS:
        return False
    try:
        decoded = base64.b64decode(text, validate=True)
    except (binascii.Error, ValueError):
        return False
    return len(decoded) == KEY_BYTES and base64.b64encode(decoded).decode("ascii") == text


def _key(entry: WirePeer | MisshapenPeer) -> str:
    return entry.public_key


def _split(text: str) -> list[str]:
    return [part.strip() for part in text.split(",") if part.strip()]


def _parse(entry: WirePeer) -> Peer | Fault:
    if not is_key(entry.public_key):
        return Fault("publicKey", f"{shown(entry.public_key)} is not 32 bytes of base64")
    networks: set[IPv4Network] = set()
    parts = _split(entry.allowed_ips)
    if why := bounds.too_many(parts, bounds.NETWORKS):
        return Fault("allowedIps", why)
    for text in parts:
        found = address.network(text)
        if found is None or not _is_allowed(found):
            return Fault("allowedIps", f"{shown(text)} is not a network within 10.100.0.0/16 or 10.200.0.0/16")
        networks.add(found)
    endpoint = address.endpoint(entry.endpoint) if entry.endpoint else None
    if entry.endpoint and endpoint is None:
        return Fault("endpoint", f"{shown(entry.endpoint)} is not address:port")
    return Peer(entry.public_key, tuple(sorted(map(str, networks))), endpoint)


def _claims(peers: Iterable[Peer], subnet_id: int) -> dict[str, str]:
    """Public key to reason, for the peers whose networks touch this server's own or another peer's."""
    own = [IPv4Network(f"10.{range_}.{subnet_id}.0/24") for range_ in (100, 200)]
    claims = [(peer.public_key, IPv4Network(text)) for peer in peers for text in peer.networks]
    # Those that touch our own are wrong by themselves, and take nobody else with them.
    faults = {
        key: f"{network} touches this server's own networks"
        for key, network in claims
        if any(network.overlaps(one) for one in own)
    }
    others = [claim for claim in claims if claim[0] not in faults]
    ordered = sorted(others, key=lambda claim: (claim[1].network_address, -claim[1].num_addresses, claim[0]))
    widest: tuple[str, IPv4Network] | None = None
    for owner, network in ordered:
        if widest is not None and network.overlaps(widest[1]) and owner != widest[0]:
            faults |= dict.fromkeys((owner, widest[0]), f"{network} is claimed by more than one server")
        if widest is None or network.broadcast_address > widest[1].broadcast_address:
            widest = (owner, network)
    return faults


def _is_allowed(network: IPv4Network) -> bool:
    return network.subnet_of(address.MESH_NETWORK) or network.subnet_of(address.CONTAINER_NETWORK)
