"""The program that runs in the virtual machine: every check on the kernel's WireGuard, one JSON line for each.

A line has the check's `name`, its `seconds`, and its `trouble` as a traceback, or null.
"""

import json
import subprocess
import tempfile
import time
import traceback
from collections.abc import Callable
from dataclasses import replace
from pathlib import Path

from core.wireguard import canonical_peers
from core.wireguard_uapi import peers_of
from shell.adapters.wireguard.kernel import Kernel
from shell.failure import AdapterError
from tests.real.wireguard.checks import CHECKS, refused
from tests.real.wireguard.tunnel import Tunnel, command, ip, key, peer, same, tunnel


def the_kernel_is_preferred(tunnel: Tunnel) -> None:
    """Chosen without being asked for; no process is started, none is needed."""
    automatic = tunnel.again(mode="auto", binary="there-is-no-such-program")
    automatic.apply(peer(1))
    (link,) = ip("link", "show", "dev", tunnel.name)
    same(link["linkinfo"]["info_kind"], "wireguard")


def a_foreign_interface_without_a_key_is_refused(tunnel: Tunnel) -> None:
    """L10: one that nobody has configured yet is still not ours, unless we were about to make it."""
    command("ip", "link", "add", tunnel.name, "type", "wireguard")
    with refused("so it is not the agent's"):
        tunnel.apply(peer(1))
    same(tunnel.dump()[0][0], "(none)")
    command("ip", "link", "delete", tunnel.name)
    tunnel.apply(peer(1))
    command("ip", "link", "delete", tunnel.name)
    command("ip", "link", "add", tunnel.name, "type", "wireguard")
    assert "it has no key yet" in tunnel.trouble(), tunnel.trouble()
    tunnel.apply(peer(1))
    same(tunnel.fetch(), (peer(1),))


def a_peer_in_several_messages_is_one(tunnel: Tunnel) -> None:
    """L5: the kernel cuts its answer every 32 KiB, also within a peer, whose rest comes under the same key."""
    tunnel.ensure_up()
    wide = peer(1, *sorted(f"10.200.{number // 250}.{number % 250}/32" for number in range(1500)))
    Kernel(tunnel.name).change((wide, peer(2)), ())
    found = peers_of(Kernel(tunnel.name).read(), {})
    same(len(found), 2)
    same(found, canonical_peers((wide, peer(2))))


def packets_pass_while_other_peers_come_and_go(tunnel: Tunnel) -> None:
    """L20: two tunnels of the kernel's, one of them in a network of its own; a ping every 20 ms loses nothing."""
    command("ip", "netns", "add", "far")
    far = Tunnel(replace(tunnel.settings, interface="wgfar", listen_port=30_500, private_key=bytes(range(32))))
    command("ip", "link", "add", far.name, "type", "wireguard")
    # Its socket stays in the network where it was made, so that both reach each other by the loopback.
    secret = tunnel.settings.state_dir / "far.key"
    tunnel.ensure_up()
    secret.write_text("AAECAwQFBgcICQoLDA0ODxAREhMUFRYXGBkaGxwdHh8=")
    public = command("wg", "show", tunnel.name, "public-key").strip()
    command(
        "wg",
        "set",
        far.name,
        "listen-port",
        "30500",
        "private-key",
        str(secret),
        "peer",
        public,
        "allowed-ips",
        "10.0.0.0/8",
    )
    far_key = command("wg", "show", far.name, "public-key").strip()
    command("ip", "link", "set", far.name, "netns", "far")
    for words in (
        ("address", "add", "10.100.9.1/32", "dev", far.name),
        ("link", "set", far.name, "up"),
        ("route", "add", "10.0.0.0/8", "dev", far.name),
    ):
        command("ip", "-n", "far", *words)
    real = replace(peer(9), public_key=far_key, endpoint="127.0.0.1:30500")
    tunnel.apply(real)
    command("ping", "-q", "-c", "1", "-W", "60", "10.100.9.1")
    assert Kernel(tunnel.name).read().peers[0].handshake_ns > 10**18, "the time of the handshake is not read"
    _ping_while_peers_change(tunnel)
    same(tunnel.fetch(), (real,))


def _ping_while_peers_change(tunnel: Tunnel) -> None:
    ping = subprocess.Popen(
        ("ping", "-q", "-i", "0.02", "-c", "400", "-W", "60", "10.100.9.1"), stdout=subprocess.PIPE, text=True
    )
    for number in range(20, 27):
        tunnel.apply(peer(number))
        tunnel.apply(replace(peer(number), endpoint="127.0.0.1:7777"))
        tunnel.apply(remove=(key(number),))
    said, _ = ping.communicate(timeout=600)
    assert " 0% packet loss" in said, said


KERNEL_ONLY: tuple[Callable[[Tunnel], None], ...] = (
    the_kernel_is_preferred,
    a_foreign_interface_without_a_key_is_refused,
    a_peer_in_several_messages_is_one,
    packets_pass_while_other_peers_come_and_go,
)


def main() -> None:
    """Run every check, each on a tunnel of its own."""
    for check in (*CHECKS, *KERNEL_ONLY):
        began = time.monotonic()
        trouble = None
        try:
            with tempfile.TemporaryDirectory() as folder, tunnel(Path(folder), "wg0", "kernel") as made:
                check(made)
        except (AssertionError, AdapterError, OSError):
            trouble = traceback.format_exc(limit=-4)
        print(
            json.dumps({"name": check.__name__, "seconds": round(time.monotonic() - began, 2), "trouble": trouble}),
            flush=True,
        )


if __name__ == "__main__":
    main()
