"""`core.registry_fault`: one cause and one way out, for each builder and each direction."""

import pytest

from core.registry_fault import Builder, explain

PLAIN = 'Get "https://{host}/v2/": http: server gave HTTP response to HTTPS client'
UNKNOWN = 'Get "https://{host}/v2/": tls: failed to verify certificate: x509: certificate signed by unknown authority'
REFUSED = "dial tcp {host}: connect: connection refused"


@pytest.mark.parametrize(
    ("error", "builder", "pushing", "wanted"),
    [
        (PLAIN, "buildkit", False, ("the registry r.example:5000 has no TLS, and BuildKit asks it with TLS",
            'for FROM of it, add to buildkitd.toml and restart buildkitd: [registry."r.example:5000"] http = true')),
        (PLAIN, "buildah", False, ("the registry r.example:5000 has no TLS, and buildah asks it with TLS",
            'for FROM of it, add to /etc/containers/registries.conf: [[registry]] location = "r.example:5000", insecure = true')),
        (PLAIN, "buildah", True, ("the registry r.example:5000 has no TLS, and buildah asks it with TLS",
            "start the agent with --insecure-registry r.example:5000")),
        (UNKNOWN, "buildkit", True, ("BuildKit does not trust the certificate of the registry r.example:5000: x509: certificate "
            "signed by unknown authority",
            'add its authority to buildkitd.toml and restart buildkitd: [registry."r.example:5000"] ca = ["/path/to/ca.pem"]')),
        (UNKNOWN, "buildah", False, ("buildah does not trust the certificate of the registry r.example:5000: x509: certificate "
            "signed by unknown authority",
            "put the certificate of its authority into /etc/containers/certs.d/r.example:5000/ca.crt")),
        (REFUSED, "buildkit", False, ("nothing answers at r.example:5000: connection refused",
            "see that the registry runs, and that address and port are right")),
        ('Get "https://{host}/v2/": unauthorized', "buildkit", False, None),
        ("server gave HTTP response to HTTPS client", "buildkit", False, None),
        ("", "buildah", True, None),
    ],
)  # fmt: skip
def test_causes(error: str, builder: Builder, pushing: bool, wanted: tuple[str, str] | None) -> None:
    """The whole answer; None for another kind of error, and where no registry is named."""
    assert explain(error.format(host="r.example:5000"), builder, pushing=pushing) == wanted


@pytest.mark.parametrize("host", ["127.0.0.1:5000", "localhost:5000", "[::1]:5000", "localhost"])
def test_a_loopback_address_is_that_of_the_builder(host: str) -> None:
    """A registry on the user's own machine is not there."""
    assert explain(REFUSED.format(host=host), "buildkit", pushing=False) == (
        f"nothing answers at {host}: connection refused",
        "a loopback address is that of the host or container in which BuildKit runs; see that the registry listens there",
    )
