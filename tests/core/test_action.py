"""`core.action`: every action can be named, and every reason explained on one line."""

import pytest

from core import action
from core.action import (
    CouldNotBeRead,
    Deploy,
    Differs,
    ImageDiffers,
    NoContainer,
    NoDeploymentId,
    NotExpected,
    NotRunning,
    Reason,
    Redeploy,
    Spare,
    Start,
    StopOrphan,
    UpdateCaddy,
    UpdateDns,
    UpdateWireGuard,
)
from core.containers import ContainerId, DeploymentId
from core.digest import Difference
from core.dns import Record
from core.wireguard import Peer
from tests.builders import NAME, a_key, an_expected_container

DEP, CON = DeploymentId("d"), ContainerId("c" * 64)


@pytest.mark.parametrize(
    ("reason", "line"),
    [
        (NoDeploymentId(), "has no deployment id"),
        (NotExpected(), "its deployment is not expected here"),
        (Spare(CON), "container cccccccccccc of the same deployment is kept"),
        (Spare(ContainerId("c")), "container c of the same deployment is kept"),
        (NotRunning("exited"), "state exited, expected running"),
        (NoContainer(), "no container for this deployment"),
        (ImageDiffers("a", "b"), "image a, expected b"),
        (Differs(Difference(("a", "b"), (), ("c",))), "2 to add, 0 to remove, 1 to change"),
        (CouldNotBeRead(), "what is served could not be read"),
    ],
)
def test_a_reason_is_one_line(reason: Reason, line: str) -> None:
    """With the facts that a person needs: was, wants."""
    assert action.explain(reason) == line


@pytest.mark.parametrize(
    ("one", "kind", "subject"),
    [
        (StopOrphan(None, CON, "old", NoDeploymentId()), "stop_orphan", "old"),
        (Start(DEP, CON, "there", NotRunning("exited")), "start", "there"),
        (Deploy(an_expected_container(), NoContainer()), "deploy", NAME),
        (Redeploy(an_expected_container(), CON, NotRunning("dead")), "redeploy", NAME),
        (UpdateDns((Record("a.internal", ("1.1.1.1",)),), CouldNotBeRead()), "update_dns", "1 DNS records"),
        (UpdateCaddy((), CouldNotBeRead()), "update_caddy", "0 routes"),
        (
            UpdateWireGuard((Peer(a_key(), (), None),), ("x",), CouldNotBeRead()),
            "update_wireguard",
            "2 WireGuard peers",
        ),
    ],
)
def test_an_action_has_a_kind_and_a_subject(one: action.Action, kind: str, subject: str) -> None:
    """The same words everywhere."""
    assert (action.kind(one), action.subject(one)) == (kind, subject)


def test_kinds_stand_in_the_order_in_which_changes_are_made() -> None:
    """The mission's order."""
    order = ["stop_orphan", "start", "deploy", "redeploy", "update_dns", "update_caddy", "update_wireguard"]
    assert list(action.KINDS.values()) == order


def test_an_unread_component_differs_in_no_key() -> None:
    """What is not known is not listed."""
    assert action.difference_of(UpdateDns((), CouldNotBeRead())) == Difference()
    found = Difference(added=("a",))
    assert action.difference_of(UpdateDns((), Differs(found))) == found
