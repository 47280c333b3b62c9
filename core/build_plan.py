"""From a claimed build, what is in its folder and what this host can build with, to the exact commands.

Decides the builder, every word of every command, and what each of them sees; runs nothing. Users' secrets are files that the commands
name; only settings that Railpack itself acts upon reach it as environment. All paths are those inside the build's sandbox.
"""

import hashlib
import re
from collections.abc import Mapping
from dataclasses import dataclass, field
from enum import Enum
from typing import Final, Literal, TypeAlias

from returns.result import Failure, Result, Success

from core import image
from core.build_sandbox import BUILDKIT, LOGIN, SECRETS, STORE, endpoint_of_registry
from core.build_source import CHECKOUT, Sees
from core.rejection import has_control, shown

Choice: TypeAlias = Literal["auto", "buildkit", "podman"]
CHOICES: Final[tuple[Choice, ...]] = ("auto", "buildkit", "podman")

DOCKERFILE: Final = "Dockerfile"
RAILPACK_FRONTEND: Final = "ghcr.io/railwayapp/railpack-frontend:v0.37.0"
"""Pinned, since the plan and the frontend must be of one version; an option changes it."""
RAILPACK_PLAN: Final = "plan"
"""The folder of Railpack's plan, beside the checkout, so that no build context holds it."""
METADATA: Final = "metadata.json"
DIGEST: Final = "digest"

_RAILPACK_PLAN_FILE: Final = "railpack-plan.json"
_RAILPACK_SETTING: Final = "RAILPACK_"
_RUN_ROOT: Final = "/run/build"
_LOOPBACK: Final = re.compile(r"127(?:\.[0-9]{1,3}){3}")
_PLATFORM: Final = re.compile(r"[a-z0-9]+/[a-z0-9_]+(?:/[a-z0-9.]+)?")
_NAME: Final = re.compile(r"[A-Za-z_][A-Za-z0-9_.-]*")
# Railpack's providers act upon what these say (https://railpack.com, languages: Go, PHP); of all others they need the names only, and a
# value would stand on its command line.
_BY_VALUE: Final = frozenset(("CGO_ENABLED", "DB_CONNECTION", "CACHE_DRIVER", "SESSION_DRIVER", "QUEUE_CONNECTION"))
_PLACEHOLDER: Final = "set"


class Stage(Enum):
    """What a build is doing; the words of the control plane."""

    CLONING = "cloning"
    BUILDING = "building"
    PUSHING = "pushing"


@dataclass(frozen=True, slots=True)
class Command:
    """One command, run in the build's folder. `env` is added to the environment that every tool gets; `sees` is what it needs beside it."""

    stage: Stage
    argv: tuple[str, ...]
    env: tuple[tuple[str, str], ...] = field(default=(), repr=False)
    sees: frozenset[Sees] = frozenset()


@dataclass(frozen=True, slots=True)
class Host:
    """What this host can build with.

    `buildkit` is the address of a BuildKit that answers, `buildkit_fault` why one whose client is installed does not; `podman` the tool of
    Podman's family, `holes` what is known to lead out of a build by it; `railpack_fault` why it is not used, "" when it can be;
    `shares_network` whether BuildKit's steps are in the host's own network.
    """

    buildkit: str | None = None
    buildkit_fault: str = ""
    podman: str | None = None
    holes: tuple[str, ...] = ()
    railpack_fault: str = "it is not installed"
    shares_network: bool = False


@dataclass(frozen=True, slots=True)
class Found:
    """Whether the checked-out folder holds what the layout names, and not by a link that leads out of it."""

    dockerfile: bool
    folder: bool = True


@dataclass(frozen=True, slots=True)
class Layout:
    """Which file of a repository is built, in which folder of it, and for what; as a person asks for it (`agent build`)."""

    dockerfile: str = DOCKERFILE
    folder: str = "."
    platform: str = ""


WHOLE: Final = Layout()
"""The repository's own Dockerfile, for the platform of this server."""


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


@dataclass(frozen=True, slots=True)
class Asked:
    """What one build is to come to: the image's name, the service with its secrets, where the files are."""

    image_uri: str
    service_id: str
    secrets: Mapping[str, str] = field(repr=False)
    layout: Layout = WHOLE


def layout(dockerfile: str, folder: str, platform: str) -> Result[Layout, str]:
    """A layout whose paths stay in the repository; both are relative to its root."""
    for what, path in (("the Dockerfile", dockerfile), ("the folder", folder)):
        if not path or path.startswith(("/", "-")) or ".." in path.split("/") or has_control(path):
            return Failure(f"{what}, {shown(path)}, is no path within a repository")
    if platform and not _PLATFORM.fullmatch(platform):
        return Failure(f"{shown(platform)} is no platform such as linux/amd64")
    return Success(Layout(dockerfile, folder.rstrip("/") or ".", platform))


