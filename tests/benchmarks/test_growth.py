"""`benchmarks.growth` and its lists: every function of the core that takes text from outside is in them, and none grows too fast."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.families import FAMILIES, Family
from benchmarks.growth import measure
from benchmarks.parsers import PARSERS

CORE = Path(__file__).parents[2] / "core"
SMALLEST, LARGEST = 4_000, 8_000
ROUGHLY = 3.0  # what takes a moment scatters; what is quadratic has 4

# Functions that take text and are fed by others of the core or by options, with what was checked already.
INNER = {
    "access_log": (),
    "address": ("is_in_container_network",),  # beside `is_container`
    "bounds": ("too_long", "too_many_values"),
    "build_output": ("Tail.add",),  # beside `Lines.feed`
    "build_plan": ("secrets_hash",),  # beside `make`
    "build_source": ("git_config", "git_environment", "commit_fault"),
    "caddy_base": ("routes_of",),  # beside `caddy_config.decode`
    "containers": ("is_ours", "deployment_of"),  # beside `podman_answers`
    "damage": ("Damage.refused",),
    "digest": ("difference",),
    "dnsmasq": (
        "configuration_path", "command", "marker_name", "render_hosts", "asks_resolved", "upstreams", "render_upstreams",
        "render_resolved", "render_unit",
    ),
    "doctor": ("at_least", "builder", "disk", "open_ports", "private", "parts", "caddy_admin"),
    "http_proxy": ("Proxies.choose",),  # beside `from_environment`
    "image": ("pinned",),
    "image_gc": ("pulled", "rubbish"),
    "local_rules": ("LocalRules.is_of_this_network",),  # beside `keeps`
    "memory": ("image_fetched",),
    "nftables": ("Ruleset.based", "attribute", "text", "number"),
    "overview": ("absent",),
    "overview_text": ("lines", "headline"),
    "podman": (
        "create_request", "mac_for", "hosts_text", "removal_name", "original_name", "is_half_removed", "network_request",
    ),
    "refusal": ("hint",),
    "rejection": ("sift", "split"),
    "retry": ("after_attempt",),
    "saying": ("unfetched", "blind"),
    "secrets": ("encrypt", "mask_words", "masked_words"),
    "signing": ("headers",),
    "state": ("parse_expected",),  # beside `parse_expected_after`
    "status": ("encode",),
    "wire": ("decode", "decode_expected"),  # beside `state.parse_expected_after`
    "wireguard": ("normalise_expected",),
    "wireguard_sessions": ("observe", "without", "lost"),
    "wireguard_uapi": ("peers_of", "clamped", "render_interface", "render_peers"),
    "work": ("decide",),  # beside `parse`
}  # fmt: skip


def takes_text(node: ast.FunctionDef) -> bool:
    """Whether a parameter is a text or has some."""
    arguments = (*node.args.args, *node.args.kwonlyargs)
    names = {
        inner.id
        for one in arguments
        if one.annotation
        for inner in ast.walk(one.annotation)
        if isinstance(inner, ast.Name)
    }
    return bool(names & {"str", "bytes"})


def functions(body: list[ast.stmt], prefix: str = "") -> Iterator[str]:
    """The public functions and methods that take text."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from functions(node.body, f"{node.name}.")
        if isinstance(node, ast.FunctionDef) and not node.name.startswith("_") and takes_text(node):
            yield prefix + node.name


@pytest.mark.parametrize("path", sorted(CORE.glob("*.py")), ids=lambda path: path.stem)
def test_the_list_of_parsers_is_complete(path: Path) -> None:
    """L55: a new function that takes text is fed and measured, or has a reason here."""
    listed = {name.partition(",")[0] for name in PARSERS}
    for name in functions(ast.parse(path.read_text()).body):
        assert (f"{path.stem}.{name}" in listed) != (name in INNER.get(path.stem, ())), name


def test_there_is_a_family_for_every_parser() -> None:
    """And at least 70 in all."""
    assert {one.parser for one in FAMILIES} == PARSERS.keys()
    assert len(FAMILIES) >= 70
    assert len({(one.parser, one.name) for one in FAMILIES}) == len(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda one: f"{one.parser}: {one.name}")
def test_no_family_grows_too_fast(family: Family) -> None:
    """L55: here one doubling that takes a moment. (`make growth` goes up to a million, and allows 2.4 times.)"""
    found = measure(family, LARGEST, SMALLEST, ROUGHLY)
    assert found.met, str(found)
