"""Podman over its API socket: the one component that runs containers.

The `podman` library opens the socket and keeps the connections. Requests go through its API client as they are, since the library's own
objects get in the way: its listing has a status that raises, its create hides what is sent (which `core.podman` renders), its pull
swallows errors and cannot name a digest, its remove ignores the time-out, and each inspects more than is asked for.

Blocking calls run in worker threads of their own, each with a time limit, so that a Podman that hangs costs nothing else.
"""

import collections
import contextlib
import json
import time
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, TypeVar

import anyio
import anyio.to_thread
import podman.errors
import requests
from anyio import CapacityLimiter
from podman import PodmanClient
from podman.api.client import APIClient, APIResponse
from returns.pipeline import is_successful

from core import podman as form
from core.containers import DEPLOYMENT_LABEL, ActualContainer, ContainerId, ExpectedContainer, is_ours
from core.image import Image
from shell.adapters.podman_volumes import make_volumes
from shell.failure import AdapterError

T = TypeVar("T")

COMPONENT: Final = "podman"
_READ_S: Final = 20.0
_CHANGE_S: Final = 60.0
_QUIET_PULL_S: Final = 300.0  # between two lines of a pull's progress
_THREADS: Final = 16
_LONGEST_WORDS: Final = 300


@dataclass(frozen=True, slots=True)
class PodmanSettings:
    """Where Podman is and how containers are made on this server."""

    socket: Path
    subnet_id: int
    volumes_dir: Path
    network: str = "techulus"
    registry_auth_file: Path | None = None
    insecure_registries: frozenset[str] = frozenset()
    dns: tuple[str, ...] = ()
    log_size_bytes: int = 64 * 1024**2


