"""`shell.perform`: how one action is carried out, and that everything that can fail comes before anything is stopped."""

from collections.abc import Awaitable, Callable
from typing import Any

import anyio
import pytest
from msgspec.structs import replace
from structlog.testing import capture_logs

from core.action import (
    Action,
    CouldNotBeRead,
    Deploy,
    ImageDiffers,
    NoContainer,
    NotExpected,
    NotRunning,
    Redeploy,
    Start,
    StopOrphan,
    UpdateCaddy,
    UpdateDns,
    UpdateWireGuard,
)
from core.containers import ContainerId, DeploymentId, Volume
from core.dns import Record
from core.events import Applied, Failed, Outcome, Withheld
from core.image import Image
from core.secrets import EncryptionKey, encrypt
from shell.components import Components
from shell.failure import AdapterError
from shell.perform import Perform
from tests.builders import (
    CONTAINER,
    DEPLOYMENT,
    NAME,
    actual_of,
    an_actual_container,
    an_actual_document,
    an_expected_container,
    an_image,
)
from tests.shell import virtual_time
from tests.shell.stand_ins import Stage, failing, hanging, image_id_of

KEY = EncryptionKey(bytes(range(32)))
OLD, NEW = an_image("docker.io/library/nginx:1.26"), an_image()
SECRET = "hunter2-and-more"
ENV = (("DB_URL", encrypt(KEY, SECRET, bytes(12))), ("EMPTY", encrypt(KEY, "", bytes(12))))
WANTED = an_expected_container(env=ENV)
PLAIN = (("DB_URL", SECRET), ("EMPTY", ""))
HERE = ContainerId(CONTAINER)
MADE = ("create_and_start", NAME, PLAIN)
GONE = ("stop_and_remove", CONTAINER)
NETWORK = ("ensure_network",)
BAD_ENV = {
    "garbage": "%%%",
    "too short": "c2VjcmV0",
    "of another installation": encrypt(EncryptionKey(bytes(32)), SECRET, bytes(12)),
}

DEPLOY = Deploy(WANTED, NoContainer())
REDEPLOY = Redeploy(WANTED, HERE, ImageDiffers(str(OLD), str(NEW)))
ORPHAN = StopOrphan(DeploymentId("old"), HERE, "old", NotExpected(), successors=(WANTED,))


def a_stage(*, there: bool) -> Stage:
    """A server with the new image; with the old container or without it."""
    stage = Stage()
    stage.podman.images.add(NEW)
    if there:
        stage.podman.there = {HERE: an_actual_container(id=HERE, name=NAME, image=OLD)}
    return stage


def perform(
    stage: Stage, *actions: Action, key: EncryptionKey | None = KEY, parts: Components | None = None
) -> list[Outcome]:
    """The outcomes of actions, one after the other."""

    async def main() -> list[Outcome]:
        performing = Perform(parts or stage.components, image_id_of, key, anyio.Lock())
        return [await performing(action) for action in actions]

    return virtual_time.run(main)


@pytest.mark.parametrize(
    ("action", "there", "journal"),
    [
        (DEPLOY, False, [NETWORK, MADE]),
        (REDEPLOY, True, [NETWORK, GONE, MADE]),
        (ORPHAN, True, [GONE]),
        (replace(ORPHAN, successors=()), True, [GONE]),
        (Start(WANTED.deployment_id, HERE, NAME, NotRunning("exited")), True, [NETWORK, ("start", CONTAINER)]),
    ],
    ids=["deploy", "redeploy", "orphan with a successor", "orphan", "start"],
)
def test_the_order_of_the_steps(action: Action, there: bool, journal: list[Any]) -> None:
    """L18: the image first, secrets decrypted, and only then is the old container stopped. L19: a start pulls nothing."""
    stage = a_stage(there=there)
    assert perform(stage, action) == [Applied()]
    assert stage.journal == journal


