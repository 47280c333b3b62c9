"""From a claimed build, what is in its folder and what this host can build with, to the exact commands.

Decides the builder and every word of every command; runs nothing. Users' secrets are files that the commands name; only Railpack's own
settings (`RAILPACK_…`) reach a tool of this host as environment.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Literal, TypeAlias

from returns.result import Failure, Result, Success

from core import image
from core.build_source import CHECKOUT
from core.rejection import shown

Choice: TypeAlias = Literal["auto", "buildkit", "podman"]
CHOICES: Final[tuple[Choice, ...]] = ("auto", "buildkit", "podman")

DOCKERFILE: Final = "Dockerfile"
RAILPACK_FRONTEND: Final = "ghcr.io/railwayapp/railpack-frontend:v0.15.1"
"""Pinned, since the plan and the frontend must be of one version; an option changes it."""
RAILPACK_PLAN: Final = "plan"
"""The folder of Railpack's plan, beside the checkout, so that no build context holds it."""
SECRETS: Final = "secrets"
METADATA: Final = "metadata.json"
DIGEST: Final = "digest"

_RAILPACK_PLAN_FILE: Final = "railpack-plan.json"
_RAILPACK_SETTING: Final = "RAILPACK_"
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
_PLACEHOLDER: Final = "set"  # Railpack needs the names only; a value would stand on its command line


class Stage(Enum):
    """What a build is doing; the words of the control plane."""

    CLONING = "cloning"
    BUILDING = "building"
    PUSHING = "pushing"


@dataclass(frozen=True, slots=True)
class Command:
    """One command, run in the build's folder. `env` is added to the environment that every tool gets."""

    stage: Stage
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)


@dataclass(frozen=True, slots=True)
class Host:
    """What this host can build with: BuildKit's address, the tool of Podman's family, Railpack; None for what does not answer."""

    buildkit: str | None = None
    podman: str | None = None
    railpack: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """What the checked-out folder holds. `links_out` is a symbolic link that leads out of it, if there is one."""

    dockerfile: bool
    links_out: str | None = None


@dataclass(frozen=True, slots=True)
class Settings:
    """The operator's choices."""

    builder: Choice = "auto"
    cache: str | None = None
    insecure_registries: frozenset[str] = frozenset()
    auth_file: str | None = None
    railpack_frontend: str = RAILPACK_FRONTEND
    store: str = "/var/lib/techulus-agent/builds/store"


@dataclass(frozen=True, slots=True)
class Recipe:
    """How it is built: the commands in order, the files that hold the secrets (name in `secrets/` to name of the secret), where the
    digest of what was pushed will stand, and one line about it for the build's log."""

    commands: tuple[Command, ...]
    secret_files: tuple[tuple[str, str], ...]
    digest_file: str
    about: str


def make(
    image_uri: str, secrets: Mapping[str, str], service_id: str, found: Found, host: Host, settings: Settings
) -> Result[Recipe, str]:
    """The recipe of one build; the failure tells the user what to add, or the operator what is missing."""
    target = image.parse(image_uri)
    if target is None or target.digest is not None:
        return Failure(f"{shown(image_uri)} is not the name of an image that can be pushed")
    odd = next((name for name in sorted(secrets) if not _NAME.fullmatch(name)), None)
    if odd is not None:
        return Failure(f"the secret {shown(odd)} cannot be handed to a build: its name is no name of a variable")
    chosen = _chosen(found, host, settings.builder)
    if chosen is None:
        return Failure(_what_is_missing(found, host, settings.builder))
    files = tuple((f"{number}", name) for number, name in enumerate(sorted(secrets)))
    insecure = target.registry in settings.insecure_registries
    if chosen == "podman":
        return Success(_by_podman(str(target), files, insecure, str(host.podman), settings))
    if found.dockerfile:
        return Success(_by_dockerfile(str(target), files, insecure, str(host.buildkit), settings))
    if found.links_out is not None:
        return Failure(
            f"{shown(found.links_out)} is a symbolic link out of the repository, which Railpack would follow"
        )
    return Success(_by_railpack(str(target), secrets, service_id, insecure, str(host.buildkit), settings))


def secrets_hash(secrets: Mapping[str, str]) -> str:
    """Changes whenever a secret does, and tells nothing of any: BuildKit leaves secrets out of its cache's keys."""
    digest = hashlib.sha256()
    for name in sorted(secrets):
        for text in (name, secrets[name]):
            raw = text.encode("utf-8", "surrogatepass")
            digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()


def _chosen(found: Found, host: Host, builder: Choice) -> Literal["buildkit", "podman"] | None:
    if builder != "podman" and host.buildkit is not None and (found.dockerfile or host.railpack):
        return "buildkit"
    if builder != "buildkit" and host.podman is not None and found.dockerfile:
        return "podman"
    return None


