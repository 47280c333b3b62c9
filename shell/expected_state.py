"""What the control plane expects of this node: fetched, parsed with what the last document left, without what is not managed here."""

from functools import partial

import anyio
from returns.pipeline import is_successful

from core import state
from core.containers import DeploymentId
from core.state import Document, ExpectedState
from shell import collector
from shell.beside import LARGE_BYTES, beside_if
from shell.failure import AdapterError
from shell.node import Node


class Expected:
    """Fetches the expected state. Of a document only what has changed since the last one is checked again."""

    def __init__(self, node: Node) -> None:
        self._node = node
        self._document: Document | None = None
        self._managed: ExpectedState | None = None
        self._asked_at = float("-inf")
        self._own_key = node.identity.keys.wireguard_public

    def deployments(self, since: float) -> frozenset[DeploymentId] | None:
        """Those of the state that was fetched last, if it was asked for after a time of the loop's clock; what is held is expected, too."""
        if self._document is None or self._asked_at < since:
            return None
        expected = self._document.expected
        return frozenset(expected.images) | frozenset(map(DeploymentId, expected.held.containers))

    async def fetch(self) -> ExpectedState:
        """The expected state of this node. Raises AdapterError, also for a document of the wrong shape."""
        asked_at = anyio.current_time()
        raw = await self._node.control_plane.fetch_expected_state()
        managed = await beside_if(len(raw) > LARGE_BYTES, partial(self.meaning, raw))
        self._asked_at = asked_at
        return managed

    def meaning(self, raw: bytes) -> ExpectedState:
        """What a document means on this node, without what is left alone here. Raises AdapterError for one of the wrong shape."""
        with collector.paused():
            parsed = state.parse_expected_after(
                self._document, raw, self._node.identity.subnet_id, self._own_key, self._node.rules
            )
        if not is_successful(parsed):
            raise AdapterError("control plane", "use the expected state", str(parsed.failure()))
        document = parsed.unwrap()
        if self._managed is None or document is not self._document:
            self._managed = state.without(document.expected, self._node.components.left_out())
        self._document = document
        return self._managed

    async def remember(self) -> None:
        """Keep the document that was fetched last as the one in force."""
        if self._document is not None:
            self._node.last_good.keep(self._document)
