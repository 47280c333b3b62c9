"""The protocol's endpoints over HTTP: reads a request, asks who sent it, hands it to a rule. Decides nothing about rows."""

from collections.abc import Callable, Mapping
from typing import Any, TypeAlias

from starlette.requests import Request
from starlette.responses import JSONResponse, Response
from starlette.routing import Route

from shell.local_plane import builds, work
from shell.local_plane.documents import loaded_object
from shell.local_plane.expected import caddy_check, expected_state
from shell.local_plane.plane import Plane, Rule
from shell.local_plane.reported import status_report
from shell.local_plane.servers import register
from shell.local_plane.signature import caller
from shell.local_plane.store import REGISTER
from shell.local_plane.world import Answer, Server, refused

BASE = "/api/v1/agent"

# A report of a thousand containers has about 200 kB, a build's error at most as much.
_LONGEST_BODY = 8 * 1024 * 1024
# Anybody can send a registration, so that it may cost little; one has about 500 bytes.
_LONGEST_REGISTRATION = 16 * 1024

Body: TypeAlias = Mapping[str, Any]
ReportRule: TypeAlias = Callable[[Server, Body], Rule]

_NOT_JSON = refused(400, "Invalid JSON body")


class AgentApi:
    """What agents (and Caddy) ask of the control plane."""

    def __init__(self, plane: Plane) -> None:
        self._plane = plane

    def routes(self) -> list[Route]:
        """All of them."""
        return [
            Route(f"{BASE}/register", self._register, methods=["POST"]),
            Route(f"{BASE}/expected-state", self._expected_state, methods=["GET"]),
            Route(f"{BASE}/status", self._status, methods=["POST"]),
            Route(f"{BASE}/work-queue", self._work_queue, methods=["GET"]),
            Route(f"{BASE}/work-queue", self._finish_work, methods=["POST"]),
            Route(f"{BASE}/pending-builds", self._pending_builds, methods=["GET"]),
            Route(f"{BASE}/builds/{{build}}/claim", self._claim, methods=["POST"]),
            Route(f"{BASE}/builds/{{build}}/status", self._build_status, methods=["GET"]),
            Route(f"{BASE}/builds/{{build}}/status", self._report_build, methods=["POST"]),
            Route("/api/v1/caddy/check", self._caddy_check, methods=["GET"]),
        ]

    async def _register(self, request: Request) -> Response:
        raw = await bounded_body(request, _LONGEST_REGISTRATION)
        body = None if raw is None else loaded_object(raw)
        if body is None:
            return as_response(_too_long(_LONGEST_REGISTRATION) if raw is None else _NOT_JSON)
        answer = self._plane.act(lambda world, moment: register(world, body, moment))
        self._kept(REGISTER, str(answer.body.get("serverId", "")), {**body, "token": "…"}, answer)
        return as_response(answer)

    async def _expected_state(self, request: Request) -> Response:
        def given(server: Server) -> Answer:
            answer = expected_state(self._plane.world(), server)
            self._plane.fetched(server.id)
            return answer

        return self._read(request, given)

    async def _work_queue(self, request: Request) -> Response:
        return self._read(request, lambda server: work.listing(self._plane.world(), server.id))

    async def _pending_builds(self, request: Request) -> Response:
        return self._read(request, lambda _: builds.pending(self._plane.world()))

    async def _build_status(self, request: Request) -> Response:
        build = str(request.path_params["build"])
        return self._read(request, lambda _: builds.status_of(self._plane.world(), build))

    async def _claim(self, request: Request) -> Response:
        build = str(request.path_params["build"])

        def claimed(server: Server) -> Answer:
            return self._plane.act(lambda world, moment: builds.claim(world, build, server.id, moment))

        return self._read(request, claimed)

    async def _status(self, request: Request) -> Response:
        return await self._write(
            request,
            "status",
            lambda server, body: lambda world, moment: status_report(world, server, body, moment.now_ms),
        )

    async def _finish_work(self, request: Request) -> Response:
        return await self._write(request, "work", lambda _, body: lambda world, __: work.finish(world, body))

    async def _report_build(self, request: Request) -> Response:
        build = str(request.path_params["build"])
        return await self._write(
            request,
            f"build {build}",
            lambda server, body: lambda world, moment: builds.report(world, build, server.id, body, moment),
        )

    async def _caddy_check(self, request: Request) -> Response:
        return as_response(caddy_check(self._plane.world(), request.query_params.get("domain", "")))

    def _read(self, request: Request, answer: Callable[[Server], Answer]) -> Response:
        """A call whose signature covers no body."""
        who = caller(self._plane.world(), request.headers, b"", self._plane.clock())
        return as_response(who if isinstance(who, Answer) else answer(who))

    async def _write(self, request: Request, kind: str, rule: ReportRule) -> Response:
        """A call with a signed JSON body, which is kept as a report."""
        raw = await bounded_body(request)
        if raw is None:
            return as_response(_too_long(_LONGEST_BODY))
        who = caller(self._plane.world(), request.headers, raw, self._plane.clock())
        if isinstance(who, Answer):
            return as_response(who)
        body = loaded_object(raw)
        if body is None:
            return as_response(_NOT_JSON)
        answer = self._plane.act(rule(who, body))
        self._kept(kind, who.name, body, answer)
        return as_response(answer)

    def _kept(self, kind: str, server: str, body: Body, answer: Answer) -> None:
        self._plane.reports.add(self._plane.clock(), kind, server, body, answer.status)


def _too_long(most_bytes: int) -> Answer:
    return refused(413, f"the body is longer than {most_bytes} bytes")


async def bounded_body(request: Request, most_bytes: int = _LONGEST_BODY) -> bytes | None:
    """The whole body, or None when it is too long to be taken."""
    parts, length = [], 0
    async for part in request.stream():
        length += len(part)
        if length > most_bytes:
            return None
        parts.append(part)
    return b"".join(parts)


def as_response(answer: Answer) -> Response:
    """A rule's answer on the wire."""
    return JSONResponse(dict(answer.body), answer.status)
