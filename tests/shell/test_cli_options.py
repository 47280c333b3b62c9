"""`shell.cli_options`: every option of a node, as a flag and as a variable, and its agreement with `shell.options`."""

from collections.abc import Iterator
from dataclasses import fields
from ipaddress import IPv4Address, IPv6Address
from pathlib import Path
from typing import Any

import certifi
import pytest
import structlog
import typer
from typer.testing import CliRunner

from shell.cli_options import LOG_OPTIONS, NODE_OPTIONS, with_node_options
from shell.failure import CommandError
from shell.option_checks import checked
from shell.options import Options

VALUES: dict[str, tuple[str, Any]] = {
    "url": ("https://plane.example.org", "https://plane.example.org"),
    "data_dir": ("/srv/agent", Path("/srv/agent")),
    "logs_endpoint": ("http://10.100.1.1:9428", "http://10.100.1.1:9428"),
    "log_spool_mib": ("16", 16),
    "log_settle": ("0", 0),
    "metrics_listen": ("127.0.0.1:9469", "127.0.0.1:9469"),
    "proxy": ("1", True),
    "allow_http": ("true", True),
    "podman_socket": ("/srv/podman.sock", Path("/srv/podman.sock")),
    "network": ("other", "other"),
    "registry_auth_file": ("/srv/auth.json", Path("/srv/auth.json")),
    "insecure_registry": ("10.0.0.1:5000 registry.lan", ("10.0.0.1:5000", "registry.lan")),
    "pull_policy": ("missing", "missing"),
    "pull_concurrency": ("5", 5),
    "container_log_mib": ("8", 8),
    "allow_host_port": ("22 8000-8100", ("22", "8000-8100")),
    "unmanaged": ("dns wireguard", ("dns", "wireguard")),
    "run_dir": ("/srv/run", Path("/srv/run")),
    "dns_loopback": ("127.0.0.9", IPv4Address("127.0.0.9")),
    "tls_issuer": ("internal", "internal"),
    "caddy_admin": ("unix//srv/caddy.sock", "unix//srv/caddy.sock"),
    "caddy_access_log": ("/srv/access.log", Path("/srv/access.log")),
    "wireguard_interface": ("wg7", "wg7"),
    "wireguard_port": ("51999", 51999),
    "public_ip": ("2001:db8::1", IPv6Address("2001:db8::1")),
    "public_ip_service": ("none", None),
    "no_builds": ("1", True),
    "builder": ("podman", "podman"),
    "build_concurrency": ("3", 3),
    "build_timeout": ("5", 5),
    "build_memory_mib": ("512", 512),
    "build_tasks": ("100", 100),
    "build_disk_mib": ("1000", 1000),
    "build_cpu_weight": ("50", 50),
    "build_io_weight": ("60", 60),
    "build_cache": ("registry.test/cache:1", "registry.test/cache:1"),
    "build_allow_scheme": ("http", ("http",)),
    "railpack_frontend": ("registry.test/frontend:1", "registry.test/frontend:1"),
    "image_gc_high": ("70", 70),
}
"""One other value for each option: as text, and as the agent has it."""

VALUES["ca_file"] = (certifi.where(), Path(certifi.where()))
FIELDS = [field.name for field in fields(Options)]

BAD: list[tuple[str, Any]] = [
    ("network", "no spaces"),
    ("network", "-x"),
    ("unmanaged", ["dns", "podman"]),
    ("dns_loopback", "localhost"),
    ("tls_issuer", "selfsigned"),
    ("wireguard_interface", "a-name-that-is-too-long"),
    ("wireguard_interface", "../wg0"),
    ("public_ip", "127.0.0.1"),
    ("public_ip_service", "ftp://example.org"),
    ("public_ip_service", ""),
    ("public_ip_service", "http://example.org:99999/"),
    ("public_ip_service", "http://example.org:port/"),
    ("public_ip_service", "http://exa mple.org/"),
    ("public_ip_service", "http://[::1/"),
    ("ca_file", Path("/nowhere/authority.pem")),
    ("ca_file", Path("/etc/hostname")),
    ("ca_file", Path("/etc")),
    ("ca_file", Path("/dev/zero")),
    ("builder", "docker"),
    ("metrics_listen", "9469"),
    ("metrics_listen", "host:port"),
    ("metrics_listen", "127.0.0.1:99999"),
    ("metrics_listen", "127.0.0.1:0"),
    ("build_cache", "Not An Image"),
    ("build_allow_scheme", "ssh"),
    ("public_ip", "::"),
    ("allow_host_port", ["0"]),
    ("allow_host_port", ["80", "70000"]),
    ("allow_host_port", ["9-8"]),
    ("allow_host_port", ["-1"]),
    ("allow_host_port", ["http"]),
    ("allow_host_port", ["٨٠"]),
    ("allow_host_port", ["22,80"]),
    ("public_ip", "example.org"),
]