@pytest.mark.parametrize("action", [DEPLOY, REDEPLOY, ORPHAN], ids=["deploy", "redeploy", "orphan"])
def test_without_an_image_nothing_is_changed(action: Action) -> None:
    """L18: the old container goes on, should the machine ever ask for a change whose image is not known."""
    stage = a_stage(there=action is not DEPLOY)

    def unknown(key: DeploymentId, image: Image) -> str:
        raise AdapterError("images", f"use image {image}", "it has not been fetched")

    async def main() -> Outcome:
        return await Perform(stage.components, unknown, KEY, anyio.Lock())(action)

    assert virtual_time.run(main) == Failed(f"images: could not use image {NEW}: it has not been fetched")
    assert stage.journal == []


@pytest.mark.parametrize("action", [DEPLOY, REDEPLOY, ORPHAN], ids=["deploy", "redeploy", "orphan"])
@pytest.mark.parametrize("bad", BAD_ENV)
def test_a_secret_that_does_not_decrypt_changes_nothing(action: Action, bad: str) -> None:
    """L18: Failed, naming the variable and the container, never a value (L37); the old container is untouched."""
    wanted = an_expected_container(env=(*ENV, ("TOKEN", BAD_ENV[bad])))
    stage = a_stage(there=action is not DEPLOY)
    spoilt: Action = (
        replace(action, successors=(wanted,)) if isinstance(action, StopOrphan) else replace(action, container=wanted)
    )
    (outcome,) = perform(stage, spoilt)
    assert isinstance(outcome, Failed)
    assert f"TOKEN of {NAME}" in outcome.why
    assert SECRET not in outcome.why and BAD_ENV[bad] not in outcome.why
    assert stage.journal == []


def test_no_key_at_all() -> None:
    """A registration without an encryption key runs what needs none, and says so for the rest."""
    stage = a_stage(there=False)
    (outcome,) = perform(stage, DEPLOY, key=None)
    assert isinstance(outcome, Failed)
    assert "no encryption key" in outcome.why
    bare = an_expected_container(deployment_id=DeploymentId("bare"), name="bare", image=NEW)
    assert perform(stage, Deploy(bare, NoContainer()), key=None) == [Applied()]


@pytest.mark.parametrize("step", ["ensure_network", "stop_and_remove", "create_and_start"])
def test_a_step_that_fails_ends_the_action(step: str) -> None:
    """Its failure is the outcome; doing the action's rest again later ends in the same state."""
    stage = a_stage(there=True)
    stage.podman.scripts[step] = failing(step)
    assert perform(stage, REDEPLOY) == [Failed(f"stand-in: could not {step}: it is broken")]
    steps = [NETWORK, GONE, MADE]
    assert stage.journal == steps[: [one[0] for one in steps].index(step) + 1]
    del stage.podman.scripts[step]
    again: Action = REDEPLOY if HERE in stage.podman.there else DEPLOY
    assert perform(stage, again) == [Applied()]
    assert stage.journal[-1] == MADE


WITH_VOLUME = replace(WANTED, volumes=(Volume("data", "/data"),))


@pytest.mark.parametrize(
    "action", [replace(REDEPLOY, container=WITH_VOLUME), replace(ORPHAN, successors=(WITH_VOLUME,))]
)
def test_a_volume_that_is_refused_leaves_the_old_container(action: Action) -> None:
    """L18, L35: a folder that leads elsewhere is found out before the stop."""
    stage = a_stage(there=True)
    stage.podman.scripts["make_volumes"] = failing("make the volume", "it is a link")
    assert perform(stage, action) == [Failed("stand-in: could not make the volume: it is a link")]
    assert GONE not in stage.journal


def test_a_network_that_is_refused_leaves_the_old_container() -> None:
    """L10, L18: found out before the stop."""
    stage = a_stage(there=True)
    stage.podman.scripts["ensure_network"] = failing("use network techulus", "it has another subnet")
    perform(stage, REDEPLOY)
    assert GONE not in stage.journal


