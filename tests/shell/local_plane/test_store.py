"""What is kept on disk."""

from pathlib import Path
from typing import Any

import pytest

from shell.failure import AdapterError, CommandError
from shell.local_plane import store
from shell.local_plane.store import ReportLog, load_world, save_world
from shell.local_plane.world import World
from tests.shell.local_plane.callers import BASE, Cluster

RICH: dict[str, dict[str, Any]] = {
    "web": {
        "image": "nginx",
        "replicas": 2,
        "env": {"A": "ä", "B": 1},
        "ports": [{"container": 80, "domain": "app.test"}],
        "health_check": {"cmd": "true", "retries": 1},
        "hostname": "front",
        "revision": 1.5,
    },
    "db": {"image": "db", "servers": ["a"], "volumes": [{"name": "d", "path": "/d"}]},
    "site": {"repository": {"url": "https://git.test/x", "token": "T"}},
}


def test_a_rich_world_is_read_back_as_it_was(cluster: Cluster) -> None:
    """L24: what is answered has been written, whole; no env is there in plain text."""
    a, b = cluster.server("a", isProxy=True), cluster.server("b")
    cluster.want(RICH, registry="r")
    a.report("starting")
    b.report("healthy")
    cluster.click("builds", {"service": "site"})
    cluster.want({**RICH, "web": {**RICH["web"], "servers": ["b"], "env": {"A": "hidden-value"}}}, registry="r")
    world = cluster.plane.world()
    assert load_world(cluster.folder) == world
    path = cluster.folder / store.STATE
    assert path.stat().st_mode & 0o077 == 0
    assert "hidden-value" not in path.read_text()


@pytest.mark.parametrize("text", ["", "{", "[]", '{"servers": {}}', '{"encryption_key": 3}'])
def test_a_state_that_makes_no_sense_is_named_and_left_alone(tmp_path: Path, text: str) -> None:
    """Starting anew would strand every registered server, so a person decides."""
    path = tmp_path / store.STATE
    path.write_text(text)
    with pytest.raises(CommandError, match=str(path)):
        load_world(tmp_path)
    assert path.read_text() == text


def test_a_change_that_cannot_be_kept_is_refused(cluster: Cluster) -> None:
    """Nothing is answered that a crash would take back."""
    a = cluster.server("a")
    path = cluster.folder / store.STATE
    path.unlink()
    path.mkdir()
    answer = a.post("status", {"containers": []})
    assert answer.status_code == 500
    assert str(path) in answer.json()["error"]
    with pytest.raises(AdapterError):
        save_world(cluster.folder, World("00" * 32))


def test_strangers_push_out_no_report(cluster: Cluster) -> None:
    """L46: as many registrations as anybody likes, each as long as it may be."""
    a = cluster.server("a")
    a.report()
    for number in range(100):
        body = {"token": str(number), "wireguardPublicKey": "x" * 15_000, "signingPublicKey": "x"}
        assert cluster.asking.post(f"{BASE}/register", body).status_code == 401
    reports = cluster.asking.get("/lab/reports?limit=10000").json()["reports"]
    assert [one["server"] for one in reports if one["kind"] == "status"] == ["a"]
    refused = [one["status"] for one in reports if one["kind"] == "register"]
    assert 10 < len(refused) < 50 and set(refused) == {401}
    assert sum(path.stat().st_size for path in cluster.folder.glob("registrations*")) <= 512 * 1024


def test_reports_are_bounded(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L46: two files at most, the older ones go; a torn line is skipped."""
    monkeypatch.setattr(store, "_REPORTS_BYTES", 2000)
    log = ReportLog(tmp_path)
    for number in range(100):
        log.add(number, "status", "a", {"number": number}, 200)
    size = sum(path.stat().st_size for path in tmp_path.iterdir())
    assert size <= 4000
    with (tmp_path / store.REPORTS).open("a") as file:
        file.write('{"kind": "sta')
    numbers = [record["body"]["number"] for record in log.newest(1000)]
    assert numbers == list(range(numbers[0], 100))
    assert len(numbers) > 10
