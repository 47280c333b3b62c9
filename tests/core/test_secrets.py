"""Encrypted values: what was sealed opens with the same key and with no other; nothing secret is ever shown."""

import base64
import json
from pathlib import Path

import pytest
from cryptography.hazmat.primitives.ciphers.aead import AESGCM
from hypothesis import given
from hypothesis import strategies as st
from returns.pipeline import is_successful

from core.secrets import (
    IV_BYTES,
    MASK,
    TAG_BYTES,
    EncryptionKey,
    decrypt,
    encrypt,
    is_guarded,
    mask,
    mask_words,
    masked_words,
    parse_key,
)

CAPTURES = Path(__file__).parent.parent / "captures"
HEX = "00112233445566778899aabbccddeeff0123456789abcdeffedcba9876543210"
KEY = parse_key(HEX).unwrap()
IV = bytes(range(IV_BYTES))


@given(st.text(), st.binary(min_size=IV_BYTES, max_size=IV_BYTES))
def test_what_was_encrypted_decrypts(text: str, iv: bytes) -> None:
    """Any text, line breaks included."""
    assert decrypt(KEY, encrypt(KEY, text, iv)).unwrap() == text


def test_the_form_is_iv_tag_text() -> None:
    """In this order, in standard base64."""
    sealed = base64.b64decode(encrypt(KEY, "text", IV), validate=True)
    assert sealed[:IV_BYTES] == IV
    assert len(sealed) == IV_BYTES + TAG_BYTES + len("text")


def captured_values() -> dict[str, str]:
    """Every encrypted value in the captured exchanges, by the exchange and its name."""
    found: dict[str, str] = {}
    for path in sorted(CAPTURES.glob("*.json")):
        document = json.loads(path.read_text())["response"].get("json")
        if isinstance(document, dict):
            for number, container in enumerate(document.get("containers", ())):
                found |= {f"{path.stem}.{number}.{name}": value for name, value in container.get("env", {}).items()}
            found |= {f"{path.stem}.{name}": value for name, value in document.get("secrets", {}).items()}
    return found


def test_captured_values_decrypt() -> None:
    """Every value that the control plane has really sent opens with the key of the registration."""
    values = captured_values()
    assert len(values) >= 10
    assert [name for name, value in values.items() if not is_successful(decrypt(KEY, value))] == []


@pytest.mark.parametrize(
    ("value", "why"),
    [
        ("no base64!", "the value is not base64"),
        ("é", "the value is not base64"),
        ("", "the value is too short to be encrypted"),
        (base64.b64encode(bytes(IV_BYTES + TAG_BYTES - 1)).decode(), "the value is too short to be encrypted"),
        (base64.b64encode(bytes(60)).decode(), "the value does not decrypt with this installation's key"),
        (encrypt(EncryptionKey(bytes(32)), "x", IV), "the value does not decrypt with this installation's key"),
    ],
)
def test_a_bad_value_is_refused(value: str, why: str) -> None:
    """L37: with a reason that shows nothing of it."""
    assert decrypt(KEY, value).failure() == why


def test_a_value_that_is_not_text_is_refused() -> None:
    """Environment variables are text."""
    sealed = AESGCM(KEY.raw).encrypt(IV, b"\xff\xfe", None)
    value = base64.b64encode(IV + sealed[-TAG_BYTES:] + sealed[:-TAG_BYTES]).decode()
    assert decrypt(KEY, value).failure() == "the decrypted value is not UTF-8"


@given(st.text(max_size=80))
def test_no_value_breaks_decryption(value: str) -> None:
    """Anything at all gives a result, never an exception."""
    assert not is_successful(decrypt(KEY, value))


@pytest.mark.parametrize(
    "text",
    ["", HEX[:-2], HEX + "00", HEX[:-1] + "x", HEX[:-1] + "٣", " " + HEX[:-1], HEX[:31] + " " + HEX[32:], HEX + "\n"],
)
def test_a_key_is_64_hex_digits(text: str) -> None:
    """No more, no less, and nothing between them; the refusal does not repeat it."""
    assert parse_key(text).failure() == "the encryption key is not 64 hex digits"


def test_a_key_is_never_shown() -> None:
    """L37: not even by a log line that prints the whole value."""
    assert repr(KEY) == "EncryptionKey()"
    assert parse_key(HEX.upper()).unwrap() == KEY


