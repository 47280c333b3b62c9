"""Encrypted values: AES-256-GCM, as the control plane sends them in `env` and in a build's `secrets`.

A value is standard base64 of IV (12 bytes), tag (16 bytes), ciphertext; no associated data; the plain text is UTF-8. One key serves the
whole installation. No error text ever contains a value, plain or encrypted.
"""

import base64
import binascii
from collections.abc import Iterable
from dataclasses import dataclass, field

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from returns.result import Failure, Result, Success

KEY_BYTES = 32
IV_BYTES = 12
TAG_BYTES = 16
MASK = "***"
_SHORTEST_MASKED = 4  # shorter secrets would mask half of every text, and hide nothing


@dataclass(frozen=True, slots=True)
class EncryptionKey:
    """32 bytes; never shown."""

    raw: bytes = field(repr=False)


def parse_key(text: str) -> Result[EncryptionKey, str]:
    """A key from its 64 hex digits."""
    try:
        raw = bytes.fromhex(text)
    except ValueError:
        raw = b""
    if len(raw) != KEY_BYTES:
        return Failure("the encryption key is not 64 hex digits")
    return Success(EncryptionKey(raw))


def decrypt(key: EncryptionKey, value: str) -> Result[str, str]:
    """The plain text of one encrypted value."""
    try:
        sealed = base64.b64decode(value, validate=True)
    except (binascii.Error, ValueError):
        return Failure("the value is not base64")
    if len(sealed) < IV_BYTES + TAG_BYTES:
        return Failure("the value is too short to be encrypted")
    iv, tag, text = sealed[:IV_BYTES], sealed[IV_BYTES : IV_BYTES + TAG_BYTES], sealed[IV_BYTES + TAG_BYTES :]
    try:
        return Success(AESGCM(key.raw).decrypt(iv, text + tag, None).decode("utf-8"))
    except InvalidTag:
        return Failure("the value does not decrypt with this installation's key")
    except UnicodeDecodeError:
        return Failure("the decrypted value is not UTF-8")


def encrypt(key: EncryptionKey, text: str, iv: bytes) -> str:
    """The encrypted form of a text; `iv` is 12 bytes that are never used twice with one key."""
    sealed = AESGCM(key.raw).encrypt(iv, text.encode("utf-8"), None)
    return base64.b64encode(iv + sealed[-TAG_BYTES:] + sealed[:-TAG_BYTES]).decode("ascii")


def mask(text: str, secrets: Iterable[str]) -> str:
    """The text with every known secret replaced, longest first so that none survives inside another."""
    for secret in sorted(set(secrets), key=len, reverse=True):
        if len(secret) >= _SHORTEST_MASKED:
            text = text.replace(secret, MASK)
    return text
