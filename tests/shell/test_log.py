"""`shell.log`: events on standard error, one line each wherever a program reads them."""

import io
import json
import re
import sys
from collections import Counter
from collections.abc import Iterator
from contextlib import suppress
from pathlib import Path

import pytest
import structlog

from shell import log, metrics
from shell.figures import FIGURES
from shell.log_choices import LogFormat, LogLevel


class Terminal(io.StringIO):
    """Somebody looks at it."""

    def isatty(self) -> bool:
        return True


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Every test sets logging up anew."""
    yield
    structlog.reset_defaults()


def written(
    monkeypatch: pytest.MonkeyPatch, log_format: LogFormat, level: LogLevel = LogLevel.INFO, *, seen: bool = False
) -> str:
    """What two events and a secret-free fact look like."""
    stream = Terminal() if seen else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    log.set_up(log_format, level)
    log.logger().info("pull done", image="docker.io/library/nginx:1.27", why='two\nlines, a "quote"')
    log.logger().warning("no heartbeat", count=3)
    return stream.getvalue()


@pytest.mark.parametrize("log_format", [LogFormat.TEXT, LogFormat.AUTO])
def test_plain_text_is_a_line_for_each_event(monkeypatch: pytest.MonkeyPatch, log_format: LogFormat) -> None:
    """For a journal: time, level and event first; line breaks are spelled out."""
    first, second = written(monkeypatch, log_format).splitlines()
    assert [part.partition("=")[0] for part in first.split()[:3]] == ["timestamp", "level", "event"]
    assert 'event="pull done"' in first and "image=docker.io/library/nginx:1.27" in first
    assert r"two\nlines" in first
    assert "level=warning" in second and second.endswith("count=3")


def test_one_kind_of_line_is_bounded(monkeypatch: pytest.MonkeyPatch) -> None:
    """L59: thousands of images that cannot be had at once, say; other kinds are written meanwhile, and all again after ten seconds."""
    now, stream = [0.0], io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    monkeypatch.setattr(log._Limited.__init__, "__defaults__", (lambda: now[0],))
    before = FIGURES.counts[log.LEFT_OUT, ()]
    log.set_up(LogFormat.JSON)
    for number in range(1000):
        log.logger().error("image not fetched", number=number)
        log.logger().info("pull started", number=number)
    log.logger().warning("something else")
    lines = [json.loads(line) for line in stream.getvalue().splitlines()]
    kinds = Counter(one["event"] for one in lines)
    assert kinds == {"image not fetched": 20, "pull started": 200, "more lines like these": 2, "something else": 1}
    more = [one for one in lines if one["event"] == "more lines like these"]
    assert [(one["of"], one["level"]) for one in more] == [("image not fetched", "error"), ("pull started", "info")]
    assert FIGURES.counts[log.LEFT_OUT, ()] - before == 980 + 800 and log.LEFT_OUT in metrics.COUNTERS
    now[0] = 10.0
    log.logger().error("image not fetched", number=0)
    assert '"image not fetched"' in stream.getvalue().splitlines()[-1]


def test_a_stream_that_takes_nothing(monkeypatch: pytest.MonkeyPatch) -> None:
    """L2: a full disk, or a reader that is gone, costs the lines; whoever listens in hears them all the same."""
    heard: list[str] = []
    log.tap(lambda event: heard.append(str(event["event"])))
    with suppress(OSError), Path("/dev/full").open("w") as full:
        monkeypatch.setattr(sys, "stderr", full)
        log.set_up(LogFormat.TEXT)
        for number in range(1000):
            log.logger().info(f"event {number}", more="x" * 100)
    log.tap(None)
    assert len(heard) == 1000


def test_json_is_an_object_for_each_event(monkeypatch: pytest.MonkeyPatch) -> None:
    """For a collector, with the facts as they were."""
    first, second = map(json.loads, written(monkeypatch, LogFormat.JSON).splitlines())
    assert (first["event"], first["level"], first["why"]) == ("pull done", "info", 'two\nlines, a "quote"')
    assert second["count"] == 3
    assert first["timestamp"].endswith("Z")


def test_a_terminal_gets_colours_only_when_it_is_one(monkeypatch: pytest.MonkeyPatch) -> None:
    """`auto` is pretty for a person; `text` never is."""
    assert "\x1b[" in written(monkeypatch, LogFormat.AUTO, seen=True)
    assert "\x1b[" not in written(monkeypatch, LogFormat.TEXT, seen=True)


@pytest.mark.parametrize(("level", "lines"), [("debug", 2), ("info", 2), ("warning", 1), ("error", 0)])
def test_levels(monkeypatch: pytest.MonkeyPatch, level: str, lines: int) -> None:
    """What is less severe is not written."""
    assert len(written(monkeypatch, LogFormat.TEXT, LogLevel(level)).splitlines()) == lines


@pytest.mark.parametrize("value", ["é" * 10**6, ["x" * 10**6], {"a": "x" * 10**6}], ids=["text", "list", "mapping"])
@pytest.mark.parametrize("log_format", LogFormat)
def test_a_line_is_bounded(monkeypatch: pytest.MonkeyPatch, log_format: LogFormat, value: object) -> None:
    """L58, L59: a key of a megabyte that changes with every poll does not fill the disk. A secret in it stays hidden (L37)."""
    monkeypatch.setattr(sys, "stderr", stream := io.StringIO())
    log.set_up(log_format)
    log.hide("x" * 20 + "secret")
    log.logger().info("a line", what=value, near_the_end="y" * (log.LONGEST_VALUE - 22) + "x" * 20 + "secret")
    assert len(stream.getvalue()) < 10 * log.LONGEST_VALUE
    assert "characters)" in stream.getvalue()
    assert "xxxxxs" not in stream.getvalue()


HOSTILE = {
    "a colour": "\x1b[31mred",
    "a title": "\x1b]0;gone\x07",
    "one byte that begins a sequence": "\x9b31m",
    "back to the line's beginning": "good\rbad",
    "the other way round": "a\u202egpj.exe",
    "an isolate": "a\u2066b",
    "a line of another kind": "a\u2028b\x85c\x0bd",
    "delete": "abc\x7f\x7f",
    "nothing at all": "a\x00b",
    "half a character": "a\udcffb",
}


@pytest.mark.parametrize("seen", [True, False])
@pytest.mark.parametrize("log_format", LogFormat)
@pytest.mark.parametrize("case", HOSTILE)
def test_nobody_else_writes_to_the_terminal(
    monkeypatch: pytest.MonkeyPatch, log_format: LogFormat, case: str, seen: bool
) -> None:
    """L59: whatever a name, a branch or a container says, in whatever kind of value, is shown and does nothing."""
    stream = Terminal() if seen else io.StringIO()
    monkeypatch.setattr(sys, "stderr", stream)
    log.set_up(log_format)
    text = HOSTILE[case]
    log.logger().info(
        text,
        plain=text,
        blank=f"{text} and more\n{text}",
        inside=[text, {text: text}],
        path=Path(f"/{text}".replace("\x00", "")),
    )
    if log_format is LogFormat.JSON:
        assert json.loads(stream.getvalue())["plain"] == text
    own_colours = re.sub(r"\x1b\[(?:0|1|2|3[1-6])m", "", stream.getvalue()) if seen else stream.getvalue()
    assert "31mred" not in own_colours or "\\x1b[31mred" in own_colours or "\\u001b[31mred" in own_colours
    assert own_colours.removesuffix("\n").isprintable(), own_colours


def test_standard_output_belongs_to_the_answer(
    monkeypatch: pytest.MonkeyPatch, capsys: pytest.CaptureFixture[str]
) -> None:
    """Nothing goes there."""
    written(monkeypatch, LogFormat.TEXT)
    assert capsys.readouterr().out == ""