def is_plain(registry: str, settings: Settings) -> bool:
    """Whether a registry may do without TLS: one that the operator names, or one on this server's loopback, as BuildKit has it."""
    where = endpoint_of_registry(registry, is_insecure=False)
    host = "" if where is None else where.host
    is_loopback = host in ("localhost", "::1") or _LOOPBACK.fullmatch(host) is not None
    return is_loopback or registry in settings.insecure_registries


def is_for(platform: str, wanted: str) -> bool:
    """Whether an image for this platform runs on the wanted one; a variant (`linux/arm/v7`) is not told by every registry."""
    return platform.split("/")[:2] == wanted.split("/")[:2]


def make(asked: Asked, found: Found, host: Host, settings: Settings) -> Result[Recipe, str]:
    """The recipe of one build; the failure tells the user what to add, or the operator what is missing."""
    target = image.parse(asked.image_uri)
    if target is None or target.digest is not None:
        return Failure(f"{shown(asked.image_uri)} is not the name of an image that can be pushed")
    odd = next((name for name in sorted(asked.secrets) if not _NAME.fullmatch(name)), None)
    if odd is not None:
        return Failure(f"the secret {shown(odd)} cannot be handed to a build: its name is no name of a variable")
    builder = _builder(host, settings.builder)
    fault = _fault(builder, found, host, asked.layout)
    if fault is not None:
        return Failure(fault)
    kitchen = _Kitchen(str(target), asked, host, settings, is_plain(target.registry, settings))
    if builder == "podman":
        return Success(kitchen.by_podman())
    return Success(kitchen.by_dockerfile() if found.dockerfile else kitchen.by_railpack())


def secrets_hash(secrets: Mapping[str, str]) -> str:
    """Changes whenever a secret does, and tells nothing of any: BuildKit leaves secrets out of its cache's keys."""
    digest = hashlib.sha256()
    for name in sorted(secrets):
        for text in (name, secrets[name]):
            raw = text.encode("utf-8", "surrogatepass")
            digest.update(len(raw).to_bytes(8, "big") + raw)
    return digest.hexdigest()


def _builder(host: Host, choice: Choice) -> Literal["buildkit", "podman"]:
    """What was chosen, or what is installed: BuildKit where its client is. Never another one for a build because one is down."""
    if choice == "auto":
        return "buildkit" if host.buildkit is not None or host.buildkit_fault else "podman"
    return choice


def _fault(builder: Literal["buildkit", "podman"], found: Found, host: Host, layout: Layout) -> str | None:
    add = f"add a {DOCKERFILE} to the root of the repository"
    if not found.folder:
        return f"the repository has no folder {layout.folder}"
    if not found.dockerfile and layout.dockerfile != DOCKERFILE:
        return f"the repository has no {layout.dockerfile}"
    if builder == "podman":
        if not found.dockerfile:
            return f"the repository has no {layout.dockerfile}, and without BuildKit this server builds nothing else; {add}"
        return None if host.podman is not None else "this server cannot build: neither buildah nor podman is installed"
    if host.buildkit is None:
        why = host.buildkit_fault or "its client, buildctl, is not installed"
        return f"this server cannot build now: BuildKit does not answer: {why}"
    if not found.dockerfile and host.railpack_fault:
        return f"the repository has no {layout.dockerfile}, and Railpack is not used: {host.railpack_fault}; {add}"
    return None


def _is_acted_upon(name: str) -> bool:
    return name.startswith(_RAILPACK_SETTING) or name in _BY_VALUE


