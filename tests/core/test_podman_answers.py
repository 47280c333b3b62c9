"""`core.podman_answers`: what Podman's answers mean."""

import json
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.pipeline import is_successful

from core import podman_answers
from core.containers import ActualContainer, ContainerId
from core.podman import Limit
from tests.builders import CONTAINER, DEPLOYMENT, NAME, NGINX, an_actual_container, an_image, labels

NEVER = -62135596800  # how Go spells a time that has not been
STARTED = 1_795_441_031
NOW = STARTED + 100.5
CHANGES = ("nothing", "one more", "one more within", "one less", "another", "turned round")
IMAGE_ID = "5c55" * 16
LISTED: list[dict[str, Any]] = [
    {},
    {"Id": "b" * 64, "StartedAt": STARTED + 7},
    {"Id": "c" * 64, "State": "exited", "ExitedAt": STARTED + 5},
    {"Id": "d" * 64, "State": "created", "StartedAt": NEVER},
    {"Id": "e" * 64, "Labels": {}},
    {"Id": "f" * 64, "Labels": None},
]


def an_item(**changes: Any) -> dict[str, Any]:
    """One running container, with what else Podman 4.3 sends."""
    return {
        "AutoRemove": False,
        "Command": ["nginx"],
        "Created": "2026-11-23T13:37:11.434102928Z",
        "CreatedAt": "",
        "Exited": False,
        "ExitedAt": NEVER,
        "ExitCode": 0,
        "Id": CONTAINER,
        "Image": NGINX,
        "ImageID": IMAGE_ID,
        "Labels": labels(),
        "Names": [NAME],
        "Networks": ["techulus"],
        "Pid": 85,
        "Ports": None,
        "Size": None,
        "StartedAt": STARTED,
        "State": "running",
        "Status": "",
    } | changes


def listed(*items: dict[str, Any]) -> tuple[ActualContainer, ...]:
    """The containers of a listing that must be a good one."""
    return podman_answers.parse_listing(json.dumps(items).encode(), NOW).unwrap()


def the(**changes: Any) -> ActualContainer:
    """The one container of a listing of one."""
    (found,) = listed(an_item(**changes))
    return found


def test_a_running_container() -> None:
    """Every field, as the planner wants it."""
    assert the() == an_actual_container(created=1_795_441_031, pid=85, running_for_s=99.5, image_id=IMAGE_ID)


@pytest.mark.parametrize(
    ("podman", "ours"),
    [
        ("created", "created"),
        ("configured", "created"),
        ("initialized", "created"),
        ("running", "running"),
        ("Running", "running"),
        ("stopped", "exited"),
        ("exited", "exited"),
        ("paused", "paused"),
        ("stopping", "stopping"),
        ("removing", "removing"),
        ("dead", "dead"),
        ("unknown", "unknown"),
        ("a later Podman's word", "unknown"),
    ],
)
def test_every_state_is_known(podman: str, ours: str) -> None:
    """L31."""
    assert the(State=podman).state == ours


@pytest.mark.parametrize(
    ("podman", "ours"),
    [
        ("", "none"),
        ("starting", "starting"),
        ("healthy", "healthy"),
        ("unhealthy", "unhealthy"),
        ("a later Podman's word", "starting"),
    ],
)
def test_health(podman: str, ours: str) -> None:
    """L30: what is no result never reads as one."""
    assert the(Status=podman).health == ours


@pytest.mark.parametrize(
    ("changes", "running_for_s", "lived_s"),
    [
        ({}, 99.5, None),
        ({"StartedAt": STARTED + 100}, 0.0, None),
        ({"StartedAt": STARTED + 102}, 0.0, None),
        ({"StartedAt": STARTED + 200}, None, None),  # the clock was set back: not known, which counts as long
        ({"State": "created", "StartedAt": NEVER}, None, None),
        ({"State": "exited", "ExitedAt": STARTED + 5}, None, 4.0),
        ({"State": "exited", "ExitedAt": STARTED}, None, 0.0),
        ({"State": "exited", "ExitedAt": STARTED - 5}, None, None),
        ({"State": "stopped", "ExitedAt": STARTED + 5}, None, 4.0),
        ({"State": "paused"}, None, None),
    ],
)
def test_times_are_the_least_that_can_have_passed(
    changes: dict[str, Any], running_for_s: float | None, lived_s: float | None
) -> None:
    """L17: Podman cuts its times to whole seconds; a container is never taken for older than it is."""
    found = the(**changes)
    assert (found.running_for_s, found.lived_s) == (running_for_s, lived_s)


