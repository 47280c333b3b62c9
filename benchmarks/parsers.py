"""Everything in the house that takes bytes or text from outside, by name: each a function of bytes that does with them what the agent does.

The growth of each is measured (`benchmarks.growth`), and each is fed with whatever comes to mind (`tests.fuzz`). A test holds the list
complete: a function of the core that takes text is here, or says there why not.
"""

import base64
import itertools
from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Final, cast

from returns.pipeline import is_successful

from core import (
    address,
    build_plan,
    build_record,
    build_source,
    build_versions,
    caddy_base,
    caddy_change,
    caddy_config,
    container_log,
    containers,
    dnsmasq,
    doctor,
    firewall,
    http_proxy,
    image,
    local_rules,
    log_lines,
    nftables,
    packet_filter,
    pause,
    plan,
    podman_answers,
    podman_events,
    podman_images,
    podman_processes,
    podman_storage,
    printable,
    processes,
    protocol,
    public_address,
    refusal,
    registry_auth,
    rejection,
    routing_table,
    secrets,
    state,
    wireguard,
    wireguard_uapi,
    work,
    work_queue,
)
from core.access_log import AccessLog
from core.build_failure import CommandOutput
from core.build_output import Lines
from core.caddy import Route
from core.caddy_base import Base
from core.containers import ActualContainer, ContainerId, DeploymentId
from core.image import Image
from core.protocol import BuildStatus, ClaimedBuild, PendingBuilds, RegistrationAnswer, WorkItem
from core.secrets import EncryptionKey
from core.state import ActualState, NodeType
from shell import environment_file
from shell.adapters.podman import service
from shell.adapters.podman.library import APIClient
from shell.local_plane import documents

NOW_S: Final = 1_767_540_000.0
SUBNET: Final = 3
_SECRET_BYTES: Final = 2_000
_ATTRIBUTE_BYTES: Final = 60_000
CHUNK: Final = 65_536  # what is read of a stream at once
_KEY: Final = EncryptionKey(bytes(32))
_BASE: Final = Base("https://control.example")
_ROUTES: Final = (Route("app.example.org", "app.example.org", "s", ("10.200.3.2:80",)),)
_SECRETS: Final = ("hunter22", "-----BEGIN-----\nabcdefghijklmnop\n-----END-----", "a" * 600)
_IMAGE: Final = Image("registry.example:5000", "a/b", "1")
_SERVER: Final = firewall.Server(SUBNET, "wg0", "podman1", "eth0", 51820, is_proxy=True, names=True)
_HOST: Final = build_plan.Host("unix:///b", podman="podman", railpack_fault="")
_CONTAINER: Final = ActualContainer(
    ContainerId("c"), "n", _IMAGE, "i", "running", 0, "none", DeploymentId("d"), "s", "web"
)


def text(raw: bytes) -> str:
    """As components' texts are read, wherever a half of a character can be."""
    return raw.decode("utf-8", "surrogateescape")


def plain(raw: bytes) -> str:
    """As JSON gives it: any character, and no half."""
    return raw.decode("utf-8", "replace")


def _chunks(raw: bytes) -> Iterator[bytes]:
    return (raw[at : at + CHUNK] for at in range(0, len(raw), CHUNK))


def _build_lines(raw: bytes) -> object:
    lines = Lines(_SECRETS)
    return [line for chunk in _chunks(raw) for line in lines.feed(chunk)], [*lines.end()]


def _build_failure(raw: bytes) -> object:
    """The message of each tool that could have printed this."""
    made, lines = [CommandOutput(tool) for tool in ("buildctl", "buildah", "git", "railpack", "skopeo")], Lines()
    for line in itertools.chain(*map(lines.feed, _chunks(raw)), lines.end()):
        for one in made:
            one.add(line)
    return [one.message(1) for one in made]


def _versions(raw: bytes) -> object:
    words = plain(raw)
    found = [build_versions.known_open(tool, words, words) for tool in ("buildah", "podman")]
    return found, build_versions.refuse_railpack(words), build_versions.known_open("podman", "4.3.1", words)


def _access_log(raw: bytes) -> object:
    log = AccessLog()
    return b"".join([log.feed(chunk, _ROUTES) for chunk in _chunks(raw)]) + log.end()


def _access_log_of_many_routes(raw: bytes) -> object:
    """As many routes as lines."""
    hosts = [line.decode("ascii", "replace") for line in raw.split(b"\n")]
    routes = tuple(Route(one, one, "s", ("10.200.3.2:80",)) for one in hosts)
    lines = b"".join(b'{"request":{"host":"%s"}}\n' % one.encode() for one in hosts)
    return AccessLog().feed(lines, routes)


