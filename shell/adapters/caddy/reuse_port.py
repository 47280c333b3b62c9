"""The kernel's side of a change of configuration: what becomes of connections that Caddy has not accepted yet.

With each configuration Caddy opens its ports anew beside the listeners that it has (SO_REUSEPORT) and then closes those. By default the
kernel resets the connections that wait at a listener when it is closed.
"""

from pathlib import Path
from typing import Final

_MIGRATION: Final = Path("/proc/sys/net/ipv4/tcp_migrate_req")  # Linux 5.14, of this network namespace; IPv6 too


def migrate_connections(setting: Path = _MIGRATION) -> str | None:
    """Have the kernel hand waiting connections to the new listener. Why that cannot be had; None when it is in force."""
    try:
        if setting.read_text().strip() != "1":
            setting.write_text("1")
    except OSError as error:
        return f"{setting}: {error.strerror}"
    return None
