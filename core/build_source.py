"""Where a build's files come from: a repository, a commit or a branch, and how Git is asked for exactly that.

The token of a clone URL is taken out of it at once and goes into a file that only Git's own configuration names: it stands on no command
line, in no environment and not in the build folder. Everything from outside is checked so that it is never taken as an option.
"""

import base64
import re
from collections.abc import Collection
from dataclasses import dataclass, field
from enum import Enum
from typing import Final
from urllib.parse import unquote, urlsplit, urlunsplit

from returns.result import Failure, Result, Success

from core.build_sandbox import GIT, REPOSITORY
from core.rejection import has_control, shown

HEAD: Final = "HEAD"
ALWAYS_ALLOWED: Final = ("https",)
LAB_SCHEMES: Final = ("http", "file")
CHECKOUT: Final = "source"
"""The folder of the files, in the build's own."""
COMMIT: Final = "commit"

_SHA: Final = re.compile(r"[0-9a-f]{40}")
_BRANCH: Final = re.compile(
    r"(?!-)(?!/)[^\x00-\x20\x7f~^:?*\[\\]+(?<!/)(?<!\.)"
)  # git-check-ref-format(1), with what is refused below
_LONGEST: Final = 2048


class Sees(Enum):
    """What a command of a build needs beside the build's own folder; no other command has it in its sandbox."""

    GIT = "Git's configuration, with the clone's token"
    SECRETS = "the service's secrets"
    LOGIN = "the credentials of registries"
    BUILDKIT = "the socket of the host's BuildKit"
    STORE = "the images of earlier builds of the service"


@dataclass(frozen=True, slots=True)
class Source:
    """A repository at `url`, which holds no credentials, and what to check out of it: a commit, or else the tip of a branch."""

    url: str
    commit: str | None
    branch: str
    username: str = field(default="", repr=False)
    password: str = field(default="", repr=False)

    @property
    def secrets(self) -> tuple[str, ...]:
        """What no text may repeat."""
        pair = base64.b64encode(f"{self.username}:{self.password}".encode()).decode("ascii")
        return (self.password, pair) if self.password else ()


def parse(url: str, commit: str, branch: str, allowed: Collection[str] = ()) -> Result[Source, str]:
    """The source of a claimed build. `allowed` are the schemes beside https. No failure repeats the URL's credentials."""
    if len(url) > _LONGEST or has_control(url) or " " in url:
        return Failure("the clone URL is no URL")
    try:
        parts = urlsplit(url)
        host, port = parts.hostname, parts.port
    except ValueError:
        return Failure("the clone URL is no URL")
    fault = _url_fault(parts.scheme, host, parts.path, (*ALWAYS_ALLOWED, *allowed)) or _ref_fault(commit, branch)
    if fault is not None:
        return Failure(fault)
    name = f"[{host}]" if host and ":" in host else host or ""
    netloc = name if port is None else f"{name}:{port}"
    clean = urlunsplit((parts.scheme, netloc, parts.path, "", ""))
    pinned = None if commit == HEAD else commit
    return Success(Source(clean, pinned, branch, unquote(parts.username or ""), unquote(parts.password or "")))


def git_config(source: Source, allowed: Collection[str] = ()) -> str:
    """The text of the only configuration that Git reads: the credentials for this one host, and what it may speak."""
    lines = [
        "[protocol]",
        "\tallow = never",
        "[init]",
        "\tdefaultBranch = main",
        "[advice]",
        "\tdetachedHead = false",
        "[http]",
        "\tfollowRedirects = false",
        "\tlowSpeedLimit = 1000",
        "\tlowSpeedTime = 60",
        "[core]",
        "\thooksPath = /dev/null",
        "\tfsmonitor = false",
        "[safe]",
        "\tdirectory = *",
    ]
    for scheme in (*ALWAYS_ALLOWED, *allowed):
        lines += [f'[protocol "{scheme}"]', "\tallow = always"]
    if source.password:
        parts = urlsplit(source.url)
        pair = base64.b64encode(f"{source.username}:{source.password}".encode()).decode("ascii")
        lines += [f'[http "{parts.scheme}://{parts.netloc}/"]', f"\textraHeader = Authorization: Basic {pair}"]
    return "\n".join(lines) + "\n"


def git_environment() -> dict[str, str]:
    """What Git is told by its environment: this configuration and no other, no prompts."""
    return {
        "GIT_CONFIG_GLOBAL": f"{GIT}/gitconfig",
        "GIT_CONFIG_NOSYSTEM": "1",
        "GIT_TERMINAL_PROMPT": "0",
        "GIT_ASKPASS": "/bin/false",
        "SSH_ASKPASS": "/bin/false",
    }


def fetch(source: Source) -> tuple[str, ...]:
    """The command that brings exactly what is wanted into the folder `source` and writes which commit that is into the file `commit`.

    What comes from outside are operands, none of which the shell looks at. Git's own folders do not stay: a build of the same commit must
    find its layers in the cache, and an image must not contain them.
    """
    wanted = source.commit or f"refs/heads/{source.branch}"
    url = f"file://{REPOSITORY}" if source.url.startswith("file:") else source.url
    return ("sh", "-euc", _FETCH, "sh", url, wanted)


_FETCH: Final = f"""
git init --quiet {CHECKOUT}
git -C {CHECKOUT} remote add origin "$1"
git -C {CHECKOUT} fetch --quiet --depth=1 --no-tags --no-recurse-submodules origin "$2"
git -C {CHECKOUT} checkout --quiet --detach FETCH_HEAD
git -C {CHECKOUT} rev-parse HEAD > {COMMIT}
if [ -f {CHECKOUT}/.gitmodules ]; then
    git -C {CHECKOUT} submodule --quiet update --init --recursive --depth=1
fi
find {CHECKOUT} -name .git -prune -exec rm -rf {{}} +
"""


def commit_fault(source: Source, found: str) -> str | None:
    """Why what was checked out is not what was asked for."""
    if not _SHA.fullmatch(found):
        return f"Git does not say which commit was checked out: {shown(found)}"
    if source.commit is not None and found != source.commit:
        return f"commit {found} was checked out instead of {source.commit}"
    return None


def _url_fault(scheme: str, host: str | None, path: str, allowed: Collection[str]) -> str | None:
    if scheme not in allowed:
        named = shown(scheme) if scheme else "none"
        hint = f"; --build-allow-scheme {scheme} allows it" if scheme in LAB_SCHEMES else ""
        return f"the clone URL's scheme is {named}, and only {', '.join(allowed)} may be cloned from{hint}"
    if scheme != "file" and not host:
        return "the clone URL names no host"
    if scheme == "file" and host:
        return "the clone URL is a file on another host"
    if host is not None and host.startswith("-"):
        return "the clone URL's host looks like an option"
    return None if path.strip("/") else "the clone URL names no repository"


def _ref_fault(commit: str, branch: str) -> str | None:
    if commit != HEAD:
        return None if _SHA.fullmatch(commit) else f"{shown(commit)} is not a commit (40 hex digits) and not {HEAD}"
    odd = ".." in branch or "//" in branch or "@{" in branch or branch == "@" or len(branch) > _LONGEST
    parts = branch.split("/")
    if odd or not _BRANCH.fullmatch(branch) or any(one.startswith(".") or one.endswith(".lock") for one in parts):
        return f"{shown(branch)} is not the name of a branch"
    return None