@pytest.mark.parametrize(
    ("told", "running_for_s"),
    [
        (STARTED + 0.0, 100.5),
        (STARTED + 0.25, 100.25),
        (STARTED + 1.5, 99.0),
        (STARTED - 0.5, 99.5),
        (STARTED + 2.0, 99.5),
        (STARTED + 3600.0, 99.5),
    ],
)
def test_an_event_tells_the_start_exactly(told: float, running_for_s: float) -> None:
    """L17: what was heard of another start, or of another container, is not believed: then it is the end of its second."""
    raw = json.dumps([an_item()]).encode()
    (found,) = podman_answers.parse_listing(raw, NOW, {ContainerId(CONTAINER): told}).unwrap()
    assert found.running_for_s == running_for_s
    (found,) = podman_answers.parse_listing(raw, NOW, {ContainerId("another"): told}).unwrap()
    assert found.running_for_s == 99.5


def test_an_event_from_a_clock_ahead() -> None:
    """Nothing has run for less than no time."""
    raw = json.dumps([an_item()]).encode()
    (found,) = podman_answers.parse_listing(raw, STARTED + 0.5, {ContainerId(CONTAINER): STARTED + 0.75}).unwrap()
    assert found.running_for_s == 0.0


def test_what_is_not_ours_is_left_out() -> None:
    """No label that begins with our prefix: not ours, whatever its name."""
    foreign = [an_item(Labels=None), an_item(Labels={}), an_item(Labels={"io.techulus.x": "1", "techulus": "1"})]
    assert listed(*foreign, an_item(Labels={"techulus.other": ""})) == (
        an_actual_container(
            created=STARTED,
            pid=85,
            running_for_s=99.5,
            deployment_id=None,
            service_id="",
            service_name="",
            image_id=IMAGE_ID,
        ),
    )


def test_what_a_container_was_asked_to_be_made_from_is_kept_by_its_label() -> None:
    """L5: what Podman makes of an image's name later is no drift; without our label, or with a spoilt one, its text counts."""
    label = "techulus.agent.image"
    asked = f"docker.io/library/nginx:1.27@sha256:{'a' * 64}"
    for text in ("5c55" * 16, "", "docker.io/library/nginx@sha256:" + "b" * 64):
        assert the(Image=text, Labels={"techulus.x": "", label: asked}).image == an_image(asked)
    for spoilt in ("", "<none>", "A B"):
        assert the(Image="nginx:2", Labels={"techulus.x": "", label: spoilt}).image == an_image("nginx:2")


def test_an_image_without_a_name_is_no_reference() -> None:
    """It lost its tag to a newer one."""
    found = the(Image="")
    assert (found.image, found.image_text) == (None, "")
    assert the(Image="docker.io/library/nginx@sha256:" + "a" * 64).image == an_image("nginx@sha256:" + "a" * 64)


BAD_ITEMS: list[dict[str, Any]] = [
    {"Id": None},
    {"Names": None},
    {"State": 3},
    {"Labels": {"techulus.deployment.id": 7}},
    {"Labels": []},
    {"Created": "yesterday"},
    {"StartedAt": "yesterday"},
    {"StartedAt": 10**400},
    {"ExitedAt": -(10**400)},
    {"Created": "0001-01-01T00:00:00"},
    {"ExitCode": "none"},
]


@pytest.mark.parametrize("spoiled", BAD_ITEMS, ids=str)
@pytest.mark.parametrize("foreign", [True, False])
def test_one_item_of_the_wrong_shape_spoils_the_listing(spoiled: dict[str, Any], foreign: bool) -> None:
    """L3: also in a container that seems not to be ours, for whose labels can one know then?"""
    bad = an_item(**({"Labels": {}} if foreign else {}) | spoiled)
    raw = json.dumps([an_item(), bad]).encode()
    assert not is_successful(podman_answers.parse_listing(raw, NOW))


@pytest.mark.parametrize(
    "raw", [b"", b"null", b"{}", b"[", b"<html>", b"[null]", b'[{"Id": "x"}]', b"\xff", b"[" * 10_000]
)
def test_what_is_no_listing_is_refused(raw: bytes) -> None:
    """L3: above all it is not an empty one."""
    assert not is_successful(podman_answers.parse_listing(raw, NOW))
    assert is_successful(podman_answers.parse_listing(b"[]", NOW))


