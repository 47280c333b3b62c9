"""Encrypted values: AES-256-GCM, as the control plane sends them in `env` and in a build's `secrets`.

A value is standard base64 of IV (12 bytes), tag (16 bytes), ciphertext; no associated data; the plain text is UTF-8. One key serves the
whole installation. No error text ever contains a value, plain or encrypted.
"""

import base64
import binascii
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from returns.result import Failure, Result, Success

KEY_BYTES = 32
IV_BYTES = 12
TAG_BYTES = 16
MASK = "***"
_SHORTEST_MASKED = 4  # shorter secrets would mask half of every text, and hide nothing
_SHORTEST_LINE_MASKED = 8  # a line alone may be an ordinary word such as "true" or "server"
_LONGEST_WORD = (
    512  # what is longer is looked for in parts, so that a secret that repeats itself costs no more than any other text
)


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
    if len(raw) != KEY_BYTES or len(text) != 2 * KEY_BYTES:
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
    """The text with every known secret replaced, and with every line of one that has several, since texts are often cut at lines.

    Secrets that overlap are replaced together, so that no part of the second is left over.
    """
    return mask_words(text, masked_words(secrets))


def mask_words(text: str, words: Iterable[str]) -> str:
    """The same for words that `masked_words` gave, which is done once for many texts."""
    kept: list[str] = []
    end = 0
    for first, last in _merged(span for word in words for span in _occurrences(text, word)):
        kept += [text[end:first], MASK]
        end = last
    return "".join(kept) + text[end:]


def masked_words(secrets: Iterable[str]) -> frozenset[str]:
    """What is replaced in texts: each secret and each of its lines, long ones in parts of at most 512 characters."""
    words: set[str] = set()
    for secret in secrets:
        if len(secret) >= _SHORTEST_MASKED:
            words |= _parts(secret)
        for line in secret.splitlines():
            if len(line) >= _SHORTEST_LINE_MASKED:
                words |= _parts(line)
    return frozenset(words)


def _parts(word: str) -> set[str]:
    """A word in parts of nearly one length: whoever knows one part of a long secret knows too much of it."""
    count = -(-len(word) // _LONGEST_WORD)
    cuts = [len(word) * number // count for number in range(count + 1)]
    return {word[first:last] for first, last in pairwise(cuts)}


def _occurrences(text: str, word: str) -> Iterator[tuple[int, int]]:
    at = text.find(word)
    while at >= 0:
        yield at, at + len(word)
        at = text.find(word, at + 1)


def _merged(spans: Iterable[tuple[int, int]]) -> Iterator[tuple[int, int]]:
    """Overlapping spans as one, in order."""
    first, last = 0, 0
    for start, end in sorted(spans):
        if start >= last:
            if last > first:
                yield first, last
            first = start
        last = max(last, end)
    if last > first:
        yield first, last
