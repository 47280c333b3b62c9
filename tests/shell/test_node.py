"""`shell.node`: what the options of a server come to."""

from pathlib import Path

import pytest

from core.local_rules import LocalRules
from shell import node, own_names
from shell.options import Options

_DOCUMENTS = Path(__file__).parents[2] / "docs"


def test_the_servers_own_rules(monkeypatch: pytest.MonkeyPatch) -> None:
    """L61-L63: its names, the domains of its network, and the ports that its owner allows."""
    monkeypatch.setattr(own_names, "find", lambda: frozenset({"web1.example.org"}))
    monkeypatch.setattr(own_names, "searched", lambda: frozenset({"corp.internal"}))
    found = node._rules(Options(allow_host_port=("22", "8000-8010")))
    names, searched = frozenset({"web1.example.org"}), frozenset({"corp.internal"})
    assert found == LocalRules(names, ((22, 22), (8000, 8010)), searched)
    assert found.allows_host_port(22) and found.allows_host_port(8005) and not found.allows_host_port(23)


def test_ports_that_must_be_open_stand_in_the_documents() -> None:
    """For who opens them before there is a doctor to ask."""
    text = (_DOCUMENTS / "installing.md").read_text()
    assert all(port in text for port in ("51820/udp", "80/tcp", "443/tcp", "443/udp"))
