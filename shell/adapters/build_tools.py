"""Which builders this host has, and what a registry says about an image: asks the tools themselves."""

import gzip
import os
import shutil
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import anyio.to_thread

from core import build_record, build_versions
from core.build_plan import Choice, Host
from core.image import Image
from core.refusal import one_line
from shell.children import Child, answer
from shell.failure import AdapterError, understood

DEFAULT_BUILDKIT: Final = "unix:///run/buildkit/buildkitd.sock"
_ASK_S: Final = 15.0
_REGISTRY_S: Final = 60.0
_LONGEST_CHANGELOG: Final = 1024**2


def buildkit_address() -> str:
    """Where BuildKit is looked for: what its own variable says, else the usual socket."""
    return os.environ.get("BUILDKIT_HOST") or DEFAULT_BUILDKIT


async def find(builder: Choice, folder: Path) -> Host:
    """What can build here. A BuildKit that is installed and does not answer is none, and it is said why."""
    podman = shutil.which("buildah") or shutil.which("podman")
    holes: tuple[str, ...] = ()
    if podman is not None and builder != "buildkit":
        name = Path(podman).name
        changelog = await anyio.to_thread.run_sync(_changelog, name)
        holes = build_versions.known_open(name, await _said(podman, "--version", folder=folder), changelog)
    if builder == "podman":
        return Host(podman=podman, holes=holes)
    address, fault, workers = await _buildkit(folder)
    railpack_fault = "it is not installed"
    if shutil.which("railpack") is not None:
        railpack_fault = build_versions.refuse_railpack(await _said("railpack", "--version", folder=folder))
    is_open = address is not None and build_versions.shares_host_network(workers)
    return Host(address, fault, podman, holes, railpack_fault, is_open)


@dataclass(frozen=True, slots=True)
class Pushed:
    """What a registry has under a name: the digest, and the platform that the image is for (`linux/amd64`)."""

    digest: str
    platform: str


async def registry_image(target: Image, insecure: bool, auth_file: Path | None, folder: Path) -> Pushed:
    """What the registry has under a name now. Raises AdapterError."""
    login = () if auth_file is None else (f"--authfile={auth_file}",)
    check = (
        f"--tls-verify={'false' if insecure else 'true'}",
        "--no-tags",
        "--format={{.Digest}} {{.Os}}/{{.Architecture}}",
    )
    what = f"ask the registry for {target}"
    argv = ("skopeo", "inspect", *check, *login, f"docker://{target}")
    status, said = await _answer(argv, folder, _REGISTRY_S)
    if status != 0:
        raise AdapterError("skopeo", what, one_line(said)[-500:] or f"exit status {status}")
    digest, _, platform = (said.splitlines()[-1] if said else "").partition(" ")
    return Pushed(understood(build_record.digest_in(digest), "skopeo", what), platform)


async def _buildkit(folder: Path) -> tuple[str | None, str, str]:
    """Where it answers, or why it does not, and its workers; nothing of all where its client is not installed."""
    if shutil.which("buildctl") is None:
        return None, "", ""
    address = buildkit_address()
    argv = ("buildctl", f"--addr={address}", "debug", "workers", "--verbose")
    try:
        status, said = await _answer(argv, folder, _ASK_S)
    except AdapterError as error:
        return None, error.why, ""
    return (address, "", said) if status == 0 else (None, one_line(said)[-300:] or f"exit status {status}", "")


async def _said(*argv: str, folder: Path) -> str:
    """What a tool says of itself; nothing when it does not."""
    with suppress(AdapterError):
        return (await _answer(argv, folder, _ASK_S))[1]
    return ""


async def _answer(argv: tuple[str, ...], folder: Path, limit_s: float) -> tuple[int, str]:
    """Of a tool that ends with this process, however that ends. Raises AdapterError."""
    if shutil.which(argv[0]) is None:
        raise AdapterError(argv[0], "run", "it is not installed")
    return await answer(Child(("setpriv", "--pdeathsig=KILL", "--", *argv), folder, {}, limit_s))


def _changelog(package: str) -> str:
    """What its distribution has mended in it, where that is a Debian."""
    with suppress(OSError, EOFError), gzip.open(f"/usr/share/doc/{package}/changelog.Debian.gz") as file:
        return file.read(_LONGEST_CHANGELOG).decode("utf-8", "replace")
    return ""
