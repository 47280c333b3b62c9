"""`core.buildkit_progress`: of many steps the one that failed, its reason and its program's words."""

import pytest

from tests.build_messages import message

CLIPPED = (
    "BuildKit clipped this output at its limit of 200KiB/s, and the last words of the program may be missing: "
    "set BUILDKIT_STEP_LOG_MAX_SPEED=-1 and BUILDKIT_STEP_LOG_MAX_SIZE=-1 in buildkitd's environment"
)

HEAD = """#1 [internal] load build definition from Dockerfile
#1 transferring dockerfile: 163B done
#1 DONE 0.0s
"""
LONG_RUN = "RUN " + " &&     ".join(f"apt-get install -y package-number-{number}" for number in range(26))
QUOTED = "\n".join(f"   {number} | >>>     apt-get install -y package-number-{number} && \\" for number in range(2, 28))
PROCESS = f'process "/bin/sh -c {LONG_RUN[4:]}" did not complete successfully: exit code: 100'
BUILDCTL = [
    (
        "the text of a long RUN is in three places, the program's words in one",
        f"#5 [2/2] {LONG_RUN}\n#5 0.511 Reading package lists...\n#5 12.34 E: Unable to locate package package-number-7\n"
        f"#5 ERROR: {PROCESS}\n------\n > [2/2] {LONG_RUN}:\n0.511 Reading package lists...\n"
        f"12.34 E: Unable to locate package package-number-7\n------\nDockerfile:2\n--------------------\n   1 |     FROM a\n"
        f"{QUOTED}\n  28 |\n--------------------\nerror: failed to solve: {PROCESS}\n",
        ["Dockerfile:2: exit code 100 in [2/2] RUN apt-get install -y package-number-0 && apt-get install -y "
         "package-number-1 && apt-get install -y package-numb…",
         "Reading package lists...", "E: Unable to locate package package-number-7"],
    ),
    (
        "a heredoc",
        '#7 [3/3] RUN <<EOT (set -e...)\n#7 0.101 one\n#7 ERROR: process "/bin/sh -c set -e\\necho one\\nfalse\\n" did not '
        "complete successfully: exit code: 1\n------\n > [3/3] RUN <<EOT (set -e...):\n0.101 one\n------\nDockerfile:3\n"
        "--------------------\n   2 |\n   3 | >>> RUN <<EOT\n   4 | >>> set -e\n--------------------\n"
        'error: failed to solve: process "/bin/sh -c set -e\\necho one\\nfalse\\n" did not complete successfully: exit code: 1\n',
        ["Dockerfile:3: exit code 1 in [3/3] RUN <<EOT (set -e...)", "one"],
    ),
    (
        "a cache that is not there yet is no reason",
        "#4 importing cache manifest from registry.example/acme/cache:1\n"
        "#4 ERROR: failed to configure registry cache importer: registry.example/acme/cache:1: not found\n"
        '#5 [2/2] RUN npm ci\n#5 1.204 npm ERR! missing script: ci\n#5 ERROR: process "/bin/sh -c npm ci" did not complete '
        "successfully: exit code: 1\n------\n > importing cache manifest from registry.example/acme/cache:1:\n------\n------\n"
        " > [2/2] RUN npm ci:\n1.204 npm ERR! missing script: ci\n------\n"
        'error: failed to solve: process "/bin/sh -c npm ci" did not complete successfully: exit code: 1\n',
        ["exit code 1 in [2/2] RUN npm ci", "npm ERR! missing script: ci"],
    ),
    (
        "nor is it one when the command dies of something else",
        "#4 importing cache manifest from registry.example/acme/cache:1\n#4 ERROR: registry.example/acme/cache:1: not found\n"
        "#5 [2/2] RUN npm ci\n#5 1.204 added 12 packages\n"
        "error: failed to receive status: rpc error: code = Unavailable desc = error reading from server: EOF\n",
        ["the connection to BuildKit was lost: failed to receive status: rpc error: code = Unavailable desc = error reading from "
         "server: EOF", "added 12 packages"],
    ),
    (
        "of steps that run at the same time only the failed one is heard",
        '#5 [web 2/2] RUN build web\n#6 [api 2/2] RUN build api\n#5 0.100 web one\n#5 ...\n\n#6 [api 2/2] RUN build api\n'
        '#6 0.200 api one\n#6 ...\n\n#5 [web 2/2] RUN build web\n#5 0.300 web two\n#6 0.400 api: broken\n#5 0.500 web three\n'
        '#6 ERROR: process "/bin/sh -c build api" did not complete successfully: exit code: 2\n\n#5 [web 2/2] RUN build web\n'
        "#5 CANCELED\n------\n > [api 2/2] RUN build api:\n0.200 api one\n0.400 api: broken\n------\n"
        'error: failed to solve: process "/bin/sh -c build api" did not complete successfully: exit code: 2\n',
        ["exit code 2 in [api 2/2] RUN build api", "api one", "api: broken"],
    ),
    (
        "of several that failed the one that the last line speaks of",
        '#5 [web 2/2] RUN build web\n#6 [api 2/2] RUN build api\n#5 0.100 web: broken\n#6 0.200 api: broken, too\n'
        '#5 ERROR: process "/bin/sh -c build web" did not complete successfully: exit code: 1\n'
        '#6 ERROR: process "/bin/sh -c build api" did not complete successfully: exit code: 2\n'
        'error: failed to solve: process "/bin/sh -c build web" did not complete successfully: exit code: 1\n',
        ["exit code 1 in [web 2/2] RUN build web", "web: broken"],
    ),
    (
        "what was written over a progress bar, and what looks like BuildKit's own",
        "#5 [2/2] RUN x\n#5 0.100 10%\r20%\rerror: out of reach\r#5 0.2 ------\r 7 > 6\n#5 0.300 3.14 is pi\n#5 0.400\n"
        '#5 ERROR: process "/bin/sh -c x" did not complete successfully: exit code: 2\n',
        ["exit code 2 in [2/2] RUN x", "10%", "20%", "error: out of reach", "------", " 7 > 6", "3.14 is pi"],
    ),
    (
        "a program that was killed",
        '#5 [2/2] RUN x\n#5 ERROR: process "/bin/sh -c x" did not complete successfully: exit code: 137\n',
        ["exit code 137 in [2/2] RUN x", "a program is mostly killed (137) because the memory is used up"],
    ),
    (
        "clipped output",
        '#5 [2/2] RUN x\n#5 0.100 one\n#5 0.116 [output clipped, log limit 200KiB/s reached]\n'
        '#5 ERROR: process "/bin/sh -c x" did not complete successfully: exit code: 7\n',
        ["exit code 7 in [2/2] RUN x", "one", CLIPPED],
    ),
    (
        "the words stand between the dashes only",
        "------\n > [2/2] RUN x:\n0.100 one\ntwo\n------\n#5 ERROR: process \"/bin/sh -c x\" did not complete successfully: "
        "exit code: 7\n",
        ["exit code 7 in [2/2] RUN x", "one", "two"],
    ),
    (
        "FROM a registry without TLS",
        "#2 [internal] load metadata for reg.example:5000/lab/web:v1\n#2 ERROR: failed to do request: Head "
        '"https://reg.example:5000/v2/lab/web/manifests/v1": http: server gave HTTP response to HTTPS client\n------\n'
        " > [internal] load metadata for reg.example:5000/lab/web:v1:\n------\nDockerfile:1\n--------------------\n"
        "   1 | >>> FROM reg.example:5000/lab/web:v1\n--------------------\nerror: failed to solve: reg.example:5000/lab/web:v1: "
        'failed to resolve source metadata for reg.example:5000/lab/web:v1: failed to do request: Head "https://reg.example:5000'
        '/v2/lab/web/manifests/v1": http: server gave HTTP response to HTTPS client\n',
        ["the registry reg.example:5000 has no TLS, and BuildKit asks it with TLS",
         'for FROM of it, add to buildkitd.toml and restart buildkitd: [registry."reg.example:5000"] http = true'],
    ),
    (
        "a push to a registry without TLS",
        "#9 exporting to image\n#9 pushing layers 0.0s done\n#9 ERROR: failed to push reg.example:5000/a:1: failed to do "
        'request: Head "https://reg.example:5000/v2/a/blobs/x": http: server gave HTTP response to HTTPS client\n',
        ["the registry reg.example:5000 has no TLS, and BuildKit asks it with TLS",
         "start the agent with --insecure-registry reg.example:5000"],
    ),
    (
        "a certificate that nobody knows",
        "#2 [internal] load metadata for reg.example/a:1\n#2 ERROR: failed to do request: Head \"https://reg.example/v2/a\": "
        "tls: failed to verify certificate: x509: certificate signed by unknown authority\n",
        ["BuildKit does not trust the certificate of the registry reg.example: x509: certificate signed by unknown authority",
         'add its authority to buildkitd.toml and restart buildkitd: [registry."reg.example"] ca = ["/path/to/ca.pem"]'],
    ),
    (
        "an ADD is no registry",
        "#3 [2/2] ADD http://files.example/a /\n#3 ERROR: Get \"http://files.example/a\": dial tcp 192.0.2.1:80: connect: "
        "connection refused\n",
        ['Get "http://files.example/a": dial tcp 192.0.2.1:80: connect: connection refused in [2/2] ADD '
         "http://files.example/a /"],
    ),
    (
        "an image that cannot be pushed",
        "#9 exporting to image\n#9 ERROR: failed to push reg.example/a:1: server message: insufficient_scope: authorization "
        "failed\n------\n > exporting to image:\n------\nerror: failed to solve: failed to push reg.example/a:1: server message: "
        "insufficient_scope: authorization failed\n",
        ["failed to push reg.example/a:1: server message: insufficient_scope: authorization failed in exporting to image"],
    ),
]  # fmt: skip


@pytest.mark.parametrize(("text", "wanted"), [case[1:] for case in BUILDCTL], ids=[case[0] for case in BUILDCTL])
def test_buildkit(text: str, wanted: list[str]) -> None:
    """The whole message."""
    assert message("buildctl", HEAD + text).split("\n") == wanted
