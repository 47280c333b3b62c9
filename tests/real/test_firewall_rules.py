"""The firewall's adapter in a network namespace: our rules, and what is read of all of them."""

import os
import shutil
import sys
import time
from collections import Counter
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import anyio
import pytest

from core import firewall as core_firewall
from core.nftables import Ruleset
from shell.adapters.firewall import Firewall, FirewallSettings, Seen, ruleset
from shell.failure import AdapterError
from tests.captures_nftables import NAMES, a_server, case, drops
from tests.lab.process import run
from tests.real import nftables_captures

pytestmark = pytest.mark.real

_SETTINGS = FirewallSettings(7, "wg0", 51_820, is_proxy=False, names=True)
_processes: Counter[str] = Counter()


def _count(event: str, _: tuple[object, ...]) -> None:
    if event in ("subprocess.Popen", "os.fork", "os.posix_spawn"):
        _processes["started"] += 1


sys.addaudithook(_count)


@pytest.fixture
def firewall() -> Iterator[Firewall]:
    """Of a server with the links that rules speak of, and no rule at all; nor afterwards."""
    nftables_captures.make_links()
    run(("nft", "flush", "ruleset"))
    yield Firewall(_SETTINGS)
    run(("nft", "flush", "ruleset"))


def now(work: Callable[[], Any]) -> Any:
    """The outcome of a method of the adapter's."""
    return anyio.run(work)


@pytest.mark.parametrize("name", NAMES)
def test_the_captures_are_what_the_kernel_says(name: str, firewall: Firewall) -> None:
    """The same rules, loaded now and read by netlink, come to the same as the capture."""
    found = case(name)
    nftables_captures.load(dict(found.loaded))
    _, read = ruleset.read()
    assert drops(read, a_server(nftables_captures.indexes())) == found.drops


@pytest.mark.parametrize(
    "words",
    [
        ("-D", "FORWARD", "-j", "TECHULUS-FORWARD"),
        ("-F", "TECHULUS-FORWARD"),
        ("-D", "TECHULUS-FORWARD", "1"),
        ("-D", "INPUT", "-j", "TECHULUS-INPUT"),
        ("-F", "TECHULUS-INPUT"),
        ("-F",),
    ],
    ids=" ".join,
)
def test_a_removed_rule_is_seen_and_put_right(words: tuple[str, ...], firewall: Firewall) -> None:
    """L21: of our chain and of the one that leads there; a firewall manager is named as the likely cause."""
    now(firewall.apply)
    assert now(firewall.fetch).fault is None
    rules = run(("iptables", "-S"))
    run(("iptables", *words))
    assert "a firewall manager has removed a rule" in now(firewall.fetch).fault
    now(firewall.apply)
    assert now(firewall.fetch).fault is None
    assert sorted(run(("iptables", "-S")).splitlines()) == sorted(rules.splitlines())


def test_the_guard_comes_and_goes_with_a_tunnel_of_somebody_elses(
    firewall: Firewall, capsys: pytest.CaptureFixture[str]
) -> None:
    """The name that was told may be wrong, and is said once; right rules are asked for again when the link comes."""
    told = Firewall(replace(_SETTINGS, interface=None, unmanaged_tunnel="mesh0"))
    now(told.apply)
    assert [now(told.fetch).fault for _ in range(3)] == [None] * 3
    assert "PREROUTING" not in run(("iptables", "-t", "mangle", "-S")).replace("-P PREROUTING", "")
    assert capsys.readouterr().out.count("there is no link mesh0") == 1
    run(("ip", "link", "add", "mesh0", "type", "bridge"))
    try:
        assert "keeps neighbours" in now(told.fetch).fault
        now(told.apply)
        assert now(told.fetch).fault is None
    finally:
        run(("ip", "link", "delete", "mesh0"))


