"""The parts of pyroute2 that are needed here: links, addresses and routes; WireGuard's own family; what the kernel refuses."""

from shell import light_imports

light_imports.alone("pyroute2")
light_imports.alone("unittest")  # of which pyroute2 wants a part

from pyroute2.iproute import IPRoute  # noqa: E402 - after what keeps its imports small
from pyroute2.netlink.exceptions import NetlinkError  # noqa: E402 - after what keeps its imports small
from pyroute2.netlink.generic.wireguard import WireGuard  # noqa: E402 - after what keeps its imports small

__all__ = ["IPRoute", "NetlinkError", "WireGuard"]
