"""`core.manual`: a page that man(1) shows as it is meant."""

import shutil
import subprocess

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.manual import Command, Manual, Option, Section, page
from tests.strategies import ANY_TEXT


def a_manual(text: str) -> Manual:
    """One that has this text wherever a text can stand."""
    option = Option("--it", "WHAT", text, "IT")
    return Manual(
        program="it",
        version="1.2",
        summary=text,
        description=(text,),
        commands=(Command("do", text, (option,), takes_node_options=True),),
        node_options=(option,),
        sections=(Section("FILES", (("/etc/it", text), ("", text))),),
        see_also="that(1)",
    )


@given(ANY_TEXT | st.sampled_from([".dot first", "'quote", "back\\slash", '"q"', ".", "\\"]))
def test_no_text_becomes_a_command_of_the_typesetter(text: str) -> None:
    """Every line that begins with a dot is one of the macros that belong here."""
    macros = {".TH", ".nh", ".SH", ".SS", ".PP", ".TP", ".B", ".RI"}
    for line in page(a_manual(text)).splitlines():
        assert not line.startswith(".") or line.split()[0] in macros
        assert not line.startswith("'")


@pytest.mark.skipif(shutil.which("groff") is None, reason="no typesetter here to ask")
@pytest.mark.parametrize("text", [r".dot \fB back\\ -x 'quoted' \"", "plain → … `code` ~ ^"])
def test_the_typesetter_finds_nothing_wrong(text: str) -> None:
    """With all its warnings on."""
    argv = ("groff", "-man", "-Tutf8", "-ww", "-z")
    done = subprocess.run(argv, input=page(a_manual(text)), capture_output=True, text=True, timeout=30, check=True)
    assert done.stderr == ""
