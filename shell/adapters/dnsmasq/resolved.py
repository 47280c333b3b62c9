"""systemd-resolved, where a server has it: its own servers, and the drop-in by which it asks us for what we serve.

The drop-in lies under /run, so that after a reboot nobody is sent to a dnsmasq that is not up yet, and so that a file of the same name
in the administrator's /etc goes before it. One without our header is never touched.

It is read only by a restart (a reload, since systemd 256), in which the server resolves nothing for a moment, and systemd lets no service
restart without end: so that names which come and go cannot take its resolver away, it is left alone for a while after each.
"""

import time
from dataclasses import dataclass, field
from pathlib import Path
from typing import Final

from core import dnsmasq
from shell.adapters.dnsmasq import files, process
from shell.failure import AdapterError

_FILE: Final = "techulus-internal.conf"
_SERVICE: Final = "systemd-resolved.service"
_REST_S: Final = 30.0  # systemd's limit is five starts in ten seconds, and others restart it too


@dataclass(slots=True)
class Resolved:
    """`directory` is there exactly when systemd-resolved is."""

    directory: Path
    drop_ins: Path
    _rests_until: float = field(default=0.0, init=False)

    def servers(self) -> tuple[str, ...]:
        """The servers that it asks itself; none when it is not here."""
        return dnsmasq.parse_resolv_conf(files.read(self.directory / "resolv.conf") or "")

    def lacks_drop_in(self, text: str) -> bool:
        """Whether the drop-in, which should say this, has to be written now."""
        if not self.directory.is_dir() or time.monotonic() < self._rests_until:
            return False
        there = files.read(self._path())
        return there is None or (there != text and there.startswith(dnsmasq.HEADER))

    def ensure_drop_in(self, text: str) -> None:
        """Write the drop-in and let it be read, when that has to be done now."""
        if not self.lacks_drop_in(text):
            return
        files.make_folder(self.drop_ins)
        files.write(self._path(), text)
        try:
            process.systemctl("try-reload-or-restart", _SERVICE)
        except AdapterError:
            self._path().unlink()  # there, it would look as if it had been read
            raise
        self._rests_until = time.monotonic() + _REST_S

    def remove_drop_in(self) -> None:
        """Take the drop-in back, when it is ours."""
        if (files.read(self._path()) or "").startswith(dnsmasq.HEADER):
            self._path().unlink()
            process.systemctl("try-restart", _SERVICE)

    def _path(self) -> Path:
        return self.drop_ins / _FILE
