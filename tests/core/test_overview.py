"""`core.overview` and its lines: what a person at the terminal is told."""

import json
from dataclasses import replace
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core import overview, overview_text
from core.containers import ContainerId, DeploymentId
from core.deployment_images import KeptImage
from core.dns import Record
from core.events import PauseSeen, Perform
from core.firewall import Blocked
from core.overview import Agent, Build, Exchange, FailingPart, Moment
from core.pause import Pause
from core.rejection import Rejection
from core.state import hashes
from tests.builders import an_actual_container
from tests.core.simulated_server import Server, failing, taking, there, want

AGENT = Agent("0.1.0", 812, "65a1", "worker", "https://cloud.example.com", 1_767_500_000.0)
WALL = 1_767_503_600.0


def a_moment(server: Server, **changes: Any) -> Moment:
    """What the agent on this server would tell now."""
    made = Moment(
        AGENT, server.state, server.actual.containers, server.now, WALL, Exchange(WALL - 2), Exchange(WALL - 3)
    )
    return replace(made, **changes)


def told(moment: Moment) -> tuple[dict[str, Any], str]:
    """As a script reads it, and as a person does."""
    document = json.loads(json.dumps(overview.document(moment)))
    return document, "\n".join(overview_text.lines(document))


def test_an_agent_with_nothing_to_do() -> None:
    """The state, since when, the last exchanges, the next poll, the containers."""
    server = Server(want("a"), there("a"))
    server.run(25.0)
    document, text = told(a_moment(server))
    assert document["state"] == "IDLE"
    assert document["doing"] == "waiting for the next poll"
    assert document["poll"]["ok"] is True
    assert 0 <= document["poll"]["nextInS"] <= 11
    assert document["report"] == {"at": "2026-01-04T05:13:18Z", "ok": True, "failure": None}
    assert [one["name"] for one in document["containers"]] == ["a"]
    assert (document["drift"], document["retries"], document["paused"]) == ([], [], None)
    assert text.startswith("state       IDLE since ")
    assert "worker 65a1 at https://cloud.example.com" in text
    assert "\n  a  running  none  " in text


def test_an_agent_at_work() -> None:
    """The change in hand with its reason, and what is left to do."""
    server = Server(want("a", "b"), duration=taking(60.0, "a"))
    server.run(10.0)
    document, text = told(a_moment(server))
    assert document["state"] == "PROCESSING"
    assert document["doing"].startswith("deploy a: ")
    assert [one["name"] for one in document["drift"]] == ["a", "b"]
    assert document["poll"]["nextInS"] is None
    assert "drift       deploy a" in text


def test_what_does_not_work() -> None:
    """Each retry with its reason, its count and its next try; exchanges that failed with why."""
    server = Server(want("a"), outcome=failing("a"))
    server.run(100.0)
    document, text = told(a_moment(server, report=Exchange(WALL, "it cannot be reached"), work=None))
    (retry,) = document["retries"]
    assert retry["kind"] == "deploy"
    assert retry["subject"] == "a"
    assert retry["why"] == "scripted"
    assert retry["attempts"] >= 3
    assert 0 <= retry["nextInS"] <= 300
    assert "last report 2026-01-04T05:13:20Z FAILED: it cannot be reached" in text
    assert "work queue  none yet" in text
    assert f"deploy a: attempt {retry['attempts']}, next in" in text


@pytest.mark.parametrize("seconds", [5.0, 9.0, 25.0, 31.0, 100.0, 140.0])
def test_the_next_try_is_when_the_status_says(seconds: float) -> None:
    """L53: to the second, whatever polls lie between."""
    server = Server(want("a"), outcome=failing("a"))
    server.run(seconds)
    (retry,) = told(a_moment(server))[0]["retries"]
    since = server.now
    server.run(310.0)
    assert retry["waitsFor"] is None
    assert server.asked(Perform, since)[0][0] - since == pytest.approx(retry["nextInS"], abs=0.6)


def test_a_crash_loop_is_shown_from_its_first_restart_on() -> None:
    """It was started once and is down again: how often, and when next."""
    server = Server(want("a"), there("a", state="exited"))
    server.run(0.2)
    assert told(a_moment(server))[0]["retries"] == [], "while it is started"
    server.run(1.0)
    server.actual = there("a", state="exited")
    server.run(1.5)
    document, text = told(a_moment(server))
    (retry,) = document["retries"]
    assert (retry["attempts"], 5 <= retry["nextInS"] <= 9) == (1, True)
    assert f"start a: attempt 1, next in {retry['nextInS']} s: done once without lasting success: state exited" in text


