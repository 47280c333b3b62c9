"""`core.fetching`: which images the outstanding changes need."""

from core import retry
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
    UpdateDns,
)
from core.containers import ContainerId, DeploymentId
from core.fetching import ImageRequest, Images, doubted, needed_by
from core.retry import Retries
from core.state import ExpectedState
from tests.builders import an_expected_container, an_image

A = DeploymentId("a")
MADE = an_expected_container(deployment_id=A)
WANTED = ExpectedState((MADE,))
START = Start(A, ContainerId("c"), "n", NotRunning("exited"))
DEPLOY = Deploy(MADE, NoContainer())
REDEPLOY = Redeploy(MADE, ContainerId("c"), ImageDiffers("x", "y"))
STOP = StopOrphan(DeploymentId("old"), ContainerId("c"), "n", NotExpected(), (MADE,))
DNS = UpdateDns((), CouldNotBeRead())
REQUEST = ImageRequest(A, MADE.image)


def failed(times: int, action: Action = START) -> Retries:
    """What is remembered after so many failed attempts."""
    found: Retries = {}
    for _ in range(times):
        found = retry.after_attempt(found, retry.key(action), 0.0, "x")
    return found


def test_what_each_change_needs() -> None:
    """A container that exists needs no image to be started again (L19)."""
    images = Images()
    assert [images.needs(one, WANTED, doubted({})) for one in (DEPLOY, REDEPLOY, STOP, START, DNS)] == [
        (REQUEST,),
        (REQUEST,),
        (REQUEST,),
        (),
        (),
    ]
    assert list(needed_by((DEPLOY, STOP, START, DNS))) == [A, A, A]


def test_what_is_here_is_needed_no_more_until_it_was_used() -> None:
    """Another image of the same deployment is."""
    here = Images().asked([REQUEST]).answered(REQUEST, is_here=True)
    assert here.needs(DEPLOY, WANTED, doubted({})) == ()
    other = Deploy(an_expected_container(deployment_id=A, image=an_image("other:1")), NoContainer())
    assert here.needs(other, WANTED, doubted({})) == (ImageRequest(A, an_image("other:1")),)
    assert here.after(DEPLOY).needs(DEPLOY, WANTED, doubted({})) == (REQUEST,)
    assert here.after(STOP).needs(DEPLOY, WANTED, doubted({})) == ()
    assert not here.answered(REQUEST, is_here=False).on_the_way


def test_after_two_failed_starts_the_image_is_verified_once() -> None:
    """L50: also one whose container exists; a bystander's is not."""
    verified = ImageRequest(A, MADE.image, verify=True)
    for action in (START, DEPLOY, REDEPLOY, STOP):
        assert not any(one.verify for one in Images().needs(action, WANTED, doubted(failed(1))))
        assert Images().needs(action, WANTED, doubted(failed(2))) == (verified,)
    bystander = Deploy(an_expected_container(deployment_id=DeploymentId("b")), NoContainer())
    assert [one.verify for one in Images().needs(bystander, WANTED, doubted(failed(2)))] == [False]
    found = Images().asked([verified]).answered(verified, is_here=True).after(START)
    assert found.needs(START, WANTED, doubted(failed(3))) == ()
    assert found.among([A], failed(2)).verified == {A}
    assert found.among([A], {}).verified == frozenset(), (
        "a start that lasted ends the doubt, and a later one begins anew"
    )
    damaged = Images().asked([verified]).answered(verified, is_here=False)
    assert damaged.needs(START, WANTED, doubted(failed(2))) == (verified,)


def test_a_failed_fetch_is_no_failed_start() -> None:
    """Nothing is verified that never came."""
    retries = retry.after_attempt(retry.after_attempt({}, REQUEST.key, 0.0, "x"), REQUEST.key, 0.0, "x")
    assert [one.verify for one in Images().needs(DEPLOY, WANTED, doubted(retries))] == [False]


def test_what_nobody_needs_is_forgotten() -> None:
    """The memory is bounded by what is outstanding."""
    full = Images().asked([REQUEST]).answered(REQUEST, is_here=True).asked([REQUEST])
    assert full.among([A], {}) == full
    assert full.among([], {}) == Images()
