"""What a person writes: services and servers as YAML or JSON text, checked as a whole and turned into values, or one fault with its path.

Unknown keys, doubled keys and empty files are faults: each is more likely a slip than a wish.
"""

import json
from collections.abc import Callable
from dataclasses import dataclass
from typing import Annotated, TypeVar

from pydantic import AfterValidator, BaseModel, BeforeValidator, ConfigDict, Field, ValidationError, model_validator

from shell.local_plane.documents import Fault, Format, loaded_document, validation_fault
from shell.local_plane.servers import NamedToken
from shell.local_plane.world import HealthCheck, Port, Repository, Spec, Volume

Seal = Callable[[str, str, str], str]
"""Encrypts one value of env: (service key, name, plain text) to what is served."""


@dataclass(frozen=True, slots=True)
class Entry:
    """A service's entry: its key, a fixed id if one is given, and the rest with env encrypted."""

    key: str
    id: str | None
    spec: Spec


@dataclass(frozen=True, slots=True)
class ServicesFile:
    """All of the services' file; `project` and `registry` name the images of builds."""

    entries: tuple[Entry, ...]
    project: str | None = None
    registry: str | None = None


def services_file(text: str, kind: Format, seal: Seal) -> ServicesFile | Fault:
    """Parse the services' file."""
    model = _parsed(text, kind, _ServicesModel, "services")
    if isinstance(model, Fault):
        return model
    entries = (Entry(key, service.id, _spec(key, service, seal)) for key, service in model.services.items())
    return ServicesFile(tuple(entries), model.project, model.registry)


def servers_file(text: str, kind: Format) -> tuple[NamedToken, ...] | Fault:
    """Parse the servers' file or a single token's file."""
    model = _parsed(text, kind, _ServersModel, "servers")
    if isinstance(model, Fault):
        return model
    return tuple(NamedToken(server.name, server.token, server.subnet) for server in model.servers)


def token_text(named: NamedToken) -> str:
    """A token's file as `servers_file` reads it."""
    server = {"name": named.name, "token": named.token, "subnet": named.subnet_id}
    return json.dumps({"servers": [server]}, ensure_ascii=False) + "\n"


class _Model(BaseModel):
    model_config = ConfigDict(extra="forbid", frozen=True, hide_input_in_errors=True)


_Kind = TypeVar("_Kind", bound=_Model)


def _scalar(value: object) -> object:
    """Text where text is meant: YAML reads `8080` as a number. `yes`, `1.10` and dates would not come out as they were written."""
    if isinstance(value, int) and not isinstance(value, bool):
        return str(value)
    if not isinstance(value, str):
        raise ValueError("must be text; put it in quotes")
    return value


def _plain(value: str) -> str:
    if any(ord(character) < ord(" ") for character in value):
        raise ValueError("must not contain control characters")
    return value


def _revision(value: object) -> object:
    return None if value is None else str(value)


_Text = Annotated[str, Field(min_length=1), BeforeValidator(_scalar), AfterValidator(_plain)]
_EnvName = Annotated[str, Field(min_length=1)]
_EnvValue = Annotated[str, BeforeValidator(_scalar)]
_Seconds = Annotated[int, Field(ge=0, le=86_400)]


class _PortModel(_Model):
    container: Annotated[int, Field(ge=1, le=65_535)]
    domain: str | None = None


class _VolumeModel(_Model):
    name: Annotated[str, Field(pattern=r"^[a-z0-9-]+$")]
    path: Annotated[str, Field(pattern=r"^/")]


class _HealthModel(_Model):
    cmd: str
    interval: _Seconds | None = None
    timeout: _Seconds | None = None
    retries: Annotated[int, Field(ge=0, le=1000)] | None = None
    start_period: _Seconds | None = None


class _RepositoryModel(_Model):
    url: _Text
    token: str | None = None


class _ServiceModel(_Model):
    id: _Text | None = None
    name: str | None = None
    image: _Text | None = None
    replicas: Annotated[int, Field(ge=0, le=200)] = 1
    servers: Annotated[list[_Text], Field(min_length=1)] | None = None
    env: dict[_EnvName, _EnvValue] = {}
    volumes: list[_VolumeModel] = []
    health_check: _HealthModel | None = None
    ports: list[_PortModel] = []
    hostname: _Text | None = None
    revision: Annotated[str | None, BeforeValidator(_revision)] = None
    repository: _RepositoryModel | None = None

    @model_validator(mode="after")
    def _fits_together(self) -> "_ServiceModel":
        if self.image is None and self.repository is None:
            raise ValueError("needs an image (or a repository that builds one)")
        if self.volumes and self.replicas > 1:
            raise ValueError("has volumes, so it can have one replica at most")
        return self


class _ServicesModel(_Model):
    services: dict[_Text, _ServiceModel]
    project: _Text | None = None
    registry: _Text | None = None

    @model_validator(mode="after")
    def _unique(self) -> "_ServicesModel":
        seen: dict[str, str] = {}
        for key, service in self.services.items():
            for domain in filter(None, (_domain(port.domain) for port in service.ports)):
                if domain in seen:
                    raise ValueError(f"domain {domain} is claimed by both {seen[domain]} and {key}")
                seen[domain] = key
        return self


class _ServerModel(_Model):
    name: _Text
    token: _Text
    subnet: Annotated[int, Field(ge=1, le=255)] | None = None


class _ServersModel(_Model):
    servers: list[_ServerModel]

    @model_validator(mode="after")
    def _unique(self) -> "_ServersModel":
        for field in ("name", "token"):
            values = [getattr(server, field) for server in self.servers]
            if len(set(values)) < len(values):
                raise ValueError(f"two servers have the same {field}")
        return self


def _spec(key: str, model: _ServiceModel, seal: Seal) -> Spec:
    return Spec(
        name=model.name or key,
        image=model.image,
        replicas=model.replicas,
        servers=tuple(model.servers) if model.servers else None,
        env={name: seal(key, name, value) for name, value in model.env.items()},
        volumes=tuple(Volume(volume.name, volume.path) for volume in model.volumes),
        health_check=_health(model.health_check),
        ports=tuple(Port(port.container, _domain(port.domain)) for port in model.ports),
        hostname=model.hostname,
        revision=model.revision,
        repository=Repository(model.repository.url, model.repository.token) if model.repository else None,
    )


def _health(model: _HealthModel | None) -> HealthCheck | None:
    if model is None:
        return None
    given = model.model_dump(exclude_none=True)
    return HealthCheck(**given)


def _domain(written: str | None) -> str | None:
    """A domain as the original stores it: trimmed and in lower case, otherwise unchecked."""
    return (written or "").strip().lower() or None


def _parsed(text: str, kind: Format, model: type[_Kind], top: str) -> _Kind | Fault:
    loaded = loaded_document(text, kind)
    if isinstance(loaded, Fault):
        return loaded
    if loaded is None:
        return Fault("", f"is empty; for none at all write {top}: {{}} or {top}: []")
    try:
        return model.model_validate(loaded)
    except ValidationError as error:
        return validation_fault(error)
