"""This server's packet filters: our rules, Podman's, and those of others.

`adapter` reads and changes. Beneath it: `ruleset` (nftables by netlink, in this process), `iptables` (our rules, by the command) and
`links` (what the links of this server are called).
"""

from shell.adapters.firewall.adapter import Firewall, FirewallSettings, Seen

__all__ = ["Firewall", "FirewallSettings", "Seen"]
