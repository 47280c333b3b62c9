"""`core.podman_images`: answers as Podman 4.3 gives them."""

import json

import pytest
from hypothesis import given
from hypothesis import strategies as st
from returns.pipeline import is_successful

from core import podman_images
from core.image_gc import Store, Stored


def test_a_store() -> None:
    """Names and digests; images without a name; containers of everybody."""
    images = [
        {"Id": "i", "RepoTags": ["docker.io/library/a:1"], "RepoDigests": ["docker.io/library/a@sha256:0"], "Size": 5},
        {"Id": "j", "RepoTags": None},
    ]
    users = [{"Id": "c", "ImageID": "i"}, {"Id": "d"}]
    found = podman_images.parse_store(json.dumps(images).encode(), json.dumps(users).encode()).unwrap()
    names = ("docker.io/library/a:1", "docker.io/library/a@sha256:0")
    assert found == Store((Stored("i", names), Stored("j", ())), frozenset({"i"}))


def test_where_images_lie() -> None:
    """From the long answer about everything."""
    assert podman_images.parse_graph_root(b'{"store": {"graphRoot": "/x", "y": 1}, "z": {}}').unwrap() == "/x"


@pytest.mark.parametrize("raw", [b"", b"{", b"null", b"[5]", b"{}", b'{"store": {}}'])
def test_nonsense(raw: bytes) -> None:
    """L3: a reason; what is not known is not removed."""
    assert not is_successful(podman_images.parse_store(raw, b"[]"))
    assert not is_successful(podman_images.parse_graph_root(raw))


@given(st.binary(), st.binary())
def test_any_answer(images: bytes, users: bytes) -> None:
    """Nothing raises."""
    podman_images.parse_store(images, users)
    podman_images.parse_graph_root(images)
