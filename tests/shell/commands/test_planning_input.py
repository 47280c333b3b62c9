"""`agent plan`: where its documents come from, and what it says of one that it cannot use."""

import json
from typing import Any

import pytest

from shell.commands import planning
from tests.builders import (
    Document,
    a_container_entry,
    a_health_check_entry,
    a_peer_entry,
    a_record_entry,
    a_route_entry,
    an_actual_entry,
    an_expected_document,
    nothing_expected,
    nothing_there,
)
from tests.shell.command_line import agent
from tests.shell.commands.planning import Planning


@pytest.mark.parametrize("piped", ["--expected", "--actual"])
def test_one_document_from_standard_input(plan: Planning, piped: str) -> None:
    """`-` for either of the two."""
    documents = {"--expected": an_expected_document(), "--actual": nothing_there()}
    stdin = json.dumps(documents[piped]).encode()
    (filed,) = documents.keys() - {piped}
    done = agent("plan", piped, "-", filed, plan.file("other.json", documents[filed]), "--output", "json", stdin=stdin)
    assert json.loads(done.out) == plan.json(documents["--expected"], documents["--actual"])


def test_not_both_from_standard_input() -> None:
    """Refused before anything is read."""
    assert "only one" in agent("plan", "--expected", "-", "--actual", "-").why


def test_a_fault_in_standard_input_is_named_as_such(plan: Planning) -> None:
    """With the path of the fault."""
    actual = plan.file("actual.json", nothing_there())
    why = agent("plan", "--expected", "-", "--actual", actual, stdin=b"{}").why
    assert why == "expected state in standard input: containers: is missing"


def spoilt(**changes: Any) -> Document:
    """An expected state whose one container is spoilt."""
    return an_expected_document([a_container_entry(**changes)])


WITHOUT_NAME = {key: value for key, value in a_container_entry().items() if key != "name"}


@pytest.mark.parametrize(
    ("document", "path"),
    [
        ({}, "containers"),
        ([], "document"),
        (None, "document"),
        ("text", "document"),
        ({"containers": {}}, "containers"),
        ({"containers": []}, "dns"),
        ({**nothing_expected(), "caddy": None}, "caddy"),
        ({**nothing_expected(), "dns": {}}, "dns.records"),
        (spoilt(deploymentId=None), "containers[0].deploymentId"),
        ({**nothing_expected(), "containers": [a_container_entry(image=7), 5]}, "containers[1]"),
        (an_expected_document(records=[{"ips": []}]), "dns.records[0].name"),
        (an_expected_document(routes=[a_route_entry(id=1)]), "caddy.routes[0].id"),
        ({**nothing_expected(), "wireguard": {"peers": [a_peer_entry(), None]}}, "wireguard.peers[1]"),
    ],
    ids=str,
)
def test_the_first_fault_is_named_by_its_path(plan: Planning, document: Any, path: str) -> None:
    """A document of the wrong shape is one line on standard error: which document, where, what."""
    why = plan(json.dumps(document).encode(), nothing_there(), "--output", "json").why
    where, _, what = why.removeprefix(f"expected state in {plan.folder / 'expected.json'}: ").partition(": ")
    assert where.startswith(path)
    assert what


@pytest.mark.parametrize(
    ("document", "path"),
    [
        (spoilt(image=7), "containers[0].image"),
        (spoilt(ports=[{"containerPort": "80", "hostPort": 1}]), "containers[0].ports[0].containerPort"),
        (spoilt(env={"A": None}), "containers[0].env"),
        (spoilt(volumes=[{"name": "data", "containerPath": "/data"}]), "containers[0].volumes[0].hostPath"),
        (spoilt(healthCheck=a_health_check_entry(interval=None)), "containers[0].healthCheck.interval"),
        (an_expected_document([WITHOUT_NAME]), "containers[0].name"),
        (an_expected_document(records=[a_record_entry(ips="10.200.1.2")]), "dns.records[0].ips"),
        (an_expected_document(routes=[a_route_entry(upstreams=[None])]), "caddy.routes[0].upstreams[0]"),
        (an_expected_document(peers=[a_peer_entry(allowedIps=[])]), "wireguard.peers[0].allowedIps"),
    ],
    ids=str,
)
def test_a_bad_field_is_its_entrys_affair(plan: Planning, document: Document, path: str) -> None:
    """L7: the entry is rejected with the path of the fault and held; the rest is planned."""
    found = plan.json(document, nothing_there())
    (rejected,) = found["rejected"]
    assert rejected["path"].startswith(path)
    assert rejected["key"] and rejected["reason"]
    assert found["next"] is not None, "the rest goes on"


@pytest.mark.parametrize(
    ("spoil", "path"),
    [
        ({"containers": None}, "containers"),
        ({"containers": [an_actual_entry(labels=None)]}, "containers[0].labels"),
        ({"containers": [an_actual_entry(created="now")]}, "containers[0].created"),
        ({"dns": []}, "dns"),
        ({"wireguard": {"peers": [{}]}}, "wireguard.peers[0].publicKey"),
    ],
    ids=str,
)
def test_a_fault_in_the_actual_state(plan: Planning, spoil: Document, path: str) -> None:
    """Likewise, and told apart from the other document."""
    why = plan(an_expected_document(), nothing_there() | spoil).why
    assert why.startswith(f"actual state in {plan.folder / 'actual.json'}: {path}: ")


DEEP = b"[" * 200_000
JUNK = {
    "empty": b"",
    "blank": b" \n",
    "binary": bytes(range(256)),
    "not UTF-8": b'{"containers": "\xff\xfe"}',
    "cut short": json.dumps(nothing_expected()).encode()[:-1],
    "two documents": json.dumps(nothing_expected()).encode() * 2,
    "deep": DEEP,
    "deep inside": b'{"containers": [], "more": ' + DEEP + b"]" * 200_000 + b"}",
    "a lone surrogate": json.dumps(spoilt(name="\ud800")).encode(),
    "a huge number": b'{"containers": [], "dns": 1' + b"0" * 5000 + b"}",
    "NaN": b'{"containers": NaN}',
}


@pytest.mark.parametrize("kind", JUNK)
@pytest.mark.parametrize("side", ["expected", "actual"])
def test_what_is_no_document_at_all(plan: Planning, kind: str, side: str) -> None:
    """One line that names the file, whatever is in it."""
    expected, actual = (JUNK[kind], nothing_there()) if side == "expected" else (nothing_expected(), JUNK[kind])
    assert plan(expected, actual).why.startswith(f"{side} state in {plan.folder / f'{side}.json'}: ")


def test_files_that_cannot_be_read(plan: Planning) -> None:
    """Missing, or a folder: which document, which file, why."""
    there = plan.file("actual.json", nothing_there())
    missing, folder = plan.folder / "no\nsuch", plan.folder
    assert agent("plan", "--expected", missing, "--actual", there).why == (
        f"expected state: cannot read {plan.folder}/no such: No such file or directory"
    )
    assert agent("plan", "--expected", there, "--actual", folder).why == (
        f"actual state: cannot read {folder}: Is a directory"
    )


def test_a_file_without_end(plan: Planning, monkeypatch: pytest.MonkeyPatch) -> None:
    """Read up to a bound, then refused."""
    monkeypatch.setattr(planning, "MAX_DOCUMENT_BYTES", 1024**2)
    why = agent("plan", "--expected", "/dev/zero", "--actual", plan.file("actual.json", nothing_there())).why
    assert why == "expected state: /dev/zero is larger than 1 MiB"
