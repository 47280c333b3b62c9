"""`agent doctor`: what an examination of this server found, and what to do about it."""

import sys
from collections.abc import Mapping

import anyio

from core import doctor
from core.printable import json_text
from shell import examination
from shell.option_checks import checked


def examine(given: Mapping[str, object], *, as_json: bool) -> int:
    """Print what was found; the exit status is 1 when the agent could not work."""
    findings = anyio.run(examination.examine, checked(given))
    if as_json:
        sys.stdout.write(json_text(doctor.document(findings)) + "\n")
    else:
        sys.stdout.write("".join(f"{line}\n" for line in doctor.lines(findings)))
    return 0 if doctor.can_work(findings) else 1
