"""`core.printable`: what a terminal is shown, in every place where it is shown something from outside."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import doctor, overview_text
from core.doctor import Finding, Level
from core.printable import escape, json_text


@given(st.text())
def test_nothing_is_left_that_does_something(text: str) -> None:
    """Half characters included; what is printable stays as it is."""
    shown = escape(text)
    assert shown.isprintable()
    assert (shown == text) is text.isprintable()


@given(st.recursive(st.text(), lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner)))
def test_json_on_a_terminal(document: object) -> None:
    """The same document, in printable ASCII."""
    text = json_text(document)
    assert json.loads(text) == document
    assert text.isascii() and text.replace("\n", "").isprintable()


@pytest.mark.parametrize("text", ["\x1b[2J", "\x9b2J", "a\u202eb", "one\ntwo", "\r"])
def test_every_text_for_a_person(text: str) -> None:
    """L59: the status, the doctor's findings."""
    status = {"running": True, "state": text, "agent": {"version": text}, "drift": [{"kind": text, "reason": text}]}
    for line in (*overview_text.lines(status), overview_text.headline(status)):
        assert line.isprintable()
    for line in doctor.lines([Finding("podman", Level.FAILED, text, text)]):
        assert line.isprintable()
