"""`make demo`: a control plane, a registry, a Podman and an agent on this machine, and what the agent does, shown in a minute.

Runs in a network namespace of its own, with a Podman storage of its own: it never touches a user's containers, and leaves nothing behind.
"""

import contextlib
import signal
import sys
import tempfile
import urllib.request
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any, NoReturn

from tests.lab.agent import Agent, Plane
from tests.lab.podman_store import PodmanStore
from tests.lab.private_network import enter_private_network
from tests.lab.process import LabError
from tests.lab.registry import Registry
from tests.lab.wait import WaitedTooLongError, wait_for

_CONVERGE_S = 90


def main() -> int:
    """Run the demo; 0 when everything was seen to work."""
    signal.signal(signal.SIGTERM, _interrupted)
    try:
        enter_private_network()
        with contextlib.ExitStack() as stack:
            _demo(stack)
    except KeyboardInterrupt:
        print("\ninterrupted; everything has been taken down")
        return 130
    except (LabError, WaitedTooLongError) as error:
        print(f"\nthe demo failed: {error}", file=sys.stderr)
        return 1
    print("\nDone. Everything has been taken down again.")
    return 0


def _demo(stack: contextlib.ExitStack) -> None:
    folder = Path(stack.enter_context(tempfile.TemporaryDirectory(prefix="agent-demo-")))
    _say("Starting a control plane, an image registry and a Podman, all private to this demo.")
    registry = stack.enter_context(Registry(folder / "registry"))
    store = stack.enter_context(PodmanStore(folder / "podman"))
    plane = stack.enter_context(Plane(folder / "plane"))
    services = _services(registry)
    agent = Agent(folder / "agent", plane.url, _options(store, registry))
    stack.callback(agent.kill)

    _say("Registering an agent with a one-time token. Nothing is expected of it yet.")
    agent.start(plane.token("demo", store.subnet_id))
    _until(lambda: plane.lab("servers") and plane.lab("servers")[0]["status"] == "online", "the agent to report")

    _say("Adding three services, one with two replicas. What the agent will do at its next poll (`agent plan --all`):")
    plane.want(services)
    _watch(agent)
    _show(plane, store)

    _say("Changing the tag of `web` to v2: each replica is replaced, the image first.")
    services["web"]["image"] = registry.offer("web", "v2")
    plane.want(services)
    _until(lambda: set(_pages(plane, "web")) == {"v2"}, "both replicas to answer v2")
    _show(plane, store)

    victim = next(one for one in plane.lab("deployments") if one["service"] == "api")
    _say(f"Killing the container of `api` ({victim['containerId'][:12]}) behind the agent's back.")
    store.cli("kill", victim["containerId"])
    _until(lambda: "api" not in _running(store), "the container to be dead")
    _until(lambda: "api" in _running(store), "the agent to start it again")
    _show(plane, store)

    _say(
        "Removing everything from the control plane: the agent takes it down (a sudden emptiness has to be said twice)."
    )
    plane.want({})
    _until(lambda: not _running(store), "all containers to be gone")
    status = agent.stop()
    _say(f"Stopped the agent with SIGTERM; its exit status is {status}. Its last words:")
    print("".join(f"    {line}\n" for line in agent.last_words().splitlines()[-4:]))


def _services(registry: Registry) -> dict[str, Any]:
    return {
        "web": {"image": registry.offer("web", "v1"), "replicas": 2, "ports": [{"container": 80}]},
        "api": {
            "image": registry.offer("health"),
            "ports": [{"container": 80}],
            "health_check": {
                "cmd": "test -e /www/health",
                "interval": 2,
                "timeout": 2,
                "retries": 2,
                "start_period": 1,
            },
        },
        "store": {
            "image": registry.offer("env"),
            "ports": [{"container": 80}],
            "env": {"GREETING": "decrypted only inside the container"},
            "volumes": [{"name": "data", "path": "/data"}],
        },
    }


def _options(store: PodmanStore, registry: Registry) -> tuple[str, ...]:
    unmanaged = tuple(part for name in ("dns", "caddy", "wireguard") for part in ("--unmanaged", name))
    return ("--podman-socket", str(store.socket_path), "--insecure-registry", registry.address, *unmanaged)


def _watch(agent: Agent) -> None:
    """Print the plan as it shrinks."""
    print("".join(f"    {line}\n" for line in agent.plan_text().splitlines()))
    seen: list[int] = []

    def converged() -> bool:
        plan = agent.plan()
        left = len(plan["plan"])
        if not seen or left < seen[-1]:
            seen.append(left)
            following = plan["next"]
            print(
                f"    {left} left"
                + (f"; next: {following['kind']} {following['name']}, {following['reason']}" if following else "")
            )
        return bool(plan["converged"])

    wait_for(converged, _CONVERGE_S, "the plan to become empty")


def _show(plane: Plane, store: PodmanStore) -> None:
    """A page from each container, by its static address."""
    for one in sorted(plane.lab("deployments"), key=lambda one: (one["service"], one["ipAddress"])):
        page = _until(partial(_page, one["ipAddress"]), f"a page from {one['service']}")
        greeting = next((line for line in page.splitlines() if line.startswith("GREETING=")), page.splitlines()[0])
        print(f"    {one['service']:<6} http://{one['ipAddress']}/  ->  {greeting}")


def _pages(plane: Plane, service: str) -> list[str]:
    addresses = [one["ipAddress"] for one in plane.lab("deployments") if one["service"] == service]
    return [_page(address).strip() for address in addresses]


def _page(address: str) -> str:
    try:
        with urllib.request.urlopen(f"http://{address}/", timeout=2) as answer:
            text: str = answer.read().decode()
            return text
    except OSError:
        return ""


def _running(store: PodmanStore) -> set[str]:
    return set(store.cli("ps", "--format", '{{index .Labels "techulus.service.name"}}').split())


def _until(condition: Callable[[], Any], what: str) -> Any:
    return wait_for(condition, _CONVERGE_S, what)


def _say(text: str) -> None:
    print(f"\n{text}", flush=True)


def _interrupted(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
