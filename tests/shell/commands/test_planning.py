"""`agent plan`: the documents it reads, the answer it prints and the status it ends with."""

import json

import pytest

from shell import environment_file
from tests.builders import (
    CONTAINER,
    DEPLOYMENT,
    NAME,
    NGINX,
    Document,
    a_container_entry,
    a_key,
    a_record_entry,
    a_route_entry,
    an_actual_document,
    an_actual_entry,
    an_expected_document,
    labels,
    nothing_expected,
    nothing_there,
)
from tests.core.test_captures import BODIES
from tests.shell.command_line import Done, agent
from tests.shell.commands.planning import Planning

NODE_TYPES = ("worker", "proxy")


EVERYTHING_EXPECTED = an_expected_document(
    containers=[
        a_container_entry(),
        a_container_entry(deploymentId="b", name="b", image="nginx:1.28"),
        a_container_entry(deploymentId="c", name="c"),
        a_container_entry(deploymentId="bad", image="?"),
    ]
)
EVERYTHING_WRONG = an_actual_document(
    containers=[
        an_actual_entry(id="0" * 64, name="old", labels=labels("gone")),
        an_actual_entry(state="exited"),
        an_actual_entry(id="1" * 64, name="b", labels=labels("b")),
    ],
    records=[a_record_entry(name="old.internal")],
    routes=[a_route_entry(upstreams=["10.200.3.2:81"])],
    peers=[],
)
NEWER = "docker.io/library/nginx:1.28"
EVERY_KIND: list[Document] = [
    {"kind": "stop_orphan", "deploymentId": "gone", "containerId": "0" * 64, "name": "old"},
    {"kind": "start", "deploymentId": DEPLOYMENT, "containerId": CONTAINER, "name": NAME},
    {"kind": "deploy", "deploymentId": "c", "containerId": None, "name": "c", "image": NGINX},
    {"kind": "redeploy", "deploymentId": "b", "containerId": "1" * 64, "name": "b", "image": NEWER},
    {"kind": "update_dns", "added": ["web-api.internal"], "removed": ["old.internal"], "changed": []},
    {"kind": "update_caddy", "added": [], "removed": [], "changed": ["app.example.org"]},
    {"kind": "update_wireguard", "added": [a_key()], "removed": [], "changed": []},
]
REASONS = [
    "its deployment is not expected here",
    "state exited, expected running",
    "no container for this deployment",
    f"image {NGINX}, expected {NEWER}",
    "1 to add, 1 to remove, 0 to change",
    "0 to add, 0 to remove, 1 to change",
    "1 to add, 0 to remove, 0 to change",
]


def test_the_whole_answer(plan: Planning) -> None:
    """Every field of the format, for a proxy on which everything is to be done."""
    answer = plan.json(EVERYTHING_EXPECTED, EVERYTHING_WRONG, "--all", "--node-type", "proxy")
    hashes = answer.pop("hashes")
    whole = [{**fields, "reason": reason} for fields, reason in zip(EVERY_KIND, REASONS, strict=True)]
    assert answer == {
        "nodeType": "proxy",
        "converged": False,
        "next": whole[0],
        "plan": whole,
        "rejected": [{"path": "containers[3].image", "key": "bad", "reason": "'?' is not an image reference"}],
    }
    assert list(hashes) == ["dns", "caddy", "wireguard"]
    for both in hashes.values():
        assert both.keys() == {"expected", "actual"}
        assert both["expected"] != both["actual"]
        assert int(both["expected"], 16) and int(both["actual"], 16)


def test_the_next_change_only(plan: Planning) -> None:
    """Without --all there is no plan in the answer, and `next` is its first entry."""
    short = plan.json(an_expected_document(), nothing_there())
    long = plan.json(an_expected_document(), nothing_there(), "--all")
    assert list(short) == ["nodeType", "converged", "next", "rejected", "hashes"]
    assert list(long) == ["nodeType", "converged", "next", "plan", "rejected", "hashes"]
    assert short["next"] == long["next"] == long["plan"][0]
    assert len(long["plan"]) == 3


