"""Containers on the real Podman: what is asked for is there, nobody else's is touched, and nothing is left half done."""

import json
import stat
from pathlib import Path
from typing import Any

import pytest
from structlog.contextvars import bound_contextvars, merge_contextvars
from structlog.testing import capture_logs

from core.containers import ContainerId, DeploymentId, HealthCheck, Port, Volume
from shell.adapters.podman import Podman
from shell.failure import AdapterError
from tests.lab.agents_podman import create, listed, made, page, podman_on, wanted
from tests.lab.images import image
from tests.lab.podman_store import PodmanStore
from tests.lab.process import LabError
from tests.lab.wait import PATIENCE_S, wait_for

pytestmark = [pytest.mark.real, pytest.mark.anyio]


@pytest.fixture
def web(store: PodmanStore) -> str:
    return store.load(image("web"))


def inspected(store: PodmanStore, name: str) -> dict[str, Any]:
    """What Podman itself says of a container."""
    found: list[dict[str, Any]] = json.loads(store.cli("inspect", name))
    return found[0]


def left(store: PodmanStore) -> list[str]:
    """The names of all containers."""
    return sorted(store.cli("ps", "--all", "--format", "{{.Names}}").split())


async def test_a_container_is_made_as_asked_and_listed(podman: Podman, store: PodmanStore, web: str) -> None:
    """L5: what is listed matches what was asked for. L21: MAC and MTU. L40: confined."""
    await podman.ping()
    container = wanted(store, web)
    assert await listed(podman) == ()
    await made(podman, container)
    (found,) = await listed(podman)
    assert page(store.address(5)) == "v1\n"
    assert (found.name, found.image, found.state, found.health) == (container.name, container.image, "running", "none")
    assert (found.deployment_id, found.service_id) == (container.deployment_id, container.service_id)
    assert found.running_for_s is not None
    about = inspected(store, container.name)
    host = about["HostConfig"]
    assert len(about["EffectiveCaps"]) == 9
    assert set(about["BoundingCaps"]) == set(about["EffectiveCaps"])
    assert host["RestartPolicy"] == {"Name": "no", "MaximumRetryCount": 0}
    assert (host["PidsLimit"], host["Privileged"], host["LogConfig"]["Type"]) == (4096, False, "k8s-file")
    assert host["LogConfig"]["Size"] == "67.11MB"
    addresses = store.cli("exec", container.name, "ip", "addr", "show", "eth0")
    assert "mtu 1420" in addresses
    assert f"link/ether 02:74:0a:c8:{store.subnet_id:02x}:05" in addresses


async def test_env_and_volume(podman: Podman, store: PodmanStore) -> None:
    """L35: the folder is derived here. It outlives the container; several lines of a secret arrive as they are."""
    reference = store.load(image("env"))
    container = wanted(store, reference, volumes=(Volume("data", "/data"),))
    first = await made(podman, container, {"SECRET": "one\ntwo", "EMPTY": ""})
    text = page(store.address(5))
    assert "SECRET=one\ntwo\n" in text
    assert "EMPTY=\n" in text
    folder = store.directory / "volumes" / container.service_id / "data"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o777
    assert [stat.S_IMODE(parent.stat().st_mode) for parent in folder.parents[:2]] == [0o700, 0o700]
    await podman.stop_and_remove(first)
    await made(podman, container)
    assert len(wait_for(lambda: page(store.address(5), "starts").splitlines(), PATIENCE_S, "the starts")) == 2


async def test_volumes_in_use_stay(podman: Podman, store: PodmanStore, web: str) -> None:
    """L35: refused while anybody's container has one mounted, also one that is none of ours; gone when it is at rest."""
    folder = store.directory / "volumes" / "service-7" / "data"
    folder.mkdir(parents=True)
    (folder / "kept").touch()
    store.cli("run", "--detach", "--name=backup", "--network=none", f"--volume={folder}:/data", web)
    for state in ("running", "paused"):
        with pytest.raises(AdapterError, match="container backup has it mounted; nothing is deleted"):
            await podman.remove_volumes("service-7")
        assert (folder / "kept").exists(), state
        store.cli("pause" if state == "running" else "unpause", "backup")
    store.cli("stop", "--time=0", "backup")
    await podman.remove_volumes("service-7")
    await podman.remove_volumes("service-7")
    assert not folder.parent.exists()


