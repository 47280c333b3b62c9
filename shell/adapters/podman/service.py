"""Podman's API service: calls with a time limit, off the event loop, whose failures are one clear line each.

Requests go through the `podman` library's API client. Its objects are used where they do what is needed; the requests further down are
made by hand, each with the reason. Nothing here decides what to do to a container.
"""

import contextlib
import math
from collections.abc import AsyncIterator, Callable, Iterator, Mapping
from pathlib import Path
from typing import Any, Final, TypeVar
from urllib.parse import quote
from weakref import WeakValueDictionary

import anyio
import anyio.from_thread
import anyio.to_thread
import msgspec

from core.podman import Json
from shell.adapters.podman import connection
from shell.adapters.podman.connection import Call
from shell.adapters.podman.library import (
    APIClient,
    APIError,
    APIResponse,
    Container,
    PodmanError,
    SystemManager,
)
from shell.failure import AdapterError

T = TypeVar("T")

COMPONENT: Final = "podman"
CHANGE_S: Final = 60.0  # a start on a busy server takes a second
_THREADS: Final = 8
_PULL_THREADS: Final = 32  # of their own: pulls wait for registries, and nothing else may wait for them
_PULLS_OF_ONE_REGISTRY: Final = 8  # one that hangs leaves the others their turn
_CHECK_THREADS: Final = 8  # of their own, too: health checks take as long as they may
# A listing has 1 KiB per container. All that a document can ask for fits in: 32 MiB of it, six bytes for each `<`, as Go writes them.
_LARGEST_ANSWER: Final = 256 * 1024**2
_LARGEST_PROGRESS: Final = 16 * 1024**2
_LONGEST_WORDS: Final = 400
_LONGEST_LINE: Final = 1024**2
_PIECE: Final = 64 * 1024


class RefusedError(AdapterError):
    """Podman's own answer to a request that it did not carry out: its words in `why`."""

    def __init__(self, what: str, status: int, why: str) -> None:
        super().__init__(COMPONENT, what, why, "tried again later")
        self.status = status


