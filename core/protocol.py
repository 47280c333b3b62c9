"""The control plane's small messages: registration, work items, builds. (The expected state is in `core.wire`.)

Unknown fields are ignored. A message of the wrong shape is refused with the path of its first fault.
"""

from typing import Annotated, Literal, TypeVar

from pydantic import BaseModel, ConfigDict, Field, ValidationError
from pydantic.alias_generators import to_camel
from returns.result import Failure, Result, Success

M = TypeVar("M", bound=BaseModel)

_SHOWN_ID = Field(min_length=1, max_length=1024)
_HEADER_ID = Field(pattern=r"^[!-~]{1,1024}$")  # it travels in a header, which carries nothing else unharmed
_LONGEST_PATH = 200
_LONGEST_ERROR = 200_000  # as much as the control plane has been seen to take


class _Message(BaseModel):
    model_config = ConfigDict(frozen=True, alias_generator=to_camel, populate_by_name=True, extra="ignore", strict=True)


class RegistrationRequest(_Message):
    """What a new server sends: its token, public keys (base64 of 32 bytes) and kind."""

    token: Annotated[str, Field(repr=False)]
    wireguard_public_key: str
    signing_public_key: str
    is_proxy: bool
    public_ip: str | None = None


class RegistrationAnswer(_Message):
    """Who this server is from now on. `encryption_key` is absent when the installation has none."""

    server_id: Annotated[str, _HEADER_ID]
    subnet_id: Annotated[int, Field(ge=1, le=255)]
    wireguard_ip: str
    encryption_key: Annotated[str, Field(pattern=r"^[0-9a-fA-F]{64}$")] | None = Field(default=None, repr=False)


class WorkItem(_Message):
    """One item of the work queue; `payload` is a text that holds JSON, parsed by `core.work`."""

    id: Annotated[str, _SHOWN_ID]
    type: str
    payload: str
    created_at: str = ""


class PendingBuild(_Message):
    """A build that waits for somebody to claim it."""

    id: Annotated[str, _SHOWN_ID]
    commit_sha: str
    commit_message: str | None = None
    branch: str
    service_id: str


class PendingBuilds(_Message):
    """The oldest pending build, if there is one."""

    build: PendingBuild | None


class ClaimedBuildDetails(_Message):
    """What is to be built."""

    id: Annotated[str, _SHOWN_ID]
    commit_sha: str
    commit_message: str | None = None
    branch: str
    service_id: str
    project_id: str


class ClaimedBuild(_Message):
    """A claimed build. `clone_url` may hold a token and `secrets` are encrypted: neither is shown."""

    build: ClaimedBuildDetails
    clone_url: Annotated[str, Field(repr=False)]
    image_uri: str
    secrets: Annotated[dict[str, str], Field(repr=False)]


class BuildStatus(_Message):
    """The answer to a status that was asked for (`status`) or sent (`cancelled`)."""

    status: (
        Literal["pending", "claimed", "cloning", "building", "pushing", "completed", "failed", "cancelled"] | None
    ) = None
    cancelled: bool = False


def parse(raw: bytes, kind: type[M]) -> Result[M, str]:
    """One message from its bytes; the failure names the path of the first fault, never a value."""
    try:
        return Success(kind.model_validate_json(raw))
    except ValidationError as error:
        first = error.errors(include_input=False, include_url=False)[0]
        path = ".".join(str(part) for part in first["loc"])[:_LONGEST_PATH] or "document"
        return Failure(f"{path}: {first['msg']}")


def sendable(text: str) -> str:
    """An error's text as the control plane can store it: no NUL, no half characters, and not endless (the end says most)."""
    return (
        text[-_LONGEST_ERROR:].replace("\x00", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")
    )


def registration_fault(answer: RegistrationAnswer) -> str | None:
    """What is wrong with a registration's answer beyond its shape: the address must follow from the subnet."""
    wanted = f"10.100.{answer.subnet_id}.1"
    return None if answer.wireguard_ip == wanted else f"wireguardIp is {answer.wireguard_ip!r}, expected {wanted}"
