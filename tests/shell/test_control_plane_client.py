"""The client against a server that misbehaves: each trouble gives one clear line in a bounded time, and nothing happens twice."""

import json
import socket
import time
from email.utils import formatdate

import anyio
import pytest

from shell.adapters.control_plane import ControlPlane, ControlPlaneError
from tests.lab.odd_server import Behaviour, OddServer, answer, hanging, head, raw, trickling
from tests.lab.ports import free_port
from tests.shell.calling import ALL, FETCH, ONCE, REPEATED, SIGNER, TOKEN, called, refusal, refused


def cut_short(size: int) -> Behaviour:
    """An answer of 100 bytes of which only some come."""
    return raw(head(200, {"content-type": "application/json", "content-length": "100"}) + b"{" * size)


PASSING: dict[str, Behaviour] = {
    "500": answer(500, b'{"error":"Internal server error"}'),
    "502 page": answer(502, b"<html>Bad Gateway</html>", "text/html"),
    "503": answer(503, b"", "text/plain"),
    "cut short in the body": cut_short(50),
    "cut short in the headers": raw(b"HTTP/1.1 200 OK\r\ncontent-type: applic"),
    "cut short in a chunk": raw(
        head(200, {"content-type": "application/json", "transfer-encoding": "chunked"}) + b"9\r\n{"
    ),
    "no answer at all": raw(b""),
    "no HTTP": raw(b"220 mail.test ESMTP\r\n\r\n"),
}


@pytest.mark.parametrize("trouble", PASSING)
def test_what_may_pass_is_tried_again(trouble: str) -> None:
    """A good answer at the second or third try is good."""
    with OddServer([PASSING[trouble], PASSING[trouble], answer(body=b'{"ok":true}')]) as server:
        assert called(server.url, FETCH) == [b'{"ok":true}']
        assert len(server.requests) == 3


@pytest.mark.parametrize("name", REPEATED)
def test_tries_are_bounded_and_signed_anew(name: str) -> None:
    """L14: three in all. Each has a signature of its own time, so that a late one is not stale."""
    with OddServer([PASSING["500"]]) as server:
        error = refused(server.url, REPEATED[name])
        assert error.status == 500
        assert "'Internal server error'" in str(error)
        assert len({request.headers["x-timestamp"] for request in server.requests}) == 3
        assert len({request.body for request in server.requests}) == 1
        assert len(server.requests) == 3


def test_tries_are_spaced() -> None:
    """L14: with growing pauses, none of them long."""
    with OddServer([PASSING["500"]]) as server:
        refused(server.url, pause_s=0.1)
        first, second, third = (request.at_s for request in server.requests)
        assert 0.09 < second - first < 5
        assert 0.19 < third - second < 5


def test_pauses_have_jitter() -> None:
    """L14: servers that failed together do not come back together."""
    with OddServer([PASSING["503"], answer()] * 4) as server:
        for _ in range(4):
            called(server.url, FETCH, pause_s=0.05)
        at_s = [request.at_s for request in server.requests]
        pauses = {round(second - first, 3) for first, second in zip(at_s[::2], at_s[1::2], strict=True)}
        assert max(pauses) - min(pauses) > 0.001


def test_a_slow_server_is_not_asked_for_ever() -> None:
    """L13: once a call's limit is over it is not tried again, even when every answer came in time."""
    with OddServer([trickling(head(503, {"content-length": "10"}) + b"x" * 10, 0.004)]) as server:
        refused(server.url, timeout_s=0.3)
        assert len(server.requests) < 3


@pytest.mark.parametrize("trouble", PASSING)
@pytest.mark.parametrize("name", ONCE)
def test_what_must_not_happen_twice_is_tried_once(name: str, trouble: str) -> None:
    """L25: a token is spent, a build claimed or deployed even when the answer is lost; that it is not known is said."""
    with OddServer([PASSING[trouble]]) as server:
        error = refused(server.url, ONCE[name])
        assert len(server.requests) == 1
        assert str(error).endswith("; whether it was done is not known")


@pytest.mark.parametrize("status", [201, 204, 301, 308, 400, 401, 404, 409, 413, 429])
def test_a_refusal_is_not_tried_again(status: int) -> None:
    """It would be the same; its status and the control plane's own words are given on."""
    body = b"" if status == 204 else b'{"error":"Build already\\nclaimed"}'
    with OddServer([answer(status, body, headers={"location": "/elsewhere"})]) as server:
        error = refused(server.url, ALL["claim"])
        assert error.status == status
        assert status == 204 or f"HTTP {status} 'Build already claimed'" in str(error)
        assert len(server.requests) == 1


