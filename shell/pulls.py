"""Images on their way: each is pulled once, in the background, however many changes wait for it.

A change waits a short while for its image. If the pull takes longer the change is put aside and the pull goes on by itself, within a
time limit of its own, so that one slow registry holds up nothing else.
"""

from collections.abc import Awaitable, Callable

import anyio
import anyio.abc

from core.image import Image
from shell.components import ContainerEngine
from shell.failure import AdapterError
from shell.log import logger

PATIENCE_S = 10.0  # long enough for most images that are nearly here; short enough that other changes hardly notice
LESS_PATIENCE = 0.1  # of it while another pull takes long already: twenty images of a registry that hangs must not wait one after the other
PULL_LIMIT_S = 1800.0
REFRESH_LIMIT_S = (
    240.0  # of a moving tag's pull when an older image is here: a registry that hangs must not stop a repair for long
)
RECENT_S = 600.0  # a moving tag that was looked up this recently is not looked up again


class _Pull:
    def __init__(self) -> None:
        self.ended = anyio.Event()
        self.failure: AdapterError | None = None
        self.left_behind = False


class Pulls:
    """Brings images here. `on_end` hears of every pull that outlasted the patience of a change, with its failure or None."""

    def __init__(
        self,
        engine: ContainerEngine,
        tasks: anyio.abc.TaskGroup,
        on_end: Callable[[Image, str | None], Awaitable[None]],
        patience_s: float = PATIENCE_S,
        pulled: Callable[[Image], None] = lambda image: None,
    ) -> None:
        self._engine = engine
        self._tasks = tasks
        self._on_end = on_end
        self._patience_s = patience_s
        self._pulled = pulled
        self._under_way: dict[Image, _Pull] = {}
        self._looked_up_at: dict[Image, float] = {}

    def under_way(self) -> frozenset[str]:
        """The references of the images that are on their way."""
        return frozenset(str(image) for image in self._under_way)

    async def ensure(self, image: Image) -> bool:
        """Whether the image is here: True now, False when its pull goes on. Raises AdapterError when it cannot be had.

        An image that is here is not pulled again, but for a moving tag, whose registry is asked when it can be; then what is here does.
        """
        here = await self._engine.has_image(image)
        if here and not self._is_stale(image):
            return True
        pull = self._under_way.get(image)
        if pull is None:
            pull = self._under_way[image] = _Pull()
            self._tasks.start_soon(self._run, image, pull, REFRESH_LIMIT_S if here else PULL_LIMIT_S)
        some_take_long = any(one.left_behind for one in self._under_way.values())
        with anyio.move_on_after(self._patience_s * (LESS_PATIENCE if some_take_long else 1)):
            await pull.ended.wait()
        if not pull.ended.is_set():
            pull.left_behind = True
            return False
        if pull.failure is not None and not here:
            raise pull.failure
        return True

    def _is_stale(self, image: Image) -> bool:
        moving = image.tag == "latest" and image.digest is None
        return moving and anyio.current_time() - self._looked_up_at.get(image, float("-inf")) > RECENT_S

    def _looked_up_now(self, image: Image) -> None:
        now = anyio.current_time()
        recent = {one: at for one, at in self._looked_up_at.items() if now - at <= RECENT_S}
        self._looked_up_at = {**recent, image: now}

    async def _run(self, image: Image, pull: _Pull, limit_s: float) -> None:
        logger().info("pull started", image=str(image))
        try:
            await self._engine.pull(image, timeout_s=limit_s)
        except AdapterError as error:
            pull.failure = error
            logger().warning("pull failed", image=str(image), why=error.why)
        else:
            logger().info("pull done", image=str(image))
            self._pulled(image)
        finally:
            self._under_way.pop(image, None)
            self._looked_up_now(image)
            pull.ended.set()
        if pull.left_behind:
            await self._on_end(image, None if pull.failure is None else str(pull.failure))
