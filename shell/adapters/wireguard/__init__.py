"""WireGuard: the tunnel to the other servers.

`adapter` reads and changes peers. Beneath it: `kernel` and `userspace` (the two implementations, by netlink and by socket), `links`
(address, routes, forwarding) and `process` (the userspace implementation's process, which outlives the agent).
"""

from shell.adapters.wireguard.adapter import WireGuard, WireGuardSettings

__all__ = ["WireGuard", "WireGuardSettings"]
