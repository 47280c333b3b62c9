"""Brings the images of deployments here: several at a time, in the order asked for, each within a time limit of its own.

The first fetch for a deployment asks the registry what its reference stands for; what it answered is kept, and a later fetch only sees that
it is still here. Deployments of one reference that are asked for together share one request; a request that is under way is never joined,
since the tag may have moved after it began.
"""

from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from functools import partial
from typing import Final, Literal, TypeAlias
from weakref import WeakValueDictionary

import anyio
import anyio.abc

from core import image as images
from core.containers import DeploymentId
from core.deployment_images import KeptImage, StoredImage
from core.fetching import ImageRequest
from core.image import Image
from shell.components import ContainerEngine
from shell.deployment_images import DeploymentImages
from shell.failure import AdapterError
from shell.log import bound_contextvars, logger
from shell.parts import Parts
from shell.turns import Turns

PULL_LIMIT_S: Final = 1800.0
HEAD_START_S: Final = 2.0  # the first image has the line for itself so long, for its service to run before the others
SILENT_S: Final = (
    5.0  # a registry that has not answered by then no longer holds a place of those that are fetched together
)
LONG_S: Final = 60.0  # nor does an image that takes so long, whose registry may have stopped in its middle
MOST_REQUESTS: Final = (
    10_000  # as many as the largest server has containers; more come from documents that are all new each time
)
READ_TOGETHER: Final = 2  # images that are verified: Podman packs each, gigabytes of disk and a thread of the listing's
_COMPONENT: Final = "images"

Policy: TypeAlias = Literal["always", "missing"]


@dataclass(frozen=True, slots=True)
class FetchSettings:
    """`policy`: `missing` takes what is here under a name without asking its registry."""

    policy: Policy = "always"
    concurrency: int = 3


class _Place:
    """One of the places of those that are fetched together."""

    def __init__(self, places: anyio.Semaphore) -> None:
        self._places: anyio.Semaphore | None = places
        self.answered = anyio.Event()
        self.ended = anyio.Event()

    def free(self) -> None:
        """For whoever comes next; fine twice."""
        if self._places is not None:
            self._places.release()
            self._places = None


@dataclass(frozen=True, slots=True)
class _HeadStart:
    """Whose image has the line for itself, and until which time of the event loop."""

    place: _Place
    until: float


class _Pull:
    """One request to a registry, for all deployments that were asked for together with this reference."""

    def __init__(self) -> None:
        self.ended = anyio.Event()
        self.found: StoredImage | None = None
        self.failure: AdapterError | None = None


_Batch: TypeAlias = dict[Image, _Pull]


