"""When Python looks for unreachable cycles: not in the middle of parsing and deciding, which make many values and no cycle.

A collection there would walk through everything that is being made, again and again. What is made is freed by counting references alone.
"""

import gc
from collections.abc import Iterator
from contextlib import contextmanager


@contextmanager
def paused() -> Iterator[None]:
    """Within, no cycle is looked for, by any thread; may be nested."""
    if not gc.isenabled():
        yield
        return
    gc.disable()
    try:
        yield
    finally:
        gc.enable()
