"""Which builders this host has, and what a registry says about an image: asks the tools themselves."""

import os
import shutil
from pathlib import Path
from typing import Final

from core import build_record
from core.build_plan import Choice, Host
from core.image import Image
from core.refusal import one_line
from shell.children import Child, answer
from shell.failure import AdapterError, understood

DEFAULT_BUILDKIT: Final = "unix:///run/buildkit/buildkitd.sock"
_ASK_S: Final = 15.0
_REGISTRY_S: Final = 60.0


def buildkit_address() -> str:
    """Where BuildKit is looked for: what its own variable says, else the usual socket."""
    return os.environ.get("BUILDKIT_HOST") or DEFAULT_BUILDKIT


async def find(builder: Choice, folder: Path) -> Host:
    """What can build here. A BuildKit that is installed and does not answer is none."""
    podman = shutil.which("buildah") or shutil.which("podman")
    buildkit = await _buildkit(folder) if builder != "podman" else None
    return Host(buildkit, podman if builder != "buildkit" else None, shutil.which("railpack") is not None)


async def registry_digest(target: Image, insecure: bool, auth_file: Path | None, folder: Path) -> str:
    """The digest under which the registry has an image now. Raises AdapterError."""
    login = () if auth_file is None else (f"--authfile={auth_file}",)
    check = (f"--tls-verify={'false' if insecure else 'true'}", "--no-tags", "--format={{.Digest}}")
    what = f"ask the registry for {target}"
    argv = ("skopeo", "inspect", *check, *login, f"docker://{target}")
    status, said = await answer(Child(argv, folder, {}, _REGISTRY_S))
    if status != 0:
        raise AdapterError("skopeo", what, one_line(said)[-500:] or f"exit status {status}")
    found = build_record.digest_in(said.splitlines()[-1] if said else "")
    return understood(found, "skopeo", what)


async def _buildkit(folder: Path) -> str | None:
    if shutil.which("buildctl") is None:
        return None
    address = buildkit_address()
    try:
        status, _ = await answer(Child(("buildctl", f"--addr={address}", "debug", "workers"), folder, {}, _ASK_S))
    except AdapterError:
        return None
    return address if status == 0 else None
