"""What a person did to the captured control plane between two exchanges, by the number of the exchange that came next.

Ids are named by their first characters. Three installations were captured, one after the other; each begins with an empty folder.
"""

from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, TypeAlias

from shell.local_plane.deploying import undeployed
from shell.local_plane.sealing import opened
from shell.local_plane.work import without_pending
from shell.local_plane.world import (
    DeploymentId,
    Server,
    ServerId,
    ServerStatus,
    ServiceId,
    World,
    with_deployments,
    with_rows,
    with_service,
)
from tests.shell.local_plane.replay import KEY, START_MS, Lab, full, load_captures

Step: TypeAlias = Callable[[Lab], None]

DAY_MS = 24 * 3600 * 1000
WORKER, PROXY, NO_IP = "worker1", "proxy1", "worker2-noip"

_TOKENS = {
    (capture.response["json"] or {}).get("serverId"): capture.request["json"]["token"]
    for capture in load_captures()
    if capture.request["path"].endswith("/register") and capture.response["status"] == 200
}
_EXPIRED = "6430431dd667678a10c0b3b37a7ca4904da060ad207ebd57c1463a9fe9361aa1"


def _server(server_id: str, name: str) -> Server:
    return Server(ServerId(server_id), name, _TOKENS.get(server_id), START_MS)


WORLDS: Mapping[int, tuple[Server, ...]] = {
    1: (
        _server("c7328dadd694b4ed87a7dcc2", WORKER),
        _server("baccccedaa0de12ea876cb8a", PROXY),
        _server("78a2790007835918a9f3daa8", NO_IP),
        _server("32feb262e9d85d186d40542b", "worker3-emptyip"),
        Server(ServerId("e337905de29d99dd81c05827"), "expired", _EXPIRED, START_MS - 2 * DAY_MS),
        Server(ServerId("2303a152de90cd30723a1fa1"), "unregistered", "never-used", START_MS),
    ),
    120: (
        _server("e24acefe318e2100203472aa", "edge-worker"),
        _server("fa0a45a4373a5fe2876e96dd", "edge-proxy"),
    ),
    135: (
        _server("2eacda8f2304513948430175", WORKER),
        _server("94cc922fc01040b5a2aebbe4", PROXY),
        _server("0461ba505ffa6432cc1172ae", "worker2"),
        _server("d6762d1aac5487ae7308276b", "worker3"),
    ),
}
"""The servers of each installation by the number of its first exchange."""

WIREGUARD_ITEMS: Mapping[int, tuple[str, ...]] = {
    12: ("e6458a",),
    13: ("a898ee", "884023"),
    14: ("416070", "e47327", "562540"),
}
"""What a registration queued for the servers before it."""

API: dict[str, Any] = {
    "id": full("fd77f2d9"),
    "image": "ghcr.io/acme/api:v2",
    "servers": [WORKER],
    "ports": [{"container": 3000}],
    "health_check": {"cmd": "curl -f http://localhost:3000/health || exit 1", "interval": 7},
}


def _web_app(lab: Lab) -> None:
    entry = {
        "id": full("25004b1e"),
        "name": "Web App",
        "image": "nginx:1.27",
        "replicas": 3,
        "servers": [WORKER, WORKER, PROXY],
        "env": secrets_of(51),
        "ports": [{"container": 9000}, {"container": 80, "domain": "web.example.com"}],
    }
    lab.deploy("Web App", entry, "c074937c", "b3d6ac00", "e74a9484")


def secrets_of(number: int) -> dict[str, str]:
    """The plain env of the last container in a captured expected state."""
    (capture,) = [capture for capture in load_captures() if capture.number == number]
    env = capture.response["json"]["containers"][-1]["env"]
    return {name: opened(KEY, value) or "" for name, value in env.items()}


def _each(what: str, ids: Mapping[str, str]) -> Step:
    def step(lab: Lab) -> None:
        for deployment, item in ids.items():
            lab.post(f"deployments/{full(deployment)}/{what}", ids=(item,))

    return step


def _api(revision: int, deployment: str) -> Step:
    return lambda lab: lab.deploy("api", {**API, "revision": revision}, deployment)


def _crasher(lab: Lab) -> None:
    lab.deploy("crasher", {"id": full("601e19da"), "image": "busybox", "servers": [NO_IP]}, "33ebc87c")


