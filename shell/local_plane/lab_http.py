"""The endpoints under `/lab`: what a person would see and click in a dashboard. Without a password, so for this machine only.

Every list is one JSON object with one key; a request that changes something answers `{"ok": true}`, what it made, or an error.
"""

import ipaddress
from collections.abc import Callable, Mapping

from starlette.requests import Request
from starlette.responses import Response
from starlette.routing import Route

from shell.local_plane import builds, ending, lab_lists
from shell.local_plane.agent_http import Body, as_response, bounded_body
from shell.local_plane.documents import loaded_object
from shell.local_plane.placement import redeployed
from shell.local_plane.plane import Plane, Rule
from shell.local_plane.servers import with_silent_offline, without_server
from shell.local_plane.work import as_json, queued
from shell.local_plane.world import Answer, Moment, World, refused, server_named, service_named

_DEFAULT_REPORTS = 100
_LONGEST_NUMBER = 9
_DONE = Answer(200, {"ok": True})


def refusal(client: str | None, headers: Mapping[str, str]) -> Answer | None:
    """Why `/lab` does not answer this caller, if it does not: another machine, a reverse proxy, or a page in a browser."""
    if client is None or not _is_loopback(client):
        return refused(403, "/lab answers to this machine only")
    if "x-forwarded-for" in headers or "forwarded" in headers:
        return refused(403, "/lab does not answer through a proxy")
    host = headers.get("host", "").rsplit(":", 1)[0].strip("[]")
    if "origin" in headers or not (host == "localhost" or _is_loopback(host)):
        return refused(403, "/lab does not answer web pages; ask for it by a loopback address")
    return None


class LabApi:
    """What tests and people ask of the control plane."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            *(self._list(name, show) for name, show in lab_lists.ALL.items()),
            self._get("servers", self._servers),
            self._get("reports", self._reports),
            self._get("problems", lambda _: self._problems()),
            self._post("work", lambda _, body: lambda world, moment: _work(world, body, moment)),
            self._post("builds", lambda _, body: lambda world, moment: builds.created(world, body, moment)),
            self._post("builds/{id}/cancel", lambda id_, _: lambda world, moment: builds.cancelled(world, id_, moment)),
            self._post("deployments/{id}/stop", lambda id_, _: lambda world, moment: ending.stop(world, id_, moment)),
            self._post(
                "deployments/{id}/restart", lambda id_, _: lambda world, moment: ending.restart(world, id_, moment)
            ),
            self._post("rollouts/{id}/abort", lambda id_, _: lambda world, moment: ending.abort(world, id_, moment)),
            self._post("services/{id}/redeploy", lambda id_, _: lambda world, moment: _redeploy(world, id_, moment)),
            self._post("servers/{id}/delete", lambda id_, _: lambda world, _moment: _delete_server(world, id_)),
        ]

    def _list(self, name: str, show: Callable[[World], lab_lists.Listing]) -> Route:
        return self._get(name, lambda _: Answer(200, {name: show(self._plane.world())}))

    def _servers(self, _: Request) -> Answer:
        def listed(world: World, moment: Moment) -> tuple[World, Answer]:
            world = with_silent_offline(world, moment.now_ms)
            return world, Answer(200, {"servers": lab_lists.servers(world)})

        return self._plane.act(listed)

    def _reports(self, request: Request) -> Answer:
        asked = request.query_params
        limit = asked.get("limit", str(_DEFAULT_REPORTS))
        if not limit.isdecimal() or len(limit) > _LONGEST_NUMBER:
            return refused(400, "limit must be a whole number")
        return Answer(200, {"reports": self._plane.reports.newest(int(limit), asked.get("server"), asked.get("kind"))})

    def _problems(self) -> Answer:
        self._plane.world()
        return Answer(200, {"problems": list(self._plane.problems())})

    def _get(self, name: str, answer: Callable[[Request], Answer]) -> Route:
        async def endpoint(request: Request) -> Response:
            return as_response(_refusal_of(request) or answer(request))

        return Route(f"/lab/{name}", endpoint, methods=["GET"])

    def _post(self, name: str, rule: Callable[[str, Body], Rule]) -> Route:
        async def endpoint(request: Request) -> Response:
            refusal_ = _refusal_of(request)
            if refusal_ is not None:
                return as_response(refusal_)
            raw = await bounded_body(request)
            body = loaded_object(raw or b"{}")
            if raw is None or body is None:
                return as_response(refused(400, "the body must be a JSON object"))
            return as_response(self._plane.act(rule(str(request.path_params.get("id", "")), body)))

        return Route(f"/lab/{name}", endpoint, methods=["POST"])


def _work(world: World, body: Body, moment: Moment) -> tuple[World, Answer]:
    """Queue an item as it is given: the protocol does not check types or payloads either."""
    server = server_named(world, str(body.get("server", "")))
    kind, payload = body.get("type"), body.get("payload", {})
    if server is None:
        return world, refused(404, f"no server {body.get('server')!r}")
    if not isinstance(kind, str) or not isinstance(payload, str | dict):
        return world, refused(400, "type must be text and payload text or an object")
    world = queued(world, server.id, kind, payload, moment)
    return world, Answer(200, as_json(list(world.items.values())[-1]))


def _redeploy(world: World, key: str, moment: Moment) -> tuple[World, Answer]:
    service = service_named(world, key)
    if service is None:
        return world, refused(404, f"no service {key!r}")
    if not service.image:
        return world, refused(409, "the service has no image yet")
    return redeployed(world, service, moment), _DONE


def _delete_server(world: World, name: str) -> tuple[World, Answer]:
    server = server_named(world, name)
    if server is None:
        return world, refused(404, f"no server {name!r}")
    return without_server(world, server.id), _DONE


def _refusal_of(request: Request) -> Answer | None:
    return refusal(request.client.host if request.client else None, request.headers)


def _is_loopback(text: str) -> bool:
    try:
        address = ipaddress.ip_address(text)
    except ValueError:
        return False
    mapped = address.ipv4_mapped if isinstance(address, ipaddress.IPv6Address) else None
    return (mapped or address).is_loopback
