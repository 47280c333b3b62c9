"""Caddy: the one component that answers public requests. `adapter` reads and changes what it serves, by `admin` and `process`."""

from shell.adapters.caddy.adapter import Caddy, CaddySettings
from shell.adapters.caddy.process import systemd_unit

__all__ = ["Caddy", "CaddySettings", "systemd_unit"]
