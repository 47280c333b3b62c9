"""The client and answers that are no answers: too large, too slow, of another kind, or no HTTP at all."""

import time

import pytest

from core import bounds
from shell.adapters import control_plane
from tests.lab.odd_server import Behaviour, OddServer, answer, endless, hanging, head, raw, trickling
from tests.shell.calling import ALL, FETCH, called, refusal, refused


@pytest.mark.parametrize("kind", ["text/html", "text/plain; charset=utf-8", ""])
def test_a_page_instead_of_json_is_refused(kind: str) -> None:
    """L1: a captive portal's or a proxy's 200 is no answer, whatever it says."""
    error = refusal(answer(200, b"<html>Welcome</html>", kind))
    assert f"the answer is not JSON but {kind!r}; is --url the control plane's?" in str(error)
    assert "Welcome" not in str(error)


def test_an_answer_in_an_encoding_that_was_not_asked_for_is_refused() -> None:
    """L1: rather than taken for a broken document."""
    error = refusal(answer(200, b"\x1f\x8b", headers={"content-encoding": "gzip"}))
    assert "the answer is encoded as 'gzip', which was not asked for" in str(error)


@pytest.mark.parametrize("announced", [True, False])
def test_an_answer_of_50_mb_is_not_read_to_its_end(announced: bool) -> None:
    """Bounded memory: one that is announced is refused at once, another one at 16 MiB; neither is asked for again."""
    with OddServer([endless(50_000_000, announced=announced)]) as server:
        error = refused(server.url)
        assert "the answer is larger than 16 MiB; it is not used" in str(error)
        assert server.sent_bytes < (8 if announced else 24) * 1024**2
        assert len(server.requests) == 1


def test_an_answer_of_millions_of_values_is_not_decoded() -> None:
    """L55: 16 MiB of zeros would become half a gigabyte of this process, and half a minute of its time."""
    body = b'{"items":[' + b"0," * (bounds.VALUES + 1) + b"0]}"
    assert "the answer has more than 1000000 values; it is not used" in str(refusal(answer(body=body)))


def test_an_answer_that_just_fits_is_taken() -> None:
    """The bound itself is inside."""
    body = b" " * control_plane.LARGEST_ANSWER
    with OddServer([answer(body=body)]) as server:
        assert called(server.url, FETCH) == [body]


def test_of_a_refusal_only_the_beginning_is_read() -> None:
    """An error page of any size has its status all the same."""
    with OddServer([answer(404, b"x" * 30_000_000, "text/html")]) as server:
        assert refused(server.url).status == 404
        assert server.sent_bytes < 8 * 1024**2


@pytest.mark.parametrize(
    "behaviour",
    [
        hanging(),
        hanging(b"HTTP/1.1 200 OK\r\n"),
        hanging(head(200, {"content-type": "application/json", "content-length": "9"}) + b"{"),
        trickling(head(200, {"content-type": "application/json", "content-length": "900"}) + b"{" * 900, 0.05),
    ],
    ids=["silent", "in the headers", "in the body", "a byte now and then"],
)
@pytest.mark.parametrize(("name", "then"), [("expected state", "tried again later"), ("register", "not known")])
def test_no_call_outlasts_its_limit(behaviour: Behaviour, name: str, then: str) -> None:
    """L13: however the answer is delayed; and it is not tried again right away, since that would double the wait."""
    with OddServer([behaviour]) as server:
        begun = time.monotonic()
        error = refused(server.url, ALL[name], timeout_s=0.3)
        assert time.monotonic() - begun < 10  # the quickest of them would go on for 45 s
        assert "gave no whole answer within 0.3 s" in str(error)
        assert str(error).endswith(then)
        assert error.status is None
        # The limit may be over before the request has come.
        assert len(server.requests) <= 1


def test_completed_is_waited_for_longer() -> None:
    """The control plane deploys before it answers."""
    with OddServer(
        [trickling(head(200, {"content-type": "application/json", "content-length": "2"}) + b"{}", 0.01)]
    ) as server:
        assert called(server.url, ALL["build completed"], timeout_s=0.1) == [b"{}"]


@pytest.mark.parametrize(
    "sent",
    [
        b"HTTP/1.1 200 OK\r\ncontent-length: " + b"9" * 5000 + b"\r\n\r\n",
        b"HTTP/1.1 200 OK\r\ncontent-length: -1\r\n\r\n",
        b"HTTP/1.1 200 OK\r\nx: " + b"y" * 300_000,
        b"\xff\x00\x1b[2J" * 1000,
        b"HTTP/1.1 999 \x1b[31m\r\n\r\n",
        head(200, {"content-type": "application/json", "content-encoding": "\x1b[2Jgzip"}),
    ],
)
def test_no_bytes_break_the_client(sent: bytes) -> None:
    """Whatever comes back is one printable line in a log."""
    assert str(refusal(raw(sent))).isprintable()
