"""The last good expected state on disk, exactly as the control plane sent it, for a start without the control plane.

Secrets in it are still encrypted; the file is readable by its owner only.
"""

from operator import attrgetter
from pathlib import Path
from typing import Final

from returns.pipeline import is_successful

from core.local_rules import NO_RULES, LocalRules
from core.state import Document, ExpectedState, parse_expected_after
from shell.state_file import Format, StateFile

NAME: Final = "expected-state.json"


class LastGood:
    """Keeps the document that is in force."""

    def __init__(
        self, data_dir: Path, subnet_id: int, own_key: str | None = None, rules: LocalRules = NO_RULES
    ) -> None:
        self._subnet_id, self._own_key, self._rules = subnet_id, own_key, rules
        self.file = StateFile(
            data_dir / NAME,
            Format(
                "expected state",
                self._parse,
                attrgetter("raw"),
                lost="waiting for the control plane",
                unwritten="until then a start without the control plane would take an older one for good",
            ),
        )

    def load(self) -> ExpectedState | None:
        """What was in force last, or None."""
        found = self.file.load()
        return None if found is None else found.expected

    def keep(self, document: Document) -> None:
        """Keep this document; `file.run` writes it."""
        self.file.put(document)

    def _parse(self, raw: bytes) -> Document:
        parsed = parse_expected_after(None, raw, self._subnet_id, self._own_key, self._rules)
        if not is_successful(parsed):
            raise ValueError(str(parsed.failure()))
        return parsed.unwrap()
