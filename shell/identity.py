"""Who this node is: its keys and what registration gave it, in files that survive being killed at any moment.

The order is what makes it safe. Keys are on the disk before they are sent. The answer is on the disk before it is used. `config.json`
comes last: when it exists, registration is complete (an installer waits for it, and may end the agent right after). Keys without it are
used again by the next run.
"""

import base64
import json
from collections.abc import Awaitable, Callable
from dataclasses import dataclass, field
from pathlib import Path

from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.x25519 import X25519PrivateKey
from returns.pipeline import is_successful

from core.protocol import RegistrationAnswer, RegistrationRequest, parse, registration_fault
from core.secrets import EncryptionKey, parse_key
from shell import files
from shell.adapters.control_plane import ControlPlaneError
from shell.failure import CommandError
from shell.log import logger

CONFIG = "config.json"
ANSWER = "registration.json"
SIGNING_KEY = "signing.key"
WIREGUARD_KEY = "wireguard.key"
VERSION = 1
_KEY_BYTES = 32

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


def load(data_dir: Path) -> Identity | None:
    """The registered identity; None when registration is not complete. Raises CommandError when files contradict each other."""
    config = _read_json(data_dir / CONFIG)
    if config is None:
        return None
    if config.get("version") != VERSION:
        raise CommandError(
            f"{data_dir / CONFIG} is of version {config.get('version')!r}; this agent knows version {VERSION}"
        )
    answer = _parse_answer(data_dir / CONFIG, json.dumps(config.get("registration")).encode())
    is_proxy, url = config.get("isProxy"), config.get("url")
    keys = _load_keys(data_dir)
    if keys is None or not isinstance(is_proxy, bool) or not isinstance(url, str):
        raise CommandError(f"{data_dir} holds {CONFIG} but not the keys it belongs to; restore them, or register anew")
    return _identity(answer, is_proxy, url, keys)


async def register(
    data_dir: Path,
    url: str,
    token: str | None,
    is_proxy: bool,
    call: Callable[[RegistrationRequest], Awaitable[bytes]],
    write: Write = files.write_atomic,
) -> Identity:
    """Complete the registration, from wherever an earlier run was stopped. Raises CommandError and ControlPlaneError."""
    keys = _load_keys(data_dir) or _make_keys(data_dir, write)
    stored = _read_json(data_dir / ANSWER)
    if stored is None:
        if not token:
            raise CommandError(
                "this server is not registered: give a registration token, in TECHULUS_TOKEN or with --token"
            )
        raw = await _ask(keys, token, is_proxy, call)
        answer = _parse_answer(Path("the control plane's answer"), raw)
        stored = {"isProxy": is_proxy, "url": url, "registration": json.loads(raw), "version": VERSION}
        write(data_dir / ANSWER, _dump(stored))
    else:
        answer = _parse_answer(data_dir / ANSWER, json.dumps(stored.get("registration")).encode())
        logger().info("registration goes on", then="the control plane's answer was kept by an earlier run")
    was_proxy = bool(stored.get("isProxy"))
    config = {"version": VERSION, "isProxy": was_proxy, "url": url, "registration": answer.model_dump(by_alias=True)}
    write(data_dir / CONFIG, _dump(config))
    (data_dir / ANSWER).unlink(missing_ok=True)
    return _identity(answer, was_proxy, url, keys)


async def _ask(
    keys: Keys, token: str, is_proxy: bool, call: Callable[[RegistrationRequest], Awaitable[bytes]]
) -> bytes:
    request = RegistrationRequest(
        token=token,
        wireguard_public_key=keys.wireguard_public,
        signing_public_key=keys.signing_public,
        is_proxy=is_proxy,
    )
    try:
        return await call(request)
    except ControlPlaneError as error:
        if error.status != 401:
            raise
        raise CommandError(
            f"{error}. A token works once and for 24 hours. If an earlier run of this agent was stopped while it registered, its "
            "answer is lost: delete that server in the control plane, add it again, and run with the new token"
        ) from error


def _make_keys(data_dir: Path, write: Write) -> Keys:
    keys = Keys(Ed25519PrivateKey.generate().private_bytes_raw(), X25519PrivateKey.generate().private_bytes_raw())
    write(data_dir / SIGNING_KEY, _text(keys.signing).encode() + b"\n")
    write(data_dir / WIREGUARD_KEY, _text(keys.wireguard).encode() + b"\n")
    return keys


def _load_keys(data_dir: Path) -> Keys | None:
    """Both keys, or None when either is missing: one alone was never sent anywhere, and both are made anew."""
    raw = [_load_key(data_dir / name) for name in (SIGNING_KEY, WIREGUARD_KEY)]
    return None if raw[0] is None or raw[1] is None else Keys(raw[0], raw[1])


def _load_key(path: Path) -> bytes | None:
    try:
        raw = base64.b64decode(path.read_bytes(), validate=False)
    except FileNotFoundError:
        return None
    except ValueError:
        raw = b""
    if len(raw) == _KEY_BYTES:
        return raw
    moved = files.move_aside(path)
    logger().warning("key file makes no sense", path=str(path), then=f"moved to {moved}")
    return None


def _read_json(path: Path) -> dict[str, object] | None:
    """An object from a file; a file that is not one is moved aside and counts as missing."""
    try:
        found = json.loads(path.read_bytes())
    except FileNotFoundError:
        return None
    except ValueError:
        found = None
    if isinstance(found, dict):
        return found
    moved = files.move_aside(path)
    logger().warning("file makes no sense", path=str(path), then=f"moved to {moved}")
    return None


def _parse_answer(where: Path, raw: bytes) -> RegistrationAnswer:
    parsed = parse(raw, RegistrationAnswer)
    fault = registration_fault(parsed.unwrap()) if is_successful(parsed) else parsed.failure()
    if fault is not None:
        raise CommandError(f"{where} is not a registration: {fault}")
    return parsed.unwrap()


def _identity(answer: RegistrationAnswer, is_proxy: bool, url: str, keys: Keys) -> Identity:
    key = None if answer.encryption_key is None else parse_key(answer.encryption_key).unwrap()
    return Identity(answer.server_id, answer.subnet_id, answer.wireguard_ip, is_proxy, url, keys, key)


def _dump(document: dict[str, object]) -> bytes:
    return json.dumps(document, indent=2).encode() + b"\n"


def _text(raw: bytes) -> str:
    return base64.b64encode(raw).decode("ascii")