def _encoded_lines(raw: bytes) -> object:
    lines = log_lines.EncodedLines()
    return b"".join([lines.feed(chunk) for chunk in _chunks(raw)]) + lines.end()


def _container_log(raw: bytes) -> object:
    log = container_log.Assembler(container_log.Source("d", "s"))
    return b"".join([log.feed(chunk) for chunk in _chunks(raw)]) + log.end()


def _expected(raw: bytes) -> object:
    """Parsed, compared with an empty server, and with itself as the next document."""
    first = state.parse_expected_after(None, raw, SUBNET, "own")
    if not is_successful(first):
        return str(first.failure())
    again = state.parse_expected_after(first.unwrap(), raw + b" ", SUBNET, "own").unwrap()
    return plan.outstanding(again.expected, ActualState((_CONTAINER,)), NodeType.PROXY)


def _actual(raw: bytes) -> object:
    found = state.parse_actual(raw)
    wanted = state.ExpectedState()
    return plan.plan(wanted, found.unwrap(), NodeType.PROXY) if is_successful(found) else str(found.failure())


def _caddy(raw: bytes) -> object:
    decoded = caddy_config.decode(raw)
    if not is_successful(decoded):
        return decoded.failure()
    config = decoded.unwrap()
    operation = caddy_change.next_operation(config, _ROUTES, _BASE)
    sent = b"" if operation is None else caddy_config.encode(operation.body)
    other = caddy_change.foreign(config, _BASE)
    return caddy_change.read(config, _BASE), sent, other, caddy_base.routes_of(config, "techulus")


def _work(raw: bytes) -> object:
    found = work_queue.parse(raw)
    return [_task(item) for item in found.unwrap().items] if is_successful(found) else found.failure()


def _task(item: WorkItem) -> object:
    task = work.parse(item)
    return work.decide(task.unwrap(), (_CONTAINER,)) if is_successful(task) else task.failure()


def _payload(raw: bytes, kind: str) -> object:
    return _task(WorkItem(id="w", type=kind, payload=plain(raw)))


def _listing_after(raw: bytes) -> object:
    first = podman_answers.parse_listing_after(None, raw, NOW_S)
    return podman_answers.parse_listing_after(first.unwrap(), raw + b" ", NOW_S) if is_successful(first) else first


def _ruleset(raw: bytes) -> object:
    """Any bytes as the chains, rules and sets of one table. The kernel's attributes have at most 64 KiB."""
    raw = raw[:_ATTRIBUTE_BYTES]
    place = nftables.attribute(1, b"filter") + nftables.attribute(2, b"FORWARD") + nftables.attribute(3, b"FORWARD")
    hook = nftables.attribute(4, nftables.attribute(1, bytes(4)) + nftables.attribute(2, bytes(4)))
    chain = place[:12] + nftables.attribute(3, b"FORWARD") + hook + nftables.attribute(7, b"filter")
    rule = place[:24] + nftables.attribute(4, raw)
    return _understood(lambda: firewall.blocked(nftables.parse([(3, 2, chain), (6, 2, rule), (9, 2, raw)]), _SERVER))


def _lookups(raw: bytes) -> object:
    """As many questions to a set as it has elements."""
    elements = tuple(nftables.Element(key, ends=False, verdict=None) for key in _keys(raw))
    return [*map(nftables.Set(("ip", "t", "s"), 0, elements).find, _keys(raw))]


def _keys(raw: bytes) -> Iterator[bytes]:
    return (raw[at : at + 4] for at in range(0, len(raw), 4))


def _understood(read: Callable[[], object]) -> object:
    """What says in its docstring that it raises ValueError."""
    try:
        return read()
    except ValueError as error:
        return str(error)


def _elements(raw: bytes) -> object:
    return _understood(lambda: nftables.parse_elements([raw]))


def _attributes(raw: bytes) -> object:
    return _understood(
        lambda: [(kind, nftables.text(one), nftables.number(one)) for kind, one in nftables.attributes(raw)]
    )


def _rule(raw: bytes) -> object:
    """The expressions of one rule, run on packets."""
    rule = nftables.Rule(("ip", "filter", "FORWARD"), raw)
    chain = nftables.Chain(rule.place, 2, "filter", 0, drops=True)
    ruleset = nftables.Ruleset((chain,), {rule.place: (rule,)})
    packets = [flow.packet for flow in firewall.flows(_SERVER)]
    return _understood(lambda: [packet_filter.dropped(ruleset, 2, packet) for packet in packets])


