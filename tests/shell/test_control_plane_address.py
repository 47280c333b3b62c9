"""Where the control plane may be, and whom the client trusts to be it."""

import ssl
from pathlib import Path

import anyio
import pytest
from hypothesis import given
from hypothesis import strategies as st

from shell.adapters.control_plane import ControlPlane, check_url
from shell.failure import CommandError
from shell.http_client import trusted
from tests.lab.certificates import self_signed
from tests.lab.odd_server import OddServer
from tests.shell.calling import ALL, FETCH, SIGNER, called, refused


def test_a_certificate_must_be_signed_by_somebody_who_is_trusted(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L39: by public authorities, or by one that this server's operator trusts; then it must be for this host."""
    authority, context = self_signed(tmp_path, "127.0.0.1")
    _, other = self_signed(tmp_path / "other", "192.0.2.1")
    with OddServer(tls=context) as server:
        assert "CERTIFICATE_VERIFY_FAILED" in str(refused(server.url, ALL["register"]))
        assert server.requests == []
        monkeypatch.setenv("SSL_CERT_FILE", str(authority))
        trusted.cache_clear()
        assert called(server.url, FETCH) == [b"{}"]
    monkeypatch.setenv("SSL_CERT_FILE", str(tmp_path / "other" / "certificate.pem"))
    trusted.cache_clear()
    with OddServer(tls=other) as server:
        assert "CERTIFICATE_VERIFY_FAILED" in str(refused(server.url))
    trusted.cache_clear()


def test_old_tls_is_refused() -> None:
    """L39: 1.2 at least."""
    assert trusted(None).minimum_version >= ssl.TLSVersion.TLSv1_2


@pytest.mark.parametrize(
    ("url", "base"),
    [
        ("https://plane.test", "https://plane.test"),
        ("https://plane.test/", "https://plane.test"),
        (" HTTPS://plane.test:8443/some/path// ", "https://plane.test:8443/some/path"),
        ("http://localhost:8000", "http://localhost:8000"),
        ("http://127.3.2.1", "http://127.3.2.1"),
        ("http://[::1]:80/", "http://[::1]:80"),
    ],
)
def test_a_good_address(url: str, base: str) -> None:
    """TLS, or this machine; no trailing slash."""
    assert check_url(url, allow_http=False) == base


@pytest.mark.parametrize(
    "url",
    [
        "http://plane.test",
        "http://localhost.evil.test",
        "http://127.0.0.1.evil.test",
        "http://127.1",
        "http://0.0.0.0",
        "http://[::ffff:192.0.2.1]",
        "http://10.0.0.1:8000/path",
    ],
)
def test_secrets_do_not_cross_a_network_in_the_clear(url: str) -> None:
    """L39: the answer to a registration holds the key of all secrets; the option must be named to allow it."""
    with pytest.raises(CommandError, match="would send secrets in the clear; use https, or --allow-http"):
        check_url(url, allow_http=False)
    assert check_url(url, allow_http=True) == url


@pytest.mark.parametrize(
    "url",
    [
        "",
        "plane.test",
        "ftp://plane.test",
        "https://",
        "https://:443",
        "https://plane.test:99999",
        "https://user:hush/@plane.test:port",
        "https://user:hush@plane.test",
        "https://plane.test?token=hush",
        "https://plane.test#hush",
        "https://[::1",
        "https://pla ne.test",
        "https://pla\x00ne.test",
        "https://user:hush@pl\N{FULLWIDTH SOLIDUS}ane.test",
    ],
)
def test_a_bad_address(url: str) -> None:
    """Refused in one line. L37: a password in it is not repeated."""
    with pytest.raises(CommandError, match=r"^--url ") as caught:
        check_url(url, allow_http=True)
    assert "hush" not in str(caught.value)


HOSTS = st.text(st.characters(codec="utf-8", exclude_categories=["Cs"]), max_size=20)


@given(st.one_of(HOSTS, HOSTS.map(lambda text: f"https://{text}"), HOSTS.map(lambda text: f"http://a{text}:1/{text}")))
def test_any_text_is_an_address_or_refused(url: str) -> None:
    """What is accepted makes a client; nothing else raises."""

    async def run(base: str) -> None:
        await ControlPlane(base).aclose()

    try:
        base = check_url(url, allow_http=True)
    except CommandError:
        return
    assert not base.endswith("/")
    anyio.run(run, base)


def test_a_key_is_never_shown() -> None:
    """L37: not even when a signer is printed."""
    assert repr(SIGNER) == "Signer(server_id='a-server')"
