"""Completes the dry run's input from the control plane and from this server."""

import time
from collections.abc import Mapping

import anyio

from core.state import ActualState, ExpectedState, NodeType
from shell.daemon import Expected
from shell.gather import Gather
from shell.node import Node
from shell.opening import registered
from shell.option_checks import checked


def complete(
    given: Mapping[str, object], expected: bytes | None, actual: ActualState | None
) -> tuple[ExpectedState, ActualState, NodeType]:
    """Both states and the registered node type; what is None is fetched or gathered. Raises CommandError and AdapterError."""
    node = registered(checked(given))
    return anyio.run(_complete, node, expected, actual)


async def _complete(
    node: Node, expected: bytes | None, actual: ActualState | None
) -> tuple[ExpectedState, ActualState, NodeType]:
    try:
        wanted = await Expected(node).fetch() if expected is None else Expected(node).meaning(expected)
        there = actual if actual is not None else await Gather(node.components)(time.time())
    finally:
        await node.aclose()
    return wanted, there, node.node_type