def _family(raw: bytes) -> object:
    """A chain of so many processes, each the child of the one before."""
    found = {pid: processes.Process(pid, 1, pid - 1, 7) for pid in range(2, len(raw) + 2)}
    return processes.family(1, found)


def _recipe(raw: bytes) -> object:
    names = dict.fromkeys(plain(raw).split("\n"), "x")
    found = build_plan.Found(dockerfile=False)
    asked = build_plan.Asked(plain(raw), "s", names)
    made = build_plan.make(asked, found, _HOST, build_plan.Settings())
    return made, build_plan.secrets_hash(names), build_plan.layout(plain(raw), plain(raw), plain(raw))


def _source(raw: bytes) -> object:
    found = build_source.parse(plain(raw), "HEAD", plain(raw))
    also = build_source.parse("https://h/a.git", "HEAD", plain(raw))
    return found, also.map(build_source.git_config)


def _service(raw: bytes) -> object:
    return caddy_config.Services(_ROUTES).of(plain(raw))


def _kept_by_rules(raw: bytes) -> object:
    rules = local_rules.LocalRules(frozenset(plain(raw).split("\n")[:100]))
    return rules.keeps(plain(raw)), rules.is_of_this_network(plain(raw))


def _proxies(raw: bytes) -> object:
    words = plain(raw)
    found = http_proxy.from_environment({"HTTP_PROXY": words, "NO_PROXY": words})
    there = http_proxy.Destination("http", words[:_SECRET_BYTES], 80)
    exempt = http_proxy.Proxies("http://p:1", "", tuple(words.split(",")[:100]))
    return found.choose(there), exempt.choose(there)


def _decrypted(raw: bytes) -> object:
    return secrets.decrypt(_KEY, plain(raw)), secrets.decrypt(_KEY, base64.b64encode(raw).decode())


class _Pull:
    """An API client, and its answer: the progress of a pull."""

    def __init__(self, raw: bytes) -> None:
        self._raw = raw

    def post(self, *_: object, **__: object) -> "_Pull":
        return self

    def raise_for_status(self) -> None:
        """It is a good one."""

    def iter_content(self, size: int) -> Iterator[bytes]:
        return (self._raw[at : at + size] for at in range(0, len(self._raw), size))

    def close(self) -> None:
        """Nothing is open."""


def _pulled(raw: bytes) -> object:
    """The errors are those that `service.Service` makes its own."""
    try:
        return service.pull_image(cast(APIClient, _Pull(raw)), {}, {}, lambda: None)
    except (OSError, ValueError, RecursionError) as error:
        return str(error)


def _masked(raw: bytes) -> object:
    """A text that repeats a secret."""
    return secrets.mask(plain(raw), (plain(raw[:_SECRET_BYTES]), *_SECRETS))