@pytest.mark.parametrize("waits_for", ["the end of the pause", "its image", "a change that has not ended"])
def test_a_retry_whose_time_nobody_knows(waits_for: str) -> None:
    """L53: no time is told that does not hold."""
    server = Server(want("a"), outcome=failing("a"))
    server.run(5.0)
    if waits_for == "the end of the pause":
        server.say(PauseSeen(Pause(WALL)))
    elif waits_for == "its image":
        server.pulls = {want("a").containers[0].image: (900.0, None)}
    else:
        server.duration = lambda action: 900.0
    server.run(320.0)
    document, text = told(a_moment(server))
    (retry,) = document["retries"]
    assert (retry["nextInS"], retry["waitsFor"]) == (None, waits_for)
    assert f"next after {waits_for}: scripted" in text


def test_an_image_that_cannot_be_had() -> None:
    """Its reference, why, and when its registry is asked again; the container that needs it has not been tried."""
    image = want("a").containers[0].image
    server = Server(want("a"), pulls={image: (0.5, "manifest unknown")})
    server.run(5.0)
    document, text = told(a_moment(server))
    (retry,) = document["retries"]
    assert (retry["kind"], retry["subject"], retry["why"]) == ("fetch_image", str(image), "manifest unknown")
    assert f"fetch_image {image}: attempt 1, next in {retry['nextInS']} s: manifest unknown" in text
    server.pulls = {image: (900.0, None)}
    server.run(20.0)
    document, _ = told(a_moment(server))
    assert document["pulling"] == [str(image)]


def test_deployments_that_began_without_asking_a_registry() -> None:
    """`--pull-policy missing`: each by its name; those that asked, and those of an image that was changed since, are not shown."""
    server = Server(want("a", "b"), there("a", "b"))
    server.run(5.0)
    image = str(want("a").containers[0].image)
    kept = {DeploymentId(key): KeptImage(image, "id", None, key == "a") for key in ("a", "b")}
    document, text = told(a_moment(server, kept_images=kept))
    assert document["registryNotAsked"] == [{"deploymentId": "a", "name": "a", "image": image}]
    assert f"not asked   a: {image} as it was here" in text
    stale = {DeploymentId("a"): KeptImage("docker.io/library/other:1", "id", None, True)}
    assert told(a_moment(server, kept_images=stale))[0]["registryNotAsked"] == []


def test_a_poll_that_fails_and_a_podman_that_is_away() -> None:
    """Nothing is known, and that is said."""
    server = Server(None)
    server.run(15.0)
    document, text = told(a_moment(server))
    assert document["poll"]["failure"] == "connection refused"
    assert "FAILED: connection refused" in text
    server = Server(want("a"), there("a"))
    server.run(15.0)
    server.listing_works = False
    server.run(30.0)
    document, text = told(a_moment(server))
    assert document["containersSeen"] is False
    assert "could not be listed" in text


def test_a_pause() -> None:
    """Since when, until when, why; and what would be done."""
    server = Server(want("a"))
    server.say(PauseSeen(Pause(WALL - 60, WALL + 60, "moving the disk")))
    server.run(15.0)
    document, text = told(a_moment(server))
    assert document["paused"] == {
        "since": "2026-01-04T05:12:20Z",
        "until": "2026-01-04T05:14:20Z",
        "reason": "moving the disk",
    }
    assert [one["kind"] for one in document["drift"]] == ["deploy"]
    assert "PAUSED      since 2026-01-04T05:12:20Z until 2026-01-04T05:14:20Z: moving the disk" in text


def test_a_firewall_in_the_way() -> None:
    """L54: what is missing, who drops what, and each command on a line of its own, to be pasted."""
    dropper = Blocked("inet", "filter", "forward", "policy drop", ("the mesh to the containers",), ("nft a", "nft b"))
    found = {"failure": None, "missing": ["masquerading"], "blocked": [dropper.json()]}
    document, text = told(a_moment(Server(want("a"), there("a")), firewall=found))
    assert document["firewall"]["blocked"][0]["add"] == ["nft a", "nft b"]
    assert "firewall    missing: masquerading\n" in text
    assert "inet filter forward (policy drop) drops the mesh to the containers; add:\n" in text
    assert text.endswith("\n              nft a\n              nft b")
    _, text = told(a_moment(Server(want("a"), there("a")), firewall={"failure": "why", "missing": [], "blocked": []}))
    assert "firewall    FAILED: why" in text
    _, text = told(a_moment(Server(want("a"), there("a")), firewall={"othersSeen": False}))
    assert "firewall    only the agent's own rules are seen" in text


def test_nobody_runs() -> None:
    """And the pause that would be in force."""
    document = overview.absent("/var/lib/techulus-agent", Pause(WALL))
    lines = list(overview_text.lines(document))
    assert lines[0] == "no agent runs on /var/lib/techulus-agent"
    assert lines[1].startswith("PAUSED")


