"""What takes long runs beside the event loop: in a thread, so that heartbeat, status and signals have their turns meanwhile.

What is small runs at once, since a thread costs more than that.
"""

from collections.abc import Callable
from typing import Final, TypeVar

import anyio.to_thread

T = TypeVar("T")

LARGE_BYTES: Final = 256 * 1024  # of a document: taking that apart takes some ten milliseconds
LARGE_ENTRIES: Final = 1_000  # of containers, records, routes and peers together


async def beside_if(is_large: bool, work: Callable[[], T]) -> T:
    """What `work` gives or raises. It must change nothing that other tasks of the loop look at.

    Left behind when the agent ends: a stop waits for no document.
    """
    return await anyio.to_thread.run_sync(work, abandon_on_cancel=True) if is_large else work()
