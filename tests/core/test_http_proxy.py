"""`core.http_proxy`: the rules of Go's default transport."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.http_proxy import Destination, Proxies, from_environment

PROXY = "http://proxy.test:3128"


def proxies(no_proxy: str = "", **environment: str) -> Proxies:
    """What an environment means."""
    given = environment or {"HTTPS_PROXY": PROXY}
    return from_environment({**given, "NO_PROXY": no_proxy})


def goes_through(host: str, no_proxy: str = "", port: int = 443) -> bool:
    """Whether an https request is proxied."""
    return proxies(no_proxy).choose(Destination("https", host, port)).unwrap() is not None


@pytest.mark.parametrize(
    ("environment", "scheme", "chosen"),
    [
        ({}, "https", None),
        ({"HTTPS_PROXY": PROXY}, "https", PROXY),
        ({"https_proxy": PROXY}, "https", PROXY),
        ({"HTTPS_PROXY": PROXY, "https_proxy": "http://other.test"}, "https", PROXY),
        ({"HTTPS_PROXY": "", "https_proxy": PROXY}, "https", PROXY),
        ({"HTTPS_PROXY": PROXY}, "http", None),
        ({"HTTP_PROXY": PROXY}, "http", PROXY),
        ({"HTTP_PROXY": PROXY}, "https", None),
        ({"ALL_PROXY": PROXY}, "https", None),
        ({"HTTPS_PROXY": "proxy.test:3128"}, "https", PROXY),
        ({"HTTPS_PROXY": "https://proxy.test"}, "https", "https://proxy.test"),
        ({"HTTP_PROXY": "http://me:secret@[2001:db8::1]:3128/"}, "http", "http://me:secret@[2001:db8::1]:3128/"),
    ],
)
def test_which_proxy(environment: dict[str, str], scheme: str, chosen: str | None) -> None:
    """By the destination's scheme; capitals come first; http is meant where no scheme stands."""
    assert from_environment(environment).choose(Destination(scheme, "plane.test", 443)).unwrap() == chosen


@pytest.mark.parametrize("host", ["localhost", "127.0.0.1", "127.9.8.7", "::1", "::ffff:127.0.0.1"])
def test_what_is_here_is_never_proxied(host: str) -> None:
    """Whatever NO_PROXY says."""
    assert not goes_through(host)


@pytest.mark.parametrize(
    ("no_proxy", "host", "port"),
    [
        ("*", "plane.test", 443),
        ("a.test, * ", "plane.test", 443),
        ("plane.test", "plane.test", 443),
        ("PLANE.test", "plane.TEST", 443),
        ("plane.test", "eu.plane.test", 443),
        (".plane.test", "eu.plane.test", 443),
        ("*.plane.test", "eu.plane.test", 443),
        ("a.test ,, plane.test", "plane.test", 443),
        ("plane.test:8443", "plane.test", 8443),
        (".test:443", "plane.test", 443),
        ("10.1.2.3", "10.1.2.3", 443),
        ("10.1.2.3", "::ffff:10.1.2.3", 443),
        ("10.1.2.3:8443", "10.1.2.3", 8443),
        ("10.100.0.0/16", "10.100.7.1", 443),
        ("10.100.1.9/16", "10.100.7.1", 443),
        ("2001:db8::/32", "2001:db8::7", 443),
        ("2001:db8::7", "2001:db8:0::7", 443),
        ("[2001:db8::7]", "2001:db8::7", 443),
        ("[2001:db8::7]:443", "2001:db8::7", 443),
        ("bücher.test", "shop.xn--bcher-kva.test", 443),
    ],
)
def test_what_no_proxy_exempts(no_proxy: str, host: str, port: int) -> None:
    """Names with what is below them, addresses, networks, each perhaps with a port."""
    assert not goes_through(host, no_proxy, port)


@pytest.mark.parametrize(
    ("no_proxy", "host", "port"),
    [
        ("", "plane.test", 443),
        ("other.test", "plane.test", 443),
        ("plane.test", "notplane.test", 443),
        ("plane.test", "plane.test.evil", 443),
        (".plane.test", "plane.test", 443),
        ("*.plane.test", "plane.test", 443),
        ("*plane.test", "eu.plane.test", 443),
        ("plane.test:8443", "plane.test", 443),
        ("10.1.2.3", "10.1.2.30", 443),
        ("10.1.2.3:8443", "10.1.2.3", 443),
        ("10.100.0.0/16", "10.101.0.1", 443),
        ("10.100.0.0/16", "plane.test", 443),
        ("10.100.0.0/16", "2001:db8::1", 443),
        ("10.100.0.0/99", "10.100.0.1", 443),
        ("::/0", "10.100.0.1", 443),
        (":443", "plane.test", 443),
        (".", "plane.test", 443),
        ("192.168.0.1", "192.168.0.1.example", 443),
    ],
)
def test_what_no_proxy_does_not_exempt(no_proxy: str, host: str, port: int) -> None:
    """What merely looks alike."""
    assert goes_through(host, no_proxy, port)


@pytest.mark.parametrize(
    ("url", "why"),
    [
        ("http://me:hush@", "not the URL of a proxy"),
        ("http://me:hush@proxy.test:99999", "not the URL of a proxy"),
        ("http://pro xy:hush", "not the URL of a proxy"),
        ("http://[::1", "not the URL of a proxy"),
        ("socks5://me:hush@proxy.test", "give an http or https URL"),
    ],
)
def test_a_variable_that_cannot_be_used(url: str, why: str) -> None:
    """Named, without the password in it (L37)."""
    failure = from_environment({"https_proxy": url}).choose(Destination("https", "plane.test", 443)).failure()
    assert failure.startswith("HTTPS_PROXY ")
    assert why in failure
    assert "hush" not in failure


@pytest.mark.parametrize(
    ("no_proxy", "scheme", "host"),
    [
        ("", "http", "plane.test"),
        ("*", "https", "plane.test"),
        ("plane.test", "https", "plane.test"),
        ("", "https", "::1"),
    ],
)
def test_a_variable_that_is_not_needed(no_proxy: str, scheme: str, host: str) -> None:
    """May be for another program, which takes what this one does not."""
    found = from_environment({"HTTPS_PROXY": "socks5://proxy.test", "NO_PROXY": no_proxy})
    assert found.choose(Destination(scheme, host, 443)).unwrap() is None


def test_credentials_are_never_shown() -> None:
    """L37: not even when the value is printed."""
    assert "hush" not in repr(proxies(HTTPS_PROXY="http://me:hush@proxy.test"))


@given(st.text(max_size=40), st.text(max_size=40), st.text(max_size=20), st.integers(1, 65_535))
def test_any_text_gives_an_answer(url: str, no_proxy: str, host: str, port: int) -> None:
    """No text raises."""
    from_environment({"HTTPS_PROXY": url, "NO_PROXY": no_proxy}).choose(Destination("https", host, port))
    Proxies(https=PROXY, exempt=(no_proxy,)).choose(Destination("https", host, port))