async def test_health_comes_with_the_listing(podman: Podman, store: PodmanStore) -> None:
    """L30: `starting` until there is a result."""
    check = HealthCheck("test -e /www/health", interval_s=1, timeout_s=30, retries=1, start_period_s=0)
    container = wanted(store, store.load(image("health")), health_check=check)
    await made(podman, container)
    assert (await listed(podman))[0].health == "starting"
    page(store.address(5), "health")
    store.cli("healthcheck", "run", container.name)
    assert (await listed(podman))[0].health == "healthy"
    store.cli("exec", container.name, "rm", "/www/health")
    with pytest.raises(LabError):
        store.cli("healthcheck", "run", container.name)
    assert (await listed(podman))[0].health == "unhealthy"


async def test_a_process_that_exits_at_once_is_seen(podman: Podman, store: PodmanStore) -> None:
    """L17: its start is no failure of Podman's; the listing tells."""
    await made(podman, wanted(store, store.load(image("exits"))))
    store.cli("wait", "service-5-deploy")
    found = (await listed(podman))[0]
    # In whole seconds: of those that began and ended it, only what lies between has passed for certain.
    times = store.cli("inspect", "--format={{.State.StartedAt.Unix}} {{.State.FinishedAt.Unix}}", "service-5-deploy")
    started, finished = map(int, times.split())
    assert (found.state, found.lived_s, found.exit_code) == ("exited", max(0.0, finished - started - 1.0), 0)
    await podman.start(found.id)


async def test_names_of_its_own_only(podman: Podman, store: PodmanStore, web: str) -> None:
    """Nothing of the server's own /etc/hosts, where its name may mean loopback; the container's own names and localhost resolve."""
    hosts = store.directory / "server-hosts"
    hosts.write_text("127.0.0.1 localhost\n127.0.1.1 the-server\n")
    store.run(("mount", "--bind", str(hosts), "/etc/hosts"))
    container = wanted(store, web)
    container_id = await made(podman, container)
    text = store.cli("exec", container.name, "cat", "/etc/hosts")
    names = {name: line.split()[0] for line in reversed(text.splitlines()) for name in line.split()[1:]}
    own = store.address(5)
    assert "the-server" not in text
    assert (names["localhost"], names[container.name], names[container_id[:12]]) == ("127.0.0.1", own, own)
    resolved = store.cli("exec", container.name, "sh", "-c", "ping -c 1 -W 1 $(hostname) && ping -c 1 localhost")
    assert f"({own})" in resolved
    file = store.directory / "hosts" / container.name
    store.cli("stop", "--time=2", container.name)
    file.unlink()
    await podman.start(container_id)
    assert "localhost" in store.cli("exec", container.name, "cat", "/etc/hosts")
    await podman.stop_and_remove(container_id)
    assert not file.exists()


async def test_resolvers(store: PodmanStore, web: str) -> None:
    """No search domain of the server's, with and without resolvers of ours."""
    store.use_resolvers("198.51.100.7")
    await made(podman_on(store), wanted(store, web, 5))
    await made(podman_on(store, dns=("10.200.0.1", "10.200.0.2")), wanted(store, web, 6))
    of = [store.cli("exec", f"service-{n}-deploy", "cat", "/etc/resolv.conf").split() for n in (5, 6)]
    assert of == [["nameserver", "198.51.100.7"], ["nameserver", "10.200.0.1", "nameserver", "10.200.0.2"]]


async def test_without_an_address_host_ports_are_published(podman: Podman, store: PodmanStore, web: str) -> None:
    """And its address comes from the top of the subnet, out of the way of static ones."""
    container = wanted(store, web, address=None, ports=(Port(80, 30080),))
    await made(podman, container)
    found = inspected(store, container.name)
    assert found["NetworkSettings"]["Ports"]["80/tcp"][0]["HostPort"] == "30080"
    address: str = found["NetworkSettings"]["Networks"]["techulus"]["IPAddress"]
    assert 240 <= int(address.rpartition(".")[2]) <= 254
    await made(podman, wanted(store, web, 6, ports=(Port(80, 30081),)))
    assert not any(inspected(store, "service-6-deploy")["NetworkSettings"]["Ports"].values())


async def test_an_address_already_taken(podman: Podman, store: PodmanStore, web: str) -> None:
    """Said with the address and who has it; nothing is left over, the holder goes on."""
    await made(podman, wanted(store, web))
    with pytest.raises(
        AdapterError, match=f"start container other: address {store.address(5)} is taken by container service-5"
    ):
        await create(podman, wanted(store, web, name="other", deployment_id=DeploymentId("other")))
    assert left(store) == ["service-5-deploy"]
    assert page(store.address(5)) == "v1\n"


