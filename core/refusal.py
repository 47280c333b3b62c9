"""What a call that the control plane refused means, in words for a person. Knows statuses and texts; nothing of connections."""

from collections.abc import Iterable
from typing import Final

import msgspec

from core.secrets import mask

_LONGEST_WORDS: Final = 300
_TOLERATED_SKEW_S: Final = 30.0  # half of what the control plane tolerates
_REDIRECTS: Final = (301, 302, 303, 307, 308)


def said(content: bytes, hidden: Iterable[str] = ()) -> str:
    """The control plane's own words, cut short, on one line and without what is hidden; empty when the body is no error of its form."""
    try:
        text = msgspec.json.decode(content, type=dict[str, object]).get("error")
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        return ""
    return one_line(mask(text, hidden)) if isinstance(text, str) else ""


def one_line(text: str) -> str:
    """A text from outside, fit for one line of a log."""
    return " ".join("".join(one if one.isprintable() else " " for one in text[: 2 * _LONGEST_WORDS]).split())[
        :_LONGEST_WORDS
    ]


def hint(status: int, words: str, *, signed: bool, skew_s: float | None) -> str:
    """What a person can look into; `skew_s` is how far the control plane's clock is ahead of this server's, when that is known."""
    if status == 401 and not signed:
        return "the control plane does not know this token, or it is used up"
    if status == 401 and skew_s is not None and abs(skew_s) > _TOLERATED_SKEW_S:
        side = "behind" if skew_s > 0 else "ahead of"
        return f"this server's clock is {abs(skew_s):.0f} s {side} the control plane's; set it (NTP)"
    if (
        status == 401 and "timestamp" in words.lower()
    ):  # a proxy in front of it may have answered with a clock of its own
        return "this server's clock and the control plane's differ; set both (NTP)"
    if status == 401:
        return "the control plane does not know this server's key"
    if status in _REDIRECTS:
        return "redirects are not followed; is --url complete?"
    if status in (404, 405) and not words:
        return "is --url the control plane's?"
    if status == 404 and "server" in words.lower():
        return "was this server deleted in the control plane?"
    return ""
