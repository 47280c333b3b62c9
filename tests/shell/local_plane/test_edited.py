"""Files that people edit: noticed when they change, never able to take the control plane down."""

from typing import Any

import pytest

from tests.shell.local_plane.callers import Cluster

WEB: dict[str, Any] = {"image": "nginx:1"}

FAULTS = {
    "services:\n  web: {image: x, replicas: many}\n": "services.web.replicas: input should be a valid integer",
    "services:\n  web: {image: x, replica: 2}\n": "services.web.replica: extra inputs are not permitted",
    "services:\n  web: {replicas: 2}\n": "services.web: needs an image",
    "services:\n  web: {image: x}\n  web: {image: y}\n": "the key 'web' is there twice (line 3)",
    "services: {web: {image: x, env: {A: yes}}}\n": "services.web.env.A: must be text; put it in quotes",
    "services: {web: {image: x, volumes: [{name: d, path: data}]}}\n": "services.web.volumes.0.path: string should match",
    "services: {web: {image: x, replicas: 2, volumes: [{name: d, path: /d}]}}\n": "services.web: has volumes",
    "services: {web: {image: x, servers: []}}\n": "services.web.servers: list should have at least 1 item",
    "services:\n  - web\n": "services: input should be a valid dictionary",
    "services:\n  web: [\n": "(line 3)",
    "": "is empty",
    "[]": "input should be a valid dictionary",
    "services: {a: {image: x, ports: [{container: 1, domain: d}]}, b: {image: x, ports: [{container: 1, domain: D}]}}": (
        "domain d is claimed by both a and b"
    ),
}


@pytest.mark.parametrize("text", FAULTS)
def test_a_bad_edit_is_named_and_changes_nothing(cluster: Cluster, text: str) -> None:
    """File and path of the fault; the last good content stays in force, over a restart too."""
    a = cluster.server("a")
    cluster.want({"web": WEB})
    before = a.expected()
    assert before
    cluster.want(text)
    assert a.expected() == before
    (problem,) = cluster.problems()
    assert f"{cluster.folder}/services.yaml: " in problem
    assert FAULTS[text] in problem
    assert problem.endswith("the last good content stays in force")
    cluster.restart()
    assert a.expected() == before
    cluster.want({"web": WEB})
    assert cluster.problems() == []


def test_a_file_that_has_gone_changes_nothing(cluster: Cluster) -> None:
    """A missing file is more likely a slip than a wish to stop everything."""
    a = cluster.server("a")
    cluster.want({"web": WEB})
    before = a.expected()
    (cluster.folder / "services.yaml").unlink()
    assert a.expected() == before
    assert cluster.problems()


def test_two_files_of_services_are_one_too_many(cluster: Cluster) -> None:
    """Neither wins without a word."""
    a = cluster.server("a")
    cluster.want({"web": WEB})
    before = a.expected()
    cluster.want('{"services": {}}', "services.json")
    assert a.expected() == before
    assert "services.json" in cluster.problems()[0]
    (cluster.folder / "services.yaml").unlink()
    assert a.expected() == []


def test_json_is_as_good_as_yaml(cluster: Cluster) -> None:
    """And as strict."""
    a = cluster.server("a")
    cluster.want('{"services": {"web": {"image": "x"}}}', "services.json")
    assert len(a.expected()) == 1
    cluster.want('{"services": {"web": {"image": "x"}, "web": {"image": "y"}}}', "services.json")
    assert "'web' is there twice" in cluster.problems()[0]


@pytest.mark.parametrize("content", [b"\xff\xfe", b"x" * (1024 * 1024 + 1)])
def test_what_is_no_text_is_a_fault(cluster: Cluster, content: bytes) -> None:
    """The wrong file in the right place."""
    (cluster.folder / "services.yaml").write_bytes(content)
    assert len(cluster.problems()) == 1


def test_a_bad_file_of_servers_keeps_the_servers(cluster: Cluster) -> None:
    """One bad file does not spoil the others."""
    path = cluster.folder / "servers.yaml"
    path.write_text("servers: [{name: a, token: t}]\n")
    assert [row["name"] for row in cluster.rows("servers")] == ["a"]
    path.write_text("servers: [{name: a, token: t}, {name: a, token: u}]\n")
    assert "two servers have the same name" in cluster.problems()[0]
    cluster.server("b")
    assert [row["name"] for row in cluster.rows("servers")] == ["a", "b"]


def test_edits_in_the_same_instant_are_noticed(cluster: Cluster) -> None:
    """Same size, same tick of the file system's clock: read again while the file is young."""
    a = cluster.server("a")
    for number in range(20):
        cluster.want({"web": {"image": f"nginx:{number % 10}"}})
        assert a.expected()[0]["image"] == f"docker.io/library/nginx:{number % 10}"