@given(st.lists(st.sampled_from(["ours", "foreign"]), max_size=6), st.randoms(use_true_random=False))
def test_a_listing_cut_short_is_refused(kinds: list[str], source: Any) -> None:
    """L3: wherever it was cut."""
    raw = json.dumps([an_item(Labels=labels() if kind == "ours" else {}) for kind in kinds]).encode()
    assert len(podman_answers.parse_listing(raw, NOW).unwrap()) == kinds.count("ours")
    assert not is_successful(podman_answers.parse_listing(raw[: source.randrange(len(raw))], NOW))


@given(
    st.lists(st.sampled_from(LISTED), max_size=5),
    st.lists(
        st.tuples(st.sampled_from(CHANGES), st.sampled_from(LISTED), st.integers(-3, 200) | st.integers(598, 608)),
        min_size=1,
        max_size=5,
    ),
    st.sampled_from([None, STARTED + 0.25, STARTED + 1.5, STARTED + 50.0]),
)
def test_a_listing_after_another_says_what_it_says_alone(
    items: list[dict[str, Any]], steps: list[tuple[str, dict[str, Any], int]], told: float | None
) -> None:
    """Whether or not anything has changed since; time has passed, and events may have come (L17)."""
    before: podman_answers.Listing | None = None
    for number, (change, item, passed_s) in enumerate(steps):
        middle = len(items) // 2
        items = {
            "nothing": items,
            "one more": [*items, item],
            "one more within": [*items[:middle], item, *items[middle:]],
            "one less": items[:middle] + items[middle + 1 :],
            "another": [*items[:middle], item, *items[middle + 1 :]],
            "turned round": items[::-1],
        }[change]
        heard = {ContainerId(CONTAINER): told} if told is not None and number else {}
        raw, now = json.dumps([an_item(**one) for one in items]).encode(), STARTED + passed_s + 0.5
        after = podman_answers.parse_listing_after(before, raw, now, heard).unwrap()
        assert after == podman_answers.parse_listing_after(None, raw, now, heard).unwrap()
        assert after.containers == podman_answers.parse_listing(raw, now, heard).unwrap()
        before = after


def test_a_clock_that_is_set_right_again() -> None:
    """What was not known while the start lay ahead is known again, though the listing says nothing new."""
    raw = json.dumps([an_item()]).encode()
    early = podman_answers.parse_listing_after(None, raw, STARTED - 3600.0).unwrap()
    assert early.containers[0].running_for_s is None
    later = podman_answers.parse_listing_after(early, raw, STARTED + 11.0).unwrap()
    assert later.containers[0].running_for_s == 10.0


def an_inspection(**changes: Any) -> dict[str, Any]:
    """The part of an inspection that is read."""
    return {
        "Id": CONTAINER,
        "Name": NAME,
        "State": {"Status": "stopped"},
        "Config": {"Labels": labels()},
        "HostConfig": {"Ulimits": [{"Name": "RLIMIT_NOFILE", "Soft": 2048, "Hard": 1024}]},
    } | changes


def test_a_container_that_is_listed_and_cannot_be_looked_into() -> None:
    """By id or name; whose it is and what is wrong with it, and nothing that only a look would tell."""
    raw = json.dumps([an_item(Id="b" * 64, Names=["other"], Labels=None), an_item(State="created")]).encode()
    for key in (CONTAINER, NAME):
        found = podman_answers.parse_listed(raw, key, "invalid argument").unwrap()
        assert found is not None
        assert (found.id, found.name, found.state, found.ours) == (CONTAINER, NAME, "created", True)
        assert (found.deployment_id, found.fault, found.log_file) == (DEPLOYMENT, "invalid argument", None)
    foreign = podman_answers.parse_listed(raw, "other", "").unwrap()
    assert foreign is not None and not foreign.ours
    assert podman_answers.parse_listed(raw, CONTAINER[:12], "").unwrap() is None
    assert not is_successful(podman_answers.parse_listed(b"{}", NAME, ""))


def test_a_container_looked_at() -> None:
    """L36: whose it is."""
    found = podman_answers.parse_inspection(json.dumps(an_inspection()).encode()).unwrap()
    assert (found.id, found.name, found.state, found.ours) == (CONTAINER, NAME, "exited", True)
    assert (found.deployment_id, found.limits) == (DEPLOYMENT, (Limit("RLIMIT_NOFILE", 2048, 1024),))
    foreign = an_inspection(Config={"Labels": None}, HostConfig={"Ulimits": None})
    seen = podman_answers.parse_inspection(json.dumps(foreign).encode()).unwrap()
    assert (seen.ours, seen.deployment_id, seen.limits) == (False, None, ())
    assert not is_successful(podman_answers.parse_inspection(b"{}"))


