"""An image registry for labs and tests: `Registry`, plain HTTP, on loopback or any address of this process.

Decides where it listens and who may use it; knows nothing of Podman.
"""

import base64
import json
from pathlib import Path
from types import TracebackType
from typing import Self

import httpx

from tests.lab.images import Image, image
from tests.lab.lease import Directory, Group, Lease
from tests.lab.ports import free_port
from tests.lab.process import Child, LabError, run
from tests.lab.wait import PATIENCE_S, wait_for

USER = "lab"
PASSWORD = "lab-password"
# bcrypt of the password above at the least cost, since the registry computes it for each request.
_HTPASSWD = f"{USER}:$2b$05$abcdefghijklmnopqrstuuL/Ej5MNdcjasz4Sr7bjTMIxZn.WGpgG\n"

_HIGHEST_NUMBER = 999
_CONFIGURATION = """\
version: 0.1
log: {{level: warn, accesslog: {{disabled: true}}}}
storage:
  filesystem: {{rootdirectory: "{root}"}}
  delete: {{enabled: true}}
http: {{addr: "{address}"}}
"""
_AUTHENTICATION = 'auth: {{htpasswd: {{realm: lab, path: "{htpasswd}"}}}}\n'


class Registry:
    """A registry with its images in `directory`, which is removed with it. Use it as a context manager.

    With `protected`, only `USER` with `PASSWORD` may use it; `auth_file` has them in the form that Podman reads.
    `address` is `host:port`, the part of an image reference before the first slash, and stays over a restart.
    """

    def __init__(self, directory: Path, *, host: str = "127.0.0.1", protected: bool = False) -> None:
        self.directory = directory
        self.host = host
        self.port = free_port(host)
        self.auth_file = directory / "auth.json"
        self._protected = protected
        self._pushed: dict[Image, str] = {}
        self._child: Child | None = None
        directory.mkdir(parents=True, exist_ok=True)
        self._lease = Lease.take("registries", _HIGHEST_NUMBER)
        self._lease.remember(Directory(str(directory)))
        self._write_configuration()

    @property
    def address(self) -> str:
        return f"{self.host}:{self.port}"

    def start(self) -> None:
        """Returns when it answers; fine when it runs."""
        if self._child is not None and self._child.running():
            return
        argv = ("docker-registry", "serve", str(self.directory / "config.yml"))
        child = Child(argv, self.directory / "registry.log")
        self._lease.remember(Group(child.identity))
        self._child = child
        wait_for(lambda: self.answers() or not child.running(), PATIENCE_S, f"the registry at {self.address}")
        if not child.running():
            raise LabError(f"the registry at {self.address} did not start: {child.last_words()}")

    def stop(self) -> None:
        """End it; its images stay. Fine when it is stopped."""
        if self._child is not None:
            self._child.stop()
            self._lease.forget(Group(self._child.identity))
            self._child = None

    def kill(self) -> None:
        """End it at once; its images stay."""
        if self._child is not None:
            self._child.kill()
        self.stop()

    def answers(self) -> bool:
        """Whether it answers within a second, be it that one has to log in."""
        try:
            return httpx.get(f"http://{self.address}/v2/", timeout=1).status_code in (200, 401)
        except httpx.TransportError:
            return False

    def push(self, source: Image, name: str | None = None, tag: str | None = None) -> str:
        """Put an image into the registry, under its own name and tag unless told; the reference to pull it by."""
        reference = f"{self.address}/{name or source.name}:{tag or source.tag}"
        self._copy(f"docker-archive:{source.archive}", f"docker://{reference}")
        return reference

    def offer(self, name: str, tag: str = "v1") -> str:
        """The reference of one of the lab's images; pushed when first asked for."""
        wanted = image(name, tag)
        if wanted not in self._pushed:
            self._pushed[wanted] = self.push(wanted)
        return self._pushed[wanted]

    def retag(self, reference: str, tag: str) -> str:
        """Let another tag of the same name mean this image too, moving it if it exists; the new reference."""
        moved = f"{reference.rpartition(':')[0]}:{tag}"
        self._copy(f"docker://{reference}", f"docker://{moved}")
        return moved

    def digest(self, reference: str) -> str:
        """The digest (`sha256:...`) of the manifest that a reference of this registry means."""
        name, _, tag = reference.removeprefix(f"{self.address}/").rpartition(":")
        answer = httpx.head(
            f"http://{self.address}/v2/{name}/manifests/{tag}",
            headers={"Accept": "application/vnd.docker.distribution.manifest.v2+json"},
            auth=(USER, PASSWORD) if self._protected else None,
            timeout=5,
        )
        return str(answer.raise_for_status().headers["Docker-Content-Digest"])

    def cleanup(self) -> None:
        """End it and remove its folder. Fine twice."""
        self.stop()
        self._lease.release()

    def __enter__(self) -> Self:
        try:
            self.start()
        except BaseException:
            self.cleanup()
            raise
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, _: TracebackType | None) -> None:
        self.cleanup()

    def _copy(self, source: str, destination: str) -> None:
        plain = ("--src-tls-verify=false", "--dest-tls-verify=false", f"--authfile={self.auth_file}")
        run(("skopeo", "--insecure-policy", "copy", "--quiet", *plain, source, destination))

    def _write_configuration(self) -> None:
        configuration = _CONFIGURATION.format(root=self.directory / "images", address=self.address)
        logins: dict[str, object] = {}
        if self._protected:
            htpasswd = self.directory / "htpasswd"
            htpasswd.write_text(_HTPASSWD)
            configuration += _AUTHENTICATION.format(htpasswd=htpasswd)
            logins = {self.address: {"auth": base64.b64encode(f"{USER}:{PASSWORD}".encode()).decode()}}
        (self.directory / "config.yml").write_text(configuration)
        self.auth_file.write_text(json.dumps({"auths": logins}))
        self.auth_file.chmod(0o600)