async def test_an_image_that_is_not_here(podman: Podman, store: PodmanStore) -> None:
    await podman.ensure_network()
    with pytest.raises(AdapterError, match=r"create container service-5-deploy: localhost/none:1: image not known"):
        await create(podman, wanted(store, "localhost/none:1"))
    assert left(store) == []


async def test_a_name_taken_by_a_stranger(podman: Podman, store: PodmanStore, web: str) -> None:
    """L36: said, and the stranger left alone."""
    await podman.ensure_network()
    stranger = store.cli("create", "--name", "service-5-deploy", web).strip()
    with pytest.raises(AdapterError, match=f"taken by container {stranger}, which is not one of ours and created"):
        await create(podman, wanted(store, web))
    assert inspected(store, "service-5-deploy")["Id"] == stranger


async def test_a_name_taken_by_what_a_crash_left(podman: Podman, store: PodmanStore, web: str) -> None:
    """Created for this deployment and never started: made anew, since what was asked for may have changed."""
    await podman.ensure_network()
    label = "--label=techulus.deployment.id=deployment-5"
    store.cli("create", "--name", "service-5-deploy", label, "--env=OLD=1", web)
    await create(podman, wanted(store, web), {"NEW": "1"})
    env = inspected(store, "service-5-deploy")["Config"]["Env"]
    assert "NEW=1" in env
    assert "OLD=1" not in env
    with pytest.raises(AdapterError, match="which is one of ours and running"):
        await create(podman, wanted(store, web))
    assert page(store.address(5)) == "v1\n"


@pytest.mark.parametrize("link", [("volumes",), ("volumes", "service-5"), ("volumes", "service-5", "data")])
async def test_a_volume_behind_a_symbolic_link(
    podman: Podman, store: PodmanStore, web: str, link: tuple[str, ...]
) -> None:
    """L35: refused before anything is made."""
    (store.directory / "elsewhere").mkdir()
    at = store.directory.joinpath(*link)
    at.parent.mkdir(parents=True, exist_ok=True)
    at.symlink_to(store.directory / "elsewhere")
    await podman.ensure_network()
    with pytest.raises(AdapterError, match=r"make volume service-5/data: .*is a symbolic link"):
        await create(podman, wanted(store, web, volumes=(Volume("data", "/data"),)))
    assert left(store) == []
    assert list((store.directory / "elsewhere").iterdir()) == []


async def test_containers_in_any_state_go(podman: Podman, store: PodmanStore, web: str) -> None:
    """Polite first; twice is fine."""
    stubborn = store.load(image("stubborn"))
    running = await made(podman, wanted(store, web, 2))
    deaf = await made(podman, wanted(store, stubborn, 3))
    paused = await made(podman, wanted(store, web, 4))
    exited = await made(podman, wanted(store, web, 5))
    created = ContainerId(store.cli("create", "--label=techulus.service.id=x", "--name=created", web).strip())
    store.cli("pause", "service-4-deploy")
    store.cli("stop", "service-5-deploy")
    states = {one.name: one.state for one in await listed(podman)}
    assert [states[f"service-{n}-deploy"] for n in (2, 4, 5)] == ["running", "paused", "exited"]
    assert states["created"] == "created"
    for container_id in (running, deaf, paused, exited, created):
        await podman.stop_and_remove(container_id, grace_s=0.5)
        assert container_id not in {one.id for one in await listed(podman)}
        await podman.stop_and_remove(container_id)
        await podman.remove_forced(container_id)
    assert left(store) == []


async def test_a_polite_stop_is_heard(podman: Podman, store: PodmanStore, tmp_path: Path) -> None:
    """A process that ends on SIGTERM is not killed: its volume shows it."""
    reference = store.load(image("env"))
    container = wanted(store, reference, volumes=(Volume("data", "/data"),))
    container_id = await made(podman, container)
    page(store.address(5))
    await podman.stop_and_remove(container_id, grace_s=5)
    died = store.cli("events", "--stream=false", "--filter=event=died", "--format={{.ContainerExitCode}}")
    assert died.split()[-1] == "0"


async def test_every_removal_is_said(podman: Podman, store: PodmanStore, web: str) -> None:
    """What, why and from which source; one that was not there is none."""
    container_id = await made(podman, wanted(store, web))
    with (
        capture_logs(processors=[merge_contextvars]) as said,
        bound_contextvars(source="expected state", why="not in the expected state"),
    ):
        await podman.stop_and_remove(container_id, grace_s=0.5)
        await podman.stop_and_remove(container_id)
    assert said == [
        {
            "event": "container removed",
            "log_level": "info",
            "container": "service-5-deploy",
            "id": container_id[:12],
            "source": "expected state",
            "why": "not in the expected state",
        }
    ]