class Service:
    """The service behind one socket. Connections are kept, and made anew when the service has been restarted."""

    def __init__(self, socket: Path, read_limit_s: float) -> None:
        self._socket = socket
        self._read_limit_s = read_limit_s
        self._client = connection.client(socket, CHANGE_S)
        self._limiter = anyio.CapacityLimiter(_THREADS)
        self._pull_limiter = anyio.CapacityLimiter(_PULL_THREADS)
        self._registry_limiters: WeakValueDictionary[str, anyio.CapacityLimiter] = WeakValueDictionary()
        self._check_limiter = anyio.CapacityLimiter(_CHECK_THREADS)
        self._follow_limiter = anyio.CapacityLimiter(1)

    async def read(self, what: str, work: Callable[[APIClient], T]) -> T:
        """A call that changes nothing, and takes milliseconds."""
        return await self.call(what, work, self._read_limit_s)

    async def call(self, what: str, work: Callable[[APIClient], T], limit_s: float = CHANGE_S) -> T:
        """Run blocking requests in a worker thread. Raises AdapterError, as RefusedError when Podman says no."""
        return await self._run(what, lambda: work(self._client), limit_s, self._limiter)

    @contextlib.asynccontextmanager
    async def turn_of_check(self) -> AsyncIterator[None]:
        """Wait until one of few may run its health check within."""
        async with self._check_limiter:
            yield

    async def check(self, what: str, work: Callable[[APIClient], T], limit_s: float) -> T:
        """A call that takes as long as a health check."""
        return await self._run(what, lambda: work(self._client), limit_s, anyio.CapacityLimiter(1))

    async def pull(
        self,
        what: str,
        params: Mapping[str, Any],
        headers: Mapping[str, str],
        limit_s: float,
        on_answer: Callable[[], None],
    ) -> str:
        """Pull an image; its id. A silence of `limit_s` is allowed, since Podman says nothing while a layer comes."""

        def work() -> str:
            with contextlib.closing(connection.client(self._socket, limit_s)) as own:
                came = pull_image(own, params, headers, lambda: anyio.from_thread.run_sync(on_answer))
            if came.error:
                raise RefusedError(what, _OK, one_line(came.error))
            return came.id

        registry = str(params.get("reference", "")).partition("/")[0]
        own_share = self._registry_limiters.setdefault(registry, anyio.CapacityLimiter(_PULLS_OF_ONE_REGISTRY))
        async with own_share, self._pull_limiter:  # no time counts that was spent waiting for these
            return await self._run(what, work, limit_s, anyio.CapacityLimiter(1))

    async def follow(
        self,
        what: str,
        request: Mapping[str, Any],
        on_open: Callable[[], None],
        on_line: Callable[[bytes], None],
    ) -> None:
        """Read an endless answer line by line, each handed to the event loop, until it ends. A silence of any length is fine."""

        def work() -> None:
            with (
                contextlib.closing(connection.client(self._socket, CHANGE_S)) as own,
                contextlib.closing(own.get(**request, stream=True, timeout=(CHANGE_S, None))) as answer,
            ):
                answer.raise_for_status()
                anyio.from_thread.run_sync(on_open)
                for line in _lines(answer):
                    anyio.from_thread.run_sync(on_line, line)

        await self._run(what, work, math.inf, self._follow_limiter)

    async def aclose(self) -> None:
        """Close the connections."""
        self._client.close()

    async def _run(self, what: str, work: Callable[[], T], limit_s: float, limiter: anyio.CapacityLimiter) -> T:
        call = Call()

        def in_thread() -> T:
            with connection.under(call), self._failures(what):
                return work()

        try:
            with anyio.fail_after(limit_s):
                return await anyio.to_thread.run_sync(in_thread, abandon_on_cancel=True, limiter=limiter)
        except TimeoutError:
            raise AdapterError(COMPONENT, what, f"no answer within {limit_s:.0f} s", "tried again later") from None
        finally:
            call.hang_up()  # does nothing to a call that has ended

    @contextlib.contextmanager
    def _failures(self, what: str) -> Iterator[None]:
        """The one place where the library's exceptions become ours."""
        try:
            yield
        except APIError as error:
            if error.response is not None:
                raise RefusedError(
                    what, error.response.status_code, one_line(error.explanation or str(error))
                ) from error
            raise self._unreachable(what, error) from error
        except OSError as error:  # every transport failure, those of requests included
            raise self._unreachable(what, error) from error
        except (PodmanError, ValueError, KeyError, TypeError, RecursionError) as error:
            raise AdapterError(COMPONENT, what, f"its answer makes no sense: {one_line(str(error))}") from error

    def _unreachable(self, what: str, error: OSError) -> AdapterError:
        cause = _root(error)
        if isinstance(cause, FileNotFoundError):
            why, then = f"there is no socket {self._socket}", "is podman.socket active? tried again at the next look"
        elif isinstance(cause, ConnectionRefusedError):
            why, then = f"nothing listens at {self._socket}", "is podman.socket active? tried again at the next look"
        elif isinstance(cause, TimeoutError):
            why, then = f"no answer from {self._socket} in time", "tried again later"
        else:
            why, then = f"the connection broke: {one_line(cause.strerror or str(cause))}", "looked at again"
        return AdapterError(COMPONENT, what, why, then)


def one_line(text: str) -> str:
    """A text as it may stand in a message: one line, not too long."""
    line = " ".join(text.split())
    return line if len(line) <= _LONGEST_WORDS else line[:_LONGEST_WORDS] + "…"


def _root(error: BaseException) -> OSError:
    """The operating system's error at the bottom of what three libraries have wrapped around it."""
    found = error
    seen: BaseException | None = error
    while seen is not None:
        if isinstance(seen, OSError):
            found = seen
        seen = seen.__cause__ or seen.__context__
    return found if isinstance(found, OSError) else OSError(str(found))


def ping(client: APIClient) -> bool:
    """Whether Podman says that it is well."""
    return SystemManager(client=client).ping()


