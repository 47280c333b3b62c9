"""A program that does with a tunnel what an agent does, over and over, until it is killed.

Arguments: interface, number of the server, port, private key in hexadecimal, folder. One line on standard output for each round.
"""

import sys
from dataclasses import replace
from itertools import cycle
from pathlib import Path

from shell.adapters.wireguard import WireGuard, WireGuardSettings
from tests.real.wireguard.tunnel import key, now, peer


def main() -> None:
    """Bring the tunnel up, then add, change and remove a peer."""
    interface, number, port, private_key, folder = sys.argv[1:]
    wire = WireGuard(
        WireGuardSettings(
            address=f"10.100.{number}.1",
            private_key=bytes.fromhex(private_key),
            state_dir=Path(folder),
            interface=interface,
            listen_port=int(port),
            mode="userspace",
        )
    )
    now(wire.ensure_up())
    print("up", flush=True)
    for other in cycle(range(30, 40)):
        now(wire.apply((peer(other),), ()))
        now(wire.apply((replace(peer(other), endpoint="127.0.0.1:7777"),), ()))
        now(wire.apply((), (key(other),)))
        print("round", flush=True)


if __name__ == "__main__":
    main()
