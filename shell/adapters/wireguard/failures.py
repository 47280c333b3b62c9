"""Where the libraries' exceptions become ours."""

from collections.abc import Iterator
from contextlib import contextmanager
from typing import Final

from shell.adapters.wireguard.netlink import NetlinkError
from shell.failure import AdapterError

COMPONENT: Final = "wireguard"


@contextmanager
def failures(what: str) -> Iterator[None]:
    """Turn netlink's and the system's errors into AdapterError."""
    try:
        yield
    except NetlinkError as error:
        raise AdapterError(
            COMPONENT, what, str(error.args[1] if len(error.args) > 1 else error), "tried again"
        ) from error
    except (OSError, TimeoutError) as error:
        raise AdapterError(COMPONENT, what, error.strerror or str(error), "tried again") from error
