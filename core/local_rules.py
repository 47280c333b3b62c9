"""What a document from the control plane is checked against on one server, beside its own shape: what the server's owner keeps and allows.

Values that were read elsewhere; this room looks at nothing. Without them (a dry run of two files) nothing is kept and nothing allowed.
"""

import re
from typing import Final

import msgspec

HOST_PORTS: Final = (30_000, 32_767)
"""The first and the last of the host ports that the control plane hands out (PROTOCOL.md, 4.2)."""


_RANGE: Final = re.compile(r"([0-9]{1,5})(?:-([0-9]{1,5}))?")


class LocalRules(msgspec.Struct, frozen=True):
    """`names` are this server's own host names, in lower case and without a trailing dot. `host_ports` are ranges, first and last port,
    that containers may be reached by beside `HOST_PORTS`. `searched` are the domains in which this server's network has names.
    """

    names: frozenset[str] = frozenset()
    host_ports: tuple[tuple[int, int], ...] = ()
    searched: frozenset[str] = frozenset()

    def allows_host_port(self, port: int) -> bool:
        """Whether a container may be reached by this port of the server."""
        return any(first <= port <= last for first, last in (HOST_PORTS, *self.host_ports))

    def is_of_this_network(self, name: str) -> bool:
        """Whether a name is, or lies above, one of this server's or a domain of its network (`c.project.internal`), or lies in one.

        A whole top-level domain is no network's own.
        """
        is_above = any(one == name or one.endswith(f".{name}") for one in self.names | self.searched)
        return is_above or any(name.endswith(f".{one}") for one in self.searched if "." in one)

    def keeps(self, domain: str) -> bool:
        """Whether a domain, which may begin with `*.`, answers for one of this server's own names."""
        if domain.startswith("*."):
            return any(name.partition(".")[2] == domain[2:] for name in self.names)
        return domain in self.names


def port_range(text: str) -> tuple[int, int] | None:
    """The first and the last port of `22` or `8000-8100`; None when that is not a range of ports."""
    matched = _RANGE.fullmatch(text)
    if matched is None or not text.isascii():
        return None
    first = int(matched[1])
    last = int(matched[2] or first)
    return (first, last) if 0 < first <= last < 65_536 else None


NO_RULES: Final = LocalRules()
