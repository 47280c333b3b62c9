"""Stand-ins for BuildKit (`buildctl` and its daemon) and `railpack`, which cannot be installed here.

`buildctl` is a client: it checks what it was given and tells the daemon, which is a thread of the test and answers as it was told to; a
build that succeeds really pushes an image, so that the registry can be asked for it. Both run inside the build's sandbox, so they
leave their marks with the daemon and nowhere else; `railpack` writes a plan, and `buildctl` passes on what it was given.
"""

import json
import os
import re
import shutil
import socket
import stat
import subprocess
import tempfile
import threading
from contextlib import suppress
from pathlib import Path
from types import TracebackType
from typing import Any, Final, Self

_PYTHON: Final = "/usr/bin/python3"  # one that a sandbox sees
_RAILPACK: Final = r"""#!{python}
import json, os, sys
from pathlib import Path

if sys.argv[1:] == ["--version"]:
    print("railpack version {version}")
    sys.exit(0)
call = {{"tool": "railpack", "argv": sys.argv[1:], "env": dict(os.environ), "sees": sorted(os.listdir("/"))}}
Path("railpack-call.json").write_text(json.dumps(call))
plan = next(w.partition("=")[2] for w in sys.argv if w.startswith("--plan-out="))
Path(plan).write_text("{{}}")
"""
_BUILDCTL: Final = r"""#!{python}
import json, os, re, socket, subprocess, sys, time
from pathlib import Path

address = sys.argv[1].partition("unix://")[2]
daemon = socket.socket(socket.AF_UNIX)
try:
    daemon.connect(address)
except OSError as error:
    sys.exit('error: failed to list workers: Unavailable: connection error: desc = "transport: Error while dialing: dial unix '
             + address + ": connect: " + os.strerror(error.errno).lower() + '"')
if sys.argv[2:4] == ["debug", "workers"]:
    print({workers!r})
    sys.exit(0)
secrets = {{}}
for word in sys.argv[1:]:
    found = re.fullmatch(r"--secret=id=([^,]+),src=([^,]+)", word)
    if found:
        path = Path(found[2])
        secrets[found[1]] = [path.read_text(), oct(path.stat().st_mode & 0o777)]
    for folder in re.findall(r"--local=[a-z]+=(.+)", word):
        assert Path(folder).is_dir(), folder
call = {{"tool": "buildctl", "argv": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd(), "secrets": secrets}}
call["sees"] = sorted(os.listdir("/"))
call["files"] = sorted(str(p) for p in Path(".").rglob("*") if p.is_file())
earlier = Path("railpack-call.json")
call["railpack"] = json.loads(earlier.read_text()) if earlier.exists() else None
talk = daemon.makefile("rw")
talk.write(json.dumps(call) + "\n")
talk.flush()
todo = json.loads(talk.readline())
for line in todo["says"]:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
if todo["hangs"]:
    subprocess.Popen(["sleep", todo["hangs"]])
    talk.write("hangs\n")
    talk.flush()
    time.sleep(600)
if todo["status"]:
    sys.stderr.write("error: failed to solve: process did not complete\n")
    sys.exit(todo["status"])
metadata = next(w.partition("=")[2] for w in sys.argv if w.startswith("--metadata-file="))
Path(metadata).write_text(json.dumps({{"containerimage.digest": todo["digest"]}}))
"""
_WORKERS: Final = """ID:\t\tm8hp4dpfp0nf8nkkyyvm2rj5b
Platforms:\tlinux/amd64
Labels:
\torg.mobyproject.buildkit.worker.executor:\toci
\torg.mobyproject.buildkit.worker.hostname:\tlab
\torg.mobyproject.buildkit.worker.network:\tcni
\torg.mobyproject.buildkit.worker.snapshotter:\toverlayfs"""