def test_updates_hand_over_what_was_decided() -> None:
    """The whole list for DNS and Caddy, only what differs for WireGuard."""
    stage = Stage()
    state = actual_of(an_actual_document())
    assert isinstance(state.dns, tuple) and isinstance(state.caddy, tuple) and isinstance(state.wireguard, tuple)
    stage.wireguard.now = {"stale": state.wireguard[0]}
    unread = CouldNotBeRead()
    outcomes = perform(
        stage,
        UpdateDns(state.dns, unread),
        UpdateCaddy(state.caddy, unread),
        UpdateWireGuard(state.wireguard, ("stale",), unread),
    )
    assert outcomes == [Applied()] * 3
    assert stage.journal == [("dns", state.dns), ("caddy", state.caddy), ("wireguard", state.wireguard, ("stale",))]


@pytest.mark.parametrize(
    "action",
    [
        UpdateDns((Record("web.internal", ("10.200.3.2",)),) * 100, CouldNotBeRead()),
        UpdateCaddy((), CouldNotBeRead()),
        UpdateWireGuard((), (), CouldNotBeRead()),
    ],
    ids=["dns", "caddy", "wireguard"],
)
def test_what_is_not_managed_here_is_not_changed(action: Action) -> None:
    """It should never be asked for; if it is, that is a failure on one short line."""
    stage = Stage()
    (outcome,) = perform(stage, action, parts=Components(stage.podman))
    assert isinstance(outcome, Failed)
    assert "not managed on this server" in outcome.why
    assert len(outcome.why) < 200 and "\n" not in outcome.why
    assert stage.journal == []


def test_an_update_that_fails() -> None:
    """Failed with the component's words."""
    stage = Stage()
    stage.dns.scripts["apply"] = failing("serve records")
    assert perform(stage, UpdateDns((), CouldNotBeRead())) == [
        Failed("stand-in: could not serve records: it is broken")
    ]


def test_a_fault_of_ours_is_not_hidden() -> None:
    """Only an adapter's failure is an outcome; anything else ends the process, and it is started again."""
    stage = a_stage(there=False)

    async def wrong() -> None:
        raise KeyError("no such thing")

    stage.podman.scripts["ensure_network"] = wrong
    with pytest.raises(KeyError):
        perform(stage, DEPLOY)


def test_being_cancelled_stops_in_the_middle() -> None:
    """L13: a cancelled action is not an outcome."""
    stage = a_stage(there=True)
    stage.podman.scripts["stop_and_remove"] = hanging
    ended: list[Outcome] = []

    async def main() -> None:
        performing: Callable[[Action], Awaitable[Outcome]] = Perform(stage.components, image_id_of, KEY, anyio.Lock())
        with anyio.move_on_after(1):
            ended.append(await performing(REDEPLOY))

    virtual_time.run(main)
    assert (ended, stage.podman.changing) == ([], 0)
    assert str(DEPLOYMENT) not in stage.podman.there


START = Start(WANTED.deployment_id, HERE, NAME, NotRunning("exited"))


@pytest.mark.parametrize("action", [DEPLOY, REDEPLOY, ORPHAN, START], ids=["deploy", "redeploy", "orphan", "start"])
def test_a_change_that_may_no_longer_be_made(action: Action) -> None:
    """Paused, or asked to stop, while it waited for its turn: nothing is touched."""
    stage = a_stage(there=action is not DEPLOY)

    async def paused(_: Action) -> str:
        return "the agent is paused"

    async def main() -> Outcome:
        return await Perform(stage.components, image_id_of, KEY, anyio.Lock(), paused)(action)

    assert virtual_time.run(main) == Withheld("the agent is paused")
    assert stage.journal == []


def test_the_last_words_of_a_container_that_is_started_again() -> None:
    """Once for each attempt, ten lines at most; one that said nothing or cannot be read is started all the same."""
    stage = a_stage(there=True)
    stage.podman.output[HERE] = tuple(f"line {number}" for number in range(50))
    with capture_logs() as said:
        assert perform(stage, START, START) == [Applied(), Applied()]
    assert [one["last_output"].split("\n")[0] for one in said] == ["line 40", "line 40"]
    stage.podman.output.clear()
    with capture_logs() as said:
        assert perform(stage, START) == [Applied()]
    assert said == []
    stage.podman.scripts["last_output"] = failing("read the output", "it is gone")
    with capture_logs() as said:
        assert perform(stage, START) == [Applied()]
    assert "it is gone" in said[0]["last_output"]
