"""`core.build_failure`: a user reads why a build failed in the program's own words, whatever the tool and the Dockerfile (L42, L67)."""

from collections import deque
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from core.build_failure import LONGEST_MESSAGE, CommandOutput
from core.build_output import LONGEST
from tests.build_messages import message, output

CAPTURES = Path(__file__).parents[1] / "captures_builds"
TOOLS = ("git", "buildctl", "buildah", "podman", "railpack", "skopeo")


def chatty(first: int, last: int) -> list[str]:
    """Lines of a captured program."""
    return [
        f"line {number} of a very chatty build tool that says what it does all the time"
        for number in range(first, last)
    ]


@pytest.mark.parametrize(
    ("capture", "wanted"),
    [
        ("buildctl-fail", ["Dockerfile:2: exit code 3 in [stage-0 2/2] RUN --mount=type=secret,id=NPM_TOKEN cat "
                           "/run/secrets/NPM_TOKEN; echo it is broken >&2; exit 3", "***it is broken"]),
        ("buildctl-badsyntax", ["dockerfile parse error on line 2: unknown instruction: RUNN (did you mean RUN?)"]),
        ("buildctl-nobase", ["Dockerfile:1: 127.0.0.1:5055/lab/nope:v1: not found (named by FROM in the Dockerfile)"]),
        ("buildctl-syntaxline", ["Dockerfile:1: docker.io/docker/dockerfile:1: not found (named by the Dockerfile's line "
                                 "`# syntax=`)"]),
        ("buildctl-nosecret", ["Dockerfile:2: secret OTHER: not found in [stage-0 2/2] RUN "
                               "--mount=type=secret,id=OTHER,required=true cat /run/secrets/OTHER"]),
        ("buildctl-away", ["BuildKit does not answer: dial unix /nope: connect: no such file or directory"]),
        ("buildctl-clipfail-tail", ["Dockerfile:2: exit code 7 in [2/2] RUN i=0; while [ $i -lt 40000 ]; do echo \"line $i of "
                                    "a very chatty build tool that says what it does all the time…", *chatty(39982, 40000)]),
        ("buildctl-clipfail", ["buildctl ended with exit status 1", *chatty(163, 183)]),
        # These have not failed.
        ("buildctl-argsecret", ["buildctl ended with exit status 1"]),
        ("buildctl-longline", ["buildctl ended with exit status 1"]),
        ("buildctl-multistage", ["buildctl ended with exit status 1"]),
        ("buildah-copy", ["checking on sources under \"/build/source\": copier: stat: \"/nope\": no such file or directory in "
                          "COPY nope /"]),
        ("buildah-run", ["exit status 3 in RUN [\"/bin/busybox\",\"sh\",\"-c\",\"echo one; echo \\\"it is: broken\\\" >&2; "
                         "exit 3\"]", "one", "it is: broken"]),
        ("buildah-refused", ["nothing answers at 127.0.0.1:9: connection refused", "a loopback address is that of the host or "
                             "container in which buildah runs; see that the registry listens there"]),
        ("buildah-unknown", ["Build error: Unknown instruction: \"RUNN\" in RUNN ls"]),
        ("git-no-repository", ["'/nope' does not appear to be a git repository",
                               "fatal: Could not read from remote repository."]),
        ("git-no-branch", ["couldn't find remote ref nope"]),
        ("git-submodule", ["transport 'file' not allowed", "fatal: clone of 'file:///build/library' into submodule path "
                           "'/build/source/y' failed"]),
        ("git-refused", ["unable to access 'https://127.0.0.1:9/x.git/': Failed to connect to 127.0.0.1 port 9 after 0 ms: "
                         "Couldn't connect to server"]),
    ],
)  # fmt: skip
def test_what_tools_really_print(capture: str, wanted: list[str]) -> None:
    """The whole message of each capture."""
    tool = capture.partition("-")[0]
    assert message(tool, (CAPTURES / f"{capture}.txt").read_text()).split("\n") == wanted


