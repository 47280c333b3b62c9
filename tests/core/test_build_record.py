"""`core.build_record`: what is kept of a build, and what its answers mean."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.pipeline import is_successful

from core import build_record
from core.build_record import Record

DIGEST = "sha256:" + "ab" * 32


@pytest.mark.parametrize("record", [Record("b"), Record("né/..", "failed", "line\nline"), Record("b", "completed")])
def test_a_record_comes_back(record: Record) -> None:
    """As it was written."""
    assert build_record.parse(build_record.render(record)).unwrap() == record


@given(st.binary())
def test_any_file(raw: bytes) -> None:
    """A record, a digest, or a reason."""
    build_record.parse(raw)
    build_record.pushed_digest(raw)


@pytest.mark.parametrize("raw", [DIGEST, DIGEST + "\n", json.dumps({"containerimage.digest": DIGEST, "x": {}})])
def test_a_digest(raw: str) -> None:
    """From a digest file, and from BuildKit's metadata."""
    assert build_record.pushed_digest(raw.encode()).unwrap() == DIGEST


@pytest.mark.parametrize("raw", ["", "{}", "{", "sha256:abc", f"{DIGEST} {DIGEST}", '{"containerimage.digest": 5}'])
def test_no_digest(raw: str) -> None:
    """L43: nothing is completed without one."""
    assert not is_successful(build_record.pushed_digest(raw.encode()))


@pytest.mark.parametrize(
    ("line", "announces"),
    [
        ("#12 pushing layers", True),
        ("#12 exporting manifest sha256:ab 0.0s done", True),
        ("#9 RUN echo pushing", False),
        ("#9 0.123 #12 pushing layers", False),
        ("pushing layers", False),
    ],
)
def test_when_pushing_begins(line: str, announces: bool) -> None:
    """As BuildKit's plain progress says it; not what a build's own command prints."""
    assert build_record.announces_push(line) is announces