@pytest.mark.parametrize(
    ("status", "words", "name", "hint"),
    [
        (401, "Invalid signature", "status", "the control plane does not know this server's key"),
        (401, "Invalid token", "register", "the control plane does not know this token, or it is used up"),
        (404, "Server not found or not registered", "status", "was this server deleted in the control plane?"),
        (404, "Build not found", "build status", None),
        (404, "", "register", "is --url the control plane's?"),
        (405, "", "status", "is --url the control plane's?"),
        (301, "", "status", "redirects are not followed; is --url complete?"),
        (308, "", "register", "redirects are not followed; is --url complete?"),
        (400, "Missing", "status", None),
    ],
)
def test_a_refusal_hints_at_what_to_do(status: int, words: str, name: str, hint: str | None) -> None:
    """What a person can look into, and no guess where there is none."""
    error = refusal(answer(status, json.dumps({"error": words}).encode()), ALL[name])
    assert str(error).endswith(f"; {hint}" if hint else f"{words!r}")


@pytest.mark.parametrize(("skew_s", "side"), [(-3600, "ahead of"), (90, "behind"), (40 * 365 * 86400, "behind")])
def test_a_clock_that_is_off_is_named(skew_s: int, side: str) -> None:
    """It makes every signed call fail with 401, and nothing else tells why."""
    error = refusal(answer(401, b'{"error":"x"}', headers={"date": formatdate(time.time() + skew_s, usegmt=True)}))
    assert f"this server's clock is {side} " not in str(error)
    assert f" s {side} the control plane's; set it (NTP)" in str(error)


@pytest.mark.parametrize("skew_s", [0, 20, -20])
def test_a_clock_that_is_right_is_not_blamed(skew_s: int) -> None:
    """Nor is it when a token is refused, whatever the clock."""
    date = {"date": formatdate(time.time() + skew_s, usegmt=True)}
    assert "clock" not in str(refusal(answer(401, b"{}", headers=date)))
    off = {"date": formatdate(time.time() + 3600, usegmt=True)}
    assert "clock" not in str(refusal(answer(401, b"{}", headers=off), ALL["register"]))


@pytest.mark.parametrize("date", ["", "yesterday", "Mon, 01 Jan 0001 00:00:00 GMT", "Fri, 99 Foo 99999 99:99:99 +9999"])
def test_a_senseless_date_is_left_out(date: str) -> None:
    """It may come from anything between."""
    assert refusal(answer(401, b"{}", headers={"date": date})).status == 401


def test_a_control_plane_that_is_not_there() -> None:
    """Tried a few times; nothing was sent, so even a registration may be tried later."""
    url = f"http://127.0.0.1:{free_port()}"
    for name in ("expected state", "register"):
        error = refused(url, ALL[name])
        assert f"{url.removeprefix('http://')} cannot be reached: " in str(error)
        assert str(error).endswith("; tried again later")


def test_a_control_plane_that_takes_no_connection() -> None:
    """L13: a full queue of connections is a silence like any other."""
    with socket.create_server(("127.0.0.1", 0), backlog=0) as full, socket.socket() as waiting, socket.socket() as more:
        for one in (waiting, more):
            one.setblocking(False)
            one.connect_ex(full.getsockname())
        begun = time.monotonic()
        error = refused(f"http://127.0.0.1:{full.getsockname()[1]}", timeout_s=0.3)
        assert time.monotonic() - begun < 10  # the system itself would try for minutes
        assert error.status is None


def test_a_name_that_does_not_resolve() -> None:
    """Named, on one line."""
    assert "nowhere.invalid" in str(refused("http://nowhere.invalid", timeout_s=2))


def test_an_error_that_repeats_the_request_shows_no_token() -> None:
    """L37: some servers do that when a field is wrong."""
    body = json.dumps({"error": f"bad field in {{token: {TOKEN}}}"}).encode()
    assert "***" in str(refusal(answer(400, body), ALL["register"]))


def test_connections_are_kept() -> None:
    """An idle tick costs a request, not a handshake; a connection that the server closed meanwhile is no failure."""
    with OddServer() as server:
        called(server.url, *ALL.values())
        assert server.connections == 1
    with OddServer([raw(head(200, {"content-type": "application/json", "content-length": "2"}) + b"{}")]) as server:
        called(server.url, FETCH, FETCH, FETCH)
        assert server.connections == 3
        assert len(server.requests) == 3


def test_a_cancelled_call_leaves_nothing_open() -> None:
    """L13: SIGTERM ends a call in the middle."""

    async def run(url: str) -> None:
        plane = ControlPlane(url, SIGNER)
        with anyio.move_on_after(0.2) as scope:
            await plane.fetch_expected_state()
        assert scope.cancelled_caught
        await plane.aclose()

    with OddServer([hanging()]) as server:
        anyio.run(run, server.url)


def test_a_call_without_an_identity_sends_nothing() -> None:
    """An unsigned call would only be refused."""

    async def run(url: str) -> None:
        plane = ControlPlane(url)
        with pytest.raises(ControlPlaneError, match="this server is not registered"):
            await plane.fetch_expected_state()
        await plane.aclose()

    with OddServer() as server:
        anyio.run(run, server.url)
        assert server.requests == []
