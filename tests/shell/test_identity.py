"""Registration: killed at any moment, the next run goes on or says exactly what to do; private files; nothing lost."""

import base64
import json
import stat
from collections.abc import Awaitable, Callable
from dataclasses import replace
from pathlib import Path
from typing import Any

import anyio
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from structlog.testing import capture_logs

from core.protocol import RegistrationRequest
from shell import files, identity
from shell.adapters.control_plane import ControlPlaneError
from shell.failure import CommandError
from shell.identity import ANSWER, CONFIG, SIGNING_KEY, WIREGUARD_KEY, Identity

URL = "https://plane.test"
TOKEN = "d0" * 32
WRITES = (SIGNING_KEY, WIREGUARD_KEY, ANSWER, CONFIG)
GOOD: dict[str, Any] = {
    "serverId": "65a1c0ffee65a1c0ffee65a1",
    "subnetId": 3,
    "wireguardIp": "10.100.3.1",
    "encryptionKey": "ab" * 32,
    "peers": [],
}


class KilledError(BaseException):
    """The end of the process, as far as a test in the same process can have it."""


class Plane:
    """Answers a token once, like the control plane."""

    def __init__(self) -> None:
        self.requests: list[RegistrationRequest] = []
        self.tokens = {TOKEN}
        self.answer: Any = GOOD

    async def register(self, request: RegistrationRequest) -> bytes:
        """The call."""
        self.requests.append(request)
        if request.token not in self.tokens:
            raise ControlPlaneError("register", "HTTP 401 'Invalid, expired, or already used token'", "", 401)
        self.tokens.remove(request.token)
        return json.dumps(self.answer).encode()


def names(folder: Path) -> set[str]:
    """What is in a folder."""
    return {path.name for path in folder.iterdir()}


def run(
    folder: Path,
    call: Callable[[RegistrationRequest], Awaitable[bytes]],
    *,
    token: str | None = TOKEN,
    is_proxy: bool = True,
    url: str = URL,
    write: identity.Write = files.write_atomic,
    public_ip: str | None = None,
) -> Identity:
    """One run of the agent, up to its identity."""
    known = identity.load(folder)
    if known is not None:
        return known
    return anyio.run(lambda: identity.register(folder, url, token, is_proxy, call, write, public_ip))


def failing_write(number: int, error: BaseException, *, after: bool) -> identity.Write:
    """A write that raises at its n-th use, before or after the file is there."""
    left = [number]

    def write(path: Path, content: bytes) -> None:
        left[0] -= 1
        if left[0] == 0 and not after:
            raise error
        files.write_atomic(path, content)
        if left[0] == 0:
            raise error

    return write


def test_a_first_run(tmp_path: Path) -> None:
    """L25: an identity, the keys that were sent, and files for the owner only; L24: nothing else left."""
    plane = Plane()
    made = run(tmp_path, plane.register)
    (request,) = plane.requests
    assert (made.server_id, made.subnet_id, made.wireguard_ip) == ("65a1c0ffee65a1c0ffee65a1", 3, "10.100.3.1")
    assert (made.is_proxy, made.url) == (True, URL)
    assert (made.keys.signing_public, made.keys.wireguard_public) == (
        request.signing_public_key,
        request.wireguard_public_key,
    )
    assert made.encryption_key is not None
    assert made.encryption_key.raw == b"\xab" * 32
    assert names(tmp_path) == {SIGNING_KEY, WIREGUARD_KEY, CONFIG}
    assert {stat.S_IMODE(path.stat().st_mode) for path in tmp_path.iterdir()} == {0o600}


@pytest.mark.parametrize("public_ip", [None, "198.51.100.7"])
def test_a_public_address_is_sent_when_it_is_given(tmp_path: Path, public_ip: str | None) -> None:
    """L16: one that is not known yet is not waited for."""
    plane = Plane()
    run(tmp_path, plane.register, public_ip=public_ip)
    assert [request.public_ip for request in plane.requests] == [public_ip]


def test_keys_are_as_the_control_plane_and_wireguard_want_them(tmp_path: Path) -> None:
    """Base64 of 32 bytes; the tunnel's key in the clamped form in which the kernel gives it back."""
    keys = run(tmp_path, Plane().register).keys
    assert len(base64.b64decode(keys.signing_public, validate=True)) == 32
    assert len(base64.b64decode(keys.wireguard_public, validate=True)) == 32
    public = Ed25519PrivateKey.from_private_bytes(keys.signing).public_key()
    public.verify(Ed25519PrivateKey.from_private_bytes(keys.signing).sign(b"x"), b"x")
    assert keys.wireguard[0] & 7 == 0
    assert keys.wireguard[31] >> 6 == 1
    assert (tmp_path / WIREGUARD_KEY).read_text() == base64.b64encode(keys.wireguard).decode() + "\n"


@pytest.mark.parametrize(("is_proxy", "text"), [(True, '"isProxy": true'), (False, '"isProxy": false')])
def test_config_says_the_kind_as_an_installer_looks_for_it(tmp_path: Path, is_proxy: bool, text: str) -> None:
    """L25: textually, on a line of its own."""
    run(tmp_path, Plane().register, is_proxy=is_proxy)
    assert f"  {text},\n" in (tmp_path / CONFIG).read_text()


