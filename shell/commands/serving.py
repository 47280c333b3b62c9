"""`agent control-plane`: the embedded control plane."""

import sys
from pathlib import Path

from shell import log, streams
from shell.failure import CommandError
from shell.local_plane import serving


def serve_control_plane(state: Path, listen: str, new_token: str | None, subnet: int | None) -> None:
    """Serve until stopped, or print a token for a new server. Raises CommandError."""
    if new_token is not None:
        sys.stdout.write(serving.new_token(state, new_token, subnet_id=subnet) + "\n")
        return
    host, colon, port = listen.rpartition(":")
    if not colon or not port.isdigit() or not 0 < int(port) < 65_536:
        raise CommandError(f"--listen {listen} is not HOST:PORT")
    streams.detach_stderr(log.lost_lines)  # whoever does not read its log must not stop it
    log.set_up()
    serving.serve(state, host.strip("[]"), int(port))
