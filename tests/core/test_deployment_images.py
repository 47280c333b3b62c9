"""`core.deployment_images`: a deployment is one image for ever (L52)."""

from dataclasses import replace

from hypothesis import given
from hypothesis import strategies as st

from core import deployment_images
from core.containers import DeploymentId
from core.deployment_images import KeptImage
from core.state import ExpectedState, Held
from tests.builders import NGINX, an_actual_container, an_expected_container, an_image

A, B = DeploymentId("a"), DeploymentId("b")
SHA = "sha256:" + "ab" * 32
WANTED = ExpectedState((an_expected_container(deployment_id=A),))
KEPT = KeptImage(NGINX, "id-1", SHA)


def test_the_image_of_a_deployment_is_what_was_kept() -> None:
    """Until the service's image is changed under the same deployment, which means another image."""
    assert deployment_images.kept_for({A: KEPT}, A, an_image()) == KEPT
    assert deployment_images.kept_for({A: KEPT}, A, an_image("nginx:1.28")) is None
    assert deployment_images.kept_for({A: KEPT}, B, an_image()) is None


def test_what_is_gone_is_forgotten() -> None:
    """Neither expected, nor here, nor held."""
    kept = {A: KEPT, B: KEPT}
    assert deployment_images.after_look(kept, WANTED, ()) == {A: KEPT}
    assert deployment_images.after_look(kept, WANTED, [an_actual_container(deployment_id=B)]) == kept
    held = replace(WANTED, held=Held(containers=frozenset({B})))
    assert deployment_images.after_look(kept, held, ()) == kept


def test_what_runs_and_is_not_known_is_taken_over() -> None:
    """After an upgrade: a container that is lost later comes back from the image that it had."""
    there = [
        an_actual_container(deployment_id=A, image_id="id-7"),
        an_actual_container(deployment_id=B, image_id="id-8"),
    ]
    assert deployment_images.after_look({}, WANTED, there) == {A: KeptImage(NGINX, "id-7")}
    assert deployment_images.after_look({A: KEPT}, WANTED, there) == {A: KEPT}
    other = [an_actual_container(deployment_id=A, image_id="id-7", image=an_image("nginx:1.28"))]
    assert deployment_images.after_look({}, WANTED, other) == {}
    pinned = ExpectedState((an_expected_container(deployment_id=A, image=an_image(f"nginx@{SHA}")),))
    made = [an_actual_container(deployment_id=A, image_id="id-7", image=an_image(f"nginx@{SHA}"))]
    assert deployment_images.after_look({}, pinned, made) == {
        A: KeptImage(f"docker.io/library/nginx@{SHA}", "id-7", SHA)
    }


@given(
    st.dictionaries(st.sampled_from([A, B, DeploymentId("c")]), st.just(KEPT)),
    st.sets(st.sampled_from([A, B])),
    st.lists(st.sampled_from([A, B, None]), max_size=4),
)
def test_it_is_bounded_and_settles(
    kept: dict[DeploymentId, KeptImage], wanted: set[DeploymentId], there: list[DeploymentId | None]
) -> None:
    """Never more than what is expected or here; a second look changes nothing; what is kept for an expected deployment never changes."""
    expected = ExpectedState(tuple(an_expected_container(deployment_id=one) for one in sorted(wanted)))
    seen = [an_actual_container(deployment_id=one, image_id="id-9") for one in there]
    after = deployment_images.after_look(kept, expected, seen)
    assert after.keys() <= wanted | set(there)
    assert deployment_images.after_look(after, expected, seen) == after
    assert all(after[key] == one for key, one in kept.items() if key in after)
