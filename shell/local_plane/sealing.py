"""Secret values as the protocol encrypts them: AES-256-GCM, base64 of nonce (12 bytes), tag (16) and ciphertext, no associated data."""

import base64
import os
from collections.abc import Callable

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM

from shell.local_plane.world import World, service_named

_NONCE_BYTES = 12
_TAG_BYTES = 16


def sealed(key: str, plain: str) -> str:
    """The encrypted form of a text. `key` is 64 hex characters; the nonce is fresh, so that no two results are equal."""
    nonce = os.urandom(_NONCE_BYTES)
    both = AESGCM(bytes.fromhex(key)).encrypt(nonce, plain.encode(), None)
    text, tag = both[:-_TAG_BYTES], both[-_TAG_BYTES:]
    return base64.b64encode(nonce + tag + text).decode()


def opened(key: str, value: str) -> str | None:
    """The text of an encrypted value, or None when it was not made with this key."""
    try:
        raw = base64.b64decode(value, validate=True)
        nonce, tag, text = raw[:_NONCE_BYTES], raw[_NONCE_BYTES:][:_TAG_BYTES], raw[_NONCE_BYTES + _TAG_BYTES :]
        return AESGCM(bytes.fromhex(key)).decrypt(nonce, text + tag, None).decode()
    except (ValueError, InvalidTag):
        return None


def steady_seal(world: World) -> Callable[[str, str, str], str]:
    """Encrypts an entry's env. A value that has not changed keeps its encrypted form: another one would look like a change."""

    def seal(service_key: str, name: str, plain: str) -> str:
        service = service_named(world, service_key)
        known = service.spec.env.get(name) if service else None
        if known is not None and opened(world.encryption_key, known) == plain:
            return known
        return sealed(world.encryption_key, plain)

    return seal
