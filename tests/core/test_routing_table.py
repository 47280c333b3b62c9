"""`core.routing_table`: what goes out through which interface."""

from hypothesis import given
from hypothesis import strategies as st

from core import routing_table

TABLE = """\
Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\tIRTT
eth0\t00000000\t0202000A\t0003\t0\t0\t0\t00000000\t0\t0\t0
wg0\t0002640A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
wg0\t0002C80A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
wg0\t0003C80A\t00000000\t0000\t0\t0\t0\t00FFFFFF\t0\t0\t0
wg01\t0004C80A\t00000000\t0001\t0\t0\t0\t00FFFFFF\t0\t0\t0
"""


def test_the_networks_of_one_interface() -> None:
    """Those whose routes are up, and no other interface's of a longer name."""
    assert routing_table.parse(TABLE, "wg0") == {"10.100.2.0/24", "10.200.2.0/24"}
    assert routing_table.parse(TABLE, "eth0") == {"0.0.0.0/0"}
    assert routing_table.parse(TABLE, "wg1") == routing_table.parse("", "wg0") == frozenset()


def test_lines_that_make_no_sense_are_left_out() -> None:
    """No mask, no address, host bits."""
    odd = "wg0 1 2\nwg0 zz 0 1 0 0 0 00FFFFFF\nwg0 0102640A 0 1 0 0 0 00FFFFFF\nwg0 0002640A 0 1 0 0 0 00FF00FF\n"
    assert routing_table.parse(odd, "wg0") == frozenset()


@given(st.text())
def test_any_text(text: str) -> None:
    """Never an exception."""
    routing_table.parse(text, "wg0")
