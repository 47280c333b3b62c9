"""The address at which the internet sees this server, as a service that echoes it answered."""

import re
from ipaddress import AddressValueError, IPv4Address

from returns.result import Failure, Result, Success

from core.rejection import shown

_SIZE = re.compile(rb"[0-9.]{7,15}")


def parse(raw: bytes) -> Result[str, str]:
    """The one IPv4 address in an answer; the failure says why it is none that other servers could reach."""
    text = raw.strip()
    if not _SIZE.fullmatch(text):
        return Failure(f"{shown(raw[:80].decode('utf-8', 'replace'))} is not an IPv4 address")
    try:
        found = IPv4Address(text.decode("ascii"))
    except AddressValueError as error:
        return Failure(str(error))
    if not found.is_global or found.is_multicast:
        return Failure(f"{found} is not an address of the internet")
    return Success(str(found))
