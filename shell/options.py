"""The agent's options as one value, checked once. What each means stands with the command line's help and in docs/options.md."""

from pathlib import Path
from typing import Annotated

from pydantic import BaseModel, ConfigDict, Field, field_validator

from core.state import COMPONENTS, Component

DEFAULT_DATA_DIR = Path("/var/lib/techulus-agent")
DEFAULT_PODMAN_SOCKET = Path("/run/podman/podman.sock")


class Options(BaseModel):
    """How this agent runs. The token is not here: it is used once and not kept."""

    model_config = ConfigDict(frozen=True, extra="forbid")

    url: str | None = None
    data_dir: Path = DEFAULT_DATA_DIR
    logs_endpoint: str | None = None
    proxy: bool = False
    allow_http: bool = False
    podman_socket: Path = DEFAULT_PODMAN_SOCKET
    network: Annotated[str, Field(pattern=r"^[a-zA-Z0-9][a-zA-Z0-9_.-]*$")] = "techulus"
    registry_auth_file: Path | None = None
    insecure_registry: tuple[str, ...] = ()
    container_log_mib: Annotated[int, Field(ge=1, le=65_536)] = 64
    unmanaged: tuple[Component, ...] = ()

    @field_validator("data_dir", "podman_socket", "registry_auth_file")
    @classmethod
    def _absolute(cls, path: Path | None) -> Path | None:
        return None if path is None else path.absolute()

    @field_validator("unmanaged", mode="before")
    @classmethod
    def _components(cls, names: tuple[str, ...]) -> tuple[str, ...]:
        for name in names:
            if name not in COMPONENTS:
                raise ValueError(f"{name!r} is not one of {', '.join(COMPONENTS)}")
        return tuple(names)
