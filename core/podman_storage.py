"""What is in Podman's storage and not in its database, in the listing of Podman 4.3 to 5."""

from typing import Final

import msgspec
from returns.result import Failure, Result, Success

from core.containers import ContainerId

_STORAGE: Final = "storage"


class _Stored(msgspec.Struct, frozen=True, rename="pascal"):
    id: ContainerId
    names: list[str]
    state: str
    command: list[str] | None = None

    def is_of_no_program(self) -> bool:
        return self.state == _STORAGE and self.command == [_STORAGE]


def parse_stored(raw: bytes, name: str) -> Result[ContainerId | None, str]:
    """The storage-only container of this name that no other program made, in the answer of `GET /containers/json?external=true`.

    None when there is none. Podman calls what it does not have in its database `storage`, and names the program of a container that is
    known to be another's (`buildah`) as its command.
    """
    try:
        items = msgspec.json.decode(raw, type=list[_Stored])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as error:
        return Failure(f"Podman's answer makes no sense: {error}")
    return Success(next((one.id for one in items if one.names == [name] and one.is_of_no_program()), None))