def test_a_rule_that_cannot_be_set_is_nobody_elses_fault(
    firewall: Firewall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A kernel may lack a match: the reason stands where the rule is missed, and while it lasts a look starts nothing."""
    (tmp_path / "iptables").write_text(
        '#!/bin/sh\ncase "$*" in *"-A"*rpfilter*) echo no such match; exit 2 ;; esac\nexec /usr/sbin/iptables "$@"\n'
    )
    (tmp_path / "iptables").chmod(0o755)
    with monkeypatch.context() as patch:
        patch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
        with pytest.raises(AdapterError, match="no such match"):
            now(firewall.apply)
        assert now(firewall.fetch).fault == "a rule of the agent's cannot be set: no such match"
        _processes.clear()
        assert now(firewall.fetch).fault == "a rule of the agent's cannot be set: no such match"
        assert not _processes
    now(firewall.apply)
    assert now(firewall.fetch).fault is None


def test_our_rules_come_once_and_go(firewall: Firewall) -> None:
    """L10: in chains of ours, however often they are set; what others have there stays."""
    run(("iptables", "-A", "FORWARD", "-s", "192.0.2.1", "-j", "ACCEPT"))
    before = run(("iptables", "-S"))
    assert now(firewall.fetch).fault is not None
    now(firewall.apply)
    now(firewall.apply)
    rules = run(("iptables", "-S")).splitlines()
    assert rules.count("-A FORWARD -j TECHULUS-FORWARD") == rules.count("-A INPUT -j TECHULUS-INPUT") == 1
    assert sum("10.200.7.0/24" in rule for rule in rules if "TECHULUS-FORWARD" in rule) == 4
    assert sum("--dport 53 -j ACCEPT" in rule for rule in rules if "TECHULUS-INPUT" in rule) == 2
    now(firewall.withdraw)
    now(firewall.withdraw)
    assert run(("iptables", "-S")) == before


def test_without_a_tunnel_names_are_let_in_all_the_same(firewall: Firewall) -> None:
    """What containers need of this server is not WireGuard's affair; and without both there is nothing to set."""
    alone = Firewall(FirewallSettings(7, None, 51_820, is_proxy=False, names=True))
    now(alone.apply)
    rules = run(("iptables", "-S"))
    assert "TECHULUS-INPUT" in rules and "TECHULUS-FORWARD" not in rules
    assert now(alone.fetch).fault is None
    run(("nft", "flush", "ruleset"))
    nothing = Firewall(FirewallSettings(7, None, 51_820, is_proxy=False, names=False))
    now(nothing.apply)
    assert (now(nothing.fetch).fault, run(("iptables", "-S")).count("-A")) == (None, 0)


def test_a_look_while_nothing_changes_costs_next_to_nothing(
    firewall: Firewall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No process, and one message: the rules of fifty containers are not read again, and a thousand looks take less than five seconds."""
    nftables_captures.load(dict(case("ours").loaded))
    for number in range(2, 52):
        run(("iptables", "-t", "nat", "-A", "NETAVARK-HOSTPORT-DNAT", "-p", "tcp", "--dport", str(30_000 + number)))
    now(firewall.apply)
    assert now(firewall.fetch).fault is None
    _processes.clear()
    reads: list[int] = []
    read = ruleset.read

    def counted() -> tuple[int, Ruleset]:
        reads.append(1)
        return read()

    async def look() -> float:
        began = time.process_time()
        for _ in range(1000):
            await firewall.fetch(runs=True)
        return time.process_time() - began

    monkeypatch.setattr(ruleset, "read", counted)
    took_s = now(look)
    assert (len(reads), _processes["started"]) == (1, 0), "the first look with containers reads once"
    assert took_s < 5, f"{took_s:.1f} s"
    print(f"a look takes {took_s:.3f} ms")


def test_a_large_set_of_somebody_elses_is_not_read_whole(firewall: Firewall) -> None:
    """A block list of fifty thousand addresses: what it decides is not known, and the look is quick."""
    addresses = ", ".join(f"10.{number // 65536}.{number // 256 % 256}.{number % 256}" for number in range(50_000))
    text = "table inet guard {\n set blocked { type ipv4_addr; elements = { " + addresses + " } }\n"
    text += "chain f { type filter hook forward priority 0; policy drop; ip saddr @blocked accept\n}\n}\n"
    run(("nft", "-f", "-"), text=text)
    began = time.process_time()
    _, found = ruleset.read()
    assert time.process_time() - began < 2
    assert found.sets["inet", "guard", "blocked"].elements is None
    assert drops(found, a_server({})) == {}


def test_rules_that_change_while_they_are_read(firewall: Firewall) -> None:
    """A ruleset of one moment, or none: the number before and after is the same."""
    before = ruleset.generation()
    run(("nft", "add", "table", "inet", "guard"))
    number, _ = ruleset.read()
    assert before is not None and number > before
    assert ruleset.generation() == number


@pytest.mark.parametrize("name", ["7wg", "wg@x", "mark"])
def test_a_proposed_rule_for_an_odd_link_can_be_pasted(name: str, firewall: Firewall) -> None:
    """L54: nft takes such a name for a number or a word of its own, unless it is quoted for nft as well as for the shell."""
    run(("ip", "link", "add", name, "type", "bridge"))
    try:
        run(
            ("nft", "-f", "-"), text="table inet own { chain f { type filter hook forward priority 0; policy drop; }; }"
        )
        odd = Firewall(FirewallSettings(7, name, 51_820, is_proxy=False, names=True))
        (found,) = now(odd.fetch_blocked)
        assert any(name in command for command in found.commands)
        for command in found.commands:
            run(("sh", "-c", command))
        assert now(odd.fetch_blocked) == ()
    finally:
        run(("ip", "link", "delete", name))


def test_our_rules_are_set_beside_some_that_nobody_understands(
    firewall: Firewall, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No real rule is known that is not understood; were there one, it would not take the mesh away."""

    def puzzled(*_: object) -> None:
        raise ValueError("a bitwise expression without a mask")

    monkeypatch.setattr(core_firewall, "blocked", puzzled)
    seen = now(firewall.fetch)
    assert seen.fault is not None and not seen.is_whole
    now(firewall.apply)
    with pytest.raises(AdapterError, match="without a mask"):
        now(firewall.fetch)


@pytest.mark.parametrize("before", ["continue", "oifname eth0 continue", "oifname eth9 accept"])
def test_masquerading_behind_rules_that_decide_nothing(firewall: Firewall, before: str) -> None:
    """L54: the packet goes on to the next rule, and Podman's network is not set up again for nothing."""
    chain = f"chain post {{ type nat hook postrouting priority srcnat; {before}; ip saddr 10.200.7.0/24 masquerade; }};"
    run(("nft", f"table ip theirs {{ {chain} }}"))
    assert now(partial(firewall.fetch, runs=True)).lost == ()
    run(("nft", "flush chain ip theirs post; add rule ip theirs post accept"))
    assert now(partial(firewall.fetch, runs=True)).lost == ("masquerading of 10.200.7.0/24",)


def test_tables_of_before_nftables(firewall: Firewall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Where iptables writes to them, our rules are set and asked for all the same; of others nothing is said, and nothing is reloaded."""
    legacy = shutil.which("iptables-legacy")
    assert legacy is not None
    (tmp_path / "iptables").symlink_to(legacy)
    monkeypatch.setenv("PATH", f"{tmp_path}:{os.environ['PATH']}")
    assert now(firewall.fetch).fault is not None
    now(firewall.apply)
    seen = now(partial(firewall.fetch, runs=True, publishes=True))
    assert seen == Seen(fault=None, lost=(), blocked=(), is_whole=False)
    assert "TECHULUS-FORWARD" in run((legacy, "-S")) and "TECHULUS" not in run(("nft", "list", "ruleset"))
    assert now(firewall.fetch_blocked) is None
    run((legacy, "-F"))
    assert "has removed a rule" in now(Firewall(_SETTINGS).fetch).fault
    now(firewall.withdraw)


def test_without_iptables_its_absence_is_said(
    firewall: Firewall, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """And what others drop is seen all the same."""
    monkeypatch.setenv("PATH", str(tmp_path))
    with pytest.raises(AdapterError, match="install the package iptables"):
        now(firewall.fetch)
    assert now(firewall.fetch_blocked) == ()
