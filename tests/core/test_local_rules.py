"""`core.local_rules`: what a server's owner keeps and allows. Domains and ports in use: `test_caddy`, `test_containers`."""

import pytest

from core.local_rules import HOST_PORTS, NO_RULES, LocalRules, port_range


@pytest.mark.parametrize(
    ("text", "found"),
    [
        ("22", (22, 22)),
        ("8000-8100", (8000, 8100)),
        ("1-65535", (1, 65_535)),
        ("0", None),
        ("0-1", None),
        ("65536", None),
        ("9-8", None),
        ("", None),
        ("-", None),
        ("1-", None),
        ("a", None),
        ("22\n", None),
        ("٨٠", None),
    ],
)
def test_a_port_or_a_range(text: str, found: tuple[int, int] | None) -> None:
    """From 1 to 65535, the lower one first."""
    assert port_range(text) == found


def test_nothing_is_kept_or_allowed_by_itself() -> None:
    """L63: the control plane's range, whoever the owner is."""
    assert NO_RULES.allows_host_port(HOST_PORTS[0]) and NO_RULES.allows_host_port(HOST_PORTS[1])
    assert not NO_RULES.allows_host_port(22) and not NO_RULES.keeps("a.example")
    assert LocalRules(host_ports=((22, 22),)).allows_host_port(22)