def _rows_deleted(start: str) -> Step:
    """The rows of a service go, and nothing follows from it."""

    def rule(world: World) -> World:
        service = world.services[ServiceId(full(start))]
        return with_service(undeployed(world, service.id), replace(service, halted=True, tried=service.spec))

    return lambda lab: lab.change(rule)


def _postgres(lab: Lab) -> None:
    volumes = [{"name": "data-dir", "path": "/bitnami/postgresql"}, {"name": "conf", "path": "/etc/x"}]
    entry = {
        "id": full("488a1649"),
        "image": "bitnami/postgresql:16",
        "servers": [WORKER],
        "env": secrets_of(117),
        "volumes": volumes,
        "ports": [{"container": 5432}],
    }
    lab.deploy("Postgres DB", entry, "736f618e")


def _images(lab: Lab) -> None:
    images = {
        "img-short": ("300e47e2", "redis", "d715b08d"),
        "img-user": ("2ec3237b", "library/redis:7", "6db9f067"),
        "img-digest": ("d0010d70", "nginx@sha256:" + "a" * 64, "267e4c61"),
        "img-reg": ("762b4d27", "127.0.0.1:5000/x/y:1", "081a2533"),
        "img-user-dot": ("f50d6b3d", "acme/app:1.2", "7801c48f"),
        "img-localhost": ("e195661b", "localhost:5000/app", "46a6a2b9"),
    }
    for key, (service, image, deployment) in images.items():
        lab.deploy(key, {"id": full(service), "image": image, "servers": [NO_IP]}, deployment)


def _odd(key: str, name: str, service: str, domain: str, deployment: str) -> Step:
    entry = {
        "id": full(service),
        "name": name,
        "image": "busybox",
        "servers": ["edge-worker"],
        "ports": [{"container": 80, "domain": f" {domain.upper()} "}, {"container": 443, "domain": f"tls-{domain}"}],
    }
    return lambda lab: lab.deploy(key, entry, deployment)


def _no_address(lab: Lab) -> None:
    row = DeploymentId(full("dc9bb909"))
    lab.change(lambda world: with_deployments(world, replace(world.deployments[row], address=None)))


def _checked(key: str, service: str, check: dict[str, Any], deployment: str) -> Step:
    entry = {"id": full(service), "image": "busybox", "servers": ["edge-worker"], "health_check": check}
    return lambda lab: lab.deploy(key, entry, deployment)


def _every_type(lab: Lab) -> None:
    (capture,) = [capture for capture in load_captures() if capture.number == 139]
    for item in capture.response["json"]["items"]:
        body = {"server": "worker3", "type": item["type"], "payload": item["payload"]}
        lab.post("work", body, ids=(item["id"],))


def _malformed(lab: Lab) -> None:
    lab.post("work", {"server": "worker3", "type": "stop", "payload": "not json"}, ids=("76523787",))


def _aborted_early(lab: Lab) -> None:
    lab.write(doomed={"image": "busybox", "servers": [WORKER]})
    (rollout,) = lab.rows("rollouts")
    lab.post(f"rollouts/{rollout['id']}/abort")
    lab.write(doomed=None)


def _two_deployed(lab: Lab) -> None:
    database = {
        "id": full("c9989d9d"),
        "image": "bitnami/postgresql:16",
        "servers": [WORKER],
        "volumes": [{"name": "data-dir", "path": "/bitnami/postgresql"}],
        "ports": [{"container": 5432}],
    }
    lab.deploy("Postgres DB", database, "0aa4db66")
    web = {"id": full("9f18329b"), "image": "nginx", "servers": [WORKER], "ports": [{"container": 80}]}
    lab.deploy("web", web, "fa764ebf")


def _aborted_late(lab: Lab) -> None:
    _rows_deleted("c9989d9d")(lab)
    lab.change(without_pending)


def _volumes_cleaned(lab: Lab) -> None:
    lab.ids = [full("5a6c0a9b")]
    lab.write(**{"Postgres DB": None})
    assert not lab.ids


