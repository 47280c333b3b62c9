"""What containers leave in the kernel when all of Podman is killed at once: control groups, bridges, firewall rules.

A machine that loses power loses these too; a simulated one does not. Decides what belonged to a store, by container
identifiers and subnets; everything else stays. Knows nothing of processes.
"""

import contextlib
import json
import shlex
from pathlib import Path

from tests.lab.process import LabError, run

_CGROUPS = Path("/sys/fs/cgroup")
_TABLES = ("nat", "filter")


def remove_cgroups(graph_root: Path) -> None:
    """Remove the empty control groups of all containers in the storage at `graph_root`."""
    index = graph_root / "overlay-containers" / "containers.json"
    if not index.exists():
        return
    for container in json.loads(index.read_text()):
        # The first pattern is the unified hierarchy's, the second has one folder for each controller.
        for pattern in ("libpod_parent/*{}*", "*/libpod_parent/*{}*"):
            for folder in _CGROUPS.glob(pattern.format(container["id"])):
                remove_cgroup(folder)


def remove_networks(folder: Path) -> None:
    """Remove bridges and firewall rules of the networks whose configurations are in `folder`.

    A bridge of the same name with another address belongs to someone else, and stays.
    """
    for file in sorted(folder.glob("*.json")):
        network = json.loads(file.read_text())
        name, subnet = network["network_interface"], network["subnets"][0]
        with contextlib.suppress(LabError):
            if f" {subnet['gateway']}/" in run(("ip", "-oneline", "address", "show", "dev", name)):
                run(("ip", "link", "delete", "dev", name))
        for table in _TABLES:
            _remove_rules(table, subnet["subnet"])


def remove_cgroup(folder: Path) -> None:
    """Remove an empty control group with all that are in it."""
    for inner in sorted((folder, *folder.glob("**/")), key=lambda path: -len(path.parts)):
        with contextlib.suppress(OSError):
            inner.rmdir()


def _remove_rules(table: str, subnet: str) -> None:
    """Delete all rules about a subnet, then the chains that only they led to."""
    with contextlib.suppress(LabError):
        rules = [shlex.split(line) for line in run(("iptables", "-w", "-t", table, "-S")).splitlines()]
        chains = {rule[1] for rule in rules if rule[0] == "-N"}
        ours = [rule[1:] for rule in rules if rule[0] == "-A" and subnet in rule]
        for rule in ours:
            run(("iptables", "-w", "-t", table, "-D", *rule))
        own_chains = {rule[-1] for rule in ours if rule[-1] in chains and "-s" in rule}
        for chain in sorted(own_chains):
            run(("iptables", "-w", "-t", table, "-F", chain))
            run(("iptables", "-w", "-t", table, "-X", chain))
