"""Stand-ins for `buildctl` and `railpack`, which cannot be installed here: they write down exactly what they were given, check it, and
do as they are told. A `buildctl` that succeeds really pushes an image, so that the registry can be asked for it.
"""

import json
import os
import stat
import sys
from pathlib import Path
from typing import Any

_TOOL = r"""#!{python}
import json, os, re, subprocess, sys, time
from pathlib import Path

name, room = Path(sys.argv[0]).name, Path({room!r})
if name == "buildctl" and sys.argv[2:] == ["debug", "workers"]:
    sys.exit(0 if (room / "answers").exists() else 1)
secrets = {{}}
for word in sys.argv[1:]:
    found = re.fullmatch(r"--secret=id=([^,]+),src=([^,]+)", word)
    if found:
        path = Path(found[2])
        secrets[found[1]] = [path.read_text(), oct(path.stat().st_mode & 0o777)]
    for folder in re.findall(r"--local=[a-z]+=(.+)", word):
        assert Path(folder).is_dir(), folder
call = {{"tool": name, "argv": sys.argv[1:], "env": dict(os.environ), "cwd": os.getcwd(), "pid": os.getpid(), "secrets": secrets}}
call["files"] = sorted(str(p) for p in Path(".").rglob("*") if p.is_file() and ".git/" not in str(p))
with (room / "calls.jsonl").open("a") as file:
    file.write(json.dumps(call) + "\n")
todo = json.loads((room / "todo.json").read_text())[name]
for line in todo["says"]:
    sys.stderr.write(line + "\n")
    sys.stderr.flush()
if todo["hangs"]:
    child = subprocess.Popen(["sleep", "600"])
    (room / "child.new").write_text(str(child.pid))
    (room / "child.new").rename(room / "child")
    time.sleep(600)
if todo["status"]:
    sys.stderr.write("error: failed to solve: process did not complete\n")
    sys.exit(todo["status"])
if name == "railpack":
    plan = next(w.partition("=")[2] for w in sys.argv if w.startswith("--plan-out="))
    Path(plan).write_text("{{}}")
if name == "buildctl":
    output = next(w for w in sys.argv if w.startswith("--output="))
    target = re.search("name=([^,]+),push=true", output)[1]
    subprocess.run(["skopeo", "copy", "--quiet", "--src-tls-verify=false", "--dest-tls-verify=false", "docker://" + todo["pushes"],
                    "docker://" + target], check=True)
    digest = subprocess.run(["skopeo", "inspect", "--no-tags", "--tls-verify=false", "--format={{{{.Digest}}}}", "docker://" + target],
                            check=True, capture_output=True, text=True).stdout.strip()
    metadata = next(w.partition("=")[2] for w in sys.argv if w.startswith("--metadata-file="))
    Path(metadata).write_text(json.dumps({{"containerimage.digest": todo.get("digest") or digest}}))
"""


class BuildTools:
    """A folder for the front of PATH with both tools. `pushes` is the image that a build comes to."""

    def __init__(self, folder: Path, pushes: str) -> None:
        self.folder = folder
        folder.mkdir(parents=True, exist_ok=True)
        self._pushes = pushes
        for name in ("buildctl", "railpack"):
            path = folder / name
            path.write_text(_TOOL.format(python=sys.executable, room=str(folder)))
            path.chmod(path.stat().st_mode | stat.S_IXUSR)
        (folder / "answers").touch()
        self.tell()

    @property
    def path(self) -> str:
        """PATH with the tools in front."""
        return f"{self.folder}:{os.environ['PATH']}"

    def tell(self, tool: str = "buildctl", **what: Any) -> None:
        """What a tool does from now on: `says` lines, `hangs`, ends with a `status`, claims a `digest`."""
        path = self.folder / "todo.json"
        plain: dict[str, Any] = {"says": [], "hangs": False, "status": 0, "pushes": self._pushes}
        todo = json.loads(path.read_text()) if path.exists() else {"buildctl": plain, "railpack": plain}
        path.write_text(json.dumps({**todo, tool: {**plain, **what}}))

    def calls(self) -> list[dict[str, Any]]:
        """What the tools were given, in order."""
        path = self.folder / "calls.jsonl"
        return [json.loads(line) for line in path.read_text().splitlines()] if path.exists() else []

    def remove(self, name: str) -> None:
        """As if the tool were not installed."""
        (self.folder / name).unlink()
