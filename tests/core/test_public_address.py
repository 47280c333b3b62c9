"""`core.public_address`: what a service's answer is good for."""

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.pipeline import is_successful

from core import public_address


@pytest.mark.parametrize("raw", [b"8.8.4.4", b"8.8.4.4\n", b"  8.8.4.4\r\n"])
def test_an_address(raw: bytes) -> None:
    """With whatever white space is around it."""
    assert public_address.parse(raw).unwrap() == "8.8.4.4"


@pytest.mark.parametrize(
    "raw",
    [
        b"",
        b"<html>",
        b"10.0.0.1",
        b"127.0.0.1",
        b"192.168.1.1",
        b"100.64.0.1",
        b"169.254.1.1",
        b"0.0.0.0",
        b"224.0.0.1",
        b"239.1.1.1",
        b"240.0.0.1",
        b"255.255.255.255",
        b"203.0.113.7",
        b"08.8.8.8",
        b"8.8.8.256",
        b"8.8.8",
        b"8.8.8.8x",
        b"8.8.8.8 8.8.4.4",
        b"8.8.8.8\x00",
        b"2606:4700::1111",
    ],
)
def test_what_other_servers_could_not_reach(raw: bytes) -> None:
    """L33: an address that is wrong is worse than none."""
    assert not is_successful(public_address.parse(raw))


@given(st.binary())
def test_any_answer(raw: bytes) -> None:
    """A reason on one bounded line, never an exception."""
    found = public_address.parse(raw)
    if not is_successful(found):
        assert len(found.failure()) < 500
        assert found.failure().isprintable()
