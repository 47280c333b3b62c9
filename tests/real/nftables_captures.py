"""Rulesets as the kernel gives them, for the tests of what they mean: loaded into a network namespace, read, and written to a file.

`python -m tests.real.nftables_captures` makes the files in `tests/captures_nftables` anew from the rules in them.
"""

import json
import socket
from pathlib import Path
from typing import Any, Final

from core import nftables
from shell.adapters.firewall import ruleset
from tests.lab.private_network import enter_private_network
from tests.lab.process import run

FOLDER: Final = Path(__file__).parents[1] / "captures_nftables"
LINKS: Final = ("wg0", "podman1", "eth0")


def make_links() -> None:
    """The links that the rules speak of, as far as they are not there."""
    there = {name for _, name in socket.if_nameindex()}
    for name in LINKS:
        if name not in there:
            run(("ip", "link", "add", name, "type", "bridge"))


def indexes() -> dict[str, int]:
    """The kernel's number of each link."""
    return {name: number for number, name in socket.if_nameindex()}


def load(case: dict[str, Any]) -> None:
    """The rules of a case and no others: those of nft, then those of iptables."""
    run(("nft", "-f", "-"), text="flush ruleset\n" + case.get("nft", ""))
    if "iptables" in case:
        run(("iptables-restore",), text=case["iptables"])


def messages() -> dict[str, Any]:
    """What the kernel answers when it is asked for everything."""
    found: list[list[Any]] = []
    elements: list[list[Any]] = []
    with ruleset.connected() as connection:
        for kind in (nftables.GET_CHAIN, nftables.GET_RULE, nftables.GET_SET):
            ruleset.send(connection, kind, b"", dump=True)
            found += [[kind, family, data.hex()] for kind, family, data in ruleset.messages(connection)]
    for place in sorted(ruleset.read()[1].sets):
        with ruleset.connected() as connection:
            ruleset.ask_elements(connection, place)
            elements.append([*place, [data.hex() for _, _, data in ruleset.messages(connection)]])
    return {"messages": found, "elements": elements}


def main() -> None:
    """Write every file anew."""
    enter_private_network()
    make_links()
    for path in sorted(FOLDER.glob("*.json")):
        case = json.loads(path.read_text())
        load(case)
        path.write_text(json.dumps({**case, "indexes": indexes(), **messages()}, indent=1) + "\n")


if __name__ == "__main__":
    main()
