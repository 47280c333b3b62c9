"""Git repositories over HTTP with basic authentication, by Git's own `http-backend`; and a way to make their commits.

Checks the credentials; knows nothing of builds. `bytes_per_s` makes it a slow link.
"""

import base64
import os
import shutil
import subprocess
import threading
import time
from collections.abc import Mapping
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path
from types import TracebackType
from typing import IO, Self

from tests.lab.process import LabError

_CHUNK = 64 * 1024
_WHO = {
    "GIT_AUTHOR_NAME": "lab",
    "GIT_AUTHOR_EMAIL": "lab@example.org",
    "GIT_COMMITTER_NAME": "lab",
    "GIT_COMMITTER_EMAIL": "lab@example.org",
    "GIT_CONFIG_GLOBAL": "/dev/null",
    "GIT_CONFIG_NOSYSTEM": "1",
}


class GitServer:
    """Serves the repositories below `directory`; with a token only to who knows it. Use as a context manager."""

    def __init__(self, directory: Path, token: str | None = None) -> None:
        self.directory = directory
        self.token = token
        self.bytes_per_s: int | None = None
        self.refused = 0
        self.broken_off = 0
        self.sent_bytes = 0
        directory.mkdir(parents=True, exist_ok=True)
        outer = self

        class Handler(_Handler):
            server_of_git = outer

        self._server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        self._server.daemon_threads = True
        self._thread = threading.Thread(target=self._server.serve_forever, daemon=True)

    @property
    def address(self) -> str:
        """Host and port."""
        return f"127.0.0.1:{self._server.server_address[1]}"

    def url(self, name: str) -> str:
        """Where a repository is, without credentials."""
        return f"http://{self.address}/{name}.git"

    def commit(
        self,
        name: str,
        files: Mapping[str, str | bytes],
        branch: str = "main",
        links: Mapping[str, str] | None = None,
        zeros: Mapping[str, int] | None = None,
    ) -> str:
        """Make a commit with exactly these files, symbolic links and files of so many zeros (not compressed); its hash."""
        work = self._work(name, branch)
        for path, content in files.items():
            _target(work, path).write_bytes(content.encode() if isinstance(content, str) else content)
        for path, target in (links or {}).items():
            _target(work, path).symlink_to(target)
        for path, size in (zeros or {}).items():
            with _target(work, path).open("wb") as file:
                file.truncate(size)
        self._git(name, "add", "--all", "--force")
        return self._committed(name)

    def submodule(self, name: str, path: str, url: str, commit: str) -> None:
        """Make a commit in which `path` is a submodule."""
        work = self.directory / f"{name}-work"
        (work / ".gitmodules").write_text(f'[submodule "{path}"]\n\tpath = {path}\n\turl = {url}\n')
        self._git(name, "add", ".gitmodules")
        self._git(name, "update-index", "--add", "--cacheinfo", f"160000,{commit},{path}")
        self._committed(name)

    def _work(self, name: str, branch: str) -> Path:
        """An empty folder for the files of the next commit on a branch."""
        bare, work = self.directory / f"{name}.git", self.directory / f"{name}-work"
        if not bare.exists():
            _run("git", "init", "--quiet", "--bare", f"--initial-branch={branch}", str(bare))
            for setting in ("core.compression=0", "pack.compression=0", "core.bigFileThreshold=1m"):
                self._git(name, "config", *setting.split("="))
        self._git(name, "symbolic-ref", "HEAD", f"refs/heads/{branch}")
        shutil.rmtree(work, ignore_errors=True)
        work.mkdir()
        return work

    def _committed(self, name: str) -> str:
        self._git(name, "commit", "--quiet", "--allow-empty", "--message=lab")
        return self._git(name, "rev-parse", "HEAD").strip()

    def _git(self, name: str, *words: str) -> str:
        places = (f"--git-dir={self.directory / name}.git", f"--work-tree={self.directory / name}-work")
        return _run("git", *places, *words)

    def __enter__(self) -> Self:
        self._thread.start()
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self._server.shutdown()
        self._server.server_close()
        self._thread.join(5)


class _Handler(BaseHTTPRequestHandler):
    server_of_git: GitServer
    protocol_version = "HTTP/1.1"

    def do_GET(self) -> None:
        self._serve(b"")

    def do_POST(self) -> None:
        if self.headers.get("transfer-encoding") == "chunked":
            self._serve(self._chunked())
        else:
            self._serve(self.rfile.read(int(self.headers.get("content-length", "0"))))

    def log_message(self, format: str, *args: object) -> None:
        """Quiet."""

    def _serve(self, body: bytes) -> None:
        lab = self.server_of_git
        if lab.token is not None and not self._knows(lab.token):
            lab.refused += 1
            self.send_response(401)
            self.send_header("www-authenticate", 'Basic realm="git"')
            self.send_header("content-length", "0")
            self.end_headers()
            return
        path, _, query = self.path.partition("?")
        environment = {
            "PATH": os.environ["PATH"],
            "GIT_PROJECT_ROOT": str(lab.directory),
            "GIT_HTTP_EXPORT_ALL": "1",
            "PATH_INFO": path,
            "QUERY_STRING": query,
            "REQUEST_METHOD": self.command,
            "CONTENT_TYPE": self.headers.get("content-type", ""),
            "CONTENT_LENGTH": str(len(body)),
            "HTTP_CONTENT_ENCODING": self.headers.get("content-encoding", ""),
            "GIT_PROTOCOL": self.headers.get("git-protocol", ""),
            **_WHO,
        }
        with subprocess.Popen(
            ["git", "http-backend"], stdin=subprocess.PIPE, stdout=subprocess.PIPE, env=environment
        ) as child:
            assert child.stdin is not None
            assert child.stdout is not None
            try:
                child.stdin.write(body)
                child.stdin.close()
                self._answer(child.stdout)
            except (BrokenPipeError, ConnectionResetError):
                self.server_of_git.broken_off += 1
                child.kill()
        self.close_connection = True

    def _answer(self, output: IO[bytes]) -> None:
        status, headers = 200, []
        while (line := output.readline().strip()) != b"":
            name, _, value = line.decode().partition(": ")
            if name.lower() == "status":
                status = int(value.split()[0])
            else:
                headers.append((name, value))
        self.send_response(status)
        for name, value in headers:
            self.send_header(name, value)
        self.send_header("connection", "close")
        self.end_headers()
        while chunk := output.read(_CHUNK):
            if self.server_of_git.bytes_per_s is not None:
                time.sleep(len(chunk) / self.server_of_git.bytes_per_s)
            self.wfile.write(chunk)
            self.server_of_git.sent_bytes += len(chunk)

    def _knows(self, token: str) -> bool:
        kind, _, pair = self.headers.get("authorization", "").partition(" ")
        return kind == "Basic" and base64.b64decode(pair).decode() == f"x-access-token:{token}"

    def _chunked(self) -> bytes:
        body = b""
        while size := int(self.rfile.readline(), 16):
            body += self.rfile.read(size)
            self.rfile.readline()
        self.rfile.readline()
        return body


def _target(work: Path, path: str) -> Path:
    target = work / path
    target.parent.mkdir(parents=True, exist_ok=True)
    return target


def _run(*argv: str) -> str:
    environment = {"PATH": os.environ["PATH"], **_WHO}
    done = subprocess.run(argv, env=environment, capture_output=True, text=True, check=False)
    if done.returncode != 0:
        raise LabError(f"{' '.join(argv)} ended with {done.returncode}: {done.stderr}")
    return done.stdout