def test_the_document_has_the_same_fields_always() -> None:
    """Scripts depend on them."""
    fresh, _ = told(a_moment(Server(None), report=None, work=None))
    busy = Server(want("a"), outcome=failing("a"))
    busy.run(50.0)
    later, _ = told(a_moment(busy))
    assert fresh.keys() == later.keys()
    assert fresh["version"] == 1
    assert fresh["poll"] is None


def test_a_long_list_has_its_first_lines_and_says_how_many_more() -> None:
    """L59: one mistake of the control plane's may be worth 20,000 entries; a script gets them all."""
    most = overview_text.MOST_ENTRIES
    rejected = tuple(Rejection(f"containers[{n}]", f"d{n}", "no") for n in range(most + 2))
    server = Server(replace(want(), rejected=rejected))
    server.run(15.0)
    document, text = told(a_moment(server))
    assert len(document["rejected"]) == most + 2
    assert text.count("containers[") == most and "and 2 more; `agent status --output json` has them all" in text


HOSTILE = "a\x1b[2J\n\r\x00\x9b\u202e\u2028b"


def test_nothing_from_outside_moves_the_cursor() -> None:
    """L34: names and reasons come from the control plane, from images, from a file. A script gets them as they are, escaped."""
    server = Server(replace(want(), rejected=(Rejection("containers[0].name", HOSTILE, HOSTILE),)))
    server.say(PauseSeen(Pause(WALL, None, HOSTILE)))
    server.run(15.0)
    found = (an_actual_container(name=HOSTILE, image_text=HOSTILE, health=HOSTILE),)
    builds = (Build(HOSTILE, HOSTILE, WALL),)
    moment = a_moment(server, containers=found, builds=builds, report=Exchange(WALL, HOSTILE))
    document, text = told(replace(moment, agent=replace(AGENT, server_id=HOSTILE)))
    assert all(line.isprintable() for line in text.split("\n"))
    assert len(text.split("\n")) == len(list(overview_text.lines(document))), "no line of its own"
    assert document["containers"][0]["name"] == HOSTILE
    assert overview_text.headline(document | {"doing": HOSTILE}).isprintable()
    assert all(line.isprintable() for line in overview_text.lines(overview.absent(HOSTILE, Pause(WALL, None, HOSTILE))))


@given(st.lists(st.text(), min_size=4, max_size=4))
def test_any_name(names: list[str]) -> None:
    """One row for each container, whatever it is called."""
    found = tuple(an_actual_container(id=ContainerId(str(n)), name=name) for n, name in enumerate(names))
    document = overview.document(a_moment(Server(want()), containers=found))
    rows = list(overview_text.lines(document))
    assert all(row.isprintable() for row in rows)
    assert rows[-1 - len(names)] == "containers  4"


def test_many_containers_are_one_line_each() -> None:
    """In columns, by name."""
    found = tuple(an_actual_container(id=ContainerId(f"{n:064x}"), name=f"web-{n}") for n in (10, 9, 1))
    _, text = told(a_moment(Server(want()), containers=found))
    rows = [line.split()[0] for line in text.splitlines() if line.startswith("  web")]
    assert rows == ["web-1", "web-10", "web-9"]


def test_a_part_that_fails() -> None:
    """L57: to scripts, on the lines for a person, and in the headline."""
    server = Server(want("a"), there("a"))
    server.run(25.0)
    failing_now = (
        FailingPart("pulls", "nginx", WALL - 60, 3, "ValueError: no"),
        FailingPart("events", "", WALL, 1, "x"),
    )
    document, text = told(a_moment(server, failing=failing_now))
    assert document["failing"] == [
        {"part": "pulls", "about": "nginx", "since": "2026-01-04T05:12:20Z", "failures": 3, "reason": "ValueError: no"},
        {"part": "events", "about": None, "since": "2026-01-04T05:13:20Z", "failures": 1, "reason": "x"},
    ]
    assert (
        "FAILING     pulls nginx: 3 times since 2026-01-04T05:12:20Z: ValueError: no\n            events: 1 times"
        in text
    )
    assert "failing: events, pulls" in overview_text.headline(document)
    assert "FAILING" not in told(a_moment(server))[1]


def test_the_hashes_are_those_of_the_plan_and_the_log() -> None:
    """DESIGN's rule 8: one value, by which a person compares two servers, or one server at two times."""
    wanted = replace(want("a"), dns=(Record("a.internal", ("10.200.1.2",)),))
    server = Server(wanted, there("a"))
    server.run(8.0)
    document, _ = told(a_moment(server))
    expected = hashes(wanted, server.actual)
    assert document["hashes"] == {
        name: {"expected": one.expected, "actual": one.actual} for name, one in expected.items()
    }
    (note,) = [one for one in server.said("applied") if dict(one.facts)["kind"] == "update_dns"]
    assert dict(note.facts)["hash"] == expected["dns"].expected == expected["dns"].actual