def test_a_converged_node(plan: Planning) -> None:
    """Nothing next, an empty plan, equal hashes."""
    answer = plan.json(an_expected_document(), an_actual_document(), "--all", "--node-type", "proxy")
    assert (answer["converged"], answer["next"], answer["plan"]) == (True, None, [])
    assert all(both["expected"] == both["actual"] for both in answer["hashes"].values())


def test_with_both_documents_a_node_is_a_worker_unless_told(plan: Planning) -> None:
    """A worker has no Caddy."""
    expected, actual = an_expected_document([], [], None, []), nothing_there()
    assert plan.json(expected, actual) == plan.json(expected, actual, "--node-type", "worker")
    assert plan.json(expected, actual)["nodeType"] == "worker"
    assert plan.json(expected, actual)["converged"]
    assert plan.json(expected, actual, "--node-type", "proxy")["next"]["kind"] == "update_caddy"


@pytest.mark.parametrize("left_out", ["dns", "caddy", "wireguard"])
def test_a_component_may_be_left_out_or_null(plan: Planning, left_out: str) -> None:
    """Left out it is empty; null it could not be read, and its update is planned with nothing added, removed or changed."""
    empty = nothing_there()
    absent = {key: value for key, value in empty.items() if key != left_out}
    assert plan.json(nothing_expected(), absent, "--node-type", "proxy")["converged"]
    answer = plan.json(nothing_expected(), {**empty, left_out: None}, "--node-type", "proxy")
    reason = answer["next"].pop("reason")
    assert answer["next"] == {"kind": f"update_{left_out}", "added": [], "removed": [], "changed": []}
    assert "could not be read" in reason
    assert answer["hashes"][left_out]["actual"] is None


def test_containers_of_others_are_ignored(plan: Planning) -> None:
    """Those without any label of ours; `created` and `health` may be left out."""
    theirs = an_actual_entry(id="f" * 64, name="theirs", labels={"app": "x"})
    ours = {key: value for key, value in an_actual_entry().items() if key not in ("created", "health")}
    assert plan.json(an_expected_document(), an_actual_document([theirs, ours]))["converged"]


@pytest.mark.parametrize(
    ("expected", "actual", "status"),
    [
        (an_expected_document(), an_actual_document(), 0),
        (an_expected_document(), nothing_there(), 2),
        (b"{}", nothing_there(), 1),
    ],
    ids=["nothing to do", "something to do", "an error"],
)
@pytest.mark.parametrize("output", ["text", "json"])
def test_the_detailed_exit_status(
    plan: Planning, expected: Document | bytes, actual: Document, status: int, output: str
) -> None:
    """0, 2 and 1; without the option, something to do is 0 as well."""
    assert plan(expected, actual, "--output", output, "--detailed-exitcode").status == status
    assert plan(expected, actual, "--output", output).status == status % 2


@pytest.mark.parametrize("options", [("--output", "yaml"), ("--node-type", "boss"), ("--bogus",), ("stray",)])
def test_a_wrong_option_is_an_error(plan: Planning, options: tuple[str, ...]) -> None:
    """Status 1: 2 means something else here. Nothing on standard output."""
    done = plan(an_expected_document(), nothing_there(), "--detailed-exitcode", *options)
    assert (done.status, done.out) == (1, "")
    assert options[-1] in done.err


@pytest.mark.parametrize("node_type", NODE_TYPES)
@pytest.mark.parametrize("name", BODIES)
def test_what_the_control_plane_really_sends_is_planned(plan: Planning, name: str, node_type: str) -> None:
    """Every captured expected state, from an empty server, as JSON and as text."""
    document: Document = json.loads(BODIES[name])
    answer = plan.json(document, nothing_there(), "--all", "--node-type", node_type)
    kinds = [one["kind"] for one in answer["plan"]]
    assert answer["nodeType"] == node_type
    assert kinds == sorted(kinds, key=["deploy", "update_dns", "update_caddy", "update_wireguard"].index)
    held = {one["key"] for one in answer["rejected"] if one["path"].startswith("containers")}
    wanted = sorted(one["deploymentId"] for one in document["containers"] if one["deploymentId"] not in held)
    assert [one["deploymentId"] for one in answer["plan"] if one["kind"] == "deploy"] == wanted
    assert answer["converged"] == (not kinds)
    text = plan(document, nothing_there(), "--all", "--node-type", node_type)
    assert len(text.out.splitlines()) == max(1, len(kinds))
    assert len(text.err.splitlines()) == len(answer["rejected"])


