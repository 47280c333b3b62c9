"""Tokens, registration and what it tells the others."""

import pytest

from shell.local_plane.servers import TOKEN_LIFE_MS
from shell.local_plane.serving import new_token
from tests.shell.local_plane.callers import Caller, Cluster


def test_a_token_is_good_for_one_registration_within_a_day(cluster: Cluster) -> None:
    """Unknown, spent and old tokens are refused alike."""
    token = new_token(cluster.folder, "a")
    old = new_token(cluster.folder, "b")
    assert Caller(cluster, "a").register("unknown").status_code == 401
    assert Caller(cluster, "a").register(token).status_code == 200
    assert Caller(cluster, "a").register(token).status_code == 401
    cluster.now_ms += TOKEN_LIFE_MS + 100
    answer = Caller(cluster, "b").register(old)
    assert (answer.status_code, answer.json()) == (401, {"error": "Invalid, expired, or already used token"})


def test_a_server_of_the_file_registers(cluster: Cluster) -> None:
    """`servers.yaml` names servers, tokens and subnets."""
    (cluster.folder / "servers.yaml").write_text(
        "servers: [{name: a, token: secret, subnet: 7}, {name: b, token: other}]\n"
    )
    answer = Caller(cluster, "a").register("secret")
    assert answer.json()["wireguardIp"] == "10.100.7.1"
    assert Caller(cluster, "b").register("other").json()["subnetId"] == 1
    assert [row["name"] for row in cluster.rows("servers")] == ["a", "b"]


def test_a_new_token_lets_a_server_register_again(cluster: Cluster) -> None:
    """A reinstalled server keeps its id and its subnet; its old key is worth nothing afterwards."""
    first = cluster.server("a")
    second = cluster.server("a")
    assert second.id == first.id
    assert second.get("expected-state")["containers"] == []
    answer = cluster.asking.request("GET", "/api/v1/agent/expected-state", first.headers())
    assert answer.status_code == 401


def test_a_subnet_of_choice_that_is_taken_is_refused(cluster: Cluster) -> None:
    """The token stays unused."""
    assert Caller(cluster, "a").register(new_token(cluster.folder, "a", 3)).status_code == 200
    token = new_token(cluster.folder, "b", 3)
    assert Caller(cluster, "b").register(token).status_code == 409
    assert Caller(cluster, "c").register(new_token(cluster.folder, "c")).json()["subnetId"] == 1


def test_registration_tells_the_servers_before(cluster: Cluster) -> None:
    """One `update_wireguard` item for each server that is online."""
    a = cluster.server("a", publicIp="203.0.113.1")
    cluster.server("b", publicIp="2001:db8::5")
    (item,) = a.get("work-queue")["items"]
    assert item["type"] == "update_wireguard"
    assert "2001:db8::5:51820" in item["payload"]
    assert a.post("work-queue", {"id": item["id"], "status": "completed"}).json() == {"ok": True}
    assert a.get("work-queue") == {"items": []}


@pytest.mark.parametrize("name", ["", "a/b", ".hidden", "line\nbreak", "x" * 65])
def test_odd_names_get_no_token(cluster: Cluster, name: str) -> None:
    """L35: a name becomes a file's name."""
    from shell.failure import CommandError

    with pytest.raises(CommandError):
        new_token(cluster.folder, name)


def test_a_token_file_is_private(cluster: Cluster) -> None:
    """L37: only the owner can read a token."""
    new_token(cluster.folder, "a")
    (path,) = (cluster.folder / "tokens").iterdir()
    assert path.stat().st_mode & 0o077 == 0
