"""Who this node is: its keys and what registration gave it, in files that survive being killed at any moment.

The order is what makes it safe. Keys are on the disk before they are sent. The answer is on the disk before it is used. `config.json`
comes last: when it exists, registration is complete (an installer waits for it, and may end the agent right after). Keys without it are
used again by the next run.
"""

import base64
import contextlib
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

import anyio
import anyio.to_thread
import msgspec
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from returns.pipeline import is_successful

from core.protocol import RegistrationAnswer, RegistrationRequest, parse, registration_fault
from core.secrets import EncryptionKey, parse_key
from shell import files, state_file
from shell.adapters.control_plane import ControlPlaneError
from shell.failure import CommandError
from shell.log import logger

CONFIG = "config.json"
ANSWER = "registration.json"
SIGNING_KEY = "signing.key"
WIREGUARD_KEY = "wireguard.key"
VERSION = 1
_KEY_BYTES = 32
_REGISTER_ANEW = "delete that server in the control plane, add it again, and run with the new token"

Write = Callable[[Path, bytes], None]


@dataclass(frozen=True, slots=True)
class Keys:
    """The raw private keys, 32 bytes each; never shown."""

    signing: bytes = field(repr=False)
    wireguard: bytes = field(repr=False)

    @property
    def signing_public(self) -> str:
        """Base64 of the Ed25519 public key."""
        return _text(Ed25519PrivateKey.from_private_bytes(self.signing).public_key().public_bytes_raw())

    @property
    def wireguard_public(self) -> str:
        """Base64 of the X25519 public key."""
        return _text(X25519PrivateKey.from_private_bytes(self.wireguard).public_key().public_bytes_raw())


@dataclass(frozen=True, slots=True)
class Identity:
    """A registered node."""

    server_id: str
    subnet_id: int
    wireguard_ip: str
    is_proxy: bool
    url: str
    keys: Keys
    encryption_key: EncryptionKey | None


@dataclass(frozen=True, slots=True)
class _Registration:
    """What `config.json` says, and the kept answer before it."""

    answer: RegistrationAnswer
    is_proxy: bool
    url: str

    def as_file(self) -> bytes:
        document = {
            "version": VERSION,
            "isProxy": self.is_proxy,
            "url": self.url,
            "registration": msgspec.to_builtins(self.answer),
        }
        return json.dumps(document, indent=2).encode() + b"\n"


def load(data_dir: Path) -> Identity | None:
    """The registered identity; None when registration is not complete. Raises CommandError when files contradict each other."""
    known = _read(data_dir / CONFIG)
    if known is None:
        return None
    keys = _load_keys(data_dir)
    if keys is None:
        raise CommandError(
            f"{data_dir} holds {CONFIG} but not the keys that belong to it; restore {SIGNING_KEY} and {WIREGUARD_KEY}, or register anew: "
            f"delete this server in the control plane, add it again, move {CONFIG} away, and run with the new token"
        )
    # A run that was killed right after `config.json` leaves it; it must not be taken for the answer to a later registration.
    with contextlib.suppress(OSError):
        (data_dir / ANSWER).unlink(missing_ok=True)
    return _identity(known, keys)


async def register(
    data_dir: Path,
    url: str,
    token: str | None,
    is_proxy: bool,
    call: Callable[[RegistrationRequest], Awaitable[bytes]],
    write: Write = files.write_atomic,
    public_ip: str | None = None,
) -> Identity:
    """Complete the registration, from wherever an earlier run was stopped. Raises CommandError and ControlPlaneError."""
    keys = _load_keys(data_dir)
    known = _read(data_dir / ANSWER)
    if known is not None and keys is None:
        raise CommandError(
            f"{data_dir} holds {ANSWER}, the answer to an earlier run, but not the keys that belong to it; {_REGISTER_ANEW}, and move "
            f"{ANSWER} away before"
        )
    if known is None:
        token = _require(token, data_dir)
        keys = keys or await _make_keys(data_dir, write)
        known = _Registration(await _ask(keys, token, is_proxy, public_ip, call), is_proxy, url)
        await _keep(
            write,
            data_dir / ANSWER,
            known.as_file(),
            f"this server is registered, but its answer is lost: {_REGISTER_ANEW}",
        )
    else:
        logger().info("registration goes on", then="the control plane's answer was kept by an earlier run")
    await _keep(write, data_dir / CONFIG, known.as_file(), "the next run goes on from here")
    with contextlib.suppress(OSError):
        (data_dir / ANSWER).unlink(missing_ok=True)
    assert keys is not None
    return _identity(known, keys)


def _require(token: str | None, data_dir: Path) -> str:
    if token:
        return token
    moved = sorted(data_dir.glob(f"{CONFIG}.corrupt-*"))
    lost = f" ({moved[-1]} made no sense and was moved there)" if moved else ""
    raise CommandError(
        f"this server is not registered{lost}: give a registration token, in TECHULUS_TOKEN or with --token"
    )


