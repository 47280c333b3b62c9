"""`shell.building.workplace`: one build's folder, and what may lie in a repository."""

import os
import stat
from collections.abc import Iterator
from contextlib import closing
from pathlib import Path

import pytest

from core.build_plan import WHOLE, Found, Layout
from core.build_record import Record
from core.build_sandbox import USER
from core.build_source import CHECKOUT
from shell.building import usage
from shell.building.workplace import Workplace, left_over
from tests.lab.wait import PATIENCE_S, wait_for


@pytest.fixture
def place(tmp_path: Path) -> Iterator[Workplace]:
    """A build with an odd id, and an empty checkout; removed, since pytest could not remove all that a test makes."""
    made = Workplace(tmp_path / "builds", "../../etc")
    made.prepare("[protocol]\n")
    (made.guest / CHECKOUT).mkdir()
    yield made
    made.remove()


def test_its_folder_is_derived_and_private(place: Workplace, tmp_path: Path) -> None:
    """L35: an id is any text, and never a path. L37: nobody else looks in."""
    assert place.folder.parent == tmp_path / "builds"
    assert stat.S_IMODE(place.folder.stat().st_mode) == 0o700
    place.write_secrets((("0", "A"),), {"A": "v\udcff"})
    for name in ("git/gitconfig", "secrets/0"):
        assert stat.S_IMODE((place.folder / name).stat().st_mode) == 0o600


def test_what_is_found(place: Workplace) -> None:
    """A Dockerfile is a file of the repository."""
    assert place.look(WHOLE) == Found(dockerfile=False)
    ((place.guest / CHECKOUT) / "Dockerfile").write_text("")
    assert place.look(WHOLE) == Found(dockerfile=True)
    ((place.guest / CHECKOUT) / "Dockerfile").rename((place.guest / CHECKOUT) / "other")
    ((place.guest / CHECKOUT) / "Dockerfile").symlink_to("other")
    assert place.look(WHOLE) == Found(dockerfile=True)
    ((place.guest / CHECKOUT) / "Dockerfile").unlink()
    ((place.guest / CHECKOUT) / "Dockerfile").mkdir()
    assert not place.look(WHOLE).dockerfile


@pytest.mark.parametrize("target", ["/etc/passwd", "../../git/gitconfig", "../../../../../../etc/passwd"])
def test_a_dockerfile_that_leads_out(place: Workplace, target: str) -> None:
    """It is none."""
    (place.guest / CHECKOUT / "Dockerfile").symlink_to(target)
    assert not place.look(WHOLE).dockerfile


def test_what_a_command_has_left_is_never_read_through_a_link(place: Workplace, tmp_path: Path) -> None:
    """L65: nor from a pipe or a folder, and not without end."""
    (tmp_path / "host").write_text("of the host")
    (place.guest / "link").symlink_to(tmp_path / "host")
    (place.guest / "folder").mkdir()
    os.mkfifo(place.guest / "pipe")
    (place.guest / "large").write_bytes(b"x" * 1_000_000)
    for name in ("link", "folder", "pipe", "missing"):
        with pytest.raises(OSError):
            place.read(name)
    assert len(place.read("large")) == 65_536


def test_what_the_sandbox_sees_is_its_own(place: Workplace) -> None:
    """Its root is nobody on this server; the rest of the folder is not its business."""
    place.write_secrets((("0", "A"),), {"A": "v"})
    owners = {path.name: path.stat().st_uid for path in (place.folder, place.guest, place.secrets / "0", place.root)}
    assert owners == {place.folder.name: 0, "guest": USER, "0": USER, "root": 0}


def test_links_that_lead_nowhere_or_in_circles(place: Workplace) -> None:
    """They read nothing."""
    ((place.guest / CHECKOUT) / "circle").symlink_to("circle")
    ((place.guest / CHECKOUT) / "Dockerfile").symlink_to("Dockerfile")
    ((place.guest / CHECKOUT) / "dangling").symlink_to("missing")
    assert place.look(WHOLE) == Found(dockerfile=False)


def test_clearing_keeps_the_record(place: Workplace) -> None:
    """It is needed until the end of the build has been heard."""
    place.remember(Record("b", "failed", "why"))
    ((place.guest / CHECKOUT) / "deep" / "er").mkdir(parents=True)
    place.clear()
    assert [one.name for one in place.folder.iterdir()] == ["build.json"]
    assert [record for _, record in left_over(place.folder.parent)] == [Record("b", "failed", "why")]
    place.remove()
    place.remove()
    assert list(left_over(place.folder.parent)) == []


def test_a_tree_without_end_is_removed(place: Workplace) -> None:
    """L68: a build may nest folders as deep as it likes; their path is then too long for any single call."""
    before = Path.cwd()
    try:
        os.chdir(place.guest)
        for _ in range(3_000):
            Path("d").mkdir()
            os.chdir("d")
    finally:
        os.chdir(before)
    with closing(usage.Disk([str(place.guest)], 1024**2)) as disk:
        why = wait_for(disk.fault, PATIENCE_S, "the tree to be counted")
    assert why == "it wrote more than 1 MiB (--build-disk-mib)"
    place.remove()
    assert not place.folder.exists()


def test_what_was_handed_over_is_taken_back(place: Workplace, tmp_path: Path) -> None:
    """L37: once the command that saw it has ended; a command that comes later gets its own."""
    place.write_secrets((("0", "A"),), {"A": "secret"})
    (tmp_path / "auth.json").write_text("{}")
    place.copy_login(tmp_path / "auth.json")
    place.take_back()
    assert [*place.secrets.iterdir(), *place.login.iterdir(), *place.git.iterdir()] == []


def test_a_folder_that_is_a_link_out(place: Workplace) -> None:
    """It would be the context of the build: what is beside the checkout has credentials."""
    (place.guest / CHECKOUT / "app").mkdir()
    (place.guest / CHECKOUT / "out").symlink_to(place.login)
    assert place.look(Layout(folder="app")).folder
    assert not place.look(Layout(folder="out")).folder
