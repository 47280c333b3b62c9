"""`core.build_output`: lines of any length, without secrets, in bounded memory."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.build_output import LONGEST, Lines

SECRET = "sup3r-secret-value"


def lines(*chunks: bytes, secrets: tuple[str, ...] = ()) -> list[str]:
    """Everything that comes out."""
    made = Lines(secrets)
    return [line for chunk in chunks for line in made.feed(chunk)] + list(made.end())


def test_lines_come_when_they_are_whole() -> None:
    """However the bytes are cut; the last one without an end too; empty ones not at all."""
    assert lines(b"one\ntw", b"o\n\n", b"three") == ["one", "two", "three"]


def test_a_progress_bar_is_many_lines() -> None:
    """What a terminal would overwrite, and its colours."""
    assert lines(b"10%\r20%\r\n\x1b[1;32mdone\x1b[0m\x07\n") == ["10%", "20%", "done"]


def test_what_is_not_text() -> None:
    """Shown as far as it can be."""
    assert lines(b"a\xff\x00b\n") == ["a\N{REPLACEMENT CHARACTER}b"]


@pytest.mark.parametrize("size", [LONGEST + 1, 1_000_000, 3_000_000])
def test_very_long_lines(size: int) -> None:
    """L42: in marked pieces, nothing lost, whether they end or not."""
    for end in (b"", b"\n"):
        pieces = lines(*[b"x" * 65_536] * (size // 65_536), b"x" * (size % 65_536) + end)
        assert sum(piece.count("x") for piece in pieces) == size
        assert all(len(piece) <= LONGEST + 2 for piece in pieces)
        assert all(piece.endswith(" …") for piece in pieces[:-1])


@pytest.mark.parametrize("size", [LONGEST, LONGEST + 1, 32_768, 2 * LONGEST + 1, 100_000, 300_001])
@pytest.mark.parametrize("chunk", [1 << 20, 65_536, 8_192, 1_001])
def test_a_long_line_is_cut_evenly(size: int, chunk: int) -> None:
    """No piece is a small rest; where the whole line is here at once, they differ by no more than a byte each."""
    raw = b"x" * size + b"\n"
    sizes = [piece.count("x") for piece in lines(*[raw[at : at + chunk] for at in range(0, len(raw), chunk)])]
    assert sum(sizes) == size
    assert max(sizes) <= LONGEST
    assert min(sizes) >= min(size, LONGEST // 2)
    if chunk > size:
        assert max(sizes) - min(sizes) <= len(sizes)


@pytest.mark.parametrize("end", [b"", b"\n"])
def test_a_long_line_of_parts_of_characters_ends(end: bytes) -> None:
    """L55: there is no border of a character to cut it at, and it was cut into nothing for ever."""
    pieces = lines(b"\x80" * 50_000, end)
    assert sum(piece.count("\N{REPLACEMENT CHARACTER}") for piece in pieces) == 50_000


def test_memory_is_bounded() -> None:
    """L42: a line that never ends is not kept."""
    made = Lines((SECRET,))
    for _ in range(1000):
        list(made.feed(b"y" * 65_536))
    assert len(made._left) <= 2 * LONGEST + len(SECRET)


def test_secrets_are_masked() -> None:
    """L37: whole, in several lines, and wherever the bytes are cut."""
    key = "-----BEGIN-----\nabcdefghijklmnop\n-----END-----"
    text = f"token={SECRET}!\n{key}\n".encode()
    for cut in range(len(text)):
        shown = "\n".join(lines(text[:cut], text[cut:], secrets=(SECRET, key)))
        assert SECRET not in shown
        assert "abcdefghijklmnop" not in shown
        assert "token=***!" in shown


def test_what_is_always_masked() -> None:
    """L37: the clone token also where it looks like a word; a setting that is a word is not."""
    made = Lines(("production",), always=("token",))
    assert [*made.feed(b"token, production\n")] == ["***, production"]


@given(st.integers(0, 2 * LONGEST), st.integers(1, 5000))
def test_no_secret_is_cut_in_two(before: int, chunk: int) -> None:
    """L37: a long line is cut beside a secret and not within it."""
    raw = b"x" * before + SECRET.encode() + b"y" * LONGEST
    shown = "".join(lines(*[raw[at : at + chunk] for at in range(0, len(raw), chunk)], secrets=(SECRET,)))
    assert "sup3r" not in shown
    assert "value" not in shown
    assert shown.count("x") == before


@pytest.mark.parametrize("control", [b"\x1b[31m", b"\x1b[0;1m\x1b[K", b"\x08", b"\0", b"\x1b]0;a title\x07"])
@pytest.mark.parametrize("before", [0, LONGEST - 10, 2 * LONGEST])
def test_a_secret_with_colours_in_it_is_masked(control: bytes, before: int) -> None:
    """L37: what highlights a part of it makes it no other word, wherever the bytes are cut; the secret itself may have some, too."""
    for at in range(1, len(SECRET)):
        coloured = SECRET[:at].encode() + control + SECRET[at:].encode()
        text = b"x" * before + coloured + b"\x1b[0m, and more" + b"y" * LONGEST
        for cut in {before + at, before + at + 1, before + at + len(control) - 1}:
            shown = "".join(lines(text[:cut], text[cut:], secrets=(SECRET[:4] + "\x1b[1m" + SECRET[4:],)))
            assert SECRET[:at] not in shown.replace("x", "") or at < 2
            assert SECRET[at:] not in shown or at > len(SECRET) - 3
            assert "***, and more" in shown.replace(" …", "")
            assert "[" not in shown


@given(st.lists(st.binary(), max_size=20))
def test_any_bytes(chunks: list[bytes]) -> None:
    """Printable lines, never an exception."""
    for line in lines(*chunks, secrets=("abcd",)):
        assert "\n" not in line
        assert "\x1b" not in line
