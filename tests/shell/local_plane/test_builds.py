"""Builds from the first click to the deployment."""

from typing import Any

import pytest

from shell.local_plane.builds import clone_url
from tests.shell.local_plane.callers import Cluster

SITE: dict[str, Any] = {"repository": {"url": "https://git.example/acme/site"}, "env": {"TOKEN": "s"}}


def test_a_build_deploys_its_image(cluster: Cluster) -> None:
    """A service without an image waits for its first build; the built one holds until the entry names another."""
    a = cluster.server("a")
    cluster.want({"site": SITE}, registry="registry.test:5000", project="p")
    assert a.expected() == []
    build = cluster.click("builds", {"service": "site"})["id"]
    assert a.get("pending-builds")["build"]["id"] == build
    claimed = a.claim(build).json()
    for status in ("cloning", "building", "pushing", "completed"):
        assert a.post(f"builds/{build}/status", {"status": status}).json() == {"ok": True}
    (container,) = a.expected()
    assert container["image"] == claimed["imageUri"]
    assert claimed["imageUri"].startswith("registry.test:5000/p/")
    cluster.want({"site": {**SITE, "image": "nginx"}}, registry="registry.test:5000", project="p")
    assert a.expected()[0]["image"] == "docker.io/library/nginx"


def test_without_a_registry_the_claim_fails_and_stays(cluster: Cluster) -> None:
    """L44: the error comes after the claim was stored; reporting `failed` ends it."""
    a = cluster.server("a")
    cluster.want({"site": SITE})
    build = cluster.click("builds", {"service": "site"})["id"]
    assert a.claim(build).status_code == 500
    assert a.get(f"builds/{build}/status") == {"status": "claimed"}
    assert a.post(f"builds/{build}/status", {"status": "failed", "error": "no"}).status_code == 200
    assert a.get("pending-builds") == {"build": None}


def test_a_cancelled_build_says_so(cluster: Cluster) -> None:
    """To every later status; a build that has ended is not cancelled."""
    a = cluster.server("a")
    cluster.want({"site": SITE}, registry="r")
    build = cluster.click("builds", {"service": "site"})["id"]
    assert a.claim(build).status_code == 200
    cluster.click(f"builds/{build}/cancel")
    answer = a.post(f"builds/{build}/status", {"status": "building"})
    assert answer.json() == {"ok": True, "cancelled": True}
    assert cluster.asking.post(f"/lab/builds/{build}/cancel").status_code == 409
    assert cluster.asking.post("/lab/builds/nope/cancel").status_code == 404
    assert cluster.asking.post("/lab/builds", {"service": "nope"}).status_code == 404


@pytest.mark.parametrize("body", [{}, {"status": 1}, {"status": ""}, {"status": "failed", "error": "a\0b"}])
def test_a_status_that_makes_no_sense_is_refused(cluster: Cluster, body: dict[str, Any]) -> None:
    """With the reason."""
    a = cluster.server("a")
    cluster.want({"site": SITE}, registry="r")
    build = cluster.click("builds", {"service": "site"})["id"]
    a.claim(build)
    answer = a.post(f"builds/{build}/status", body)
    assert answer.status_code == 400
    assert "status" in answer.json()["error"]


@pytest.mark.parametrize(
    ("url", "token", "expected"),
    [
        ("https://github.com/acme/api", None, "https://github.com/acme/api.git"),
        ("https://github.com/acme/api.git", None, "https://github.com/acme/api.git"),
        ("https://github.com/acme/api/", "T", "https://x-access-token:T@github.com/acme/api.git"),
        ("file:///srv/git/demo", None, "file:///srv/git/demo"),
    ],
)
def test_where_to_clone_from(url: str, token: str | None, expected: str) -> None:
    """A web address ends in `.git` and carries the token."""
    assert clone_url(url, token) == expected
