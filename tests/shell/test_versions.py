"""State files of a newer agent: refused with a way out, and left as they are. L24."""

import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from shell.ever_up import EverUp
from shell.failure import CommandError
from shell.image_ledger import ImageLedger
from shell.ledger import Ledger
from shell.logs.positions import Positions

FILES: dict[str, tuple[dict[str, Any], Callable[[Path], object]]] = {
    "work-done.json": ({"version": 99, "done": []}, Ledger),
    "images.json": ({"version": 99, "pulled": {}}, lambda folder: ImageLedger(folder, lambda: 0.0)),
    "ever-up.json": ({"version": 99, "containers": []}, EverUp),
    "positions.json": ({"version": 99, "positions": {}}, lambda folder: Positions(folder / "positions.json")),
}


@pytest.mark.parametrize("name", FILES)
def test_a_newer_file_is_refused(tmp_path: Path, name: str) -> None:
    """The person reads which file it is and what to do; a rollback loses nothing by accident."""
    content, load = FILES[name]
    (tmp_path / name).write_text(json.dumps(content))
    with pytest.raises(CommandError, match=rf"{name} is of version 99, written by a newer agent; .*move the file away"):
        load(tmp_path)
    assert json.loads((tmp_path / name).read_text()) == content