def _build(key: str, entry: dict[str, Any], build: str, **body: Any) -> Step:
    def step(lab: Lab) -> None:
        lab.settings = {"project": full("0b87a221"), "registry": "127.0.0.1:5000"}
        lab.write(**{key: entry})
        lab.post("builds", {"service": key, **body}, ids=(build,))

    return step


SITE = {
    "id": full("040954d5"),
    "servers": [WORKER],
    "repository": {"url": "https://github.com/acme/site"},
    "env": {"BUILD_TOKEN": secrets_of(165)["BUILD_TOKEN"]},
    "ports": [{"container": 3000}],
}
PLAIN = {"id": full("cea13f78"), "repository": {"url": "https://git.example.com/x/y"}}
SHA = "0123456789abcdef0123456789abcdef01234567"


def _site_released(lab: Lab) -> None:
    """The ids of what completing the build deploys."""
    lab.ids = [full("cc01f8fa"), full("adeb1a0b")]


def _repository(service: str, url: str | None = None, token: str | None = None) -> dict[str, Any]:
    entry: dict[str, Any] = {"id": full(service), "image": "busybox", "replicas": 0}
    return {**entry, "repository": {"url": url, "token": token}} if url else entry


def _server_deleted(lab: Lab) -> None:
    lab.post("servers/worker3/delete")


def _offline(lab: Lab) -> None:
    server_id = ServerId("2eacda8f2304513948430175")
    lab.change(
        lambda world: replace(
            world,
            servers=with_rows(world.servers, replace(world.servers[server_id], status=ServerStatus.OFFLINE)),
        )
    )


STEPS: Mapping[int, Step] = {
    51: _web_app,
    83: _each("restart", {"e74a9484": "11cb6d3a", "c074937c": "906bdc5b", "b3d6ac00": "29cdaea6"}),
    86: _each("stop", {"e74a9484": "be5c543b", "c074937c": "fd75c1ab", "b3d6ac00": "afc7692f"}),
    94: _api(1, "e7402b6d"),
    101: _api(2, "393fe8b1"),
    105: _api(3, "a4d8d654"),
    111: _api(4, "464c91c4"),
    112: _crasher,
    115: _rows_deleted("601e19da"),
    117: _postgres,
    118: _images,
    123: _odd("dup", "dup", "4a3a3b1a", "a.example.com", "20ddfc8e"),
    124: _odd("dup-2", "dup", "d851e0f4", "*.wild.example.com", "e47587b5"),
    125: _odd("japan", "日本", "995fa1dc", "ünï.example.com", "d9dfd8c4"),
    126: _odd("trail", "-Lead & Trail-", "c4faa6fd", "has space.example.com", "dc9bb909"),
    128: _no_address,
    130: _checked("emptyhc", "a2262513", {"cmd": ""}, "05b4de3c"),
    133: _checked("nullhc", "665d1c13", {"cmd": "true", "interval": None, "retries": None}, "db02b528"),
    134: lambda lab: lab.write(**{"dup-2": {**lab.services["dup-2"], "image": "busybox:2"}}),
    139: _every_type,
    140: _malformed,
    141: _aborted_early,
    142: _two_deployed,
    144: _aborted_late,
    145: _volumes_cleaned,
    146: _build("site", SITE, "cc01f8fa", commitMessage="Manual build trigger"),
    164: _site_released,
    168: _build("plain", PLAIN, "28ec69a0", commitSha=SHA, branch="feature/x"),
    176: _build("plain", PLAIN, "542588dd", commitSha=SHA, branch="feature/x"),
    177: lambda lab: lab.post(f"builds/{full('542588dd')}/cancel"),
    180: _build("bare", {"image": "busybox", "replicas": 0}, "b1f10b1a"),
    181: _build(
        "file",
        _repository("4d44f0a3", "file:///srv/git/demo"),
        "083329de",
        commitMessage="Manual build trigger",
    ),
    183: _build(
        "private",
        _repository("8057b593", "https://github.com/acme/private"),
        "4b0484a8",
        commitSha="0" * 40,
        githubRepoId=full("24c99341"),
        tokenFails=True,
    ),
    185: _build(
        "private-2",
        _repository("988b681d", "https://github.com/acme/private2", "ghs_faketoken0123456789"),
        "3c302de4",
        commitSha="c" * 40,
    ),
    189: _server_deleted,
    190: _offline,
}
