"""Container images for labs and tests, made from the static busybox of this machine; no registry is asked.

Each image is a `docker-archive` tar written without any container tool: one layer that all share and a command. Equal
input gives equal bytes, so that finished archives are kept in the machine's temporary folder and found again by
content. Knows the images' behaviour; knows no store and no registry.
"""

import hashlib
import io
import json
import os
import platform
import random
import shutil
import subprocess
import tarfile
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from tests.lab.lease import shared_directory
from tests.lab.process import LabError

_ARCHITECTURES = {"x86_64": "amd64", "aarch64": "arm64"}
_TIME = "2000-01-01T00:00:00Z"
_FOLDERS = ("bin", "etc", "tmp", "www", "data", "proc", "sys", "dev")
_FILES = {"etc/passwd": "root:x:0:0:root:/:/bin/sh\n", "etc/group": "root:x:0:\n"}

# A shell that is process 1 has no default handlers: without the trap it would ignore SIGTERM.
_SERVE = "trap 'exit 0' TERM; httpd -f -p 80 -h /www & wait"
_HOSTNAME_PAGE = "hostname >/www/hostname"

_COMMANDS = {
    # Says its version on /, its host name on /hostname.
    "web:v1": f"echo v1 >/www/index.html; {_HOSTNAME_PAGE}; {_SERVE}",
    "web:v2": f"echo v2 >/www/index.html; {_HOSTNAME_PAGE}; {_SERVE}",
    # Is healthy as long as /www/health exists: as a file, and as the page /health.
    "health:v1": f"echo v1 >/www/index.html; echo ok >/www/health; {_HOSTNAME_PAGE}; {_SERVE}",
    # Shows its environment on /, and on /starts a line for each start that the volume on /data has seen.
    "env:v1": f"env >/www/index.html; echo $(hostname) >>/data/starts; ln -s /data/starts /www/starts; {_SERVE}",
    "exits:v1": "true",
    "crashes:v1": "echo starting; sleep 1; echo dying >&2; exit 7",
    # Up long enough to count as up, and then gone, without the failure at which Podman itself would start it again.
    "mortal:v1": "echo starting; sleep 3; echo dying >&2",
    "stubborn:v1": "trap '' TERM; while :; do sleep 1; done",
    # After DELAY seconds (none unless told), LINES numbered lines on each stream (1000 unless told), then a line in two parts; stays up.
    "noisy:v1": (
        "sleep ${DELAY:-0}; i=0; while [ $i -lt ${LINES:-1000} ]; do i=$((i+1)); echo out $i; echo err $i >&2; done; "
        "printf partial; sleep 1; echo ' rest'; trap 'exit 0' TERM; sleep 86400 & wait"
    ),
}


@dataclass(frozen=True, slots=True)
class Image:
    """A finished image. `archive` is a tar that `podman load` and `skopeo` (as `docker-archive:`) take."""

    name: str
    tag: str
    archive: Path

    @property
    def reference(self) -> str:
        """What it is called in a store into which its archive was loaded."""
        return f"localhost/{self.name}:{self.tag}"


def image(name: str, tag: str = "v1") -> Image:
    """One of the lab's images: web (v1, v2), health, env, exits, crashes, stubborn, noisy.

    Made at the first call on a machine, in about 0.1 s. Any other tag of a known name is its own image with the
    behaviour of `v1`.
    """
    command = _COMMANDS.get(f"{name}:{tag}") or _COMMANDS.get(f"{name}:v1")
    if command is None:
        raise LabError(f"there is no lab image called {name}; there are {', '.join(sorted(_COMMANDS))}")
    return custom_image(name, tag, ("sh", "-c", command))


def custom_image(name: str, tag: str, command: tuple[str, ...], payload_bytes: int = 0) -> Image:
    """An image with any command; `payload_bytes` of noise in a second layer make its pull long."""
    key = hashlib.sha256(repr((name, tag, command, payload_bytes, _busybox_digest())).encode()).hexdigest()[:16]
    folder = shared_directory() / "images"
    folder.mkdir(exist_ok=True)
    archive = folder / f"{name}-{tag}-{key}.tar"
    if not archive.exists():
        # Two processes may make it at the same time; both make the same, and the rename leaves one.
        unfinished = folder / f".{archive.name}.{os.getpid()}"
        layers = (_base_layer(), *((_payload_layer(payload_bytes),) if payload_bytes else ()))
        unfinished.write_bytes(_docker_archive(f"localhost/{name}:{tag}", command, layers))
        unfinished.rename(archive)
    return Image(name, tag, archive)


def _busybox() -> Path:
    found = shutil.which("busybox")
    if found is None:
        raise LabError("busybox is not installed; the package busybox-static has it")
    return Path(found)


@cache
def _busybox_digest() -> str:
    return hashlib.sha256(_busybox().read_bytes()).hexdigest()


@cache
def _base_layer() -> bytes:
    applets = subprocess.run(
        (_busybox(), "--list"), capture_output=True, text=True, check=True, timeout=10
    ).stdout.split()
    entries = [_entry(name, kind=tarfile.DIRTYPE) for name in _FOLDERS]
    entries += [_entry("bin/busybox", _busybox().read_bytes())]
    entries += [_entry(name, content.encode()) for name, content in _FILES.items()]
    entries += [_entry(f"bin/{name}", kind=tarfile.SYMTYPE, link="busybox") for name in applets if name != "busybox"]
    return _tar(entries)


@cache
def _payload_layer(size_bytes: int) -> bytes:
    # Noise, since a registry client would squeeze zeros to nothing; always the same, for equal bytes.
    return _tar([_entry("payload", random.Random(size_bytes).randbytes(size_bytes))])


def _docker_archive(reference: str, command: tuple[str, ...], layers: tuple[bytes, ...]) -> bytes:
    digests = [hashlib.sha256(layer).hexdigest() for layer in layers]
    config = json.dumps(
        {
            "architecture": _ARCHITECTURES.get(platform.machine(), platform.machine()),
            "os": "linux",
            "created": _TIME,
            "config": {"Cmd": list(command), "Env": ["PATH=/bin"]},
            "rootfs": {"type": "layers", "diff_ids": [f"sha256:{digest}" for digest in digests]},
            "history": [{"created": _TIME} for _ in digests],
        }
    ).encode()
    config_name = f"{hashlib.sha256(config).hexdigest()}.json"
    names = [f"{digest}.tar" for digest in digests]
    manifest = json.dumps([{"Config": config_name, "RepoTags": [reference], "Layers": names}]).encode()
    layer_entries = [_entry(name, layer) for name, layer in zip(names, layers, strict=True)]
    return _tar([_entry(config_name, config), *layer_entries, _entry("manifest.json", manifest)])


def _entry(
    name: str, content: bytes = b"", kind: bytes = tarfile.REGTYPE, link: str = ""
) -> tuple[tarfile.TarInfo, bytes]:
    entry = tarfile.TarInfo(name)
    entry.type, entry.linkname, entry.size, entry.mode = kind, link, len(content), 0o755
    return entry, content


def _tar(entries: Iterable[tuple[tarfile.TarInfo, bytes]]) -> bytes:
    output = io.BytesIO()
    with tarfile.open(fileobj=output, mode="w") as archive:
        for entry, content in entries:
            archive.addfile(entry, io.BytesIO(content))
    return output.getvalue()
