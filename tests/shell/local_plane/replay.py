"""The captured exchanges, replayed against the embedded control plane: what was sent, what came back, and what its rows were afterwards.

The control plane that was captured was worked by a person between two exchanges; `steps` does the same here. Ids are those of the
captures, so that answers can be compared whole.
"""

import json
import re
from collections.abc import Callable, Iterable, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import yaml
from starlette.applications import Starlette

from shell.local_plane.app import create_app
from shell.local_plane.plane import Plane, fresh_id
from shell.local_plane.store import save_world
from shell.local_plane.world import Answer, Server, World
from tests.shell.local_plane.asking import Asking

CAPTURES = Path(__file__).parents[2] / "captures"
KEY = "00112233445566778899aabbccddeeff0123456789abcdeffedcba9876543210"
_ID = re.compile(r"[0-9a-f]{8}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{4}-[0-9a-f]{12}")

START_MS = 1_795_429_738_500

# Requests whose timestamp is wrong on purpose: the clock stays where it is.
WRONG_CLOCK = frozenset({20, 21, 22, 23, 24})


@dataclass(frozen=True)
class Capture:
    """One exchange; `number` orders them."""

    number: int
    name: str
    request: Mapping[str, Any]
    response: Mapping[str, Any]
    rows_after: list[dict[str, Any]] | None


@dataclass(frozen=True)
class Outcome:
    """How the embedded control plane answered, and its rows afterwards where the capture has them."""

    capture: Capture
    status: int
    content_type: str
    location: str | None
    text: str
    deployments: list[dict[str, Any]] = field(default_factory=list)
    servers: list[dict[str, Any]] = field(default_factory=list)
    items: list[dict[str, Any]] = field(default_factory=list)
    builds: list[dict[str, Any]] = field(default_factory=list)

    @property
    def json(self) -> Any:
        """The body as JSON."""
        return json.loads(self.text)


def load_captures() -> list[Capture]:
    """All of them, in order."""
    return [_capture(path) for path in sorted(CAPTURES.glob("*.json"))]


def _capture(path: Path) -> Capture:
    loaded = json.loads(path.read_text())
    return Capture(int(path.name[:3]), path.stem, loaded["request"], loaded["response"], loaded.get("db_after"))


@dataclass
class Lab:
    """A control plane with a clock and ids of the test's choice, and a person's hands."""

    folder: Path
    now_ms: int = START_MS
    ids: list[str] = field(default_factory=list)
    services: dict[str, dict[str, Any]] = field(default_factory=dict)
    settings: dict[str, str] = field(default_factory=dict)
    _app: Starlette | None = None

    def open(self, servers: Iterable[Server]) -> None:
        """Start with these servers known and nothing registered."""
        save_world(self.folder, World(KEY, servers={server.id: server for server in servers}))
        self._app = create_app(self.folder, clock=lambda: self.now_ms, new_id=self._next_id)

    @property
    def client(self) -> Asking:
        """Asks over the ASGI interface, as loopback."""
        assert self._app is not None
        return Asking(self._app)

    @property
    def plane(self) -> Plane:
        """The running control plane."""
        assert self._app is not None
        plane: Plane = self._app.state.plane
        return plane

    def write(self, **changed: dict[str, Any] | None) -> None:
        """Save the services' file with these entries changed (None: removed), and have it noticed."""
        self.services = {key: entry for key, entry in {**self.services, **changed}.items() if entry is not None}
        document = {"services": self.services, **self.settings}
        (self.folder / "services.yaml").write_text(yaml.safe_dump(document, allow_unicode=True))
        self.plane.world()
        assert not [problem for problem in self.plane.problems() if "services.yaml" in problem]

    def deploy(self, key: str, entry: dict[str, Any], *deployments: str) -> None:
        """Save an entry whose deployments get these ids."""
        ids = [full(start) for start in deployments]
        self.ids = [fresh_id(), *(each for one in ids for each in (one, ITEM_OF.get(one, fresh_id())))]
        self.write(**{key: entry})
        assert not self.ids, "ids were left over"

    def post(self, path: str, body: Mapping[str, Any] | None = None, ids: tuple[str, ...] = ()) -> None:
        """A click in the lab's dashboard; what it makes gets these ids."""
        self.ids = [full(start) for start in ids]
        answer = self.client.post(f"/lab/{path}", body)
        assert answer.status_code == 200, answer.text
        assert not self.ids, "ids were left over"

    def change(self, rule: Callable[[World], World]) -> None:
        """What no endpoint offers: the captured rows were damaged by hand, too."""
        self.plane.act(lambda world, _: (rule(world), Answer(200, {})))

    def rows(self, name: str) -> list[dict[str, Any]]:
        """One of the lab's lists."""
        found: list[dict[str, Any]] = self.client.get(f"/lab/{name}").json()[name]
        return found

    def send(self, capture: Capture) -> Outcome:
        """Send the captured request as it was."""
        asked = capture.request
        stamp = asked["headers"].get("x-timestamp", "")
        if stamp and capture.number not in WRONG_CLOCK:
            self.now_ms = max(self.now_ms, int(float(stamp)))
        body = None if asked["body"] is None else asked["body"].encode()
        answer = self.client.request(asked["method"], asked["path"], headers=asked["headers"], content=body)
        lists = {name: self.rows(name) for name in ("deployments", "work", "builds")} if capture.rows_after else {}
        # The dashboard's list of servers marks silent ones; here nobody is silent for long enough.
        servers = self.rows("servers") if capture.rows_after else []
        return Outcome(
            capture,
            answer.status_code,
            answer.headers.get("content-type", ""),
            answer.headers.get("location"),
            answer.text,
            deployments=lists.get("deployments", []),
            servers=servers,
            items=lists.get("work", []),
            builds=lists.get("builds", []),
        )

    def _next_id(self) -> str:
        return self.ids.pop(0) if self.ids else fresh_id()


def _items() -> Mapping[str, str]:
    """The id of the `deploy` item that went with each deployment, where a capture shows it."""
    found = {}
    for capture in load_captures():
        rows = capture.rows_after or []
        listed = (capture.response["json"] or {}).get("items", []) if isinstance(capture.response["json"], dict) else []
        for item in (*rows, *listed):
            if item.get("type") == "deploy":
                found[json.loads(item["payload"])["deploymentId"]] = item["id"]
    return found


def _all_ids() -> frozenset[str]:
    texts = (path.read_text() for path in CAPTURES.glob("*.json"))
    return frozenset(found for text in texts for found in _ID.findall(text))


ITEM_OF = _items()
ALL_IDS = _all_ids()


def full(start: str) -> str:
    """The one id in the captures that begins like this."""
    (found,) = [each for each in ALL_IDS if each.startswith(start)]
    return found
