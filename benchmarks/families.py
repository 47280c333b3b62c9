"""Families of inputs whose size can be doubled: what real components and control planes send, and what hostile ones would.

`make(n)` gives an input of n elements or bytes; which parser gets it is its name in `benchmarks.parsers`.
"""

import base64
import json
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from typing import Any, Final

from core import nftables


@dataclass(frozen=True, slots=True)
class Family:
    """Inputs for one parser."""

    parser: str
    name: str
    make: Callable[[int], bytes]


def _key(number: int) -> str:
    return base64.b64encode(number.to_bytes(32, "big")).decode()


def _ip(number: int) -> str:
    return f"10.{number >> 16 & 255}.{number >> 8 & 255}.{number & 255}"


def _json(value: Any) -> bytes:
    return json.dumps(value, separators=(",", ":")).encode()


def _expected(
    containers: list[Any] | None = None, records: list[Any] | None = None, routes: list[Any] | None = None,
    peers: list[Any] | None = None,
) -> bytes:  # fmt: skip
    return _json(
        {
            "containers": containers or [],
            "dns": {"records": records or []},
            "caddy": {"routes": routes or []},
            "wireguard": {"peers": peers or []},
        }
    )


def container(number: int, **changes: Any) -> dict[str, Any]:
    """An entry of an expected state."""
    return {
        "deploymentId": f"d{number}", "serviceId": "s", "serviceName": "web", "name": f"s-{number}", "image": "nginx:1",
        "ipAddress": None, "ports": [], "env": {}, "healthCheck": None, "volumes": [], **changes,
    }  # fmt: skip


def _route(number: int, **changes: Any) -> dict[str, Any]:
    name = f"a{number}.example"
    return {"id": name, "domain": name, "upstreams": ["10.200.3.2:80"], "serviceId": "s", **changes}


def _peer(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "publicKey": _key(number),
        "allowedIps": f"10.100.{number >> 8 & 255}.{number & 255}/32",
        "endpoint": None,
        **changes,
    }


def _listed(number: int, **changes: Any) -> dict[str, Any]:
    return {
        "Id": f"c{number}", "Names": [f"n{number}"], "Image": "nginx", "ImageID": "i", "State": "running",
        "Created": "2026-01-01T00:00:00Z", "StartedAt": 1, "Labels": {"techulus.deployment.id": f"d{number}"}, **changes,
    }  # fmt: skip


def _item(number: int, **changes: Any) -> dict[str, Any]:
    return {"id": f"w{number}", "type": "stop", "payload": '{"deploymentId":"d"}', "createdAt": str(number), **changes}


def _claim(**changes: Any) -> bytes:
    build = {"id": "b", "commitSha": "HEAD", "branch": "main", "serviceId": "s", "projectId": "p"}
    return _json({"build": build, "cloneUrl": "https://h/a.git", "imageUri": "r/p/s:1", "secrets": {}, **changes})


def _some(make: Callable[..., Any], **changes: Any) -> Callable[[int], list[Any]]:
    return lambda n: [make(number, **changes) for number in range(n)]


def _caddy(*routes: Any, **servers: Any) -> bytes:
    ours = {"listen": [":443"], "routes": list(routes)}
    return _json({"apps": {"http": {"servers": {"techulus": ours, **servers}}}})


def _caddy_routes(n: int) -> bytes:
    inner = [{"match": [{"host": [f"a{number}.example"]}], "handle": []} for number in range(n)]
    return _caddy({"@id": "techulus", "handle": [{"handler": "subroute", "routes": inner}]})