def test_every_capture_is_a_case() -> None:
    """None lies here unread."""
    (marker,) = (one for one in test_what_tools_really_print.pytestmark if one.name == "parametrize")  # type: ignore[attr-defined]
    assert {case[0] for case in marker.args[1]} == {path.stem for path in CAPTURES.glob("*.txt")}


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("remote: Enumerating objects: 3, done.\nremote: Invalid username or password.\n"
         "fatal: Authentication failed for 'https://git.example/a.git/'\n",
         ["Authentication failed for 'https://git.example/a.git/'", "remote: Invalid username or password."]),
        ("error: RPC failed; HTTP 500 curl 22 The requested URL returned error: 500\n"
         "fatal: the remote end hung up unexpectedly\n",
         ["RPC failed; HTTP 500 curl 22 The requested URL returned error: 500",
          "fatal: the remote end hung up unexpectedly"]),
        ("remote: Repository not found.\n", ["Repository not found."]),
        ("fatal: early EOF\n", ["early EOF"]),
        ("something\n", ["git ended with exit status 128", "something"]),
        ("", ["git ended with exit status 128"]),
    ],
)  # fmt: skip
def test_git(text: str, wanted: list[str]) -> None:
    """Its own words in the place of its exit status; what follows from something else is not the first of them."""
    assert message("git", text, 128).split("\n") == wanted


@pytest.mark.parametrize(
    ("text", "wanted"),
    [
        ("╭─────────────────╮\n│ Railpack 0.37.0 │\n╰─────────────────╯\n \n  ↳ Detected Node\n✖ No start command detected. Add one:\n"
         "https://railpack.com/config/start\n",
         ["No start command detected. Add one:", "↳ Detected Node", "https://railpack.com/config/start"]),
        ("│ what is this │\n", ["railpack ended with exit status 1", "what is this"]),
        ("╭───╮\n╰───╯\n", ["railpack ended with exit status 1"]),
    ],
)  # fmt: skip
def test_railpack(text: str, wanted: list[str]) -> None:
    """Its error first, and nothing of its drawing."""
    assert message("railpack", text).split("\n") == wanted


@pytest.mark.parametrize(
    ("status", "wanted"),
    [
        (1, "x ended with exit status 1"),
        (128, "x ended with exit status 128"),
        (137, "x was ended by signal 9"),
        (-9, "x was ended by signal 9"),
    ],
)
def test_how_a_command_ended(status: int, wanted: str) -> None:
    """When nothing else is known."""
    assert CommandOutput("x").message(status) == wanted


def test_words_of_a_step_are_no_cause() -> None:
    """BuildKit quotes the instruction in its error; what a user echoes there is not the registry's."""
    said = output(
        "buildctl",
        "#5 [2/2] RUN curl https://x.test/ || (echo connection refused; exit 1)\n"
        "#5 0.1 the program's own word\n"
        '#5 ERROR: process "/bin/sh -c curl https://x.test/ || (echo connection refused; exit 1)" did not complete '
        "successfully: exit code: 1",
    )
    told = said.message(1)
    assert told.startswith("exit code 1 in [2/2] RUN curl") and told.endswith("the program's own word")
    assert said.hint == ""


def test_what_to_do_is_told_apart() -> None:
    """For whoever has seen the last words already."""
    said = output(
        "buildctl",
        "#2 [internal] load metadata for 127.0.0.1:5055/a:1\n"
        '#2 ERROR: failed to do request: Head "https://127.0.0.1:5055/v2/a/manifests/1": http: server gave HTTP response to '
        "HTTPS client",
    )
    assert said.message(1).endswith(said.hint)
    assert "buildkitd.toml" in said.hint


def test_a_build_that_is_ended_by_others() -> None:
    """The given reason, and what the steps that still ran printed last; not those that are done."""
    made = output(
        "buildctl", "#5 [2/3] RUN x\n#5 0.1 done\n#5 DONE 0.2s\n#6 [3/3] RUN y\n#6 0.1 waiting for the network\n"
    )
    assert made.interrupted("the build took longer than 30 minutes") == (
        "the build took longer than 30 minutes\nwaiting for the network"
    )


def test_a_line_that_came_in_pieces() -> None:
    """The quoted instruction of a line of a megabyte is no program's words; of the program's own long line both ends are shown."""
    run = "RUN echo " + "x" * 1_000_000
    words = "first " + "y" * 100_000 + " last"
    text = (
        f'#5 [2/2] {run}\n#5 0.1 {words}\n#5 ERROR: process "/bin/sh -c {run}" did not complete successfully: exit code: 7\n'
        f"------\n > [2/2] {run}:\n0.1 {words}\n------\nDockerfile:2\n{'-' * 20}\n   2 | >>> {run}\n{'-' * 20}\n"
        f'error: failed to solve: process "/bin/sh -c {run}" did not complete successfully: exit code: 7\n'
    )
    reason, line = message("buildctl", text).split("\n")
    assert reason.startswith("Dockerfile:2: exit code 7 in [2/2] RUN echo xxx")
    assert len(reason) < 200
    assert line.startswith("first yyy")
    assert line.endswith("yyy last")
    assert len(line) == 1_000


