"""The manual page (man(7) macros) of a command line that is described as plain values. Knows nothing of how commands are declared."""

from collections.abc import Iterable, Iterator
from dataclasses import dataclass


@dataclass(frozen=True, slots=True)
class Option:
    """How it is spelled (`--url`, `-h, --help`), what it takes (empty for a switch), its help with full stop, and its variable."""

    spelled: str
    takes: str
    help: str
    variable: str = ""


@dataclass(frozen=True, slots=True)
class Command:
    """One command with the options that are its own."""

    name: str
    help: str
    options: tuple[Option, ...]
    takes_node_options: bool = False


@dataclass(frozen=True, slots=True)
class Section:
    """A heading and its paragraphs: a term with what it means, or a text without a term."""

    heading: str
    paragraphs: tuple[tuple[str, str], ...]


@dataclass(frozen=True, slots=True)
class Manual:
    """All that a page is made of. `node_options` are those that several commands share."""

    program: str
    version: str
    summary: str
    description: tuple[str, ...]
    commands: tuple[Command, ...]
    node_options: tuple[Option, ...]
    sections: tuple[Section, ...]
    see_also: str


def page(manual: Manual) -> str:
    """The whole page."""
    return "".join(f"{line}\n" for line in _lines(manual))


def _lines(manual: Manual) -> Iterator[str]:
    name = manual.program
    yield f'.TH {_text(name.upper())} 1 "" "{_text(name)} {_text(manual.version)}" "User commands"'
    yield ".nh"
    yield from (".SH NAME", rf"{_text(name)} \- {_text(manual.summary)}")
    yield from (".SH SYNOPSIS", f".B {_text(name)}", r".RI [ command ] " + r"\ [ options ]")
    yield ".SH DESCRIPTION"
    for paragraph in manual.description:
        yield from (".PP", _line(paragraph))
    yield ".SH COMMANDS"
    for command in manual.commands:
        yield f".SS {_text(name)} {_text(command.name)}"
        yield _line(command.help)
        yield from _options(command.options)
        if command.takes_node_options:
            yield from (".PP", "Takes the node's options too.")
    yield ".SH NODE OPTIONS"
    yield from _options(manual.node_options)
    for section in manual.sections:
        yield f".SH {_text(section.heading)}"
        for term, text in section.paragraphs:
            yield from (".TP", f".B {_text(term)}", _line(text)) if term else (".PP", _line(text))
    yield from (".SH SEE ALSO", _line(manual.see_also))


def _options(options: Iterable[Option]) -> Iterator[str]:
    for option in options:
        takes = rf" \fI{_text(option.takes)}\fR" if option.takes else ""
        variable = f" Variable: {option.variable}." if option.variable else ""
        yield from (".TP", rf"\fB{_text(option.spelled)}\fR{takes}", _line(f"{option.help}{variable}"))


def _line(text: str) -> str:
    """A text line: a leading dot or quote would be taken for a macro."""
    escaped = _text(text)
    return rf"\&{escaped}" if escaped[:1] in (".", "'") else escaped


def _text(text: str) -> str:
    """Words without anything that the typesetter would take for itself; a hyphen stays one that can be copied."""
    escaped = (
        " ".join(text.split()).replace("\\", r"\e").replace("-", r"\-").replace('"', r"\(dq").replace("'", r"\(aq")
    )
    return (
        escaped.replace("`", r"\(ga")
        .replace("~", r"\(ti")
        .replace("^", r"\(ha")
        .replace("→", r"\(->")
        .replace("…", "...")
    )