async def test_a_stranger_is_never_touched(podman: Podman, store: PodmanStore, web: str) -> None:
    """L36: not listed, started, stopped, restarted or removed, whatever it is called."""
    stranger = ContainerId(store.cli("run", "--detach", "--name=service-5-deploy", "--label=other=1", web).strip())
    about = inspected(store, stranger)["State"]
    assert await listed(podman) == ()
    for change in (podman.start, podman.stop_and_remove, podman.remove_forced, podman.restart):
        with pytest.raises(AdapterError, match="service-5-deploy: it carries no label of ours; it is left alone"):
            await change(stranger)
    assert inspected(store, stranger)["State"] == about


@pytest.mark.parametrize("key", ["", ".", "..", "../json", "a/b", "-x", "a\nb", "a?all=true", "%2e%2e"])
async def test_what_is_no_id_is_not_asked_for(podman: Podman, key: str) -> None:
    """L38: ids come from outside, and are never a path or an option."""
    with pytest.raises(AdapterError, match="no id and no name"):
        await podman.remove_forced(ContainerId(key))


async def test_restart_and_start(podman: Podman, store: PodmanStore, web: str) -> None:
    """A start of what runs is fine; of what is gone it is said."""
    container_id = await made(podman, wanted(store, web))
    page(store.address(5))
    await podman.start(container_id)
    before = inspected(store, container_id)["State"]["Pid"]
    await podman.restart(container_id, grace_s=2)
    assert inspected(store, container_id)["State"]["Pid"] != before
    store.cli("stop", container_id)
    await podman.start(container_id)
    assert page(store.address(5)) == "v1\n"
    await podman.remove_forced(container_id)
    for change in (podman.start, podman.restart):
        with pytest.raises(AdapterError, match="it is gone"):
            await change(container_id)


async def test_the_network_is_made_once(podman: Podman, store: PodmanStore) -> None:
    """Also when it is there already."""
    await podman.ensure_network()
    await podman.ensure_network()
    await podman_on(store).ensure_network()
    (found,) = json.loads(store.cli("network", "inspect", store.network))
    assert (found["driver"], found["dns_enabled"], found["options"]) == ("bridge", False, {"mtu": "1420"})
    assert found["subnets"][0]["subnet"] == store.subnet


async def test_another_network_of_that_name_is_refused(podman: Podman, store: PodmanStore) -> None:
    """L10: said with both subnets, and left as it is."""
    store.cli("network", "create", "--subnet", "10.199.7.0/24", store.network)
    for _ in range(2):
        with pytest.raises(AdapterError, match=rf"exists with 10\.199\.7\.0/24 .* this server's is {store.subnet}"):
            await podman.ensure_network()


async def test_a_network_that_went_away_comes_back(podman: Podman, store: PodmanStore, web: str) -> None:
    """The first container made without it fails; the next attempt makes it again."""
    await podman.ensure_network()
    store.cli("network", "rm", store.network)
    with pytest.raises(AdapterError, match="network not found"):
        await create(podman, wanted(store, web))
    await made(podman, wanted(store, web))
    assert page(store.address(5)) == "v1\n"


async def test_the_servers_default_limits_are_swapped_by_podman(podman: Podman, store: PodmanStore, web: str) -> None:
    """A `default_ulimits` whose soft and hard differ breaks every container made through Podman 4.3's API; not ours."""
    file = store.directory / "etc" / "containers.conf"
    lines = file.read_text().splitlines()
    limits = 'default_ulimits = ["nofile=1024:2048", "nproc=1000:2000"]'
    file.write_text("\n".join(limits if line.startswith("default_ulimits") else line for line in lines))
    store.restart()
    await made(podman, wanted(store, web, 5))
    await made(podman, wanted(store, web, 6))
    for name in ("service-5-deploy", "service-6-deploy"):
        limits_of_it = store.cli("exec", name, "grep", "open files", "/proc/1/limits").split()
        assert limits_of_it[3:5] == ["1024", "2048"]
    assert left(store) == ["service-5-deploy", "service-6-deploy"]


async def test_after_a_power_cut_they_start_again(podman: Podman, store: PodmanStore, web: str) -> None:
    """L29: they are there as created, with their addresses."""
    container_id = await made(podman, wanted(store, web))
    store.power_off()
    store.start()
    await podman.ensure_network()
    assert [one.state for one in await listed(podman)] == ["created"]
    await podman.start(container_id)
    assert page(store.address(5)) == "v1\n"
