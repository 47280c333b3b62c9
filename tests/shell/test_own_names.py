"""`shell.own_names`: what this server is called, by itself and its hosts file."""

import socket
from pathlib import Path

import pytest

from shell import own_names


def test_the_names_of_its_own_addresses(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """L61: host name and aliases, in one spelling; those of other servers are not its own."""
    monkeypatch.setattr(socket, "gethostname", lambda: "Box")
    hosts = tmp_path / "hosts"
    hosts.write_text(
        "127.0.0.1 localhost\n127.0.1.1\tBox.Example.org. box # old.example.org\n192.0.2.9 other.example.org\n::1 six.example.org\n\nodd\n"
    )
    found = own_names.find(hosts)
    assert {"box", "box.example.org", "six.example.org"} <= found
    assert not {"other.example.org", "old.example.org"} & found


def test_without_a_hosts_file(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """The host name is always there; a folder in the file's place is no file."""
    monkeypatch.setattr(socket, "gethostname", lambda: "box")
    assert own_names.find(tmp_path / "none") == own_names.find(tmp_path) == {"box"}


def test_the_domains_of_its_network(tmp_path: Path) -> None:
    """L62: as a cloud's DHCP tells them."""
    file = tmp_path / "resolv.conf"
    file.write_text(
        "nameserver 10.0.0.2\nsearch C.project.internal. google.internal\n# search no\ndomain a.example\nsearch\n"
    )
    assert own_names.searched(file) == {"c.project.internal", "google.internal", "a.example"}
    assert own_names.searched(tmp_path / "none") == frozenset()