def _repeat(part: bytes) -> Callable[[int], bytes]:
    """So many bytes of it."""
    return lambda n: (part * (n // len(part) + 1))[:n]


def _lines(line: Callable[[int], str]) -> Callable[[int], bytes]:
    return lambda n: "".join(f"{line(number)}\n" for number in range(n)).encode()


def _nested(n: int) -> bytes:
    return b'{"error":' + b"[" * n + b"]" * n + b"}"


def _device(n: int) -> bytes:
    peers = "".join(f"public_key={number:064x}\nallowed_ip={_ip(number)}/32\n" for number in range(n))
    return f"listen_port=1\n{peers}errno=0\n\n".encode()


def _one_peer(n: int) -> bytes:
    return f"public_key={1:064x}\n{''.join(f'allowed_ip={_ip(number)}/32{chr(10)}' for number in range(n))}errno=0\n\n".encode()


def _set(n: int) -> bytes:
    """In attributes of at most 64 KiB, as the kernel has them; the last one counts."""
    element = nftables.attribute(1, nftables.attribute(1, nftables.attribute(1, b"\x0a\xc8\x03\x02")))
    return nftables.attribute(3, element * min(n, 4000)) * (n // 4000 + 1)


def _frames(n: int) -> bytes:
    return b"".join(b"\1\0\0\0\0\0\0\2a\n" for _ in range(n))


def _of(parser: str, **inputs: Callable[[int], bytes]) -> Iterator[Family]:
    return (Family(parser, name.replace("_", " "), make) for name, make in inputs.items())


FAMILIES: Final[tuple[Family, ...]] = (
    *_of(
        "state.parse_expected_after",
        containers=lambda n: _expected(_some(container)(n)),
        containers_of_one_id=lambda n: _expected([container(1, name=f"s-{i}") for i in range(n)]),
        rejected_containers=lambda n: _expected(_some(container, image="UPPER")(n)),
        misshapen_containers=lambda n: _expected(_some(container, image=1)(n)),
        variables=lambda n: _expected([container(1, env={f"V{i}": "x" for i in range(n)})]),
        ports=lambda n: _expected([container(1, ports=[{"containerPort": 80, "hostPort": i} for i in range(n)])]),
        volumes=lambda n: _expected([container(1, volumes=[
            {"name": "a", "hostPath": "/x/volumes/s/a", "containerPath": f"/{i}"} for i in range(n)])]),
        long_id=lambda n: _expected([container(1, deploymentId="d" * n)]),
        long_image=lambda n: _expected([container(1, image="a." * (n // 2))]),
        long_command=lambda n: _expected([container(1, healthCheck={
            "cmd": "a" * n, "interval": 1, "timeout": 1, "retries": 1, "startPeriod": 0})]),
        records=lambda n: _expected(records=[{"name": f"a{i}.internal", "ips": [_ip(i)]} for i in range(n)]),
        records_of_one_name=lambda n: _expected(records=[{"name": "a.internal", "ips": [_ip(i)]} for i in range(n)]),
        addresses=lambda n: _expected(records=[{"name": "a.internal", "ips": [_ip(i) for i in range(n)]}]),
        rejected_records=lambda n: _expected(records=[{"name": f"{i}.example", "ips": []} for i in range(n)]),
        routes=lambda n: _expected(routes=_some(_route)(n)),
        upstreams=lambda n: _expected(routes=[_route(1, upstreams=[f"{_ip(i)}:80" for i in range(n)])]),
        long_domain=lambda n: _expected(routes=[_route(1, domain="ü." * (n // 2))]),
        peers=lambda n: _expected(peers=_some(_peer)(n)),
        peers_of_one_network=lambda n: _expected(peers=_some(_peer, allowedIps="10.100.9.0/24")(n)),
        networks=lambda n: _expected(peers=[_peer(1, allowedIps=",".join(f"10.100.{i & 255}.0/24" for i in range(n)))]),
        values=lambda n: b'{"containers":[' + b"0," * n + b"0]}",
        unknown_fields=lambda n: _expected()[:-1] + b',"x":{' + b",".join(b'"%d":0' % i for i in range(n)) + b"}}",
    ),
    *_of(
        "state.parse_actual",
        containers=lambda n: _json({"containers": [{"id": f"c{i}", "name": "n", "image": "nginx", "state": "running",
            "labels": {"techulus.deployment.id": f"d{i}"}} for i in range(n)]}),
        labels=lambda n: _json({"containers": [{"id": "c", "name": "n", "image": "i", "state": "x",
            "labels": {f"{i}": "x" for i in range(n)}}]}),
    ),
    *_of(
        "work_queue.parse",
        items=lambda n: _json({"items": _some(_item)(n)}),
        zeros=lambda n: b'{"items":[' + b"0," * n + b"0]}",
        ill_shaped=lambda n: _json({"items": _some(_item, type=0)(n)}),
        long_payload=lambda n: _json({"items": [_item(1, payload="[" * n)]}),
    ),
    *_of("work.parse", containers=lambda n: _json({"serviceId": "s", "deploymentId": "d", "containerIds": [str(i) for i in range(n)]})),
    *_of("protocol.parse, ClaimedBuild", secrets=lambda n: _claim(secrets={f"S{i}": "x" for i in range(n)})),
    *_of("protocol.parse, PendingBuilds", text=lambda n: _json({"build": {"id": "b" * n}})),
    *_of("protocol.parse, BuildStatus", text=lambda n: _json({"status": "x" * n})),
    *_of("protocol.parse, RegistrationAnswer", text=lambda n: _json({"serverId": "x" * n})),
    *_of("protocol.parse, WorkItem", text=lambda n: _json(_item(1, payload="x" * n))),
    *_of("protocol.sendable", text=_repeat("é\0".encode())),
    *_of("refusal.said", text=lambda n: _json({"error": "x" * n}), nested=_nested),
    *_of("refusal.one_line", text=_repeat(b"a\n")),
    *_of(
        "build_output.Lines.feed",
        titles_without_end=_repeat(b"\x1b]"),
        one_title_without_end=lambda n: b"\x1b]" + b"x" * n,
        colours_without_end=_repeat(b"\x1b["),
        numbers_without_end=lambda n: b"\x1b[" + b"0;" * (n // 2),
        colours=_repeat(b"\x1b[1mab\x1b[0m"),
        one_line=_repeat(b"a"),
        short_lines=_repeat(b"a\n"),
        parts_of_characters=_repeat(b"\x80"),
        secrets=_repeat(b"hunter22"),
        nearly_secrets=_repeat(b"hunter2"),
    ),
    *_of(
        "build_failure.CommandOutput.add",
        steps=_lines(lambda i: f"#{i} [{i}/{i}] RUN x\n#{i} 0.1 words\n#{i} ERROR: x"),
        blocks=_lines(lambda i: f"------\n > [{i}] RUN x:\nwords\n------"),
        quotes=_lines(lambda i: "-" * 20),
        errors=_lines(lambda i: f"error: {i}\nmore"),
        instructions=_lines(lambda i: f'STEP {i}/{i}: RUN x\nError: building at STEP "RUN {i}'),
        git=_lines(lambda i: f"remote: {i}\nfatal: x"),
        one_line=_repeat(b"a"),
        one_error=lambda n: b"#1 ERROR: process " + b'"' * n,
    ),
    *_of(
        "build_versions.known_open",
        numbers=_repeat(b"1."),
        digits=_repeat(b"1"),
        flaws=_lines(lambda i: f"CVE-2024-1753{i}"),
    ),
    *_of(
        "build_versions.shares_host_network",
        workers=_lines(lambda i: "ID: x\n\torg.mobyproject.buildkit.worker.network: cni"),
        one_line=_repeat(b"a "),
    ),
    *_of("secrets.mask", repeated=_repeat(b"ab"), lines=_lines(lambda i: f"secret line {i}")),
    *_of("secrets.decrypt", text=_repeat(b"A")),
    *_of("secrets.parse_key", text=_repeat(b"0")),
    *_of("container_log.Assembler.feed",
         lines=_lines(lambda i: "2026-01-01T00:00:00.0Z stdout F hello"),
         parts=_lines(lambda i: "2026-01-01T00:00:00.0Z stdout P x"),
         one_line=_repeat(b"a"),
         nuls=_repeat(b"a\0")),
    *_of("container_log.parse_time", digits=lambda n: b"2026-01-01T00:00:00." + b"1" * n),
    *_of("access_log.AccessLog.feed", lines=_lines(lambda i: '{"request":{"host":"app.example.org"}}'), one_line=_repeat(b"a")),
    *_of("access_log.AccessLog.feed, many routes", lines=_lines(lambda i: f"a{i}.example")),
    *_of("caddy_config.decode",
         routes=_caddy_routes,
         servers=lambda n: _caddy(**{f"s{i}": {"listen": [f":{i}"]} for i in range(n)}),
         ids=lambda n: _caddy(*[{"@id": "techulus"} for _ in range(n)]),
         nested=_nested,
         numbers=lambda n: b'{"a":[' + b"0," * n + b"0]}"),
    *_of("caddy_config.Services.of", ports=_repeat(b":1")),
    *_of("caddy_config.parse_version", digits=_repeat(b"2")),
    *_of("caddy_base.listens_on", digits=lambda n: b":" + b"4" * n),
    *_of("dnsmasq.parse_hosts",
         names=_lines(lambda i: f"{_ip(i)} a{i}.internal"),
         one_name=_lines(lambda i: f"{_ip(i)} a.internal"),
         one_line=lambda n: b"10.0.0.1" + b" a" * n,
         markers=_lines(lambda i: f"192.0.2.1 _{i}._techulus.internal")),
    *_of("dnsmasq.parse_resolv_conf", servers=_lines(lambda i: f"nameserver {_ip(i)}"),
         scopes=_lines(lambda i: "nameserver fe80::1%" + "a" * 20)),
    *_of("podman_answers.parse_listing", containers=lambda n: _json(_some(_listed)(n)),
         names=lambda n: _json([_listed(1, Names=["n"] * n)])),
    *_of("podman_answers.parse_listing_after", containers=lambda n: _json(_some(_listed)(n))),
    *_of("podman_answers.parse_names", containers=lambda n: _json(_some(_listed)(n))),
    *_of("podman_answers.parse_listed", containers=lambda n: _json(_some(_listed)(n))),
    *_of("podman_answers.parse_inspection", limits=lambda n: _json({"Id": "c", "Name": "n", "State": {"Status": "x"}, "Config": {},
         "HostConfig": {"Ulimits": [{"Name": "RLIMIT_X", "Soft": 2, "Hard": 1}] * n}})),
    *_of("podman_answers.network_fault", subnets=lambda n: _json({"driver": "bridge", "subnets": [{"subnet": "x"}] * n})),
    *_of("podman_answers.output_lines", frames=_frames, one_frame=lambda n: b"\1\0\0\0" + n.to_bytes(4, "big") + b"a" * n),
    *_of("podman_events.parse",
         attributes=lambda n: _json({"Action": "died", "Actor": {"ID": "c", "Attributes": {f"{i}": "" for i in range(n)}}})),
    *_of("podman_images.parse_store", images=lambda n: _json([{"Id": f"{i}", "RepoTags": [f"a:{i}"]} for i in range(n)]),
         tags=lambda n: _json([{"Id": "i", "RepoTags": [f"a:{i}" for i in range(n)]}])),
    *_of("podman_images.parse_users", containers=lambda n: _json([{"Id": f"{i}", "State": "x", "ImageID": "i"} for i in range(n)])),
    *_of("podman_images.parse_image", text=lambda n: _json({"Id": "x" * n})),
    *_of("podman_images.parse_graph_root", text=lambda n: _json({"store": {"graphRoot": "x" * n}})),
    *_of("podman_processes.parse_inspection", networks=lambda n: _json({"Id": "c", "Name": "n", "State": {"Status": "x"},
         "NetworkSettings": {"Networks": {f"{i}": None for i in range(n)}}})),
    *_of("podman_processes.parse_session", words=lambda n: _json({"ProcessConfig": {"arguments": ["a"] * n}})),
    *_of("podman_processes.interface_with", lines=_lines(lambda i: f"{i}: eth{i} inet {_ip(i)}/8")),
    *_of("processes.family", chain=_repeat(b"x")),
    *_of("processes.container_of", lines=_lines(lambda i: "0::/libpod-" + "a" * 63)),
    *_of("processes.monitor", words=lambda n: b"conmon" + b"\0-c" * n),
    *_of("processes.mounts", lines=_lines(lambda i: f"1 2 3 /a\\040{i} /b x"), escapes=_repeat(b"\\040")),
    *_of("processes.process", brackets=_repeat(b")")),
    *_of("processes.shows", slashes=_repeat(b"/")),
    *_of("nftables.attributes", attributes=lambda n: nftables.attribute(1, b"abcd") * n),
    *_of("nftables.parse", expressions=lambda n: nftables.attribute(1, nftables.attribute(1, b"counter\0")) * n),
    *_of("nftables.parse_elements", elements=_set),
    *_of("nftables.Set.find", elements=lambda n: b"".join(number.to_bytes(4, "big") for number in range(n))),
    *_of("packet_filter.dropped", expressions=lambda n: nftables.attribute(1, nftables.attribute(1, b"counter\0")) * n),
    *_of("routing_table.parse", lines=_lines(lambda i: f"wg0 {i:08X} 0 0001 0 0 0 FFFFFFFF")),
    *_of("wireguard_uapi.parse_device", peers=_device, networks=_one_peer),
    *_of("wireguard_uapi.parse_errno", lines=_lines(lambda i: "errno=0")),
    *_of("wireguard.is_key", text=_repeat(b"A")),
    *_of("registry_auth.credentials", entries=lambda n: _json({"auths": {f"{i}": {} for i in range(n)}})),
    *_of("image.parse", slashes=_repeat(b"a/"), dashes=_repeat(b"-"), marks=_repeat(b"a__")),
    *_of("containers.made_from", text=_repeat(b"a")),
    *_of("printable.escape", text=_repeat(b"\x1b")),
    *_of("http_proxy.from_environment", entries=lambda n: ",".join(f"a{i}.example" for i in range(n)).encode(), dots=_repeat(b"a.")),
    *_of("address.is_container", digits=_repeat(b"1.")),
    *_of("address.is_public_name", labels=_repeat(b"a.")),
    *_of("local_rules.port_range", digits=_repeat(b"1")),
    *_of("local_rules.LocalRules.keeps", names=_lines(lambda i: f"a{i}.example")),
    *_of("podman_storage.parse_stored", containers=lambda n: _json([{"Id": f"{i}", "Names": ["n"], "State": "storage"} for i in range(n)])),
    *_of("address.is_host_name", labels=_repeat(b"a."), hyphens=_repeat(b"a-")),
    *_of("address.is_ipv4", digits=_repeat(b"1.")),
    *_of("address.port", digits=_repeat(b"1")),
    *_of("address.endpoint", colons=_repeat(b":")),
    *_of("address.network", digits=lambda n: b"10.100.0.0/" + b"1" * n),
    *_of("build_record.parse", text=lambda n: _json({"id": "x" * n})),
    *_of("build_record.pushed_digest", text=_repeat(b"a"), json=lambda n: _json({"containerimage.digest": "x" * n})),
    *_of("build_record.digest_in", text=_repeat(b"a")),
    *_of("build_record.announces_push", digits=lambda n: b"#" + b"1" * n),
    *_of("build_source.parse", slashes=_repeat(b"a/"), dots=_repeat(b"a.b")),
    *_of("build_plan.make", names=_lines(lambda i: f"N{i}")),
    *_of("doctor.version", dots=_repeat(b"1."), digits=_repeat(b"1")),
    *_of("documents.loaded_object",
         entries=lambda n: _json({"containers": [{"deploymentId": f"d{i}", "status": "running"} for i in range(n)]}),
         digits=lambda n: b'{"a":' + b"1" * n + b"}",
         halves_of_characters=lambda n: b'{"a":"' + rb"\ud800" * (n // 6) + b'"}',
         nested=_nested),
    *_of("service.pull_image", lines=_lines(lambda i: '{"stream":"Copying blob"}'), one_line=_repeat(b"a"), blank_lines=_repeat(b"\n")),
    *_of("environment_file.parse", lines=_lines(lambda i: f"N{i}='a b'"), quotes=_repeat(b"'")),
    *_of("pause.parse_duration", parts=_repeat(b"1s"), digits=_repeat(b"1")),
    *_of("public_address.parse", digits=_repeat(b"1.")),
    *_of("rejection.has_control", blanks=_repeat("\N{NO-BREAK SPACE}".encode())),
    *_of("rejection.id_fault", dots=_repeat(b"a.")),
    *_of("rejection.shown", text=_repeat(b"\x1b")),
    *_of("log_lines.EncodedLines.feed", lines=_lines(lambda i: '{"_msg":"x"}'), one_line=_repeat(b"{"), nuls=_repeat(b"{\0")),
    *_of("log_lines.build_line", text=_repeat(b"\x80")),
)  # fmt: skip