class Podman:
    """The containers of ours. Only what carries a label of ours is ever started, stopped or removed."""

    def __init__(self, settings: PodmanSettings) -> None:
        self._settings = settings
        self._idle: collections.deque[PodmanClient] = collections.deque()
        self._limiter: CapacityLimiter | None = None
        self._has_network = False

    async def aclose(self) -> None:
        """Close the connections."""
        while self._idle:
            _close(self._idle.pop())

    async def ping(self) -> None:
        """Whether Podman answers; AdapterError when it does not."""
        await self._call("reach Podman", lambda api: _ok(api.get("/_ping", timeout=_READ_S)))

    async def containers(self, wall_now_s: float) -> tuple[ActualContainer, ...]:
        """All containers of ours, in one request. Raises AdapterError rather than give an incomplete list."""
        raw = await self._call(
            "list containers",
            lambda api: _ok(api.get("/containers/json", params={"all": True}, timeout=_READ_S)).content,
        )
        parsed = form.parse_listing(raw, wall_now_s)
        if not is_successful(parsed):
            raise AdapterError(COMPONENT, "list containers", parsed.failure())
        return parsed.unwrap()

    async def ensure_network(self) -> None:
        """Make the containers' network when it is missing; AdapterError when it has another subnet."""
        if not self._has_network:
            await self._call(f"make network {self._settings.network}", self._ensure_network)
            self._has_network = True

    async def has_image(self, image: Image) -> bool:
        """Whether the image is here."""
        path = f"/images/{form.reference(image)}/exists"
        return await self._call(f"look for image {image}", lambda api: _exists(api.get(path, timeout=_READ_S)))

    async def pull(self, image: Image, *, timeout_s: float) -> None:
        """Fetch an image from its registry; AdapterError with the registry's own words."""
        await self._call(f"pull {image}", lambda api: self._pull(api, image, timeout_s))

    async def create_and_start(self, container: ExpectedContainer, env: Mapping[str, str]) -> None:
        """Create a container and start it. When it does not start it is removed again, so that nothing is left over."""
        what = f"create container {container.name}"
        await anyio.to_thread.run_sync(
            make_volumes, self._settings.volumes_dir, container.service_id, container.volumes
        )
        options = form.CreateOptions(
            self._settings.network, str(self._settings.volumes_dir), self._settings.dns, self._settings.log_size_bytes
        )
        body = json.dumps(form.create_request(container, options, env))
        created = await self._call(what, lambda api: self._create(api, container, body))
        try:
            await self._call(f"start container {container.name}", lambda api: _start(api, created))
        except AdapterError:
            self._has_network = False  # it may be the network that is gone
            await self._call(
                f"remove container {container.name}, which did not start", lambda api: _remove(api, created)
            )
            raise

    async def start(self, container_id: ContainerId) -> None:
        """Start a container of ours; fine when it runs."""
        try:
            await self._call(f"start container {container_id[:12]}", lambda api: _start(api, _ours(api, container_id)))
        except AdapterError:
            self._has_network = False
            raise

    async def stop_and_remove(self, container_id: ContainerId, grace_s: float = 10) -> None:
        """Stop a container of ours politely, then by force; remove it and check that it is gone. Fine when it is gone."""
        await self._call(
            f"stop container {container_id[:12]}", lambda api: _stop_and_remove(api, container_id, grace_s)
        )

    async def restart(self, container_id: ContainerId, grace_s: float = 10) -> None:
        """Restart a container of ours."""
        path = f"/containers/{container_id}/restart"
        await self._call(
            f"restart container {container_id[:12]}",
            lambda api: _ok(
                api.post(_for_ours(api, container_id, path), params={"t": int(grace_s)}, timeout=_CHANGE_S + grace_s)
            ),
        )

    def _ensure_network(self, api: APIClient) -> None:
        name, subnet_id = self._settings.network, self._settings.subnet_id
        found = api.get(f"/networks/{name}/json", timeout=_READ_S)
        if found.status_code == requests.codes.not_found:
            body = json.dumps(form.network_request(name, subnet_id))
            _ok(api.post("/networks/create", data=body, headers=_JSON, timeout=_CHANGE_S))
            return
        subnets = [one.get("subnet") for one in _ok(found).json().get("subnets") or []]
        if subnets != [f"10.200.{subnet_id}.0/24"]:
            raise AdapterError(
                COMPONENT,
                f"use network {name}",
                f"it exists with subnet {', '.join(map(str, subnets)) or 'none'}, this server's is 10.200.{subnet_id}.0/24",
                "remove that network when nothing uses it, or name another with --network",
            )

    def _pull(self, api: APIClient, image: Image, timeout_s: float) -> None:
        insecure = image.registry in self._settings.insecure_registries
        params = {"reference": form.reference(image), "tlsVerify": not insecure, "policy": "always"}
        deadline = time.monotonic() + timeout_s
        with contextlib.closing(
            api.post(
                "/images/pull",
                params=params,
                headers=self._auth(image),
                stream=True,
                timeout=min(timeout_s, _QUIET_PULL_S),
            )
        ) as response:
            for line in _ok(response).iter_lines():
                said = json.loads(line)
                if said.get("error"):
                    raise AdapterError(COMPONENT, f"pull {image}", _one_line(str(said["error"])))
                if time.monotonic() > deadline:
                    raise AdapterError(COMPONENT, f"pull {image}", f"it took longer than {timeout_s:.0f} s")

    def _auth(self, image: Image) -> dict[str, str]:
        path = self._settings.registry_auth_file
        if path is None:
            return {}
        what = f"read credentials for {image.registry} from {path}"
        try:
            header = form.registry_auth(path.read_bytes(), image)
        except OSError as error:
            raise AdapterError(COMPONENT, what, error.strerror or str(error)) from error
        if not is_successful(header):
            raise AdapterError(COMPONENT, what, header.failure())
        found = header.unwrap()
        return {"X-Registry-Auth": found} if found else {}

    def _create(self, api: APIClient, container: ExpectedContainer, body: str) -> str:
        answer = api.post("/containers/create", data=body, headers=_JSON, timeout=_CHANGE_S)
        if answer.status_code == requests.codes.created:
            return str(answer.json()["Id"])
        holder = api.get(f"/containers/{container.name}/json", timeout=_READ_S)
        if holder.status_code == requests.codes.ok:
            found = holder.json()
            labels = found["Config"].get("Labels") or {}
            mine = labels.get(DEPLOYMENT_LABEL) == container.deployment_id
            raise AdapterError(
                COMPONENT,
                f"create container {container.name}",
                f"container {found['Id'][:12]} {'of this deployment' if mine else 'of something else'} has that name",
                "it is looked at again" if mine else "rename or remove that container",
            )
        raise AdapterError(COMPONENT, f"create container {container.name}", _said(answer))

    async def _call(self, what: str, run: Callable[[APIClient], T]) -> T:
        """Run blocking requests in a worker thread, with a connection that nobody else uses meanwhile."""
        if self._limiter is None:
            self._limiter = CapacityLimiter(_THREADS)
        return await anyio.to_thread.run_sync(self._blocking, what, run, abandon_on_cancel=True, limiter=self._limiter)

    def _blocking(self, what: str, run: Callable[[APIClient], T]) -> T:
        with _failures(what):
            try:
                client = self._idle.pop()
            except IndexError:
                client = PodmanClient(base_url=f"unix://{self._settings.socket}", timeout=_CHANGE_S)
            try:
                result = run(client.api)
            except BaseException:
                _close(client)
                raise
            self._idle.append(client)
            return result