heard: list[dict[str, Any]] = []
app = typer.Typer()


@app.command()
@with_node_options
def listen(node: dict[str, Any]) -> None:
    """Hears what the options are."""
    heard.append(node)


def given(*arguments: str, **env: str) -> dict[str, Any]:
    """The options as the command hears them."""
    heard.clear()
    done = CliRunner().invoke(app, list(arguments), env=env, catch_exceptions=False)
    assert done.exit_code == 0, done.output
    (node,) = heard
    return node


def flag(name: str) -> str:
    """The option's spelling on the command line."""
    return "--" + name.replace("_", "-")


@pytest.fixture(autouse=True)
def logging_as_before() -> Iterator[None]:
    """Every command sets up logging to its own standard error."""
    yield
    structlog.reset_defaults()


def test_the_table_is_that_of_the_options() -> None:
    """The same names, in the same order, with the same defaults."""
    assert list(NODE_OPTIONS) == FIELDS
    declared = {name: default for name, (_, default) in NODE_OPTIONS.items()}
    assert checked(declared) == Options()
    for name in FIELDS:
        default = getattr(Options(), name)
        if default not in (None, ()):
            assert str(declared[name]) == str(default)


def test_nothing_given() -> None:
    """The defaults, and nothing from elsewhere."""
    assert checked(given()) == Options()


@pytest.mark.parametrize("name", FIELDS)
def test_an_option_has_a_variable(name: str) -> None:
    """TECHULUS_ and its name; it changes that option and no other."""
    text, value = VALUES[name]
    options = checked(given(**{"TECHULUS_" + name.upper(): text}))
    assert options == Options(**{name: value})
    assert getattr(options, name) == value != getattr(Options(), name)


@pytest.mark.parametrize("name", FIELDS)
def test_an_option_has_a_flag(name: str) -> None:
    """Named like the variable; a list is given by repeating it. The flag wins over the variable."""
    text, value = VALUES[name]
    if isinstance(value, bool):
        arguments, other = [flag(name)], {"TECHULUS_" + name.upper(): "false"}
    else:
        words = text.split() if isinstance(value, tuple) else [text]
        arguments = [part for word in words for part in (flag(name), word)]
        other = {} if name not in ("url", "network") else {"TECHULUS_" + name.upper(): "https://other"}
    assert getattr(checked(given(*arguments, **other)), name) == value


@pytest.mark.parametrize("text", ["0", "false", "no", ""])
def test_a_switch_can_be_off_in_the_environment(text: str) -> None:
    """`TECHULUS_PROXY=false` is no proxy."""
    assert given(TECHULUS_PROXY=text)["proxy"] is False


@pytest.mark.parametrize(
    ("option", "variable", "text"),
    [("--log-format", "TECHULUS_LOG_FORMAT", "json"), ("--log-level", "TECHULUS_LOG_LEVEL", "error")],
)
def test_how_the_agent_logs_is_an_option_too(option: str, variable: str, text: str) -> None:
    """It is set up before the command runs, and the command does not hear of it."""
    for arguments, env in (((option, text), {}), ((), {variable: text})):
        structlog.reset_defaults()
        assert given(*arguments, **env).keys() == NODE_OPTIONS.keys()
        config = structlog.get_config()
        is_json = isinstance(config["processors"][-1], structlog.processors.JSONRenderer)
        is_silent = config["wrapper_class"] is structlog.make_filtering_bound_logger("error")
        assert (is_json, is_silent) == (text == "json", text == "error")


def test_help_names_every_option_and_its_variable() -> None:
    """So that the help is the reference."""
    text = CliRunner().invoke(app, ["--help"], env={"COLUMNS": "250", "TERM": "dumb"}).output
    for name in (*NODE_OPTIONS, *LOG_OPTIONS):
        assert flag(name) in text
        assert "TECHULUS_" + name.upper() in text


@pytest.mark.parametrize(("name", "value"), BAD, ids=str)
def test_a_value_that_makes_no_sense_is_named(name: str, value: Any) -> None:
    """One line with the option as it is spelled on the command line."""
    with pytest.raises(CommandError, match=rf"^{flag(name)}: .+$"):
        checked({name: value})


def test_paths_are_absolute() -> None:
    """Whatever the agent's working directory becomes."""
    options = checked({"data_dir": Path("state"), "registry_auth_file": Path("auth.json")})
    assert options.data_dir == Path.cwd() / "state"
    assert options.registry_auth_file == Path.cwd() / "auth.json"