def test_a_later_run_knows_itself(tmp_path: Path) -> None:
    """Without a token and without a call."""
    made = run(tmp_path, Plane().register)
    assert run(tmp_path, Plane().register, token=None) == made


def test_an_installation_without_a_key_for_secrets(tmp_path: Path) -> None:
    """The key is absent then."""
    plane = Plane()
    plane.answer = {key: value for key, value in GOOD.items() if key != "encryptionKey"}
    assert run(tmp_path, plane.register).encryption_key is None
    assert run(tmp_path, plane.register).encryption_key is None


def test_keys_are_on_the_disk_before_they_are_sent(tmp_path: Path) -> None:
    """L25: and nothing that says that this server is registered."""
    plane = Plane()

    async def call(request: RegistrationRequest) -> bytes:
        assert names(tmp_path) == {SIGNING_KEY, WIREGUARD_KEY}
        return await plane.register(request)

    run(tmp_path, call)


@pytest.mark.parametrize("error", [KilledError(), OSError(28, "No space left on device")])
@pytest.mark.parametrize("after", [False, True])
@pytest.mark.parametrize("number", range(1, len(WRITES) + 1))
def test_stopped_at_any_write_the_next_run_goes_on(
    tmp_path: Path, number: int, after: bool, error: BaseException
) -> None:
    """L25: with the same keys once they were sent, with one call in all, and without a token once there is an answer."""
    plane = Plane()
    with pytest.raises((KilledError, CommandError)):
        run(tmp_path, plane.register, write=failing_write(number, error, after=after))
    answered, kept = len(plane.requests) == 1, number > 3 or (number == 3 and after)
    assert answered == (number >= 3)
    assert (tmp_path / CONFIG).exists() == (number == 4 and after)
    if answered and not kept:
        with pytest.raises(CommandError, match=r"delete that server in the control plane, add it again"):
            run(tmp_path, plane.register)
        plane.tokens.add("new")
        run(tmp_path, plane.register, token="new")
    else:
        run(tmp_path, plane.register, token=None if kept else TOKEN)
        assert len(plane.requests) == 1
    assert len({request.signing_public_key for request in plane.requests}) == 1
    assert names(tmp_path) == {SIGNING_KEY, WIREGUARD_KEY, CONFIG}
    assert run(tmp_path, plane.register).keys.signing_public == plane.requests[-1].signing_public_key


@pytest.mark.parametrize("number", range(1, len(WRITES) + 1))
def test_a_disk_that_is_full_is_said(tmp_path: Path, number: int) -> None:
    """Which file, why, and what happens next; no secret."""
    with pytest.raises(CommandError) as caught:
        run(tmp_path, Plane().register, write=failing_write(number, OSError(28, "No space left"), after=False))
    said = str(caught.value)
    assert said.startswith(f"{tmp_path / WRITES[number - 1]} could not be written: No space left; ")
    assert TOKEN not in said
    assert GOOD["encryptionKey"] not in said


def test_a_call_that_fails_keeps_the_keys(tmp_path: Path) -> None:
    """The next try sends the same ones."""
    plane = Plane()

    async def lost(request: RegistrationRequest) -> bytes:
        await plane.register(request)
        plane.tokens.add(TOKEN)
        raise ControlPlaneError("register", "HTTP 500", "", 500)

    with pytest.raises(ControlPlaneError):
        run(tmp_path, lost)
    run(tmp_path, plane.register)
    first, second = plane.requests
    assert first == second


def test_a_token_is_needed_once(tmp_path: Path) -> None:
    """Without it the next step is said, and nothing is made."""
    with pytest.raises(
        CommandError, match=r"not registered: give a registration token, in TECHULUS_TOKEN or with --token"
    ):
        run(tmp_path, Plane().register, token=None)
    assert list(tmp_path.iterdir()) == []


@pytest.mark.parametrize(
    ("answer", "fault"),
    [
        ({}, "serverId: "),
        (None, "document: "),
        ({**GOOD, "subnetId": 4}, "wireguardIp is '10.100.3.1', expected 10.100.4.1"),
        ({**GOOD, "serverId": "a\nb"}, "serverId: "),
    ],
)
def test_an_answer_that_is_no_registration(tmp_path: Path, answer: Any, fault: str) -> None:
    """L1: it is not kept."""
    plane = Plane()
    plane.answer = answer
    with pytest.raises(CommandError, match=f"the control plane's answer is not a registration: {fault}"):
        run(tmp_path, plane.register)
    assert names(tmp_path) == {SIGNING_KEY, WIREGUARD_KEY}


