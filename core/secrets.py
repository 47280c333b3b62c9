"""Encrypted values: AES-256-GCM, as the control plane sends them in `env` and in a build's `secrets`.

A value is standard base64 of IV (12 bytes), tag (16 bytes), ciphertext; no associated data; the plain text is UTF-8. One key serves the
whole installation. No error text ever contains a value, plain or encrypted.
"""

import base64
import binascii
import re
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from itertools import pairwise
from urllib.parse import quote, unquote

from cryptography.exceptions import InvalidTag
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from returns.result import Failure, Result, Success

KEY_BYTES = 32
IV_BYTES = 12
TAG_BYTES = 16
MASK = "***"
_SHORTEST_MASKED = 4  # shorter secrets would mask half of every text, and hide nothing
_SHORTEST_LINE_MASKED = 8  # a line alone may be an ordinary word such as "true" or "server"
_SHORTEST_JUDGED = 8  # a shorter value is guessed whether it is masked or not, and is a part of many words
_SHORTEST_PASSWORD_JUDGED = 5  # what stands in the place of a URL's password was meant as one
_ALWAYS_LONG = 20  # nobody misses a text of this length that is masked, and many passphrases have it
_LONGEST_WORD = (
    512  # what is longer is looked for in parts, so that a secret that repeats itself costs no more than any other text
)
_BETWEEN_PARTS = re.compile(r"[-_./:@,;\s]+")  # of addresses, versions, paths, names of regions and locales
_PLAIN = re.compile(r"[a-z]*|[A-Z][a-z]*|[A-Z]*|[0-9]{0,6}|[a-z]{1,3}[0-9]{1,2}")
_UNSPEAKABLE = re.compile(r"[b-df-hj-np-tv-xzB-DF-HJ-NP-TV-XZ]{5}")  # "strength" has four consonants in a row
_URL_WITH_PASSWORD = re.compile(r"[A-Za-z][A-Za-z0-9+.-]{0,30}://[^/?#@:]{0,256}:(?P<password>[^/?#]{1,1024})@")


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
    return mask_words(text, masked_words((), always=secrets))


def mask_words(text: str, words: Iterable[str]) -> str:
    """The same for words that `masked_words` gave, which is done once for many texts."""
    kept: list[str] = []
    end = 0
    for first, last in _merged(span for word in words for span in _occurrences(text, word)):
        kept += [text[end:first], MASK]
        end = last
    return "".join(kept) + text[end:]


def masked_words(secrets: Iterable[str], always: Iterable[str] = ()) -> frozenset[str]:
    """What is replaced in texts, long words in parts of at most 512 characters.

    Of `secrets`, which people choose: each value, each of its lines and the password of each URL that a line is, if `is_guarded` (a service
    calls `NODE_ENV=production` a secret, too); of a value of at most 512 characters also the form in which a URL has it. Of `always`: each
    value of four characters or more, and each of its lines of eight or more, whatever they are.
    """
    words: set[str] = set()
    for secret in always:
        if len(secret) >= _SHORTEST_MASKED:
            words |= _parts(secret)
        for line in secret.splitlines():
            if len(line) >= _SHORTEST_LINE_MASKED:
                words |= _parts(line)
    for secret in secrets:
        for word in _guarded(secret):
            words |= _parts(word)
        # Not of each line of a key: the number of words is what searching costs, and no URL has a key in it.
        if len(secret) <= _LONGEST_WORD and is_guarded(secret):
            words |= _parts(quote(secret, safe="", errors="replace"))
    return frozenset(words)


def is_guarded(word: str, shortest: int = _SHORTEST_JUDGED) -> bool:
    """Whether a word is long enough, or looks random enough, to be masked wherever it stands.

    Twenty characters are. Fewer than `shortest` are not. In between, one is that has a part which is no plain word: letters that can be
    spoken, in one case or with a capital at the beginning; a number of at most six digits; at most three letters and two digits (`v20`).
    """
    if len(word) >= _ALWAYS_LONG or len(word) < shortest:
        return len(word) >= _ALWAYS_LONG
    return any(not _is_plain(part) for part in _BETWEEN_PARTS.split(word))


def _is_plain(part: str) -> bool:
    return _PLAIN.fullmatch(part) is not None and _UNSPEAKABLE.search(part) is None


def _guarded(secret: str) -> Iterator[str]:
    lines = secret.splitlines()
    yield from (word for word in {secret, *lines} if is_guarded(word))
    for line in lines:
        found = _URL_WITH_PASSWORD.match(line)
        if found is not None:
            password = found["password"]
            yield from (word for word in {password, unquote(password)} if is_guarded(word, _SHORTEST_PASSWORD_JUDGED))


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
