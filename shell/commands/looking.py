"""Completes the dry run's input from the control plane and from this server."""

import time
from collections.abc import Mapping

import anyio

from core.state import ActualState, ExpectedState, NodeType, without
from shell.expected_state import Expected
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
        # What is left alone here is nothing on either side: a document that was given may have it all the same.
        left_out = node.components.left_out()
        there = (
            await Gather(node.components, rules=node.rules)(time.time())
            if actual is None
            else without(actual, left_out)
        )
    finally:
        await node.aclose()
    return wanted, there, node.node_type
