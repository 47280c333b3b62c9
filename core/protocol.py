"""The control plane's small messages: registration, work items, builds. (The expected state is in `core.wire`.)

Unknown fields are ignored. A message of the wrong shape is refused with the path of its first fault.
"""

from typing import Annotated, ClassVar, Literal, TypeVar

import msgspec
from returns.result import Result

from core import bounds, wire

_ShownId = Annotated[str, msgspec.Meta(min_length=1, max_length=bounds.SHOWN_ID)]
_HeaderId = Annotated[
    str, msgspec.Meta(pattern=r"^[!-~]{1,1024}\Z")
]  # it travels in a header, which carries nothing else unharmed
_LONGEST_PATH = 200
_LONGEST_ERROR = 200_000  # as much as the control plane has been seen to take
_WRONG_WORD = "invalid enum value"  # msgspec goes on with the value itself


class Message(msgspec.Struct, frozen=True, kw_only=True, rename="camel"):
    """Shown without what is secret in it."""

    SECRET: ClassVar[frozenset[str]] = frozenset()

    def __repr__(self) -> str:
        shown = (f"{name}={getattr(self, name)!r}" for name in self.__struct_fields__ if name not in self.SECRET)
        return f"{type(self).__name__}({', '.join(shown)})"


M = TypeVar("M", bound=Message)


class RegistrationRequest(Message, frozen=True, kw_only=True, rename="camel", omit_defaults=True):
    """What a new server sends: its token, public keys (base64 of 32 bytes) and kind."""

    SECRET: ClassVar[frozenset[str]] = frozenset({"token"})

    token: str
    wireguard_public_key: str
    signing_public_key: str
    is_proxy: bool
    public_ip: str | None = None


class RegistrationAnswer(Message, frozen=True, kw_only=True, rename="camel"):
    """Who this server is from now on. `encryption_key` is absent when the installation has none."""

    SECRET: ClassVar[frozenset[str]] = frozenset({"encryption_key"})

    server_id: _HeaderId
    subnet_id: Annotated[int, msgspec.Meta(ge=1, le=255)]
    wireguard_ip: str
    encryption_key: Annotated[str, msgspec.Meta(pattern=r"^[0-9a-fA-F]{64}\Z")] | None = None


class WorkItem(Message, frozen=True, kw_only=True, rename="camel"):
    """One item of the work queue; `payload` is a text that holds JSON, parsed by `core.work`."""

    id: _ShownId
    type: str
    payload: str
    created_at: str = ""


class PendingBuild(Message, frozen=True, kw_only=True, rename="camel"):
    """A build that waits for somebody to claim it."""

    id: _ShownId
    commit_sha: str
    commit_message: str | None = None
    branch: str
    service_id: str


class PendingBuilds(Message, frozen=True, kw_only=True, rename="camel"):
    """The oldest pending build, if there is one."""

    build: PendingBuild | None


class ClaimedBuildDetails(Message, frozen=True, kw_only=True, rename="camel"):
    """What is to be built."""

    id: _ShownId
    commit_sha: str
    commit_message: str | None = None
    branch: str
    service_id: str
    project_id: str


class ClaimedBuild(Message, frozen=True, kw_only=True, rename="camel"):
    """A claimed build. `clone_url` may hold a token and `secrets` are encrypted: neither is shown."""

    SECRET: ClassVar[frozenset[str]] = frozenset({"clone_url", "secrets"})

    build: ClaimedBuildDetails
    clone_url: str
    image_uri: str
    secrets: dict[str, str]


class BuildStatus(Message, frozen=True, kw_only=True, rename="camel"):
    """The answer to a status that was asked for (`status`) or sent (`cancelled`)."""

    status: (
        Literal["pending", "claimed", "cloning", "building", "pushing", "completed", "failed", "cancelled"] | None
    ) = None
    cancelled: bool = False


def parse(raw: bytes, kind: type[M]) -> Result[M, str]:
    """One message from its bytes; the failure names the path of the first fault, never a value."""
    return wire.decode(raw, kind).alt(_said)


def _said(fault: wire.ShapeFault) -> str:
    reason = _WRONG_WORD if fault.reason.startswith(_WRONG_WORD) else fault.reason
    return f"{fault.path[:_LONGEST_PATH] or 'document'}: {reason}"


def encode(request: RegistrationRequest) -> bytes:
    """The request as it is sent, without what is not known."""
    return msgspec.json.encode(request)


def sendable(text: str) -> str:
    """An error's text as the control plane can store it: no NUL, no half characters, and not endless (the end says most)."""
    return (
        text[-_LONGEST_ERROR:].replace("\x00", "\N{REPLACEMENT CHARACTER}").encode("utf-8", "replace").decode("utf-8")
    )


def registration_fault(answer: RegistrationAnswer) -> str | None:
    """What is wrong with a registration's answer beyond its shape: the address must follow from the subnet."""
    wanted = f"10.100.{answer.subnet_id}.1"
    return None if answer.wireguard_ip == wanted else f"wireguardIp is {answer.wireguard_ip!r}, expected {wanted}"
