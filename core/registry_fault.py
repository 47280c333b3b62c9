"""Why a registry could not be used, in one sentence, and the one way out: three tools wrap the same cause in different texts.

Read from the error of a build's step or command, never from what a program of the build printed.
"""

import re
from typing import Final, Literal, TypeAlias

Builder: TypeAlias = Literal["buildkit", "buildah"]

_HOST_IN_URL: Final = re.compile(r"https?://([^/\s\"'?#@]{1,255})")
_HOST_IN_DIAL: Final = re.compile(r"dial tcp ([^\s\"',]{1,255}): ")
_LOOPBACK: Final = re.compile(r"(?:localhost|127\.[0-9.]{1,12}|\[::1\])(?::[0-9]{1,5})?")


def explain(error: str, builder: Builder, *, pushing: bool) -> tuple[str, str] | None:
    """The cause and the way out; None for an error of another kind. `pushing` is whether the image itself was on its way.

    The words that are looked for are those of Go's net/http (`server gave HTTP response to HTTPS client`), crypto/tls (`x509: …`) and
    net (`connection refused`).
    """
    found = _HOST_IN_URL.search(error) or _HOST_IN_DIAL.search(error)
    if found is None:
        return None
    host = found[1]
    tool = "BuildKit" if builder == "buildkit" else "buildah"
    if "server gave HTTP response to HTTPS client" in error:
        return f"the registry {host} has no TLS, and {tool} asks it with TLS", _without_tls(
            host, builder, pushing=pushing
        )
    if "x509: " in error:
        words = error[error.rfind("x509: ") :].partition("\n")[0]
        return f"{tool} does not trust the certificate of the registry {host}: {words[:300]}", _authority(host, builder)
    if "connection refused" in error:
        return f"nothing answers at {host}: connection refused", _listening(host, tool)
    return None


def _without_tls(host: str, builder: Builder, *, pushing: bool) -> str:
    """`buildkitd.toml(5)` and `containers-registries.conf(5)` have these settings."""
    if pushing:
        return f"start the agent with --insecure-registry {host}"
    if builder == "buildkit":
        return f'for FROM of it, add to buildkitd.toml and restart buildkitd: [registry."{host}"] http = true'
    return f'for FROM of it, add to /etc/containers/registries.conf: [[registry]] location = "{host}", insecure = true'


def _authority(host: str, builder: Builder) -> str:
    if builder == "buildkit":
        return (
            f'add its authority to buildkitd.toml and restart buildkitd: [registry."{host}"] ca = ["/path/to/ca.pem"]'
        )
    return f"put the certificate of its authority into /etc/containers/certs.d/{host}/ca.crt"


def _listening(host: str, tool: str) -> str:
    if _LOOPBACK.fullmatch(host):
        return f"a loopback address is that of the host or container in which {tool} runs; see that the registry listens there"
    return "see that the registry runs, and that address and port are right"
