"""dnsmasq: the one component that answers names.

`adapter` reads and changes what it serves. Beneath it: `process` (found, started, ended), `queries` (asked), `listening` (its
addresses), `resolved` (who else is told of it) and `files`.
"""

from shell.adapters.dnsmasq.adapter import Dnsmasq, DnsmasqSettings
from shell.adapters.dnsmasq.process import systemd_runs

__all__ = ["Dnsmasq", "DnsmasqSettings", "systemd_runs"]
