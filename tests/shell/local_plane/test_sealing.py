"""Secrets as the protocol encrypts them."""

from hypothesis import given
from hypothesis import strategies as st

from shell.local_plane.sealing import opened, sealed

KEY, OTHER = "0f" * 32, "f0" * 32


@given(st.text(st.characters(exclude_categories=["Cs"])))
def test_what_is_sealed_can_be_opened_with_the_key_alone(plain: str) -> None:
    """And looks different each time."""
    value = sealed(KEY, plain)
    assert opened(KEY, value) == plain
    assert opened(OTHER, value) is None
    assert sealed(KEY, plain) != value


@given(st.text())
def test_what_was_not_sealed_cannot_be_opened(text: str) -> None:
    """No text is an error."""
    assert opened(KEY, text) is None
