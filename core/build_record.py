"""What is remembered of a build on disk, and what its answers mean: the digest that was pushed, the moment at which pushing begins.

A build has no lease: whoever claimed it must say how it ended, also after a crash.
"""

import re
from typing import Final

import msgspec
from returns.result import Failure, Result, Success

UNFINISHED: Final = frozenset({"claimed", "cloning", "building", "pushing"})
"""The states in which the control plane still waits for somebody."""

INTERRUPTED: Final = "the agent was restarted while it was building; build again"

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_PUSHING: Final = re.compile(r"#\d+ (?:exporting manifest|pushing )")


class Record(msgspec.Struct, frozen=True):
    """One build that this agent has claimed or is about to claim. `outcome` is `completed`, `failed` or empty while it goes on."""

    id: str
    outcome: str = ""
    error: str = ""
    version: int = 1


class _Metadata(msgspec.Struct, frozen=True):
    digest: str = msgspec.field(name="containerimage.digest")


def render(record: Record) -> bytes:
    """A record as it stands on disk."""
    return msgspec.json.encode(record)


def parse(raw: bytes) -> Result[Record, str]:
    """A record from disk."""
    try:
        return Success(msgspec.json.decode(raw, type=Record))
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Failure(str(error))


def pushed_digest(raw: bytes) -> Result[str, str]:
    """The digest of what was pushed, from BuildKit's metadata file (JSON) or a digest file (text)."""
    text = raw.strip()
    if text.startswith(b"{"):
        try:
            text = msgspec.json.decode(text, type=_Metadata).digest.encode()
        except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
            return Failure(f"BuildKit's metadata make no sense: {error}")
    return digest_in(text.decode("utf-8", "replace"))


def digest_in(text: str) -> Result[str, str]:
    """A digest and nothing else."""
    return Success(text) if _DIGEST.fullmatch(text) else Failure(f"{text[:80]!r} is not a digest")


def announces_push(line: str) -> bool:
    """Whether a line of BuildKit's plain progress says that the image is on its way to the registry."""
    return _PUSHING.match(line) is not None