PARSERS: Final[Mapping[str, Callable[[bytes], object]]] = {
    "access_log.AccessLog.feed": _access_log,
    "access_log.AccessLog.feed, many routes": _access_log_of_many_routes,
    "address.endpoint": lambda raw: address.endpoint(text(raw)),
    "address.is_container": lambda raw: address.is_container(text(raw)),
    "address.is_public_name": lambda raw: address.is_public_name(text(raw)),
    "local_rules.port_range": lambda raw: local_rules.port_range(text(raw)),
    "local_rules.LocalRules.keeps": _kept_by_rules,
    "address.is_host_name": lambda raw: address.is_host_name(text(raw)),
    "address.is_ipv4": lambda raw: address.is_ipv4(text(raw)),
    "address.network": lambda raw: address.network(text(raw)),
    "address.port": lambda raw: address.port(text(raw)),
    "build_failure.CommandOutput.add": _build_failure,
    "build_output.Lines.feed": _build_lines,
    "build_plan.make": _recipe,
    "build_record.announces_push": lambda raw: build_record.announces_push(plain(raw)),
    "build_record.digest_in": lambda raw: build_record.digest_in(text(raw)),
    "build_record.parse": build_record.parse,
    "build_record.pushed_digest": build_record.pushed_digest,
    "build_source.parse": _source,
    "build_versions.known_open": _versions,
    "build_versions.shares_host_network": lambda raw: build_versions.shares_host_network(plain(raw)),
    "caddy_base.listens_on": lambda raw: caddy_base.listens_on(text(raw), "", 443),
    "caddy_config.decode": _caddy,
    "caddy_config.parse_version": lambda raw: caddy_config.parse_version(text(raw)),
    "caddy_config.Services.of": _service,
    "container_log.Assembler.feed": _container_log,
    "container_log.parse_time": container_log.parse_time,
    "containers.made_from": lambda raw: containers.made_from({containers.IMAGE_LABEL: plain(raw)}, plain(raw)),
    "dnsmasq.parse_hosts": lambda raw: dnsmasq.parse_hosts(plain(raw)),
    "dnsmasq.parse_resolv_conf": lambda raw: dnsmasq.parse_resolv_conf(plain(raw)),
    "doctor.version": lambda raw: doctor.version(text(raw)),
    "documents.loaded_object": documents.loaded_object,
    "environment_file.parse": lambda raw: _understood(lambda: environment_file.parse(plain(raw))),
    "http_proxy.from_environment": _proxies,
    "image.parse": lambda raw: image.parse(plain(raw)),
    "log_lines.EncodedLines.feed": _encoded_lines,
    "log_lines.build_line": lambda raw: log_lines.build_line(text(raw), 1, build_id="b", service_id="s", project_id="p"),
    "nftables.Set.find": _lookups,
    "nftables.attributes": _attributes,
    "nftables.parse": _ruleset,
    "nftables.parse_elements": _elements,
    "packet_filter.dropped": _rule,
    "pause.parse_duration": lambda raw: pause.parse_duration(text(raw)),
    "podman_answers.network_fault": lambda raw: podman_answers.network_fault(raw, SUBNET),
    "podman_answers.output_lines": podman_answers.output_lines,
    "podman_answers.parse_inspection": lambda raw: podman_answers.parse_inspection(raw).map(podman_answers.repaired_limits),
    "podman_answers.parse_listed": lambda raw: podman_answers.parse_listed(raw, "c", "why"),
    "podman_answers.parse_listing": lambda raw: podman_answers.parse_listing(raw, NOW_S),
    "podman_answers.parse_listing_after": _listing_after,
    "podman_answers.parse_names": podman_answers.parse_names,
    "podman_events.parse": podman_events.parse,
    "podman_images.parse_graph_root": podman_images.parse_graph_root,
    "podman_images.parse_image": podman_images.parse_image,
    "podman_images.parse_store": lambda raw: podman_images.parse_store(raw, raw),
    "podman_images.parse_users": lambda raw: podman_images.parse_users(raw, "i"),
    "podman_storage.parse_stored": lambda raw: podman_storage.parse_stored(raw, "n"),
    "podman_processes.interface_with": lambda raw: podman_processes.interface_with(text(raw), "10.200.3.2"),
    "podman_processes.parse_inspection": podman_processes.parse_inspection,
    "podman_processes.parse_session": podman_processes.parse_session,
    "processes.container_of": lambda raw: processes.container_of(text(raw)),
    "processes.family": _family,
    "processes.monitor": processes.monitor,
    "processes.mounts": lambda raw: processes.mounts(text(raw)),
    "processes.process": lambda raw: processes.process(1, text(raw)),
    "processes.shows": lambda raw: processes.shows(text(raw), "s"),
    **{f"protocol.parse, {kind.__name__}": partial(protocol.parse, kind=kind) for kind in (
        BuildStatus, ClaimedBuild, PendingBuilds, RegistrationAnswer, WorkItem)},
    "protocol.sendable": lambda raw: protocol.sendable(text(raw)),
    "printable.escape": lambda raw: printable.escape(text(raw)),
    "public_address.parse": public_address.parse,
    "refusal.one_line": lambda raw: refusal.one_line(text(raw)),
    "refusal.said": lambda raw: refusal.said(raw, _SECRETS),
    "registry_auth.credentials": lambda raw: registry_auth.credentials(raw, _IMAGE),
    "rejection.has_control": lambda raw: rejection.has_control(text(raw)),
    "rejection.id_fault": lambda raw: rejection.id_fault("id", text(raw)),
    "rejection.shown": lambda raw: rejection.shown(text(raw)),
    "routing_table.parse": lambda raw: routing_table.parse(text(raw), "wg0"),
    "secrets.decrypt": _decrypted,
    "secrets.mask": _masked,
    "secrets.parse_key": lambda raw: secrets.parse_key(text(raw)),
    "service.pull_image": _pulled,
    "state.parse_actual": _actual,
    "state.parse_expected_after": _expected,
    "wireguard.is_key": lambda raw: wireguard.is_key(text(raw)),
    "wireguard_uapi.parse_device": lambda raw: wireguard_uapi.parse_device(text(raw)),
    "wireguard_uapi.parse_errno": lambda raw: wireguard_uapi.parse_errno(text(raw)),
    "work.parse": lambda raw: [_payload(raw, kind) for kind in ("stop", "force_cleanup", "cleanup_volumes", plain(raw))],
    "work_queue.parse": _work,
}  # fmt: skip
