"""`agent plan` with two documents, inside this process."""

import json
from pathlib import Path
from typing import Any

from tests.builders import Document
from tests.shell.command_line import Done, agent


class Planning:
    """Writes the documents to files and runs the command; a document may be bytes that are none."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def file(self, name: str, document: Document | bytes) -> Path:
        """The document as a file."""
        path = self.folder / name
        path.write_bytes(document if isinstance(document, bytes) else json.dumps(document).encode())
        return path

    def __call__(self, expected: Document | bytes, actual: Document | bytes, *options: object) -> Done:
        """Run it. A data directory that does not exist is named, and must not exist afterwards."""
        missing = self.folder / "data"
        wanted, there = self.file("expected.json", expected), self.file("actual.json", actual)
        done = agent("plan", "--data-dir", missing, "--expected", wanted, "--actual", there, *options)
        assert not missing.exists()
        return done

    def json(self, expected: Document, actual: Document, *options: object) -> dict[str, Any]:
        """The JSON answer; nothing else is on standard output, and nothing on standard error."""
        done = self(expected, actual, "--output", "json", *options)
        assert (done.status, done.err) == (0, "")
        answer: dict[str, Any] = json.loads(done.out)
        return answer