@pytest.mark.parametrize("content", [b"", b"{", b"[]", b"\xff\xfe", b"\0" * 100, b"[" * 100_000, b'{"serverId":"x"}'])
@pytest.mark.parametrize("name", [CONFIG, ANSWER])
def test_a_torn_or_foreign_file_is_moved_aside(tmp_path: Path, name: str, content: bytes) -> None:
    """L24: not lost, said, and named once more where a token is asked for."""
    (tmp_path / name).write_bytes(content)
    with capture_logs() as said, pytest.raises(CommandError, match="give a registration token") as caught:
        run(tmp_path, Plane().register, token=None)
    moved = tmp_path / f"{name}.corrupt-1"
    assert moved.read_bytes() == content
    assert [one["then"] for one in said] == [f"moved to {moved}"]
    assert (str(moved) in str(caught.value)) == (name == CONFIG)
    run(tmp_path, Plane().register)


@pytest.mark.parametrize("content", [b"", b"AAAA", b"not base64 at all", b"\xff" * 44, base64.b64encode(bytes(33))])
@pytest.mark.parametrize("name", [SIGNING_KEY, WIREGUARD_KEY])
def test_a_torn_key_before_registration_is_replaced(tmp_path: Path, name: str, content: bytes) -> None:
    """L24, L25: one that was never sent costs nothing."""
    (tmp_path / name).write_bytes(content)
    run(tmp_path, Plane().register)
    assert (tmp_path / f"{name}.corrupt-1").read_bytes() == content


@pytest.mark.parametrize("config", [CONFIG, ANSWER])
@pytest.mark.parametrize("name", [SIGNING_KEY, WIREGUARD_KEY])
@pytest.mark.parametrize("content", [None, b"torn"])
def test_a_registration_is_not_used_with_other_keys(
    tmp_path: Path, config: str, name: str, content: bytes | None
) -> None:
    """L25: the control plane knows the old ones; the one that is still there stays as it is."""
    plane = Plane()
    run(tmp_path, plane.register)
    (tmp_path / CONFIG).rename(tmp_path / config)
    (tmp_path / name).unlink()
    if content is not None:
        (tmp_path / name).write_bytes(content)
    other = tmp_path / (WIREGUARD_KEY if name == SIGNING_KEY else SIGNING_KEY)
    before = other.read_bytes()
    for _ in range(2):
        with pytest.raises(CommandError, match="keys that belong to it"):
            run(tmp_path, plane.register)
    assert other.read_bytes() == before
    assert len(plane.requests) == 1


@pytest.mark.parametrize(
    ("changed", "said"),
    [
        ({"version": 2}, "is of version 2; this agent knows version 1"),
        ({"version": "1"}, "is of version '1'; this agent knows version 1"),
        ({"isProxy": "yes"}, "has no isProxy or no url"),
        ({"url": None}, "has no isProxy or no url"),
        ({"registration": None}, "is not a registration: document: "),
        ({"registration": {**GOOD, "encryptionKey": "cd" * 31}}, "is not a registration: encryptionKey: "),
    ],
)
@pytest.mark.parametrize("name", [CONFIG, ANSWER])
def test_a_file_of_ours_that_cannot_be_used_stays(
    tmp_path: Path, name: str, changed: dict[str, Any], said: str
) -> None:
    """A later version's or a badly edited file is somebody's work: it is named and not touched. L37: no value is shown."""
    run(tmp_path, Plane().register)
    document = json.loads((tmp_path / CONFIG).read_text()) | changed
    (tmp_path / CONFIG).unlink()
    (tmp_path / name).write_text(json.dumps(document))
    with pytest.raises(CommandError, match=f"{name} {said}") as caught:
        run(tmp_path, Plane().register)
    assert "cdcd" not in str(caught.value)
    assert json.loads((tmp_path / name).read_text()) == document


def test_what_cannot_be_read_is_said(tmp_path: Path) -> None:
    """One line, not a traceback."""
    (tmp_path / CONFIG).mkdir()
    with pytest.raises(CommandError, match=r"config\.json cannot be read: is a folder"):
        run(tmp_path, Plane().register)


def test_an_old_answer_is_not_taken_for_a_new_one(tmp_path: Path) -> None:
    """A run killed right after `config.json` leaves it; it is gone before anybody registers anew."""
    plane = Plane()
    with pytest.raises(KilledError):
        run(tmp_path, plane.register, write=failing_write(4, KilledError(), after=True))
    assert (tmp_path / ANSWER).exists()
    run(tmp_path, plane.register)
    (tmp_path / CONFIG).unlink()
    plane.tokens.add("new")
    plane.answer = {**GOOD, "serverId": "another"}
    assert run(tmp_path, plane.register, token="new").server_id == "another"


def test_what_was_registered_counts_and_not_what_a_later_run_is_given(tmp_path: Path) -> None:
    """The kind and address of the run that registered."""
    plane = Plane()
    with pytest.raises(KilledError):
        run(tmp_path, plane.register, write=failing_write(3, KilledError(), after=True))
    again = run(tmp_path, plane.register, is_proxy=False, url="https://other.test")
    assert (again.is_proxy, again.url) == (True, URL)


def test_keys_are_never_shown(tmp_path: Path) -> None:
    """L37: not even when an identity is printed."""
    made = run(tmp_path, Plane().register)
    shown = repr(made) + repr(replace(made, is_proxy=False))
    for secret in (made.keys.signing, made.keys.wireguard):
        assert base64.b64encode(secret).decode() not in shown
        assert repr(secret) not in shown
    assert "abab" not in shown
