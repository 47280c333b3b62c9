"""`make lab`: one proxy and two workers on this machine, with everything on them, for a person to play with."""

import signal
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import NoReturn

from tests.lab.fleet import Fleet
from tests.lab.private_network import enter_private_network
from tests.lab.process import LabError
from tests.lab.wait import WaitedTooLongError


def main() -> int:
    """Bring the lab up, print what to try, wait, take it down."""
    signal.signal(signal.SIGTERM, _interrupted)
    enter_private_network()
    try:
        with tempfile.TemporaryDirectory(prefix="lab-") as folder, Fleet(Path(folder)) as fleet:
            web = {"image": fleet.registry.offer("web"), "replicas": 2, "servers": ["worker-1", "worker-2"]}
            fleet.want({"web": {**web, "ports": [{"container": 80, "domain": "app.test"}]}})
            fleet.until_running(2)
            _explain(fleet)
            _wait()
    except KeyboardInterrupt:
        pass
    except (LabError, WaitedTooLongError) as error:
        print(f"the lab did not come up: {error}", file=sys.stderr)
        return 1
    print("Taken down.")
    return 0


def _explain(fleet: Fleet) -> None:
    proxy, worker = fleet.node("proxy-1"), fleet.node("worker-1")
    root = proxy.data_dir / "caddy/storage/pki/authorities/local/root.crt"
    inside = f"nsenter -t {worker.server.init} -m -n -p"
    print(f"""
A proxy and two workers run in namespaces of this machine. From another terminal, as root:

  a service's file      {fleet.plane.directory / "services.yaml"}   (edit it; it is picked up)
  image for a change    {fleet.registry.offer("web", "v2")}
  on worker-1           {inside} podman ps
  a name                {inside} dig +short @127.0.0.153 web.internal
  the tunnel            {inside} ping -c 3 10.100.1.1
  through the proxy     nsenter -t {worker.server.init} -n curl --cacert {root} --resolve app.test:443:{proxy.server.address} https://app.test/
  an agent's log        tail -f {proxy.log}
""")


def _wait() -> None:
    if sys.stdin.isatty():
        print("Press Enter to take it down.")
        sys.stdin.readline()
    else:
        subprocess.run(("sleep", "infinity"), check=False)


def _interrupted(number: int, frame: object) -> NoReturn:
    raise KeyboardInterrupt


if __name__ == "__main__":
    sys.exit(main())