@pytest.mark.parametrize(
    ("limits", "meant"),
    [
        ([], ()),
        ([("RLIMIT_NOFILE", 1024, 2048)], ()),
        ([("RLIMIT_NOFILE", 4096, -1)], ()),
        (
            [("RLIMIT_NOFILE", 2048, 1024), ("RLIMIT_NPROC", 100, 100)],
            (Limit("nofile", 1024, 2048), Limit("nproc", 100, 100)),
        ),
    ],
)
def test_swapped_limits_are_put_right(limits: list[tuple[str, int, int]], meant: tuple[Limit, ...]) -> None:
    """Podman 4.3 swaps soft and hard of the server's defaults; all are sent then, since what is sent replaces them."""
    ulimits = [{"Name": name, "Soft": soft, "Hard": hard} for name, soft, hard in limits]
    raw = json.dumps(an_inspection(HostConfig={"Ulimits": ulimits})).encode()
    assert podman_answers.repaired_limits(podman_answers.parse_inspection(raw).unwrap()) == meant


def a_frame(text: bytes, stream: int = 1) -> bytes:
    """A piece of output as Podman sends it."""
    return bytes([stream, 0, 0, 0]) + len(text).to_bytes(4, "big") + text


@pytest.mark.parametrize(
    ("raw", "lines"),
    [
        (b"", ()),
        (a_frame(b"one\n") + a_frame(b"two\n", stream=2), ("one", "two")),
        (a_frame(b"no end") + a_frame(b"next\n"), ("no end", "next")),
        (a_frame(b"a\nb\r\nc"), ("a", "b", "c")),
        (a_frame(b"\n") + a_frame(b""), ("", "")),
        (a_frame(b"red \x1b[31m\x00\x9b \xff\n"), ("red [31m \ufffd \ufffd",)),
        (a_frame(b"x" * 100_000), ("x" * 300,)),
        (a_frame(b"cut")[:-1], ("cu",)),
        (a_frame(b"whole\n") + b"\x01\x00\x00", ("whole",)),
        (a_frame(b"whole\n") + b"\x01\x00\x00\x00\xff\xff\xff\xff", ("whole", "")),
    ],
)
def test_the_lines_of_an_output(raw: bytes, lines: tuple[str, ...]) -> None:
    """Both streams in their order, each line fit for a log; what was cut short gives what is there."""
    assert podman_answers.output_lines(raw) == lines


@given(st.binary() | st.lists(st.binary(max_size=40), max_size=5).map(lambda all_: b"".join(map(a_frame, all_))))
def test_any_output(raw: bytes) -> None:
    """Whatever a container writes: printable lines, bounded, and no exception."""
    assert all(line.isprintable() and len(line) <= 300 for line in podman_answers.output_lines(raw))


NETWORK: dict[str, Any] = {
    "name": "techulus",
    "driver": "bridge",
    "subnets": [{"subnet": "10.200.3.0/24", "gateway": "10.200.3.1", "lease_range": {}}],
    "internal": False,
    "dns_enabled": False,
}


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({}, None),
        ({"subnets": [{"subnet": "10.89.0.0/24", "gateway": "10.89.0.1"}]}, "10.89.0.0/24 with gateway 10.89.0.1"),
        ({"subnets": [{"subnet": "10.200.3.0/24", "gateway": "10.200.3.254"}]}, "gateway 10.200.3.254"),
        ({"subnets": [{"subnet": "10.200.3.0/24"}]}, "gateway none"),
        ({"subnets": NETWORK["subnets"] * 2}, "10.200.3.0/24"),
        ({"subnets": None}, "no subnet"),
        ({"driver": "macvlan"}, "macvlan network"),
        ({"internal": True}, "internal bridge network"),
        ({"dns_enabled": True}, "DNS switched on"),
        ({"driver": 3}, "makes no sense"),
    ],
)
def test_a_network_of_that_name_that_is_another(changes: dict[str, Any], said: str | None) -> None:
    """L10: said, and not used."""
    fault = podman_answers.network_fault(json.dumps(NETWORK | changes).encode(), 3)
    assert fault == said if said is None else said in (fault or "")
