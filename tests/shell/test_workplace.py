"""`shell.building.workplace`: one build's folder, and what may lie in a repository."""

import os
import stat
import threading
from pathlib import Path

import anyio
import pytest

from core.build_plan import Found
from core.build_record import Record
from shell import files
from shell.building.workplace import Workplace, left_over


@pytest.fixture
def place(tmp_path: Path) -> Workplace:
    """A build with an odd id, and an empty checkout."""
    made = Workplace(tmp_path / "builds", "../../etc")
    made.prepare("[protocol]\n")
    made.checkout.mkdir()
    return made


def test_its_folder_is_derived_and_private(place: Workplace, tmp_path: Path) -> None:
    """L35: an id is any text, and never a path. L37: nobody else looks in."""
    assert place.folder.parent == tmp_path / "builds"
    assert stat.S_IMODE(place.folder.stat().st_mode) == 0o700
    place.write_secrets((("0", "A"),), {"A": "v\udcff"})
    for name in ("gitconfig", "secrets/0"):
        assert stat.S_IMODE((place.folder / name).stat().st_mode) == 0o600


def test_what_is_found(place: Workplace) -> None:
    """A Dockerfile is a file of the repository."""
    assert place.look() == Found(dockerfile=False)
    (place.checkout / "Dockerfile").write_text("")
    assert place.look() == Found(dockerfile=True)
    (place.checkout / "Dockerfile").rename(place.checkout / "other")
    (place.checkout / "Dockerfile").symlink_to("other")
    assert place.look() == Found(dockerfile=True)
    (place.checkout / "Dockerfile").unlink()
    (place.checkout / "Dockerfile").mkdir()
    assert not place.look().dockerfile


@pytest.mark.parametrize("target", ["/etc/passwd", "../gitconfig", "../../../../etc", "a/../../gitconfig"])
def test_a_link_that_leads_out(place: Workplace, target: str) -> None:
    """Named, wherever it is."""
    (place.checkout / "a").mkdir()
    (place.checkout / "deep").mkdir()
    (place.checkout / "deep" / "link").symlink_to(f"../{target}" if not target.startswith("/") else target)
    assert place.look().links_out == "deep/link"


def test_links_that_lead_nowhere_or_in_circles(place: Workplace) -> None:
    """They read nothing."""
    (place.checkout / "circle").symlink_to("circle")
    (place.checkout / "Dockerfile").symlink_to("Dockerfile")
    (place.checkout / "dangling").symlink_to("missing")
    assert place.look() == Found(dockerfile=False)


def test_clearing_keeps_the_record(place: Workplace) -> None:
    """It is needed until the end of the build has been heard."""
    place.remember(Record("b", "failed", "why"))
    (place.checkout / "deep" / "er").mkdir(parents=True)
    place.clear()
    assert [one.name for one in place.folder.iterdir()] == ["build.json"]
    assert [record for _, record in left_over(place.folder.parent)] == [Record("b", "failed", "why")]
    place.remove()
    place.remove()
    assert list(left_over(place.folder.parent)) == []


def test_what_is_kept_of_a_build_is_written_whole_and_in_a_thread(
    place: Workplace, monkeypatch: pytest.MonkeyPatch
) -> None:
    """L60: the session of a command too, which needs no `fsync`: it means nothing after a boot."""
    written: list[tuple[str, bool, bool]] = []
    write_atomic = files.write_atomic

    def noted(path: Path, content: bytes, *, is_synced: bool = True) -> None:
        written.append((path.name, is_synced, threading.current_thread() is threading.main_thread()))
        write_atomic(path, content, is_synced=is_synced)

    monkeypatch.setattr(files, "write_atomic", noted)
    anyio.run(place.note_child, os.getpid())
    place.remember(Record("b"))
    assert written == [("session", False, False), ("build.json", True, True)]
    assert (place.folder / "session").read_text().split()[1] == str(os.getpid())