def test_rejected_entries_are_told_and_do_not_stop_the_rest(plan: Planning) -> None:
    """L7: in JSON in the answer, as text on standard error."""
    expected = an_expected_document(records=[a_record_entry(), a_record_entry(name="web.example.org")])
    answer = plan.json(expected, an_actual_document(), "--all")
    (rejected,) = answer["rejected"]
    assert rejected.keys() == {"path", "key", "reason"}
    assert (rejected["path"], rejected["key"]) == ("dns.records[1].name", "web.example.org")
    done = plan(expected, an_actual_document())
    assert (done.status, done.out) == (0, "converged: nothing to do\n")
    assert done.err == f"rejected and held: dns.records[1].name: {rejected['reason']}\n"


def test_the_text_for_a_person(plan: Planning) -> None:
    """A line for each change: number, kind, subject, reason."""
    done = plan(an_expected_document(), nothing_there(), "--all")
    assert done.out.splitlines() == [
        f"   1  deploy            {NAME}  (no container for this deployment)",
        "   2  update_dns        +web-api.internal  (1 to add, 0 to remove, 0 to change)",
        f"   3  update_wireguard  +{a_key()}  (1 to add, 0 to remove, 0 to change)",
    ]
    assert plan(an_expected_document(), nothing_there()).out.splitlines() == done.out.splitlines()[:1]


def test_a_name_cannot_write_lines_of_its_own(plan: Planning) -> None:
    """Control characters are spelled out in text, and are as they were in JSON."""
    evil = "evil\n   2  deploy\x1b[31m é"
    actual = an_actual_document([an_actual_entry(name=evil, labels=labels("gone"))])
    done = plan(nothing_expected(), actual)
    (line,) = done.out.splitlines()
    assert "\x1b" not in line
    assert r"evil\n   2  deploy\x1b[31m é" in line
    assert plan.json(nothing_expected(), actual)["next"]["name"] == evil


def test_the_same_whatever_the_order(plan: Planning) -> None:
    """The lists of both documents mean no order."""
    containers = [a_container_entry(deploymentId=f"d{n}", name=f"n{n}") for n in range(5)]
    there = [an_actual_entry(id=f"{n}" * 64, name=f"x{n}", labels=labels(f"x{n}")) for n in range(5)]
    forth = plan.json(an_expected_document(containers), an_actual_document(there), "--all")
    back = plan.json(an_expected_document(containers[::-1]), an_actual_document(there[::-1]), "--all")
    assert forth == back
    assert len(forth["plan"]) == 10
    assert {one["deploymentId"] for one in forth["plan"]} == {f"{k}{n}" for k in "dx" for n in range(5)}


ODD_OPTIONS = {
    "TECHULUS_URL": "nonsense",
    "TECHULUS_NETWORK": "?",
    "TECHULUS_UNMANAGED": "everything",
    "TECHULUS_WIREGUARD_PORT": "many",
    "TECHULUS_PROXY": "maybe",
    "TECHULUS_LOG_LEVEL": "loud",
    "TECHULUS_DATA_DIR": "/proc/1/mem",
}


@pytest.mark.parametrize("as_file", [True, False])
def test_the_options_of_a_running_agent_do_not_matter(plan: Planning, *, as_file: bool) -> None:
    """With both documents given, whatever a running agent is told by its environment or its settings file is not looked at."""
    expected, actual = plan.file("e.json", an_expected_document()), plan.file("a.json", an_actual_document())
    settings = plan.file("settings", "".join(f"{name}={value}\n" for name, value in ODD_OPTIONS.items()).encode())
    env = {environment_file.VARIABLE: str(settings)} if as_file else ODD_OPTIONS
    for given in (("--expected", expected, "--actual", actual), (f"--expected={expected}", f"--actual={actual}")):
        assert agent("plan", *given, env=env) == Done(0, "converged: nothing to do\n", "")