class BuildTools:
    """A folder for the front of PATH with both tools, and a daemon. `pushes` is the image that a build comes to. A context manager."""

    def __init__(self, folder: Path, pushes: str, *, network: str = "cni", railpack: str = "0.37.0") -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._pushes = pushes
        self._calls: list[dict[str, Any]] = []
        self._todo: dict[str, Any] = {}
        self.hanging = threading.Event()
        workers = _WORKERS.replace("cni", network)
        self._write("buildctl", _BUILDCTL.format(python=_PYTHON, workers=workers))
        self._write("railpack", _RAILPACK.format(python=_PYTHON, version=railpack))
        self._room = tempfile.mkdtemp(prefix="bk-")  # an address has at most 107 bytes
        self._listener = socket.socket(socket.AF_UNIX)
        self._listener.bind(f"{self._room}/sock")
        self._listener.listen()
        self._server = threading.Thread(target=self._serve, daemon=True)
        self._server.start()
        self.tell()

    @property
    def path(self) -> str:
        """PATH with the tools in front."""
        return f"{self.folder}:{os.environ['PATH']}"

    @property
    def environment(self) -> dict[str, str]:
        """What an agent finds them by."""
        return {"PATH": self.path, "BUILDKIT_HOST": f"unix://{self._room}/sock"}

    @property
    def marker(self) -> str:
        """What stands on the command line of the process that a hanging build leaves."""
        return f"600.{os.getpid()}{id(self) % 1_000_000}"

    def tell(self, **what: Any) -> None:
        """What a build does from now on: `says` lines, `hangs`, ends with a `status`, claims a `digest`."""
        self._todo = {"says": [], "hangs": False, "status": 0, "digest": "", **what}

    def calls(self) -> list[dict[str, Any]]:
        """What the tools were given, in order."""
        return [*self._calls]

    def remove(self, name: str) -> None:
        """As if the tool were not installed."""
        (self.folder / name).unlink()

    def close(self) -> None:
        """The daemon is away from here on."""
        with suppress(
            OSError
        ):  # a thread that waits in accept(2) would take the next socket of this number for its own
            self._listener.shutdown(socket.SHUT_RDWR)
        self._server.join()
        self._listener.close()
        shutil.rmtree(self._room, ignore_errors=True)

    def __enter__(self) -> Self:
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.close()

    def _write(self, name: str, text: str) -> None:
        path = self.folder / name
        path.write_text(text)
        path.chmod(path.stat().st_mode | stat.S_IXUSR | stat.S_IXGRP | stat.S_IXOTH | stat.S_IRGRP | stat.S_IROTH)

    def _serve(self) -> None:
        with suppress(OSError):
            while True:
                client, _ = self._listener.accept()
                threading.Thread(target=self._answer, args=(client,), daemon=True).start()

    def _answer(self, client: socket.socket) -> None:
        with client, suppress(OSError), client.makefile("rw") as talk:
            line = talk.readline()
            if not line:
                return
            call = json.loads(line)
            earlier = call.pop("railpack")
            self._calls += [call] if earlier is None else [earlier, call]
            todo = {**self._todo}
            if todo["hangs"]:
                todo["hangs"] = self.marker
            elif not todo["status"]:
                pushed = self._pushed(call)
                todo["digest"] = todo["digest"] or pushed
            talk.write(json.dumps(todo) + "\n")
            talk.flush()
            if talk.readline():
                self.hanging.set()

    def _pushed(self, call: dict[str, Any]) -> str:
        """Push what a build comes to, as the daemon does; its digest."""
        output = next(word for word in call["argv"] if word.startswith("--output="))
        found = re.search("name=([^,]+),push=true", output)
        assert found is not None, output
        target = f"docker://{found[1]}"
        plain = ("--src-tls-verify=false", "--dest-tls-verify=false")
        subprocess.run(("skopeo", "copy", "--quiet", *plain, f"docker://{self._pushes}", target), check=True)
        asked = ("skopeo", "inspect", "--no-tags", "--tls-verify=false", "--format={{.Digest}}", target)
        return subprocess.run(asked, check=True, capture_output=True, text=True).stdout.strip()