class ImageFetching:
    """Answers every request with `on_end`: its failure, or None when the image is here and kept."""

    def __init__(
        self,
        podman: ContainerEngine,
        kept: DeploymentImages,
        tasks: anyio.abc.TaskGroup,
        on_end: Callable[[ImageRequest, str | None], Awaitable[None]],
        turns: Turns,
        settings: FetchSettings,
        pulled: Callable[[Image, str], None] = lambda image, image_id: None,
        parts: Parts | None = None,
    ) -> None:
        self._parts = Parts() if parts is None else parts
        self._podman = podman
        self._engine = podman.images
        self._kept = kept
        self._tasks = tasks
        self._on_end = on_end
        self._turns = turns
        self._settings = settings
        self._pulled = pulled
        self._places = anyio.Semaphore(settings.concurrency)
        self._reading = anyio.Semaphore(READ_TOGETHER)
        self._repairs: WeakValueDictionary[str, anyio.Lock] = WeakValueDictionary()  # one at a time for each image
        self._under_way: dict[str, int] = {}
        self._requests = 0  # that have not been answered
        self._alone: _HeadStart | None = None
        self._latest: dict[DeploymentId, ImageRequest] = {}  # of those that have not been answered

    def under_way(self) -> frozenset[str]:
        """The references of the images that are on their way."""
        return frozenset(self._under_way)

    def kept_ids(self) -> frozenset[str]:
        """The ids of the images that deployments of this server are."""
        return frozenset(one.id for one in self._kept.known.values())

    def begin(self, requests: tuple[ImageRequest, ...]) -> None:
        """Have these here; each is answered by itself, whatever goes wrong. What is too many is refused, and asked for again later."""
        room = max(0, MOST_REQUESTS - self._requests)
        self._requests += len(requests)
        self._latest |= {one.deployment_id: one for one in requests[:room]}
        self._parts.spawn(self._tasks, "pulls", partial(self._begin, requests[:room], requests[room:]))

    async def _begin(self, requests: tuple[ImageRequest, ...], too_many: tuple[ImageRequest, ...]) -> None:
        for request in too_many:
            await self._end(request, f"{MOST_REQUESTS} images are waited for already")
        batch: _Batch = {}
        for request in requests:
            try:
                with self._parts.contained("pulls", "what is here"):
                    is_here = await self._is_here(request)
            except AdapterError as error:
                await self._end(request, str(error))
            else:
                work = partial(self._answer, request, is_here, batch)
                self._parts.spawn(self._tasks, "pulls", work, str(request.image))

    async def _end(self, request: ImageRequest, failure: str | None) -> None:
        self._requests -= 1
        if self._latest.get(request.deployment_id) is request:
            del self._latest[request.deployment_id]
        await self._on_end(request, failure)

    async def _is_here(self, request: ImageRequest) -> bool:
        """Whether no registry has to be asked. Raises AdapterError for an image that must be here and is not."""
        is_local = images.is_local(request.image)
        kept = self._kept.of(request.deployment_id, request.image)
        if kept is not None:
            is_here = await self._engine.has(kept.id)
            if is_local and not is_here:
                why = f"{kept.id[:12]}, which this deployment is, is not here any more"
                then = "images named localhost/… are never asked for; load it here again, or deploy anew"
                raise AdapterError(_COMPONENT, f"use image {request.image}", why, then)
            return is_here
        if not is_local and request.image.digest is None and self._settings.policy == "always":
            return False
        found = await self._engine.find(request.image)
        if found is None and is_local:
            then = "images named localhost/… are this server's own and are never asked for; load or build it here"
            raise AdapterError(_COMPONENT, f"use image {request.image}", "it is not here", then)
        if found is None:
            return False
        is_unasked = not is_local and request.image.digest is None
        await self._keep(request, found, is_unasked=is_unasked)
        return True

    async def _answer(self, request: ImageRequest, is_here: bool, batch: _Batch) -> None:
        try:
            with self._parts.contained("pulls", str(request.image)):
                if is_here and request.verify:
                    is_here = await self._is_intact(request)
                if not is_here:
                    await self._fetch(request, batch)
        except AdapterError as error:
            await self._end(request, str(error))
        else:
            await self._end(request, None)

    async def _is_intact(self, request: ImageRequest) -> bool:
        """Whether the content is what was fetched; a damaged image is removed, once a registry has been seen to have it."""
        kept = self._kept.of(request.deployment_id, request.image)
        if kept is None:
            return False
        async with self._repairs.setdefault(kept.id, anyio.Lock()):
            return await self._is_whole(request, kept)

    async def _is_whole(self, request: ImageRequest, kept: KeptImage) -> bool:
        if not await self._engine.has(kept.id):  # another deployment of this image has had it removed
            return False
        async with self._reading:
            fault = await self._engine.fault(kept.id)
        if fault is None:
            return True
        logger().error("image damaged", image=kept.reference, id=kept.id[:12], why=fault, then="fetched anew")
        if images.is_local(request.image):
            then = "images named localhost/… are this server's own; load or build it again"
            raise AdapterError(_COMPONENT, f"use image {request.image}", f"it is damaged: {fault}", then)
        try:
            await self._pull(_exactly(request.image, kept))  # what is removed next could otherwise be the last copy
        except AdapterError as error:
            why = f"it is damaged ({fault}), and cannot be fetched anew: {error.why}"
            raise AdapterError(_COMPONENT, f"use image {request.image}", why, "tried again later") from error
        async with self._turns.lock:
            with self._turns.changing(), bound_contextvars(source="image check", why="its image is damaged"):
                await self._discard(request, kept, fault)
        return False

    async def _discard(self, request: ImageRequest, kept: KeptImage, fault: str) -> None:
        """Remove a damaged image, and first what was made from it, which has not been able to start."""
        users = await self._engine.users(kept.id)
        for one in users:
            if one.is_running or not one.is_ours:
                why = f"it is damaged ({fault}), and container {one.name} uses it"
                then = "fetched anew once that one is gone"
                raise AdapterError(_COMPONENT, f"fetch image {request.image} anew", why, then)
        for one in users:
            await self._podman.remove_forced(one.id)
        await self._engine.discard(kept.id)

    async def _fetch(self, request: ImageRequest, batch: _Batch) -> None:
        kept = self._kept.of(request.deployment_id, request.image)
        wanted = request.image if kept is None else _exactly(request.image, kept)
        pull = batch.get(wanted)
        if pull is None:
            pull = batch[wanted] = _Pull()
            try:
                pull.found = await self._pull(wanted)
            except AdapterError as error:
                pull.failure = error
            finally:
                pull.ended.set()
        await pull.ended.wait()
        if pull.failure is not None:
            raise pull.failure
        assert pull.found is not None
        if kept is not None and kept.digest is not None and pull.found.id != kept.id:
            why = f"its registry has {pull.found.id[:12]} under its digest, and this deployment is {kept.id[:12]}"
            raise AdapterError(_COMPONENT, f"use image {wanted}", why, "tried again later")
        await self._keep(request, pull.found)

    async def _keep(self, request: ImageRequest, found: StoredImage, *, is_unasked: bool = False) -> None:
        image, latest = request.image, self._latest.get(request.deployment_id)
        if latest is None or latest.image != image:  # that one is what the deployment is, whichever comes last
            why = "another image has been asked for since"
            raise AdapterError(_COMPONENT, f"use image {image}", why, "that one is used")
        digest = found.digest if image.digest is None else image.digest
        await self._kept.keep(request.deployment_id, KeptImage(str(image), found.id, digest, is_unasked))

    async def _pull(self, image: Image) -> StoredImage:
        await self._places.acquire()
        place, name = _Place(self._places), str(image)
        if not self._under_way:
            self._alone = _HeadStart(place, anyio.current_time() + HEAD_START_S)
        self._under_way[name] = self._under_way.get(name, 0) + 1
        try:
            await self._head_start(place)
            logger().info("pull started", image=name)
            self._parts.spawn(self._tasks, "pulls", partial(self._watch, place), "places")
            found = await self._engine.pull(image, timeout_s=PULL_LIMIT_S, on_answer=place.answered.set)
        finally:
            place.ended.set()
            self._under_way = {one: n - (one == name) for one, n in self._under_way.items() if n > (one == name)}
            place.free()
        logger().info("pull done", image=name)
        self._pulled(image, found.id)
        return found

    async def _head_start(self, place: _Place) -> None:
        """Let the first of those that come together have the line for itself a while: no service waits longer for sharing it."""
        if self._alone is not None and self._alone.place is not place:
            with anyio.move_on_after(self._alone.until - anyio.current_time()):
                await self._alone.place.ended.wait()

    async def _watch(self, place: _Place) -> None:
        """Give a place free that nobody gains by: three registries that hang must not keep all other images away."""
        with anyio.move_on_after(SILENT_S):
            await place.answered.wait()
        if place.answered.is_set():
            with anyio.move_on_after(LONG_S):
                await place.ended.wait()
        place.free()


def _exactly(image: Image, kept: KeptImage) -> Image:
    """The reference of the very image that a deployment is; its name again when no digest of it is known."""
    return image if kept.digest is None else images.pinned(image, kept.digest)