def _what_is_missing(found: Found, host: Host, builder: Choice) -> str:
    if found.dockerfile:
        wanted = {"auto": "neither BuildKit nor Podman's builder answers", "buildkit": "BuildKit does not answer"}
        return (
            f"this server cannot build a Dockerfile: {wanted.get(builder, 'neither buildah nor podman is installed')}"
        )
    add = f"add a {DOCKERFILE} to the root of the repository"
    if builder == "podman":
        return f"the repository has no {DOCKERFILE}, and Podman's builder builds nothing else; {add}"
    if host.buildkit is None:
        return f"the repository has no {DOCKERFILE}, and Railpack needs BuildKit, which does not answer on this server; {add}"
    return f"the repository has no {DOCKERFILE}, and Railpack is not installed on this server; {add}"


def _secret_options(files: tuple[tuple[str, str], ...]) -> tuple[str, ...]:
    return tuple(f"--secret=id={name},src={SECRETS}/{file}" for file, name in files)


def _buildctl(
    buildkit: str, target: str, insecure: bool, settings: Settings
) -> tuple[tuple[str, ...], tuple[str, ...]]:
    """The beginning and the end of every `buildctl` command."""
    output = f"--output=type=image,name={target},push=true" + (",registry.insecure=true" if insecure else "")
    cache: tuple[str, ...] = ()
    if settings.cache is not None:
        where = image.parse(settings.cache)
        plain = where is not None and where.registry in settings.insecure_registries
        ref = f"type=registry,ref={settings.cache}" + (",registry.insecure=true" if plain else "")
        cache = (f"--export-cache={ref},mode=max,ignore-error=true", f"--import-cache={ref}")
    head = ("buildctl", f"--addr={buildkit}", "build", "--progress=plain", f"--local=context={CHECKOUT}")
    return head, (*cache, output, f"--metadata-file={METADATA}")


def _environment(settings: Settings) -> tuple[tuple[str, str], ...]:
    """Where the registry's credentials are: `buildctl` looks into a folder, the others take a file."""
    return (
        () if settings.auth_file is None else (("REGISTRY_AUTH_FILE", settings.auth_file), ("DOCKER_CONFIG", "docker"))
    )


def _by_dockerfile(
    target: str, files: tuple[tuple[str, str], ...], insecure: bool, buildkit: str, settings: Settings
) -> Recipe:
    head, tail = _buildctl(buildkit, target, insecure, settings)
    dockerfile = ("--frontend=dockerfile.v0", f"--local=dockerfile={CHECKOUT}", f"--opt=filename={DOCKERFILE}")
    argv = (*head, *dockerfile, *_secret_options(files), *tail)
    about = f"building {DOCKERFILE} with BuildKit at {buildkit}"
    return Recipe((Command(Stage.BUILDING, argv, _environment(settings)),), files, METADATA, about)


def _by_railpack(
    target: str, secrets: Mapping[str, str], service_id: str, insecure: bool, buildkit: str, settings: Settings
) -> Recipe:
    own = tuple((name, secrets[name]) for name in sorted(secrets) if name.startswith(_RAILPACK_SETTING))
    named = [name if name.startswith(_RAILPACK_SETTING) else f"{name}={_PLACEHOLDER}" for name in sorted(secrets)]
    prepare = (
        "railpack",
        "prepare",
        CHECKOUT,
        f"--plan-out={RAILPACK_PLAN}/{_RAILPACK_PLAN_FILE}",
        f"--info-out={RAILPACK_PLAN}/railpack-info.json",
        "--error-missing-start",
        *(f"--env={one}" for one in named),
    )
    files = tuple((f"{number}", name) for number, name in enumerate(sorted(secrets)))
    head, tail = _buildctl(buildkit, target, insecure, settings)
    frontend = (
        "--frontend=gateway.v0",
        f"--opt=source={settings.railpack_frontend}",
        f"--local=dockerfile={RAILPACK_PLAN}",
        f"--opt=filename={_RAILPACK_PLAN_FILE}",
        f"--opt=build-arg:secrets-hash={secrets_hash(secrets)}",
        f"--opt=build-arg:cache-key={service_id}",
    )
    build = (*head, *frontend, *_secret_options(files), *tail)
    return Recipe(
        (Command(Stage.BUILDING, prepare, own), Command(Stage.BUILDING, build, _environment(settings))),
        files,
        METADATA,
        f"building with Railpack ({settings.railpack_frontend}) and BuildKit at {buildkit}",
    )


def _by_podman(
    target: str, files: tuple[tuple[str, str], ...], insecure: bool, tool: str, settings: Settings
) -> Recipe:
    store = (f"--root={settings.store}", f"--runroot={settings.store}-run")
    plain = (f"--tls-verify={'false' if insecure else 'true'}",)
    cache = () if settings.cache is None else (f"--cache-to={settings.cache}", f"--cache-from={settings.cache}")
    build = (
        *(tool, *store, "build", "--layers", "--force-rm", "--pull", *plain, *cache),
        *(f"--file={CHECKOUT}/{DOCKERFILE}", f"--tag={target}", *_secret_options(files), CHECKOUT),
    )
    push = (tool, *store, "push", *plain, f"--digestfile={DIGEST}", target, f"docker://{target}")
    env = _environment(settings)
    about = f"building {DOCKERFILE} with {tool.rpartition('/')[2]}, since no BuildKit is used on this server"
    return Recipe((Command(Stage.BUILDING, build, env), Command(Stage.PUSHING, push, env)), files, DIGEST, about)
