"""`benchmarks.growth` and its lists: every function of the core that takes text from outside is in them, and none grows too fast."""

import ast
from collections.abc import Iterator
from pathlib import Path

import pytest

from benchmarks.families import FAMILIES, Family
from benchmarks.growth import measure
from benchmarks.parsers import PARSERS

ROOT = Path(__file__).parents[2]
CORE, SHELL = ROOT / "core", ROOT / "shell"
TAKEN = {"str", "bytes", "Json", "Object"}  # what a parameter that is walked has in its annotation
SMALLEST, LARGEST = 4_000, 8_000
LISTED = {name.partition(",")[0] for name in PARSERS}
TRIES = 3
ROUGHLY = 3.0  # what takes a moment scatters; what is quadratic has 4

# Functions that take text or JSON values and are fed by others of the core or by options, with what was checked already.
INNER = {
    "access_log": (),
    "address": ("is_in_container_network",),  # beside `is_container`
    "bounds": ("too_long", "too_many_values"),
    # These four beside `build_failure.CommandOutput.add`.
    "buildah_progress": ("Progress.add", "Progress.cause"),
    "buildkit_progress": ("Progress.add", "Progress.cause"),
    "build_failure": ("CommandOutput.interrupted",),
    "registry_fault": ("explain",),
    "build_output": ("LastWords.append", "shorten"),  # beside `Lines.feed`
    "build_plan": ("secrets_hash", "layout", "is_for", "is_plain"),  # beside `make`
    "build_sandbox": ("endpoint_of_registry", "endpoint_of_url", "proxies", "environment", "read_only", "groups", "unit"),
    "build_source": ("git_config", "git_environment", "commit_fault"),
    "build_versions": ("parse_version", "refuse_railpack", "worker_networks"),  # beside the other two
    # These three beside `caddy_config.decode`.
    "caddy_base": ("routes_of", "with_base", "tls_server", "servers", "merged", "automation"),
    "caddy_change": ("read", "next_operation", "with_routes", "foreign"),
    "caddy_config": ("encode", "parse", "as_object", "array", "text", "id_of", "is_ours"),
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
    "secrets": ("encrypt", "is_guarded", "mask_words", "masked_words"),
    "signing": ("headers",),
    "state": ("parse_expected",),  # beside `parse_expected_after`
    "status": ("encode",),
    "wire": ("decode", "decode_expected"),  # beside `state.parse_expected_after`
    "wireguard": ("normalise_expected",),
    "wireguard_sessions": ("observe", "without", "lost"),
    "wireguard_uapi": ("peers_of", "clamped", "render_interface", "render_peers"),
    "work": ("decide",),  # beside `parse`
}  # fmt: skip

# Functions of the shell that take bytes and parse none, or hand them to what is listed.
HANDED_ON = {
    "adapters/caddy/admin": ("Admin.send",),  # a request's body
    "adapters/caddy/process": ("Child.start",),  # the configuration that it starts with
    "adapters/control_plane": ("ControlPlane.post_status",),  # a report
    "adapters/firewall/ruleset": ("send",),  # a request to the kernel
    "adapters/podman/service": ("Service.follow",),  # lines to `podman_events.parse`
    "adapters/victorialogs": ("Store.send", "pack", "unpack", "send_each", "VictoriaLogs.send"),  # lines of ours
    "adapters/wireguard/kernel": ("Kernel.configure",),  # a key of ours
    "adapters/wireguard/userspace": ("Userspace.configure",),
    "commands/looking": ("complete",),  # to `state.parse_expected`
    "expected_state": ("Expected.meaning",),  # to `state.parse_expected_after`
    "files": ("write_atomic",),
    "http_client": ("HttpClient.exchange",),  # a request's body
    "identity": ("register",),  # the answer to `protocol.parse`
    "local_plane/signature": ("caller",),  # a body to a signature
    "logs/pump": ("Form.feed",),  # to `container_log.Assembler.feed`
    "logs/sender": ("Sender.offer",),  # lines of ours
    "loops/logs": ("Access.feed",),  # to `access_log.AccessLog.feed`
}


def takes(node: ast.FunctionDef | ast.AsyncFunctionDef, kinds: set[str]) -> bool:
    """Whether a parameter is one of these, or has some."""
    arguments = (*node.args.args, *node.args.kwonlyargs)
    names = {
        inner.id
        for one in arguments
        if one.annotation
        for inner in ast.walk(one.annotation)
        if isinstance(inner, ast.Name)
    }
    return bool(names & kinds)


def functions(body: list[ast.stmt], kinds: set[str], prefix: str = "") -> Iterator[str]:
    """The public functions and methods that take one of these."""
    for node in body:
        if isinstance(node, ast.ClassDef) and not node.name.startswith("_"):
            yield from functions(node.body, kinds, f"{node.name}.")
        if not isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef) or node.name.startswith("_"):
            continue
        if takes(node, kinds):
            yield prefix + node.name


@pytest.mark.parametrize("path", sorted(CORE.glob("*.py")), ids=lambda path: path.stem)
def test_the_list_of_parsers_is_complete(path: Path) -> None:
    """L55: a new function that takes text or JSON values is fed and measured, or has a reason here."""
    for name in functions(ast.parse(path.read_text()).body, TAKEN):
        assert (f"{path.stem}.{name}" in LISTED) != (name in INNER.get(path.stem, ())), name


def test_the_shell_parses_no_bytes_that_are_not_listed() -> None:
    """L55: what comes from outside as bytes goes to a parser that is fed and measured; no reason is of a function that is gone."""
    found: dict[str, set[str]] = {}
    for path in SHELL.rglob("*.py"):
        names = functions(ast.parse(path.read_text()).body, {"bytes"})
        if left := {name for name in names if f"{path.stem}.{name}" not in LISTED}:
            found[str(path.relative_to(SHELL).with_suffix(""))] = left
    assert found == {where: set(names) for where, names in HANDED_ON.items()}


@pytest.mark.parametrize(
    ("head", "is_taken"),
    [
        ("def f(a: str)", True),
        ("async def f(a: int, *, b: bytes | None)", True),
        ("def f(a: list[Json])", True),
        ("def f(a: Object)", True),
        ("def f(a: int)", False),
        ("def _f(a: str)", False),
    ],
)
def test_what_is_a_function_that_takes_text(head: str, is_taken: bool) -> None:
    """Whatever kind of function it is."""
    assert [*functions(ast.parse(f"{head}: ...").body, TAKEN)] == ["f"] * is_taken


def test_there_is_a_family_for_every_parser() -> None:
    """And at least 70 in all."""
    assert {one.parser for one in FAMILIES} == PARSERS.keys()
    assert len(FAMILIES) >= 70
    assert len({(one.parser, one.name) for one in FAMILIES}) == len(FAMILIES)


@pytest.mark.parametrize("family", FAMILIES, ids=lambda one: f"{one.parser}: {one.name}")
def test_no_family_grows_too_fast(family: Family) -> None:
    """L55: here one doubling that takes a moment. (`make growth` goes up to a million, and allows 2.4 times.)"""
    tries = [measure(family, LARGEST, SMALLEST, ROUGHLY)]
    while (
        not tries[-1].met and len(tries) < TRIES
    ):  # a busy machine makes one of a thousand look so; what is quadratic looks so each time
        tries.append(measure(family, LARGEST, SMALLEST, ROUGHLY))
    assert tries[-1].met, str(tries[-1])
