"""`core.address`: what is valid, and the one spelling of each."""

from ipaddress import AddressValueError, IPv4Address, IPv4Network

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import address
from tests.strategies import ANY_TEXT


@pytest.mark.parametrize("text", ["a", "a.b", "a-b.c1", "1.a", "x" * 63 + ".a", "xn--tda.example"])
def test_host_names(text: str) -> None:
    """Labels of letters, digits and inner hyphens."""
    assert address.is_host_name(text)


@pytest.mark.parametrize(
    "text",
    ["", ".", "a.", ".a", "a..b", "-a", "a-", "a_b", "A", "a b", "é", "x" * 64, "10.0.0.1", "a.1", "a\n", ".".join(["abcdefg"] * 32)],
)  # fmt: skip
def test_no_host_names(text: str) -> None:
    """Too long, empty, odd or a number at the end."""
    assert not address.is_host_name(text)


@pytest.mark.parametrize(
    "text", ["", "1.2.3", "1.2.3.4.5", "01.2.3.4", "256.1.1.1", "1.2.3.4/32", " 1.2.3.4", "fd00::1", "a", "1.2.3.４"]
)
def test_no_ipv4_addresses(text: str) -> None:
    """An address has exactly one spelling."""
    assert not address.is_ipv4(text)


@given(
    st.one_of(
        ANY_TEXT, st.ip_addresses(v=4).map(str), st.text("0123456789.", max_size=16), st.text("12.５٣\n", max_size=9)
    )
)
def test_an_ipv4_address_is_what_the_standard_library_takes(text: str) -> None:
    """The pattern is only faster."""
    try:
        IPv4Address(text)
    except AddressValueError:
        assert not address.is_ipv4(text)
    else:
        assert address.is_ipv4(text)


@pytest.mark.parametrize(
    ("text", "spelled"),
    [
        ("198.51.100.4:51820", "198.51.100.4:51820"),
        ("198.51.100.4:0080", "198.51.100.4:80"),
        ("[2001:DB8::1]:51820", "[2001:db8::1]:51820"),
        ("2001:db8:0::1:51820", "[2001:db8::1]:51820"),
        ("2001:db8:0:0:0:0:0:1:51820", "[2001:db8::1]:51820"),
        ("::1:80", "[::1]:80"),
        ("", None),
        ("198.51.100.4", None),
        ("198.51.100.4:", None),
        (":80", None),
        ("198.51.100.4:0", None),
        ("198.51.100.4:65536", None),
        ("198.51.100.4:-1", None),
        ("198.51.100.4:+1", None),
        ("198.51.100.4:٣", None),
        ("host.example:80", None),
        ("[198.51.100.4]:80", None),
        ("[2001:db8::1]", None),
        ("[2001:db8::1:80", None),
        ("2001:db8::1]:80", None),
        ("fe80::1%eth0:80", None),
        ("198.51.100.4:80\n", None),
        (" 198.51.100.4:80", None),
    ],
)
def test_endpoints(text: str, spelled: str | None) -> None:
    """Address and port in one spelling; IPv6 in brackets, or bare with the port after the last colon (L33)."""
    assert address.endpoint(text) == spelled


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("10.200.1.0/24", "10.200.1.0/24"),
        ("10.200.1.7/24", "10.200.1.0/24"),
        ("10.200.1.7", "10.200.1.7/32"),
        ("10.200.1.0/33", None),
        ("10.200.1.0/-1", None),
        ("10.200.1.0/", None),
        ("", None),
        ("a/24", None),
        ("fd00::/64", None),
        ("10.200.1.0/24/8", None),
    ],
)
def test_networks(text: str, found: str | None) -> None:
    """Host bits are cleared."""
    assert address.network(text) == (None if found is None else IPv4Network(found))


@given(ANY_TEXT | st.text("0123456789abcdef.:/[]%", max_size=20))
def test_any_text_is_taken_or_refused(text: str) -> None:
    """Never an exception, and the one spelling is its own spelling."""
    assert address.is_ipv4(text) in (True, False)
    assert address.is_host_name(text) in (True, False)
    spelled, found = address.endpoint(text), address.network(text)
    assert spelled is None or address.endpoint(spelled) == spelled
    assert found is None or address.network(str(found)) == found
    number = address.port(text)
    assert number is None or 0 < number < 65536
