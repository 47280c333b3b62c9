"""The options that describe how a node runs, declared once for every command that needs them.

Only Typer is imported here, so that help is instant; `shell.option_checks` checks the values when a command runs, and a test holds the
two together. The environment variable of each option is TECHULUS_ and its name.
"""

import inspect
from collections.abc import Callable
from pathlib import Path
from typing import Annotated, Any, TypeAlias

import typer

from shell.log_choices import LogFormat, LogLevel


def _option(kind: object, flag: str, text: str, **more: Any) -> object:
    variable = "TECHULUS_" + flag.removeprefix("--").upper().replace("-", "_")
    return Annotated[kind, typer.Option(flag, envvar=variable, help=text, **more)]


# name: (declaration, default)
NODE_OPTIONS: dict[str, tuple[object, object]] = {
    "url": (_option(str | None, "--url", "Base URL of the control plane (https)."), None),
    "data_dir": (
        _option(Path, "--data-dir", "Folder of keys, identity and volumes."),
        Path("/var/lib/techulus-agent"),
    ),
    "logs_endpoint": (_option(str | None, "--logs-endpoint", "Base URL of VictoriaLogs."), None),
    "log_spool_mib": (
        _option(int, "--log-spool-mib", "Disk for log lines that wait for their store, in MiB.", min=1, max=1_048_576),
        256,
    ),
    "log_settle": (
        _option(
            int, "--log-settle", "Seconds in which a log store that is killed forgets lines again.", min=0, max=3600
        ),
        10,
    ),
    "metrics_listen": (
        _option(
            str | None,
            "--metrics-listen",
            "HOST:PORT for Prometheus' metrics; loopback is advised.",
            metavar="HOST:PORT",
        ),
        None,
    ),
    "proxy": (_option(bool, "--proxy", "Be a proxy node, which also runs Caddy."), False),
    "allow_http": (_option(bool, "--allow-http", "Accept a control plane on another machine without TLS."), False),
    "ca_file": (
        _option(
            Path | None, "--ca-file", "Authorities (PEM) to trust beside the public ones, as of an own control plane."
        ),
        None,
    ),
    "podman_socket": (_option(Path, "--podman-socket", "Podman's API socket."), Path("/run/podman/podman.sock")),
    "network": (_option(str, "--network", "Name of the containers' network."), "techulus"),
    "registry_auth_file": (
        _option(Path | None, "--registry-auth-file", "Registry credentials, in the form of Podman's auth.json."),
        None,
    ),
    "insecure_registry": (
        _option(list[str] | None, "--insecure-registry", "HOST[:PORT] of a registry without TLS; repeatable."),
        None,
    ),
    "pull_policy": (
        _option(
            str, "--pull-policy", "always, or missing: a new deployment takes an image that is here without asking."
        ),
        "always",
    ),
    "pull_concurrency": (
        _option(int, "--pull-concurrency", "Images that are fetched at the same time.", min=1, max=8),
        3,
    ),
    "container_log_mib": (
        _option(int, "--container-log-mib", "Size limit of each container's log, in MiB.", min=1, max=65_536),
        64,
    ),
    "allow_host_port": (
        _option(
            list[str] | None,
            "--allow-host-port",
            "PORT or FIRST-LAST that containers may have of this server, beside 30000-32767; repeatable.",
        ),
        None,
    ),
    "unmanaged": (
        _option(list[str] | None, "--unmanaged", "Leave dns, caddy or wireguard alone on this server; repeatable."),
        None,
    ),
    "run_dir": (_option(Path, "--run-dir", "Folder of what lasts until a reboot."), Path("/run/techulus-agent")),
    "dns_loopback": (_option(str, "--dns-loopback", "Loopback address that dnsmasq answers at."), "127.0.0.153"),
    "tls_issuer": (_option(str, "--tls-issuer", "acme, or internal for labs: who signs Caddy's certificates."), "acme"),
    "caddy_admin": (
        _option(str, "--caddy-admin", "Caddy's admin API, unix//path or host:port."),
        "unix//run/techulus-caddy/admin.sock",
    ),
    "caddy_access_log": (
        _option(Path, "--caddy-access-log", "File of Caddy's access log."),
        Path("/var/log/caddy/techulus.log"),
    ),
    "wireguard_interface": (_option(str, "--wireguard-interface", "Name of the tunnel's interface."), "wg0"),
    "wireguard_port": (_option(int, "--wireguard-port", "UDP port of the tunnel.", min=1, max=65_535), 51_820),
    "public_ip": (_option(str | None, "--public-ip", "Address at which the other servers reach this one."), None),
    "public_ip_service": (
        _option(
            str, "--public-ip-service", "URL that answers with this server's address, or none; without --public-ip."
        ),
        "https://api.ipify.org",
    ),
    "no_builds": (_option(bool, "--no-builds", "Build nothing on this server."), False),
    "builder": (_option(str, "--builder", "auto, buildkit or podman: what builds images."), "auto"),
    "build_concurrency": (_option(int, "--build-concurrency", "Builds at the same time.", min=1, max=64), 1),
    "build_timeout": (_option(int, "--build-timeout", "Minutes that one build may take.", min=1, max=1440), 30),
    "build_memory_mib": (
        _option(
            int, "--build-memory-mib", "Memory of one build, in MiB; 0 is half of this server's.", min=0, max=1_048_576
        ),
        0,
    ),
    "build_tasks": (
        _option(int, "--build-tasks", "Processes and threads of one build.", min=64, max=1_048_576),
        4096,
    ),
    "build_disk_mib": (
        _option(int, "--build-disk-mib", "Disk of one build with its service's cache, in MiB.", min=64, max=1_048_576),
        20_480,
    ),
    "build_cpu_weight": (
        _option(int, "--build-cpu-weight", "Builds' share of the processors; all else has 100.", min=1, max=10_000),
        20,
    ),
    "build_io_weight": (
        _option(int, "--build-io-weight", "Builds' share of the disks; all else has 100.", min=1, max=10_000),
        20,
    ),
    "build_cache": (_option(str | None, "--build-cache", "Image that holds the layer cache in a registry."), None),
    "build_allow_scheme": (
        _option(list[str] | None, "--build-allow-scheme", "http or file: also clone from there, for labs; repeatable."),
        None,
    ),
    "railpack_frontend": (
        _option(str, "--railpack-frontend", "Image of Railpack's BuildKit frontend."),
        "ghcr.io/railwayapp/railpack-frontend:v0.37.0",
    ),
    "image_gc_high": (
        _option(int, "--image-gc-high", "Per cent of the disk above which unused images go sooner.", min=1, max=100),
        85,
    ),
}