LINES = st.one_of(
    st.text(max_size=80),
    st.sampled_from(
        [
            "------", " > [2/2] RUN x:", "-" * 20, "Dockerfile:2", "   2 | >>> RUN x", "#5 [2/2] RUN x", "#5 0.1 words",
            "#5 ERROR: process \"x\" did not complete successfully: exit code: 1", "#5 DONE 0.1s", "#5", "#", "error: failed",
            "Error: building at STEP \"RUN", "Error: building at STEP \"RUN x\": exit status 1", "STEP 1/2: RUN x",
            "fatal: x", "remote: y", "Error: z", "✖ w", "x" * 20_000 + " …", "y" * 20_000, "…", " …",
        ]
    ),
)  # fmt: skip


@given(st.sampled_from(TOOLS), st.lists(LINES, max_size=60), st.integers(-300, 300))
def test_any_lines(tool: str, lines: list[str], status: int) -> None:
    """L42: whatever a tool prints there is a message, bounded, with a reason; asking twice changes nothing."""
    made = CommandOutput(tool)
    for line in lines:
        made.add(line)
    told = made.message(status)
    assert 0 < len(told) <= LONGEST_MESSAGE
    assert made.message(status) == told
    assert len(made.interrupted("because")) <= LONGEST_MESSAGE


WORDS = st.lists(
    st.text(st.characters(codec="utf-8", exclude_categories=("C", "Z")), min_size=1, max_size=60),
    min_size=1,
    max_size=30,
)


@given(WORDS, st.integers(1, 255), st.sampled_from(["buildctl", "buildah"]))
def test_the_last_words_are_in_the_message(words: list[str], code: int, tool: str) -> None:
    """L67: of the program that failed, up to the twenty lines that are kept, with other steps before and beside it."""
    if tool == "buildctl":
        text = "#4 [1/3] FROM a\n#4 CACHED\n#5 [2/3] RUN other\n#6 [3/3] RUN x\n"
        text += "".join(f"#6 1.{at:03d} {line}\n#5 1.{at:03d} other words\n" for at, line in enumerate(words))
        error = f'process "/bin/sh -c x" did not complete successfully: exit code: {code}'
        text += f"#6 ERROR: {error}\n#5 CANCELED\nerror: failed to solve: {error}\n"
    else:
        words = [f"said {line}" for line in words]
        text = "STEP 1/2: FROM a\nother words\nSTEP 2/2: RUN x\n" + "".join(f"{line}\n" for line in words)
        text += f'Error: building at STEP "RUN x": while running runtime: exit status {code}\n'
    reason, *said = message(tool, text).split("\n")
    assert str(code) in reason
    last = words[-20:]
    assert said[: len(last)] == last  # a hint may follow
    assert "other words" not in said


@pytest.mark.parametrize("tool", TOOLS)
@pytest.mark.parametrize(
    "line",
    ["#{n} [2/2] RUN {x}", "#{n} ERROR: {x}", "#7 0.1 {x}", "#{n} 0.1 {x}", "------", " > {x}:", "error: {x}",
     "Error: building at STEP \"{x}", "STEP 1/2: {x}", "fatal: {x}", "✖ {x}", "{x} …", "{x}"],
)  # fmt: skip
def test_memory_is_bounded(tool: str, line: str) -> None:
    """L42: of output without end only so much is kept, and nothing that grows with it."""
    made = CommandOutput(tool)
    sizes = []
    for number in range(600):
        made.add(line.format(n=number, x=f"{number}" + "x" * LONGEST)[:LONGEST])
        sizes.append(held(made))
    assert sizes[-1] <= 200_000
    assert sizes[-1] <= sizes[299] + 100


def test_memory_is_bounded_with_many_steps_at_once() -> None:
    """L42: those that were heard of last are kept."""
    made = CommandOutput("buildctl")
    for number in range(20_000):
        made.add(f"#{number % 500} 0.1 {'x' * 2_000}")
    assert held(made) <= 1_000_000


def held(value: object) -> int:
    """The characters of all texts that an object holds."""
    if isinstance(value, str):
        return len(value)
    if isinstance(value, dict):
        return sum(map(held, value.values()))
    if isinstance(value, list | tuple | deque):
        return sum(map(held, value))
    fields = getattr(value, "__dict__", None) or {
        name: getattr(value, name) for name in getattr(value, "__slots__", ())
    }
    return sum(map(held, fields.values()))
