"""Texts from outside where a terminal shows them: nothing in them moves a cursor, changes colours or turns the order of letters (L59)."""

import json


def escape(text: str) -> str:
    """The text with everything that is not printable (control characters, line breaks, bidirectional marks) spelled as Python does."""
    if text.isprintable():
        return text
    return "".join(one if one.isprintable() else one.encode("unicode_escape").decode("ascii") for one in text)


def json_text(document: object) -> str:
    """A JSON document for standard output, in ASCII: JSON itself lets the control characters beyond ASCII and DEL stand as they are."""
    return json.dumps(document, indent=2).replace("\x7f", "\\u007f")
