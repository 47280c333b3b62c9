"""The whole control plane as an ASGI application: the protocol, the lab's endpoints, and what no endpoint matches."""

from pathlib import Path

from starlette.applications import Starlette
from starlette.exceptions import HTTPException
from starlette.requests import Request
from starlette.responses import HTMLResponse, JSONResponse, Response

from shell.failure import AdapterError
from shell.local_plane.agent_http import AgentApi
from shell.local_plane.lab_http import LabApi
from shell.local_plane.plane import Clock, NewId, Plane, fresh_id, wall_clock
from shell.log import logger

_NOT_FOUND = "<!DOCTYPE html><html lang='en'><head><title>404</title></head><body><h1>404: not found</h1></body></html>"


def create_app(state_dir: Path, *, clock: Clock = wall_clock, new_id: NewId = fresh_id) -> Starlette:
    """The application that serves this folder; its `Plane` is `app.state.plane`.

    `clock` gives Unix milliseconds, `new_id` fresh ids. Raises `CommandError` when the folder or its state cannot be used.
    """
    plane = Plane(state_dir, clock, new_id)
    app = Starlette(
        routes=[*AgentApi(plane).routes(), *LabApi(plane).routes()],
        exception_handlers={HTTPException: _unmatched, AdapterError: _not_kept},
    )
    app.router.redirect_slashes = False  # 308 and not Starlette's 307, see below
    app.state.plane = plane
    return app


async def _unmatched(request: Request, error: Exception) -> Response:
    """As the original's framework: no body for a wrong method, a redirect without the last slash, a page for an unknown path."""
    if isinstance(error, HTTPException) and error.status_code == 405:
        return Response(status_code=405, headers=error.headers)
    path = request.url.path
    if path.endswith("/") and path.strip("/"):
        query = f"?{request.url.query}" if request.url.query else ""
        target = f"/{path.strip('/')}"
        return Response(target, status_code=308, headers={"location": f"{target}{query}"})
    return HTMLResponse(_NOT_FOUND, status_code=404)


async def _not_kept(_: Request, error: Exception) -> Response:
    logger().error("request refused", why=str(error))
    return JSONResponse({"error": str(error)}, status_code=500)
