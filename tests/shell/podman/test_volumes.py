"""`shell.adapters.podman.volumes`: which folders are made, and which are refused."""

import os
import stat
from pathlib import Path

import pytest

from core.containers import Volume
from shell.adapters.podman.volumes import make_volumes
from shell.failure import AdapterError

DATA = (Volume("data", "/data"),)


def modes(top: Path) -> dict[str, str]:
    """Every path below a folder, with its mode."""
    return {str(path.relative_to(top)): f"{stat.S_IMODE(path.lstat().st_mode):o}" for path in sorted(top.rglob("*"))}


@pytest.mark.parametrize("umask", [0o000, 0o022, 0o077])
def test_folders_have_their_modes_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    """Open to the container's user, whoever that is; closed to everybody else on the server."""
    before = os.umask(umask)
    try:
        make_volumes(tmp_path / "volumes", "s", (*DATA, Volume("logs", "/logs")))
    finally:
        os.umask(before)
    assert modes(tmp_path) == {"volumes": "700", "volumes/s": "700", "volumes/s/data": "777", "volumes/s/logs": "777"}


def test_what_is_there_stays_as_it_is(tmp_path: Path) -> None:
    """The container may have changed owner and mode, and they are its own business."""
    make_volumes(tmp_path, "s", DATA)
    (tmp_path / "s" / "data").chmod(0o2750)
    (tmp_path / "s" / "data" / "kept").touch()
    make_volumes(tmp_path, "s", DATA)
    assert modes(tmp_path)["s/data"] == "2750"
    assert (tmp_path / "s" / "data" / "kept").exists()


def test_an_interruption_before_the_rename_is_made_good(tmp_path: Path) -> None:
    """A folder never has its name before it has its mode."""
    (tmp_path / "s").mkdir()
    (tmp_path / "s" / ".new").mkdir(mode=0o700)
    make_volumes(tmp_path, "s", DATA)
    assert {path: mode for path, mode in modes(tmp_path).items() if path != "s"} == {"s/data": "777"}


def test_no_volume_no_folder(tmp_path: Path) -> None:
    make_volumes(tmp_path / "volumes", "s", ())
    assert modes(tmp_path) == {}


@pytest.mark.parametrize("link", ["volumes", "volumes/s", "volumes/s/data"])
@pytest.mark.parametrize("target", ["folder", "nowhere", "file"])
def test_a_link_is_refused(tmp_path: Path, link: str, target: str) -> None:
    """L35: wherever it leads."""
    (tmp_path / "folder").mkdir()
    (tmp_path / "file").touch()
    (tmp_path / link).parent.mkdir(parents=True, exist_ok=True)
    (tmp_path / link).symlink_to(tmp_path / target)
    with pytest.raises(AdapterError, match=r"could not make volume s/data: .*; the container is not made"):
        make_volumes(tmp_path / "volumes", "s", DATA)
    assert list((tmp_path / "folder").iterdir()) == []
    assert not (tmp_path / "nowhere").exists()


def test_a_file_in_the_way_is_refused(tmp_path: Path) -> None:
    (tmp_path / "s").touch()
    with pytest.raises(AdapterError, match=r"'s' below .*: is a symbolic link, or not a folder"):
        make_volumes(tmp_path, "s", DATA)


@pytest.mark.parametrize("service", ["", ".", "..", "a/b", "/", "a\x00"])
def test_a_service_is_one_folder(tmp_path: Path, service: str) -> None:
    """L35: nothing is made outside the volumes folder, whatever a service is called."""
    with pytest.raises(AdapterError, match="is not the name of one folder"):
        make_volumes(tmp_path / "volumes", service, DATA)
    assert modes(tmp_path) == {}


def test_a_name_too_long_for_a_folder(tmp_path: Path) -> None:
    """L8: said, not cut."""
    make_volumes(tmp_path, "s" * 255, DATA)
    with pytest.raises(AdapterError, match="File name too long"):
        make_volumes(tmp_path, "s" * 256, DATA)
