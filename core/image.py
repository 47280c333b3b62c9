"""Image references: taking them apart, completing short names, and telling whether two mean the same image.

Follows the reference grammar of container registries. A short name is completed the way the control plane means it: no registry is
`docker.io`, no namespace there is `library`, no tag is `latest`. Refuses to know which images exist.
"""

import re
from functools import lru_cache

import msgspec

DEFAULT_REGISTRY = "docker.io"
LOCAL = "localhost"
_MAX_NAME = 255  # registries refuse longer repository names
_LONGEST = _MAX_NAME + len(":") + 128 + len("@sha512:") + 128

_HOST = re.compile(
    r"(?:[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?(?:\.[a-zA-Z0-9](?:[a-zA-Z0-9-]*[a-zA-Z0-9])?)*|\[[0-9a-fA-F:]+\])(?::[0-9]{1,5})?"
)
_REPOSITORY = re.compile(r"[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*(?:/[a-z0-9]+(?:(?:\.|_|__|-+)[a-z0-9]+)*)*")
_TAG = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_.-]{0,127}")
_DIGEST = re.compile(r"sha256:[0-9a-f]{64}|sha384:[0-9a-f]{96}|sha512:[0-9a-f]{128}")


class Image(msgspec.Struct, frozen=True, gc=False):
    """A complete reference. `tag` is always there; `digest` (`sha256:…`) may be."""

    registry: str
    repository: str
    tag: str
    digest: str | None = None
    tagged: bool = True

    def __str__(self) -> str:
        """The complete spelling, as a registry client takes it. A reference given by digest alone is spelled without a tag."""
        tag = f":{self.tag}" if self.tagged or self.digest is None else ""
        digest = f"@{self.digest}" if self.digest else ""
        return f"{self.registry}/{self.repository}{tag}{digest}"


def parse(text: str) -> Image | None:
    """The complete reference that a text means, or None when it is not a valid reference."""
    return _parsed(text) if len(text) <= _LONGEST else None


@lru_cache(maxsize=4096)  # some megabytes at most, since what it keeps is short
def _parsed(text: str) -> Image | None:
    name, at, digest = text.partition("@")
    if at and not _DIGEST.fullmatch(digest):
        return None
    path, tag = _split_tag(name)
    registry, repository = _split_registry(path)
    if (
        not _HOST.fullmatch(registry)
        or not _REPOSITORY.fullmatch(repository)
        or len(registry) + len(repository) >= _MAX_NAME
    ):
        return None
    if tag is not None and not _TAG.fullmatch(tag):
        return None
    return Image(registry, repository, tag or "latest", digest or None, tag is not None or not digest)


def same(expected: Image, actual: Image) -> bool:
    """Whether what a container was made from is what is expected: equal names, then the digest if one is expected, else the tags."""
    if (expected.registry, expected.repository) != (actual.registry, actual.repository):
        return False
    return expected.digest == actual.digest if expected.digest is not None else expected.tag == actual.tag


def is_local(image: Image) -> bool:
    """Whether it is an image of this server's own, which no registry has: `localhost/…`, without a port."""
    return image.registry == LOCAL


def pinned(image: Image, digest: str) -> Image:
    """The reference by which exactly one image of that name is fetched, wherever its tag has moved."""
    return Image(image.registry, image.repository, image.tag, digest, tagged=False)


def _split_tag(name: str) -> tuple[str, str | None]:
    last_slash, last_colon = name.rfind("/"), name.rfind(":")
    if last_colon > last_slash:
        return name[:last_colon], name[last_colon + 1 :]
    return name, None


def _split_registry(path: str) -> tuple[str, str]:
    first, slash, rest = path.partition("/")
    if not slash or not ("." in first or ":" in first or first == LOCAL):
        registry, repository = DEFAULT_REGISTRY, path
    else:
        registry, repository = first, rest
    if registry == "index.docker.io":
        registry = DEFAULT_REGISTRY
    if registry == DEFAULT_REGISTRY and "/" not in repository:
        repository = f"library/{repository}"
    return registry, repository
