"""`make demo`: a control plane, a registry, a proxy and a second server on this machine, and what the agents do, shown in two minutes.

Everything runs in namespaces of its own, with Podman storages of its own: it never touches a user's containers, and leaves nothing behind.
"""

import json
import signal
import sys
import tempfile
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from tests.lab.fleet import Fleet, Node
from tests.lab.private_network import enter_private_network
from tests.lab.process import LabError
from tests.lab.registry import Registry
from tests.lab.wait import WaitedTooLongError, wait_for

_PATIENCE_S = 120


def main() -> int:
    """Run the demo; 0 when everything was seen to work."""
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        enter_private_network()
        _say(
            "Starting a control plane, an image registry and two servers (a proxy and a worker), all private to this demo."
        )
        with tempfile.TemporaryDirectory(prefix="demo-") as folder, Fleet(Path(folder), workers=1, proxies=1) as fleet:
            _demo(fleet)
    except KeyboardInterrupt:
        print("\ninterrupted; everything has been taken down")
        return 130
    except (LabError, WaitedTooLongError) as error:
        print(f"\nthe demo failed: {error}", file=sys.stderr)
        return 1
    print("\nDone. Everything has been taken down again.")
    return 0


def _demo(fleet: Fleet) -> None:
    proxy = fleet.node("proxy-1")
    print("    Both have registered with one-time tokens; nothing is expected of them yet.")
    services = _services(fleet.registry)
    _say("Adding three services. What the proxy's agent will do at its next poll (`agent plan --all`):")
    fleet.want(services)
    _watch(proxy)
    fleet.until_running(4)

    _say("A page from each container, by its static address:")
    _show(fleet)
    _network(fleet, proxy)

    _say("Changing the tag of `web` to v2: each replica is replaced, the image first.")
    services["web"]["image"] = fleet.registry.offer("web", "v2")
    fleet.want(services)
    _until(lambda: all(_page(fleet, one).strip() == "v2" for one in _rows(fleet, "web")), "both replicas to answer v2")
    _show(fleet)

    victim = _rows(fleet, "api")[0]["containerId"]
    _say(f"Killing the container of `api` ({victim[:12]}) behind the agent's back.")
    proxy.server.cli("kill", victim)
    _until(lambda: "api" in _running(proxy), "the agent to start it again")
    _show(fleet)

    _say("Removing everything: the agents take it down (a sudden emptiness has to be said twice).")
    fleet.want({})
    _until(lambda: not any(_running(node) for node in fleet.nodes.values()), "all containers to be gone")
    _say(f"Stopping the proxy's agent with SIGTERM; its exit status is {proxy.exit_status()}. Its last words:")
    print("".join(f"    {line}\n" for line in proxy.last_words().splitlines()[-3:]))


def _services(registry: Registry) -> dict[str, Any]:
    check = {"cmd": "test -e /www/health", "interval": 2, "timeout": 2, "retries": 2, "start_period": 1}
    return {
        "web": {
            "image": registry.offer("web", "v1"),
            "replicas": 2,
            "servers": ["proxy-1", "worker-1"],
            "ports": [{"container": 80, "domain": "app.test"}],
        },
        "api": {
            "image": registry.offer("health"),
            "servers": ["proxy-1"],
            "ports": [{"container": 80}],
            "health_check": check,
        },
        "store": {
            "image": registry.offer("env"),
            "servers": ["proxy-1"],
            "ports": [{"container": 80}],
            "env": {"GREETING": "decrypted only inside the container"},
            "volumes": [{"name": "data", "path": "/data"}],
        },
    }


def _watch(node: Node) -> None:
    """Print the plan, and then how it shrinks."""
    print("".join(f"    {line}\n" for line in node.agent("plan", "--all").splitlines()))
    seen: list[int] = []

    def converged() -> bool:
        plan = json.loads(node.agent("plan", "--all", "--output", "json"))
        left = len(plan["plan"])
        if not seen or left < seen[-1]:
            seen.append(left)
            print(f"    {left} left")
        return bool(plan["converged"])

    wait_for(converged, _PATIENCE_S, "the plan to become empty")


def _network(fleet: Fleet, proxy: Node) -> None:
    worker = fleet.node("worker-1")
    _say("Names, from inside a container on the worker (dnsmasq), through the tunnel (WireGuard):")
    container = worker.server.cli("ps", "-q").split()[0]
    _until(
        lambda: _said(worker, "podman", "exec", container, "wget", "-qO-", "http://store.internal/"),
        "the name to be there",
    )
    page = _said(worker, "podman", "exec", container, "wget", "-qO-", "http://store.internal/")
    print(f"    http://store.internal/  ->  {_short(page)}")
    handshake = worker.run("wg", "show", "wg0", "latest-handshakes").split()
    print(f"    tunnel to the proxy     ->  handshake with {handshake[0][:12]}…")

    _say("The public way: HTTPS at the proxy (Caddy, its own issuer), to replicas on both servers:")
    root = proxy.data_dir / "caddy/storage/pki/authorities/local/root.crt"
    ask = (
        "curl",
        "-sS",
        "--cacert",
        str(root),
        "--resolve",
        f"app.test:443:{proxy.server.address}",
        "https://app.test/hostname",
    )
    _until(lambda: _said(worker, *ask), "the route to answer")
    names = {_said(worker, *ask).strip() for _ in range(8)}
    print("".join(f"    https://app.test/  ->  container {name}\n" for name in sorted(names)), end="")


def _show(fleet: Fleet) -> None:
    for one in sorted(fleet.plane.lab("deployments"), key=lambda one: (one["service"], one["ipAddress"])):
        page = _until(partial(_page, fleet, one), f"a page from {one['service']}")
        print(f"    {one['service']:<6} {one['server']:<9} http://{one['ipAddress']}/  ->  {_short(page)}")


def _short(page: str) -> str:
    lines = page.splitlines() or [""]
    return next((line for line in lines if line.startswith("GREETING=")), lines[0])


def _rows(fleet: Fleet, service: str) -> list[dict[str, Any]]:
    return [one for one in fleet.plane.lab("deployments") if one["service"] == service]


def _page(fleet: Fleet, row: dict[str, Any]) -> str:
    return _said(fleet.node(row["server"]), "curl", "-sf", "-m", "2", f"http://{row['ipAddress']}/")


def _said(node: Node, *argv: str) -> str:
    try:
        return node.run(*argv)
    except LabError:  # not there yet
        return ""


def _running(node: Node) -> set[str]:
    return set(node.server.cli("ps", "--format", '{{index .Labels "techulus.service.name"}}').split())


def _until(condition: Callable[[], Any], what: str) -> Any:
    return wait_for(condition, _PATIENCE_S, what)


def _say(text: str) -> None:
    print(f"\n{text}", flush=True)


def _interrupted(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