_JSON: Final = {"Content-Type": "application/json"}


def _close(client: PodmanClient) -> None:
    client.close()  # type: ignore[no-untyped-call]  # the library's one method without annotations


def _start(api: APIClient, container_id: str) -> None:
    answer = api.post(f"/containers/{container_id}/start", timeout=_CHANGE_S)
    if answer.status_code != requests.codes.not_modified:
        _ok(answer)


def _stop_and_remove(api: APIClient, container_id: str, grace_s: float) -> None:
    state = _inspected(api, container_id)
    if state is None:
        return
    if state == "paused":  # it would not hear a polite stop
        _ok(api.post(f"/containers/{container_id}/unpause", timeout=_CHANGE_S))
    stopped = api.post(
        f"/containers/{container_id}/stop", params={"timeout": int(grace_s)}, timeout=_CHANGE_S + grace_s
    )
    if stopped.status_code not in (requests.codes.not_modified, requests.codes.not_found) and not stopped.ok:
        pass  # whatever kept it from stopping, force comes next
    _remove(api, container_id)
    if _inspected(api, container_id) is not None:
        raise AdapterError(COMPONENT, f"remove container {container_id[:12]}", "it is still there", "tried again")


def _remove(api: APIClient, container_id: str) -> None:
    answer = api.delete(f"/containers/{container_id}", params={"force": True, "timeout": 0}, timeout=_CHANGE_S)
    if answer.status_code != requests.codes.not_found:
        _ok(answer)


def _ours(api: APIClient, container_id: str) -> str:
    if _inspected(api, container_id) is None:
        raise AdapterError(
            COMPONENT, f"use container {container_id[:12]}", "it is gone", "the server is looked at again"
        )
    return container_id


def _for_ours(api: APIClient, container_id: str, path: str) -> str:
    _ours(api, container_id)
    return path


def _inspected(api: APIClient, container_id: str) -> str | None:
    """The state of a container of ours, None when there is none; AdapterError when it is not ours."""
    answer = api.get(f"/containers/{container_id}/json", timeout=_READ_S)
    if answer.status_code == requests.codes.not_found:
        return None
    found: dict[str, Any] = _ok(answer).json()
    if not is_ours(found["Config"].get("Labels") or {}):
        raise AdapterError(
            COMPONENT, f"change container {container_id[:12]}", "it carries no label of ours", "it is left alone"
        )
    return str(found["State"]["Status"])


def _exists(answer: APIResponse) -> bool:
    if answer.status_code == requests.codes.not_found:
        return False
    _ok(answer)
    return True


def _ok(answer: APIResponse) -> APIResponse:
    if not answer.ok:
        raise AdapterError(COMPONENT, "", _said(answer))
    return answer


def _said(answer: APIResponse) -> str:
    try:
        found = answer.json()
        text = str(found.get("message") or found.get("cause") or found)
    except (ValueError, AttributeError):
        text = answer.text
    return _one_line(text) or f"HTTP {answer.status_code}"


def _one_line(text: str) -> str:
    return " ".join(text.split())[:_LONGEST_WORDS]


@contextlib.contextmanager
def _failures(what: str) -> Iterator[None]:
    """Turn whatever the library raises into our failure."""
    try:
        yield
    except AdapterError as error:
        if error.what:
            raise
        raise AdapterError(COMPONENT, what, error.why, error.then) from error
    except requests.Timeout as error:
        raise AdapterError(COMPONENT, what, "no answer in time", "tried again") from error
    except (requests.RequestException, podman.errors.PodmanError, OSError) as error:
        raise AdapterError(COMPONENT, what, _one_line(str(error)), "is podman.socket active? tried again") from error
    except (ValueError, KeyError, TypeError) as error:
        raise AdapterError(COMPONENT, what, f"an answer makes no sense: {_one_line(str(error))}") from error