async def _ask(
    keys: Keys,
    token: str,
    is_proxy: bool,
    public_ip: str | None,
    call: Callable[[RegistrationRequest], Awaitable[bytes]],
) -> RegistrationAnswer:
    request = RegistrationRequest(
        token=token,
        wireguard_public_key=keys.wireguard_public,
        signing_public_key=keys.signing_public,
        is_proxy=is_proxy,
        public_ip=public_ip,
    )
    try:
        raw = await call(request)
    except ControlPlaneError as error:
        if error.status != 401:
            raise
        raise CommandError(
            f"{error}. A token works once and for 24 hours. If an earlier run of this agent was stopped while it registered, its "
            f"answer is lost: {_REGISTER_ANEW}"
        ) from error
    return _parse_answer("the control plane's answer", raw)


async def _make_keys(data_dir: Path, write: Write) -> Keys:
    keys = Keys(
        Ed25519PrivateKey.generate().private_bytes_raw(), _clamped(X25519PrivateKey.generate().private_bytes_raw())
    )
    for name, raw in ((SIGNING_KEY, keys.signing), (WIREGUARD_KEY, keys.wireguard)):
        await _keep(write, data_dir / name, _text(raw).encode() + b"\n", "nothing was sent; the next run begins anew")
    return keys


def _clamped(raw: bytes) -> bytes:
    """The form in which WireGuard keeps a private key, so that what is read back from it is what was given."""
    return bytes([raw[0] & 248, *raw[1:31], raw[31] & 127 | 64])


async def _keep(write: Write, path: Path, content: bytes, then: str) -> None:
    try:
        await anyio.to_thread.run_sync(write, path, content)
    except OSError as error:
        raise CommandError(f"{path} could not be written: {error.strerror or error}; {then}") from error


def _load_keys(data_dir: Path) -> Keys | None:
    """Both keys, or None when either is missing: one alone was never sent anywhere, and both are made anew."""
    signing, wireguard = (_load_key(data_dir / name) for name in (SIGNING_KEY, WIREGUARD_KEY))
    return None if signing is None or wireguard is None else Keys(signing, wireguard)


def _load_key(path: Path) -> bytes | None:
    text = _bytes_of(path)
    if text is None:
        return None
    try:
        raw = base64.b64decode(text.strip(), validate=True)
    except ValueError:
        raw = b""
    if len(raw) == _KEY_BYTES:
        return raw
    _set_aside(path)
    return None


def _read(path: Path) -> _Registration | None:
    """A registration from its file. A file that is torn or somebody else's is moved aside and counts as missing.

    Raises CommandError for one that is ours and not to be used: of another version, or edited into nonsense.
    """
    raw = _bytes_of(path)
    if raw is None:
        return None
    try:
        found = json.loads(raw)
    except (ValueError, RecursionError):
        found = None
    if not isinstance(found, dict) or "version" not in found:
        _set_aside(path)
        return None
    if found["version"] != VERSION:
        raise CommandError(f"{path} is of version {repr(found['version'])[:80]}; this agent knows version {VERSION}")
    try:
        registration = json.dumps(found.get("registration"), allow_nan=False).encode()
    except (ValueError, RecursionError):
        registration = b"null"
    answer = _parse_answer(str(path), registration)
    is_proxy, url = found.get("isProxy"), found.get("url")
    if not isinstance(is_proxy, bool) or not isinstance(url, str):
        raise CommandError(f"{path} has no isProxy or no url")
    return _Registration(answer, is_proxy, url)


def _bytes_of(path: Path) -> bytes | None:
    try:
        return state_file.read(path, follow=True)  # keys may be mounted, as links
    except FileNotFoundError:
        return None
    except OSError as error:
        raise CommandError(f"{path} cannot be read: {error.strerror}") from error


def _set_aside(path: Path) -> None:
    moved = files.move_aside(path)
    logger().warning("file makes no sense", path=str(path), then=f"moved to {moved}")


def _parse_answer(where: str, raw: bytes) -> RegistrationAnswer:
    parsed = parse(raw, RegistrationAnswer)
    fault = registration_fault(parsed.unwrap()) if is_successful(parsed) else parsed.failure()
    if fault is not None:
        raise CommandError(f"{where} is not a registration: {fault}")
    return parsed.unwrap()


def _identity(known: _Registration, keys: Keys) -> Identity:
    answer = known.answer
    key = None if answer.encryption_key is None else parse_key(answer.encryption_key).unwrap()
    return Identity(answer.server_id, answer.subnet_id, answer.wireguard_ip, known.is_proxy, known.url, keys, key)


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")
