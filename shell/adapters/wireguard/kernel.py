"""The kernel's WireGuard, by netlink. Knows no process and no socket."""

import base64
from collections.abc import Iterable
from dataclasses import replace
from typing import Any

from core import address
from core.wireguard import Peer
from core.wireguard_uapi import KEEPALIVE_S, Device, DevicePeer
from shell.adapters.wireguard.failures import failures
from shell.adapters.wireguard.netlink import WireGuard as Netlink


class Kernel:
    """One interface of kind `wireguard`."""

    def __init__(self, interface: str) -> None:
        self._interface = interface

    def read(self) -> Device:
        """What the interface has now."""
        with failures(f"read {self._interface}"), Netlink() as netlink:
            answers: list[Any] = list(netlink.info(self._interface))
        first = answers[0]
        key = first.get_attr("WGDEVICE_A_PRIVATE_KEY")
        peers = _joined(_peer(one) for answer in answers for one in answer.get_attr("WGDEVICE_A_PEERS") or ())
        return Device(_key(key), first.get_attr("WGDEVICE_A_LISTEN_PORT") or 0, peers)

    def configure(self, private_key: bytes, listen_port: int) -> None:
        """Give the interface its key and port."""
        with failures(f"configure {self._interface}"), Netlink() as netlink:
            netlink.set(self._interface, private_key=_text(private_key), listen_port=listen_port)

    def change(self, upsert: Iterable[Peer], remove: Iterable[str]) -> None:
        """Remove and set these peers, and touch no other."""
        with failures(f"set peers of {self._interface}"), Netlink() as netlink:
            for key in remove:
                netlink.set(self._interface, peer={"public_key": key, "remove": True})
            for peer in upsert:
                netlink.set(self._interface, peer=_request(peer))


def _request(peer: Peer) -> dict[str, object]:
    request: dict[str, object] = {
        "public_key": peer.public_key,
        "persistent_keepalive": KEEPALIVE_S,
        "replace_allowed_ips": True,
        "allowed_ips": list(peer.networks),
    }
    if peer.endpoint is not None:
        host, _, port = peer.endpoint.rpartition(":")
        request |= {"endpoint_addr": host.strip("[]"), "endpoint_port": int(port)}
    return request


def _peer(answer: Any) -> DevicePeer:
    key = answer.get_attr("WGPEER_A_PUBLIC_KEY")
    endpoint = answer.get_attr("WGPEER_A_ENDPOINT")
    host = endpoint and (f"[{endpoint['addr']}]" if ":" in endpoint["addr"] else endpoint["addr"])
    return DevicePeer(
        _ascii(key["value"] if isinstance(key, dict) else key),
        tuple(one["addr"] for one in answer.get_attr("WGPEER_A_ALLOWEDIPS") or ()),
        address.endpoint(f"{host}:{endpoint['port']}") if endpoint else None,
        _nanoseconds(answer.get_attr("WGPEER_A_LAST_HANDSHAKE_TIME")),
    )


def _nanoseconds(attribute: Any) -> int:
    return 0 if attribute is None else int(attribute["tv_sec"]) * 10**9 + int(attribute["tv_nsec"])


def _joined(parts: Iterable[DevicePeer]) -> tuple[DevicePeer, ...]:
    """Each peer once: one whose networks do not fit into a message goes on in the next, with its key and nothing else of before."""
    peers: dict[str, DevicePeer] = {}
    for part in parts:
        begun = peers.get(part.public_key)
        peers[part.public_key] = part if begun is None else replace(begun, networks=begun.networks + part.networks)
    return tuple(peers.values())


def _key(attribute: Any) -> bytes | None:
    if attribute is None:
        return None
    raw = base64.b64decode(_ascii(attribute["value"] if isinstance(attribute, dict) else attribute))
    return raw if any(raw) else None


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")


def _ascii(text: str | bytes) -> str:
    return text.decode("ascii") if isinstance(text, bytes) else text