def version(client: APIClient) -> str:
    """The server's version."""
    answer = client.get("/version")
    answer.raise_for_status()
    return str(answer.json().get("Version", ""))


def list_containers(client: APIClient) -> bytes:
    """All containers of the server. (The library's list parses without checking and makes an object of each.)"""
    return body(client.get("/containers/json", params={"all": True}, stream=True))


def list_stored(client: APIClient) -> bytes:
    """All containers of the server, and those that are only in its storage, which is what tells them apart from the others."""
    return body(client.get("/containers/json", params={"all": True, "external": True}, stream=True))


def list_mounting(client: APIClient, path: str) -> bytes:
    """The containers that are not at rest and have this folder of the server mounted, whoever made them."""
    filters = {"volume": [path], "status": ["running", "paused"]}
    return body(client.get("/containers/json", params={"filters": msgspec.json.encode(filters).decode()}, stream=True))


def inspect_container(client: APIClient, key: str) -> bytes | None:
    """A container by id or name, None when there is none. (As bytes, to be checked; the library's is not.)"""
    return body_if_found(client.get(f"/containers/{key}/json", stream=True))


def create_container(client: APIClient, request: Mapping[str, Json]) -> str:
    """Create; the new id. (The library's create renders the request itself, without a log size that works, and inspects after it.)"""
    answer = client.post("/containers/create", data=msgspec.json.encode(request), headers=_JSON)
    answer.raise_for_status()
    return str(answer.json()["Id"])


def remove_container(client: APIClient, container_id: str) -> None:
    """Remove by force, at once, with its anonymous volumes; fine when it is gone. (The library's remove ignores the time-out.)"""
    answer = client.delete(f"/containers/{container_id}", params={"force": True, "timeout": 0, "v": True})
    if answer.status_code != _NOT_FOUND:
        answer.raise_for_status()


def rename_container(client: APIClient, container_id: str, name: str) -> None:
    """Give a container another name."""
    client.post(f"/containers/{container_id}/rename", params={"name": name}).raise_for_status()


def prepare_container(client: APIClient, container_id: str) -> None:
    """Set everything up for a container's process, and do not start it; refused when that has been done."""
    client.post(f"/containers/{container_id}/init").raise_for_status()


def leave_network(client: APIClient, container_id: str, network: str) -> None:
    """Take a container out of a network."""
    request = msgspec.json.encode({"Container": container_id, "Force": True})
    client.post(f"/networks/{network}/disconnect", data=request, headers=_JSON).raise_for_status()


def join_network(client: APIClient, container_id: str, network: str, address: str) -> None:
    """Put a container into a network with this address."""
    request = msgspec.json.encode({"container": container_id, "static_ips": [address]})
    client.post(f"/networks/{network}/connect", data=request, headers=_JSON).raise_for_status()


def inspect_session(client: APIClient, session: str) -> bytes | None:
    """A command that was run in a container, None when there is none such."""
    return body_if_found(client.get(f"/exec/{session}/json", stream=True))


def start_container(client: APIClient, container_id: str) -> None:
    """Start; fine when it runs."""
    Container(attrs={"Id": container_id}, client=client).start()


def stop_container(client: APIClient, container_id: str, grace_s: int) -> None:
    """Stop politely, then by force. (The library waits half of the grace for the end, and fails when all is stopped already.)"""
    params = {"timeout": grace_s}
    client.post(f"/containers/{container_id}/stop", params=params, timeout=grace_s + CHANGE_S).raise_for_status()


def restart_container(client: APIClient, container_id: str, grace_s: int) -> None:
    """Restart. (The library waits half of the grace for all that comes after it.)"""
    params = {"timeout": grace_s}
    client.post(f"/containers/{container_id}/restart", params=params, timeout=grace_s + CHANGE_S).raise_for_status()


def run_health_check(client: APIClient, container_id: str, limit_s: float) -> str:
    """Run the health check once; `healthy`, `unhealthy` or `starting`. (The library has no such call.)"""
    answer = client.get(f"/containers/{container_id}/healthcheck", timeout=limit_s)
    answer.raise_for_status()
    return str(answer.json().get("Status", ""))


