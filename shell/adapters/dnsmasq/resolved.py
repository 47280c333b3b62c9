"""systemd-resolved, where a server has it: its own servers, and the drop-in by which it asks us for our zone.

The drop-in lies under /run, so that after a reboot nobody is sent to a dnsmasq that is not up yet, and so that a file of the same name
in the administrator's /etc goes before it. One without our header is never touched.
"""

from dataclasses import dataclass
from pathlib import Path
from typing import Final

from core import dnsmasq
from shell.adapters.dnsmasq import files, process
from shell.failure import AdapterError

_FILE: Final = "techulus-internal.conf"
_SERVICE: Final = "systemd-resolved.service"


@dataclass(frozen=True, slots=True)
class Resolved:
    """`directory` is there exactly when systemd-resolved is; `text` is what the drop-in should say."""

    directory: Path
    drop_ins: Path
    text: str

    def servers(self) -> tuple[str, ...]:
        """The servers that it asks itself; none when it is not here."""
        return dnsmasq.parse_resolv_conf(files.read(self.directory / "resolv.conf") or "")

    def lacks_drop_in(self) -> bool:
        """Whether the drop-in has to be written."""
        if not self.directory.is_dir():
            return False
        there = files.read(self._path())
        return there is None or (there != self.text and there.startswith(dnsmasq.HEADER))

    def ensure_drop_in(self) -> bool:
        """Write the drop-in and let it be read, when that has to be done; whether it had to."""
        if not self.lacks_drop_in():
            return False
        files.make_folder(self.drop_ins)
        files.write(self._path(), self.text)
        try:
            process.systemctl("try-restart", _SERVICE)
        except AdapterError:
            self._path().unlink()  # there, it would look as if it had been read
            raise
        return True

    def remove_drop_in(self) -> None:
        """Take the drop-in back, when it is ours."""
        if (files.read(self._path()) or "").startswith(dnsmasq.HEADER):
            self._path().unlink()
            process.systemctl("try-restart", _SERVICE)

    def _path(self) -> Path:
        return self.drop_ins / _FILE
