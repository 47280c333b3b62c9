"""An agent that is killed with SIGKILL before one of its requests reaches Podman: what it was about to do is left as it is."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

from tests.lab.agent import Agent
from tests.lab.relay import Relay

_KILLED_S = 60


class DoomedAgent:
    """The agent behind a relay to its Podman. Armed, it is killed once, before a request with `part` in its first line."""

    def __init__(self, agent: Agent, part: bytes) -> None:
        self.agent = agent
        self._part = part
        self._armed = False
        self._killed = threading.Event()

    def arm(self) -> None:
        """The next such request is the agent's last."""
        self._armed = True

    def wait_killed(self) -> bool:
        """Whether it has been killed, within a minute."""
        return self._killed.wait(_KILLED_S)

    def trips(self, chunk: bytes) -> bool:
        """What the relay asks."""
        if not self._armed or self._part not in chunk.split(b"\r\n", 1)[0]:
            return False
        self._armed = False
        self.agent.kill()
        self._killed.set()
        return True


@contextmanager
def doomed_agent(data_dir: Path, url: str, podman: Path, part: bytes, *options: str) -> Iterator[DoomedAgent]:
    """Such an agent, not yet started and not yet armed; `podman` is the socket that the relay leads to."""
    path = podman.with_name("relay.sock")
    doomed = DoomedAgent(Agent(data_dir, url, ("--podman-socket", str(path), *options)), part)
    with Relay(podman, trips=doomed.trips, path=path):
        yield doomed
        doomed.agent.kill()