@pytest.mark.parametrize(
    ("text", "secrets", "masked"),
    [
        ("nothing here", ("hunter22",), "nothing here"),
        ("the hunter22 came", ("hunter22",), f"the {MASK} came"),
        ("hunter22", ("hunter", "hunter22"), MASK),
        ("aaaaaa", ("aaaa",), MASK),
        ("abcdefgh", ("abcdef", "efgh"), MASK),
        ("hunter22hunter22", ("hunter22",), MASK * 2),
        ("abc", ("abc", ""), "abc"),
        ("a line: second-line", ("first-line\nsecond-line",), f"a line: {MASK}"),
        ("it is true", ("{\ntrue\n}",), "it is true"),
    ],
)
def test_known_secrets_are_masked(text: str, secrets: tuple[str, ...], masked: str) -> None:
    """L37: inside each other, overlapping, or cut at a line's end; very short ones would hide half of every text."""
    assert mask(text, secrets) == masked


WORDS = st.text("abc", min_size=4, max_size=8)


@given(st.lists(st.one_of(WORDS, st.text("abc ", max_size=6)), max_size=8), st.lists(WORDS, max_size=4))
def test_no_secret_survives(parts: list[str], secrets: list[str]) -> None:
    """L37: whatever the text and the secrets, and masking again changes nothing."""
    masked = mask("".join(parts), secrets)
    assert not any(secret in masked for secret in secrets)
    assert mask(masked, secrets) == masked


@pytest.mark.parametrize(
    "word",
    [
        "",
        "true",
        "8080",
        "s3cr3t!",
        "production",
        "Production",
        "PRODUCTION",
        "development",
        "documentation",
        "localhost",
        "postgres",
        "strength",
        "localhost:5432",
        "10.200.3.2:8080",
        "us-east-1",
        "en_US.UTF-8",
        "v20.11.1",
        "/usr/local/bin",
        "production\n",
        "correct-horse",
    ],
)
def test_ordinary_words_are_not_guarded(word: str) -> None:
    """A log in which every `production` is a `***` cannot be read, and hides nothing."""
    assert not is_guarded(word)


@pytest.mark.parametrize(
    "word",
    [
        "hunter22",
        "Hunter2Hunter",
        "tr0ub4dor&3",
        "xkqzvbnmwd",
        "XKQZVBNM",
        "a1b2-c3d4-e5f6",
        "83719264",
        "4111111111111111",
        "ghp_16C7e42F",
        "sup3r-secret",
        "pässword",
        "aGVsbG8=",
        "correct horse battery",
        "production-environment",
        "-" * 20,
    ],
)
def test_what_looks_random_or_is_long_is_guarded(word: str) -> None:
    """L37: tokens, passwords of several kinds of characters, numbers of cards, passphrases."""
    assert is_guarded(word)


@pytest.mark.parametrize(
    ("text", "secret", "masked"),
    [
        ("NODE_ENV=production", "production", "NODE_ENV=production"),
        ("using hunter22!", "hunter22", f"using {MASK}!"),
        ("second-l1ne-of-it", "production\nsecond-l1ne-of-it", MASK),
        ("production", "production\nsecond-l1ne-of-it", "production"),
        ("as app with hunter2", "postgres://app:hunter2@db/app", f"as app with {MASK}"),
        ("postgres://app:hunter2@db/app", "postgres://app:hunter2@db/app", MASK),
        ("as postgres at db", "postgres://postgres:postgres@db/app", "as postgres at db"),
        ("p@ss/w0rd and p%40ss%2Fw0rd", "redis://:p%40ss%2Fw0rd@db", f"{MASK} and {MASK}"),
        ("?token=a%2Fb%2BC9%3D%3D", "a/b+C9==", f"?token={MASK}"),
        ("\ud800token-2024", "\ud800token-2024", MASK),
    ],
)
def test_what_of_a_chosen_secret_is_masked(text: str, secret: str, masked: str) -> None:
    """L37: the value, its lines, the password in it, and how a URL spells them; no ordinary word."""
    assert mask_words(text, masked_words((secret,))) == masked


def test_some_secrets_are_always_masked() -> None:
    """L37: a clone token is one, though it may look like a word."""
    assert mask_words("production", masked_words((), always=("production",))) == MASK
    assert mask_words("production", masked_words(("production",), always=("token",))) == "production"


@given(st.lists(st.text(min_size=20, max_size=600), max_size=4), st.text(max_size=40), st.text(max_size=40))
def test_a_long_secret_is_masked_wherever_it_stands(secrets: list[str], before: str, after: str) -> None:
    """L37: of twenty characters or more, whatever they are."""
    words = masked_words(secrets)
    for secret in secrets:
        assert secret not in mask_words(f"{before} {secret} {after}", words)


@given(st.text(max_size=30))
def test_no_word_breaks_the_judgement(word: str) -> None:
    """Any text: length alone decides at both ends."""
    assert is_guarded(word) or len(word) < 20
    assert not (is_guarded(word) and len(word) < 8)
    masked_words((word, f"x://a:{word}@b"))
