"""`core.buildah_progress`: of the instructions the one that failed, its reason and its program's words."""

import pytest

from tests.build_messages import message

BUILDAH = [
    (
        "a program's words stand before the error, which quotes the whole instruction",
        'STEP 1/2: FROM a\nSTEP 2/2: RUN npm ci && echo "a": b\nnpm ERR! missing script: ci\nexit status 9\n'
        'time="2026-12-01T04:01:41Z" level=error msg="exit status 1"\n'
        'Error: building at STEP "RUN npm ci && echo "a": b": while running runtime: exit status 1\n',
        ['exit status 1 in RUN npm ci && echo "a": b', "npm ERR! missing script: ci", "exit status 9"],
    ),
    (
        "buildah before 1.28",
        "STEP 2/2: RUN x\nwords\n"
        'error building at STEP "RUN x": error while running runtime: exit status 1\nERRO[0002] exit status 1\n',
        ["exit status 1 in RUN x", "words"],
    ),
    (
        "a heredoc is quoted with its lines",
        "[1/2] STEP 2/4: RUN <<EOT (set -e\necho one\none\n"
        'Error: building at STEP "RUN <<EOT (set -e\necho one)": while running runtime: exit status 1\n',
        ["exit status 1 in RUN <<EOT (set -e", "echo one", "one"],
    ),
    (
        "a heredoc whose lines look like the end of the quote",
        "STEP 2/4: RUN <<EOT (echo \"a\": b\nfalse)\na: b\n"
        'Error: building at STEP "RUN <<EOT (echo "a": b\necho "c": d\nfalse)": while running runtime: exit status 1\n',
        ['exit status 1 in RUN <<EOT (echo "a": b', "false)", "a: b"],
    ),
    (
        "words that come after the error",
        'STEP 2/4: RUN x\nError: building at STEP "RUN x": exit status 1\nout of reach\n',
        ["exit status 1 in RUN x", "out of reach"],
    ),
    (
        "no instruction has failed",
        "Error: no such file Dockerfile\n",
        ["no such file Dockerfile"],
    ),
    (
        "nothing says why",
        "STEP 1/2: FROM a\nError: this is a program's\nand\nso\nis this\n",
        ["buildah ended with exit status 1", "Error: this is a program's", "and", "so", "is this"],
    ),
    (
        "FROM a registry without TLS",
        "STEP 1/2: FROM reg.example:5000/a:1\nTrying to pull reg.example:5000/a:1...\nError: creating build container: "
        "initializing source docker://reg.example:5000/a:1: pinging container registry reg.example:5000: Get "
        '"https://reg.example:5000/v2/": http: server gave HTTP response to HTTPS client\n',
        ["the registry reg.example:5000 has no TLS, and buildah asks it with TLS",
         'for FROM of it, add to /etc/containers/registries.conf: [[registry]] location = "reg.example:5000", insecure = true'],
    ),
    (
        "a push to one",
        'Error: pushing image "a:1" to "docker://reg.example:5000/a:1": pinging container registry reg.example:5000: Get '
        '"https://reg.example:5000/v2/": http: server gave HTTP response to HTTPS client\n',
        ["the registry reg.example:5000 has no TLS, and buildah asks it with TLS",
         "start the agent with --insecure-registry reg.example:5000"],
    ),
]  # fmt: skip


@pytest.mark.parametrize("tool", ["buildah", "podman"])
@pytest.mark.parametrize(("text", "wanted"), [case[1:] for case in BUILDAH], ids=[case[0] for case in BUILDAH])
def test_buildah(tool: str, text: str, wanted: list[str]) -> None:
    """The whole message, from either of the two."""
    assert message(tool, text).split("\n") == [line.replace("buildah ended", f"{tool} ended") for line in wanted]