LOG_OPTIONS: dict[str, tuple[object, object]] = {
    "log_format": (_option(LogFormat, "--log-format", "How the agent's own events are written."), LogFormat.AUTO),
    "log_level": (_option(LogLevel, "--log-level", "The least severe events that are written."), LogLevel.INFO),
}


LogChoices: TypeAlias = tuple[LogFormat, LogLevel]
"""What the options of the log come to."""


def with_node_options(command: Callable[..., None]) -> Callable[..., None]:
    """A command that takes `node: dict[str, object]` gains the node's options, and finds logging set up.

    One that also takes `log_choices: LogChoices` sets it up itself, if anything is to be logged: the library takes longer to load than a
    dry run of two files takes in all.
    """
    taken = inspect.signature(command).parameters

    def run(**given: Any) -> None:
        log_choices = given.pop("log_format"), given.pop("log_level")
        node = {name: given.pop(name) for name in NODE_OPTIONS}
        if "log_choices" in taken:
            command(node=node, log_choices=log_choices, **given)
        else:
            from shell.log import set_up

            set_up(*log_choices)
            command(node=node, **given)

    declared = {**NODE_OPTIONS, **LOG_OPTIONS}
    own = [one for name, one in taken.items() if name not in ("node", "log_choices")]
    added = [
        inspect.Parameter(name, inspect.Parameter.KEYWORD_ONLY, default=default, annotation=kind)
        for name, (kind, default) in declared.items()
    ]
    keyword_only = [one.replace(kind=inspect.Parameter.KEYWORD_ONLY) for one in own]
    run.__signature__ = inspect.Signature([*keyword_only, *added])  # type: ignore[attr-defined]  # functions take one
    run.__annotations__ = {one.name: one.annotation for one in [*keyword_only, *added]}
    run.__name__, run.__doc__ = command.__name__, command.__doc__
    return run
