"""How much of anything is taken from outside: how many entries of a list, how many characters of a text.

Each bound is far above what any installation has, and low enough that the work on what is within takes no longer than a moment. What is
over is refused with a reason; what is within is served.
"""

from collections.abc import Sequence
from typing import Final

# The lists of an expected state. The control plane numbers servers up to 255, and each of the others is one peer.
CONTAINERS: Final = 100_000
RECORD_ADDRESSES: Final = (
    100_000  # of all records together, at least one each: lines of a file that dnsmasq reads in a second
)
ROUTE_UPSTREAMS: Final = 20_000  # of all routes together, at least one each
PEERS: Final = 4_096

# Within one entry.
NAME_ADDRESSES: Final = 512  # of one DNS name, in all of its records: dnsmasq compares each with all before it
PORTS: Final = 1_024
VOLUMES: Final = 1_024
VARIABLES: Final = 10_000
NETWORKS: Final = 1_024

# Texts, in characters.
ID: Final = 65_536  # any that may be met; nothing slices one
SHOWN_ID: Final = 1_024  # of a work item or a build, which is named wherever it is spoken of
NAME: Final = 200  # of a container: a file is called like it, and a file's name has at most 255 bytes
LABEL: Final = 10_000
PATH: Final = 4_095  # linux/limits.h
VOLUME: Final = 255
COMMAND: Final = 131_071  # the longest word that Linux gives a program
VARIABLE_NAME: Final = 1_024
VARIABLE: Final = 1_048_576  # encrypted, in base64
ENDPOINT: Final = 64  # a bracketed IPv6 address with a port has 53
DOMAIN: Final = 1_024  # as it is sent, before it has its IDNA form

IMAGE_REQUESTS: Final = 256  # on their way at one time: each is a task; others are asked for when one is answered
WORK_ITEMS: Final = 10_000  # of one reading; more of them are read once these are done
WORK_CONTAINERS: Final = 10_000  # that one work item names
SECRETS: Final = 1_000  # of one build
SECRETS_TEXT: Final = (
    262_144  # characters of all of them: each line of each is looked for in each line of a build's output
)
VALUES: Final = 1_000_000  # of one JSON document that is read whole
DEPTH: Final = 100  # of one that is walked


def too_many(entries: Sequence[object], most: int) -> str | None:
    """Why a list is not taken; None when it is."""
    return f"has {len(entries)} entries, and at most {most} are taken" if len(entries) > most else None


def too_long(text: str, most: int) -> str | None:
    """Why a text is not taken; None when it is."""
    return f"has {len(text)} characters, and at most {most} are taken" if len(text) > most else None


def too_many_values(raw: bytes) -> str | None:
    """Why a JSON document is not decoded: whatever it is, it makes more values than are taken. None when it may be."""
    if len(raw) <= VALUES:  # each value has a byte of its own
        return None
    values = sum(map(raw.count, (b",", b"[", b"{")))  # no fewer than it has, but for the first
    return f"has more than {VALUES} values" if values > VALUES else None