@dataclass(frozen=True, slots=True)
class _Kitchen:
    """Everything that a recipe of one build is made from."""

    target: str
    asked: Asked
    host: Host
    settings: Settings
    is_insecure: bool

    def by_dockerfile(self) -> Recipe:
        folder, _, name = f"{CHECKOUT}/{self.asked.layout.dockerfile}".rpartition("/")
        caches = f"--opt=build-arg:BUILDKIT_CACHE_MOUNT_NS={self.asked.service_id}"  # of RUN --mount=type=cache
        options = ("--frontend=dockerfile.v0", f"--local=dockerfile={folder}", f"--opt=filename={name}", caches)
        about = f"building {self.asked.layout.dockerfile} with BuildKit at {self.host.buildkit}"
        return Recipe((self._buildctl(options),), self._files(), METADATA, about)

    def by_railpack(self) -> Recipe:
        secrets, frontend = self.asked.secrets, self.settings.railpack_frontend
        own = tuple((name, secrets[name]) for name in sorted(secrets) if _is_acted_upon(name))
        named = [name if _is_acted_upon(name) else f"{name}={_PLACEHOLDER}" for name in sorted(secrets)]
        prepare = (
            *("railpack", "prepare", self._context),
            f"--plan-out={RAILPACK_PLAN}/{_RAILPACK_PLAN_FILE}",
            f"--info-out={RAILPACK_PLAN}/railpack-info.json",
            "--error-missing-start",
            *(f"--env={one}" for one in named),
        )
        options = (
            "--frontend=gateway.v0",
            f"--opt=source={frontend}",
            f"--local=dockerfile={RAILPACK_PLAN}",
            f"--opt=filename={_RAILPACK_PLAN_FILE}",
            f"--opt=build-arg:secrets-hash={secrets_hash(secrets)}",
            f"--opt=build-arg:cache-key={self.asked.service_id}",
        )
        about = f"building with Railpack ({frontend}) and BuildKit at {self.host.buildkit}"
        commands = (Command(Stage.BUILDING, prepare, own), self._buildctl(options))
        return Recipe(commands, self._files(), METADATA, about)

    def by_podman(self) -> Recipe:
        """The credentials of registries are not there while a build runs that may leave its steps."""
        tool, layout, cache = str(self.host.podman), self.asked.layout, self.settings.cache
        store = (f"--root={STORE}", f"--runroot={_RUN_ROOT}")
        plain = (f"--tls-verify={'false' if self.is_insecure else 'true'}",)
        caches = () if cache is None else (f"--cache-to={cache}", f"--cache-from={cache}")
        platform = (f"--platform={layout.platform}",) if layout.platform else ()
        build = (
            *(tool, *store, "build", "--layers", "--force-rm", "--pull", "--network=host", *plain, *caches, *platform),
            *(f"--file={CHECKOUT}/{layout.dockerfile}", f"--tag={self.target}", *self._secret_options(), self._context),
        )
        push = (tool, *store, "push", *plain, f"--digestfile={DIGEST}", self.target, f"docker://{self.target}")
        login, sees = self._login(), frozenset((Sees.STORE, Sees.LOGIN))
        if self.host.holes:
            building = Command(Stage.BUILDING, build, (), frozenset((Sees.STORE, Sees.SECRETS)))
        else:
            building = Command(Stage.BUILDING, build, login, sees | {Sees.SECRETS})
        about = f"building {layout.dockerfile} with {tool.rpartition('/')[2]}, the builder of this server"
        return Recipe((building, Command(Stage.PUSHING, push, login, sees)), self._files(), DIGEST, about)

    @property
    def _context(self) -> str:
        folder = self.asked.layout.folder
        return CHECKOUT if folder == "." else f"{CHECKOUT}/{folder}"

    def _buildctl(self, options: tuple[str, ...]) -> Command:
        settings, platform = self.settings, self.asked.layout.platform
        output = f"--output=type=image,name={self.target},push=true"
        cache: tuple[str, ...] = ()
        if settings.cache is not None:
            where = image.parse(settings.cache)
            plain = where is not None and is_plain(where.registry, settings)
            ref = f"type=registry,ref={settings.cache}" + (",registry.insecure=true" if plain else "")
            cache = (f"--export-cache={ref},mode=max,ignore-error=true", f"--import-cache={ref}")
        argv = (
            *("buildctl", f"--addr={_inside(str(self.host.buildkit))}", "build", "--progress=plain"),
            *(f"--local=context={self._context}", *options, *self._secret_options()),
            *((f"--opt=platform={platform}",) if platform else ()),
            *(*cache, output + (",registry.insecure=true" if self.is_insecure else "")),
            f"--metadata-file={METADATA}",
        )
        return Command(Stage.BUILDING, argv, self._login(), frozenset((Sees.BUILDKIT, Sees.LOGIN, Sees.SECRETS)))

    def _login(self) -> tuple[tuple[str, str], ...]:
        """Where the credentials of registries are: `buildctl` looks into a folder, the others take a file."""
        if self.settings.auth_file is None:
            return ()
        return ("REGISTRY_AUTH_FILE", f"{LOGIN}/config.json"), ("DOCKER_CONFIG", LOGIN)

    def _files(self) -> tuple[tuple[str, str], ...]:
        return tuple((f"{number}", name) for number, name in enumerate(sorted(self.asked.secrets)))

    def _secret_options(self) -> tuple[str, ...]:
        return tuple(f"--secret=id={name},src={SECRETS}/{file}" for file, name in self._files())


def _inside(address: str) -> str:
    """A socket's path is another one in the sandbox."""
    return f"unix://{BUILDKIT}" if address.startswith("unix:") else address
