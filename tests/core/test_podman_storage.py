"""What a creation that was cut off has left in Podman's storage."""

import json
from typing import Any

from returns.pipeline import is_successful

from core import podman_storage

NAME = "service-web-deploy"


def an_item(**changes: Any) -> dict[str, Any]:
    """An entry as Podman 4.3.1 writes it, cut to what matters."""
    plain = {"Id": "c" * 64, "Names": [NAME], "State": "storage", "Command": ["storage"], "Labels": None, "Status": ""}
    return plain | changes


def test_it_is_found_by_its_whole_name() -> None:
    """A container of Podman's and one of buildah's are none, whatever they run."""
    others = (
        an_item(State="created"),
        an_item(Command=["buildah"]),
        an_item(Command=None),
        an_item(Names=[f"{NAME}.removal"]),
        an_item(Names=["unknown"]),
    )
    assert podman_storage.parse_stored(json.dumps(others).encode(), NAME).unwrap() is None
    found = json.dumps([*others, an_item(Id="d" * 64)]).encode()
    assert podman_storage.parse_stored(found, NAME).unwrap() == "d" * 64


def test_an_answer_that_makes_no_sense() -> None:
    """Nothing is said of the storage."""
    for raw in (b"{}", b"[{}]", b"[" * 9999, b"\xff"):
        assert not is_successful(podman_storage.parse_stored(raw, NAME))
