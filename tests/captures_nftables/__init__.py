"""Rulesets as the kernel gave them, each with the rules it was made from, and what they should come to."""

import json
from collections.abc import Mapping
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Final

from core import firewall, nftables
from core.firewall import Server
from core.nftables import Ruleset

FOLDER: Final = Path(__file__).parent
NAMES: Final = sorted(path.stem for path in FOLDER.glob("*.json"))


@dataclass(frozen=True)
class Case:
    """`loaded` is what was loaded, `drops` what should be dropped by base chain, `lost` what should be missing of Podman's, if known."""

    what: str
    loaded: Mapping[str, str]
    drops: Mapping[str, list[str]]
    lost: list[str] | None
    ruleset: Ruleset
    indexes: Mapping[str, int]


def case(name: str) -> Case:
    """A capture by its file's name."""
    found = json.loads((FOLDER / f"{name}.json").read_text())
    return Case(
        found["what"],
        {tool: found[tool] for tool in ("nft", "iptables") if tool in found},
        found["drops"],
        found.get("lost"),
        _ruleset(found),
        found["indexes"],
    )


def a_server(indexes: Mapping[str, int], **changes: Any) -> Server:
    """A proxy with everything managed, whose links have these numbers."""
    made = Server(
        subnet_id=7,
        interface="wg0",
        bridge="podman1",
        outside="eth0",
        wireguard_port=51_820,
        is_proxy=True,
        names=True,
        indexes=indexes,
    )
    return replace(made, **changes)


def drops(ruleset: Ruleset, server: Server) -> dict[str, list[str]]:
    """What is dropped, as the cases say it."""
    found = firewall.blocked(ruleset, server)
    return {f"{one.family} {one.table} {one.chain} ({one.by})": list(one.drops) for one in found}


def _ruleset(found: dict[str, Any]) -> Ruleset:
    read = nftables.parse((kind, family, bytes.fromhex(data)) for kind, family, data in found["messages"])
    elements = {(family, table, name): rows for family, table, name, rows in found["elements"]}
    sets = {
        place: replace(one, elements=nftables.parse_elements(map(bytes.fromhex, elements[place])))
        for place, one in read.sets.items()
    }
    return replace(read, sets=sets)