def events(kinds: tuple[str, ...]) -> dict[str, Any]:
    """The request for the stream of container events from now on. (The library's reads it byte by byte, and cannot be hung up on.)"""
    filters = msgspec.json.encode({"type": ["container"], "event": list(kinds)}).decode()
    return {"path": "/events", "params": {"stream": True, "filters": filters}}


def container_output(client: APIClient, container_id: str, lines: int) -> bytes:
    """The last lines of a container's log in frames of 8 bytes and their content. (The library's has lost which stream each is.)"""
    params = {"stdout": True, "stderr": True, "follow": False, "tail": lines}
    return body(client.get(f"/containers/{container_id}/logs", params=params, stream=True))


def image_exists(client: APIClient, reference: str) -> bool:
    """Whether the image is here. (The library takes any failure for no.)"""
    return body_if_found(client.get(f"/images/{quote(reference, safe='')}/exists", stream=True)) is not None


def inspect_network(client: APIClient, name: str) -> bytes | None:
    """A network, None when there is none. (As bytes, to be checked; the library's is not.)"""
    return body_if_found(client.get(f"/networks/{name}/json", stream=True))


def create_network(client: APIClient, request: Mapping[str, Json]) -> None:
    """Create a network. (The library drops empty values and knows no lease range but whole CIDR blocks.)"""
    client.post("/networks/create", data=msgspec.json.encode(request), headers=_JSON).raise_for_status()


class _Progress(msgspec.Struct):
    error: str = ""
    id: str = ""
    stream: str = ""


def pull_image(
    client: APIClient, params: Mapping[str, Any], headers: Mapping[str, str], on_answer: Callable[[], None]
) -> _Progress:
    """Pull; the id of what came, or an error. (The library swallows errors in the progress, or reads it byte by byte.)

    `on_answer` is called at the first sign of the registry; before it Podman only says where it tries.
    """
    with contextlib.closing(client.post("/images/pull", params=params, headers=headers, stream=True)) as answer:
        answer.raise_for_status()
        size, answered, came = 0, False, _Progress()
        for line in _lines(answer):
            size += len(line)
            if size > _LARGEST_PROGRESS:
                raise ValueError("more progress than any pull makes")
            said = msgspec.json.decode(line, type=_Progress) if line else _Progress()
            if said.error:
                return said
            if said.stream and not answered and not said.stream.startswith(_TRIES):
                answered = True
                on_answer()
            came = said if said.id else came
        if not came.id:
            raise ConnectionAbortedError("Podman stopped in the middle of the pull")
    return came


_JSON: Final = {"Content-Type": "application/json"}
_TRIES: Final = "Trying to pull"
_OK: Final = 200
_NOT_FOUND: Final = 404


def _lines(answer: APIResponse) -> Iterator[bytes]:
    """The lines of an endless answer as they come; one that does not end is an error."""
    rest = b""
    for part in answer.iter_content(_PIECE):  # what has come, if it is less
        *whole, rest = (rest + part).split(b"\n")
        if len(rest) > _LONGEST_LINE:
            raise ValueError(f"a line of more than {_LONGEST_LINE} bytes")
        yield from filter(None, whole)


def body_if_found(answer: APIResponse) -> bytes | None:
    if answer.status_code == _NOT_FOUND:
        return None
    return body(answer)


def drain(answer: APIResponse) -> None:
    """Read an answer of any size to its end, and keep nothing of it."""
    with contextlib.closing(answer):
        answer.raise_for_status()
        for _ in answer.iter_content(1024**2):
            pass


def body(answer: APIResponse) -> bytes:
    """An answer whole. Raises ValueError for one that is too large."""
    with contextlib.closing(answer):
        answer.raise_for_status()
        parts: list[bytes] = []
        left = _LARGEST_ANSWER
        for part in answer.iter_content(256 * 1024):
            left -= len(part)
            if left < 0:
                raise ValueError(f"more than {_LARGEST_ANSWER} bytes")
            parts.append(part)
        return b"".join(parts)
