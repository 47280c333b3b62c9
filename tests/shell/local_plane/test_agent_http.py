"""What the captures do not show of the protocol over HTTP."""

from typing import Any

import pytest

from tests.shell.local_plane.callers import BASE, Cluster

PATHS = {
    "register": "POST",
    "expected-state": "GET",
    "status": "POST",
    "pending-builds": "GET",
    "builds/b/claim": "POST",
}


@pytest.mark.parametrize("path", PATHS)
def test_a_wrong_method_and_a_last_slash(cluster: Cluster, path: str) -> None:
    """405 without a body; 308 to the same place, query included."""
    wrong = cluster.asking.request("DELETE", f"{BASE}/{path}")
    assert (wrong.status_code, wrong.text) == (405, "")
    slash = cluster.asking.request(PATHS[path], f"{BASE}/{path}/?a=b")
    assert (slash.status_code, slash.headers["location"]) == (308, f"{BASE}/{path}?a=b")


def test_a_redirect_never_leads_to_another_host(cluster: Cluster) -> None:
    """`//evil.test/` would be one."""
    answer = cluster.asking.request("GET", "http://127.0.0.1:8000//evil.test/")
    assert answer.headers["location"] == "/evil.test"


def test_a_body_without_end_is_refused(cluster: Cluster) -> None:
    """8 MiB are more than any report has."""
    a = cluster.server("a")
    raw = b"x" * (8 * 1024 * 1024 + 1)
    answer = cluster.asking.request("POST", f"{BASE}/status", a.headers(raw), raw)
    assert answer.status_code == 413


@pytest.mark.parametrize(
    ("body", "path"),
    [
        ({}, "containers"),
        ({"containers": {}}, "containers"),
        ({"containers": [{"deploymentId": 3}]}, "containers.0.deploymentId"),
        ({"containers": [], "resources": {"diskGb": 1.5}}, "resources.diskGb"),
    ],
)
def test_a_report_that_makes_no_sense_is_refused_with_its_path(
    cluster: Cluster, body: dict[str, Any], path: str
) -> None:
    """Nothing of it is stored."""
    a = cluster.server("a")
    answer = a.post("status", body)
    assert answer.status_code == 400
    assert answer.json()["error"].startswith(f"{path}: ")


def test_a_registration_is_short(cluster: Cluster) -> None:
    """Anybody can send one."""
    answer = cluster.asking.request("POST", f"{BASE}/register", {}, b'{"token": "%b"}' % (b"x" * 20_000))
    assert answer.status_code == 413


ODD = [
    *(b'{"a":' * deep + b"1" + b"}" * deep for deep in (40, 500, 900, 2_000)),
    *(b'{"a":' + b"[" * deep + b"]" * deep + b"}" for deep in (40, 500, 2_000)),
    b'{"a": NaN}',
    b'{"a": -Infinity}',
    b'{"a": 1e999}',
    b'{"a": 1%b}' % (b"0" * 5_000),
    b'{"a": "\\ud800"',
]


@pytest.mark.parametrize("raw", ODD, ids=lambda raw: f"{raw[:12].decode()} {len(raw)}")
def test_an_odd_body_of_anybody(cluster: Cluster, raw: bytes) -> None:
    """Refused in the protocol's words; and the list of reports can still be written."""
    answer = cluster.asking.request("POST", f"{BASE}/register", {}, raw)
    assert (answer.status_code, answer.json()) == (400, {"error": "Invalid JSON body"})
    assert cluster.asking.request("POST", "/lab/work", {}, raw).status_code == 400
    assert cluster.asking.get("/lab/reports").status_code == 200


@pytest.mark.parametrize("raw", [b"[]", b"3", b"{", b"\xff", b"[" * 100_000])
def test_a_body_that_is_no_json_object(cluster: Cluster, raw: bytes) -> None:
    """One answer for all of them."""
    a = cluster.server("a")
    answer = cluster.asking.request("POST", f"{BASE}/status", a.headers(raw), raw)
    assert (answer.status_code, answer.json()) == (400, {"error": "Invalid JSON body"})
