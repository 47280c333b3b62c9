"""`core.build_plan`: every word of every command, for every kind of repository and host."""

from dataclasses import replace

import pytest
from returns.pipeline import is_successful

from core import build_plan, build_sandbox
from core.build_plan import Asked, Command, Found, Host, Layout, Recipe, Settings, Stage, layout, make, secrets_hash
from core.build_source import Sees

IMAGE = "registry.example:5000/p/s:41c0ffee"
BUILDKIT, BUILDAH = "unix:///run/buildkit/buildkitd.sock", "/usr/bin/buildah"
ALL = Host(BUILDKIT, podman=BUILDAH, railpack_fault="")
INSIDE = f"unix://{build_sandbox.BUILDKIT}"
BY_BUILDKIT = frozenset((Sees.BUILDKIT, Sees.LOGIN, Sees.SECRETS))
SECRETS = {"NPM_TOKEN": "s3cret-value", "RAILPACK_NODE_VERSION": "22"}
SETTINGS = Settings(store="/d/builds/store")
DOCKERFILE, NOTHING = Found(dockerfile=True), Found(dockerfile=False)


def asked(image: str = IMAGE, layout: Layout = build_plan.WHOLE) -> Asked:
    """A build with secrets."""
    return Asked(image, "service", SECRETS, layout)


def recipe(found: Found = DOCKERFILE, host: Host = ALL, settings: Settings = SETTINGS, image: str = IMAGE) -> Recipe:
    """The recipe, which there must be."""
    return make(asked(image), found, host, settings).unwrap()


def refusal(found: Found = DOCKERFILE, host: Host = ALL, settings: Settings = SETTINGS, image: str = IMAGE) -> str:
    """Why there is none."""
    return make(asked(image), found, host, settings).failure()


def test_a_dockerfile_with_buildkit() -> None:
    """One command builds and pushes; secrets are files; the digest comes from the metadata."""
    assert recipe() == Recipe(
        (
            Command(
                Stage.BUILDING,
                (
                    "buildctl",
                    f"--addr={INSIDE}",
                    "build",
                    "--progress=plain",
                    "--local=context=source",
                    "--frontend=dockerfile.v0",
                    "--local=dockerfile=source",
                    "--opt=filename=Dockerfile",
                    "--opt=build-arg:BUILDKIT_CACHE_MOUNT_NS=service",
                    "--secret=id=NPM_TOKEN,src=/secrets/0",
                    "--secret=id=RAILPACK_NODE_VERSION,src=/secrets/1",
                    f"--output=type=image,name={IMAGE},push=true",
                    "--metadata-file=metadata.json",
                ),
                sees=BY_BUILDKIT,
            ),
        ),
        (("0", "NPM_TOKEN"), ("1", "RAILPACK_NODE_VERSION")),
        "metadata.json",
        f"building Dockerfile with BuildKit at {BUILDKIT}",
    )


def test_no_dockerfile_with_railpack() -> None:
    """Prepared here, built by the pinned frontend; the secrets' hash stands in for the secrets in the cache's keys."""
    made = recipe(NOTHING)
    prepare, build = made.commands
    assert prepare == Command(
        Stage.BUILDING,
        (
            "railpack",
            "prepare",
            "source",
            "--plan-out=plan/railpack-plan.json",
            "--info-out=plan/railpack-info.json",
            "--error-missing-start",
            "--env=NPM_TOKEN=set",
            "--env=RAILPACK_NODE_VERSION",
        ),
        (("RAILPACK_NODE_VERSION", "22"),),
    )
    assert build == Command(
        Stage.BUILDING,
        (
            "buildctl",
            f"--addr={INSIDE}",
            "build",
            "--progress=plain",
            "--local=context=source",
            "--frontend=gateway.v0",
            f"--opt=source={build_plan.RAILPACK_FRONTEND}",
            "--local=dockerfile=plan",
            "--opt=filename=railpack-plan.json",
            f"--opt=build-arg:secrets-hash={secrets_hash(SECRETS)}",
            "--opt=build-arg:cache-key=service",
            "--secret=id=NPM_TOKEN,src=/secrets/0",
            "--secret=id=RAILPACK_NODE_VERSION,src=/secrets/1",
            f"--output=type=image,name={IMAGE},push=true",
            "--metadata-file=metadata.json",
        ),
        sees=BY_BUILDKIT,
    )


def test_a_dockerfile_with_podmans_builder() -> None:
    """In a store of its service's own; pushed by a second command, which has no secrets."""
    made = recipe(host=Host(podman=BUILDAH))
    store = ("--root=/store", "--runroot=/run/build")
    secrets = ("--secret=id=NPM_TOKEN,src=/secrets/0", "--secret=id=RAILPACK_NODE_VERSION,src=/secrets/1")
    head = (BUILDAH, *store, "build", "--layers", "--force-rm", "--pull", "--network=host", "--tls-verify=true")
    build = (*head, "--file=source/Dockerfile", f"--tag={IMAGE}", *secrets, "source")
    push = (BUILDAH, *store, "push", "--tls-verify=true", "--digestfile=digest", IMAGE, f"docker://{IMAGE}")
    sees = frozenset((Sees.STORE, Sees.LOGIN))
    assert made.commands == (
        Command(Stage.BUILDING, build, sees=sees | {Sees.SECRETS}),
        Command(Stage.PUSHING, push, sees=sees),
    )
    assert made.digest_file == "digest"
    assert "buildah" in made.about


def test_a_builder_with_a_known_way_out() -> None:
    """L66: what runs a repository's steps has no credentials of registries then; what pushes has."""
    settings = replace(SETTINGS, auth_file="/d/auth.json")
    build, push = recipe(host=Host(podman=BUILDAH, holes=("CVE-2024-1753",)), settings=settings).commands
    assert Sees.LOGIN not in build.sees
    assert build.env == ()
    assert Sees.LOGIN in push.sees
    assert push.env


def test_what_prepares_sees_no_secret() -> None:
    """L65: Railpack runs tools of the repository's choice; only settings that it acts upon are there, as values."""
    given = {"CGO_ENABLED": "0", "NPM_TOKEN": "s3cret-value"}
    prepare = make(Asked(IMAGE, "service", given), NOTHING, ALL, SETTINGS).unwrap().commands[0]
    assert prepare.sees == frozenset()
    assert prepare.env == (("CGO_ENABLED", "0"),)
    assert prepare.argv[-2:] == ("--env=CGO_ENABLED", "--env=NPM_TOKEN=set")


def test_another_file_in_another_folder_for_another_platform() -> None:
    """As a person asks for it by hand."""
    wanted = layout("docker/Web", "app/", "linux/arm64").unwrap()
    argv = make(asked(layout=wanted), DOCKERFILE, ALL, SETTINGS).unwrap().commands[0].argv
    assert {"--local=context=source/app", "--local=dockerfile=source/docker", "--opt=filename=Web"} <= {*argv}
    assert "--opt=platform=linux/arm64" in argv
    argv = make(asked(layout=wanted), DOCKERFILE, Host(podman=BUILDAH), SETTINGS).unwrap().commands[0].argv
    assert {"--file=source/docker/Web", "--platform=linux/arm64"} <= {*argv}
    assert argv[-1] == "source/app"


@pytest.mark.parametrize("given", [("/etc/passwd", ".", ""), ("a/../../b", ".", ""), ("-f", ".", ""), ("", ".", "")])
def test_a_layout_that_leads_out(given: tuple[str, str, str]) -> None:
    """Nor is one an option, or a platform that is none."""
    assert "no path within a repository" in layout(*given).failure()
    assert "no path within a repository" in layout("Dockerfile", given[0], "").failure()
    assert "no platform" in layout("Dockerfile", ".", "linux").failure()


def test_no_secret_stands_in_any_command() -> None:
    """L37: whatever is built with; Railpack's own settings are the only values in an environment."""
    for found in (DOCKERFILE, NOTHING):
        for host in (ALL, Host(podman=BUILDAH)):
            made = make(asked(), found, host, SETTINGS)
            for command in made.unwrap().commands if is_successful(made) else ():
                assert not any("s3cret" in word for word in command.argv)
                assert dict(command.env).keys() <= {"RAILPACK_NODE_VERSION"}


def test_insecure_registries_are_named_one_by_one() -> None:
    """L39: for the image's registry and for the cache's, each by itself."""
    plain = replace(SETTINGS, insecure_registries=frozenset({"registry.example:5000"}), cache="other.example/cache:1")
    argv = recipe(settings=plain).commands[0].argv
    assert f"--output=type=image,name={IMAGE},push=true,registry.insecure=true" in argv
    assert "--export-cache=type=registry,ref=other.example/cache:1,mode=max,ignore-error=true" in argv
    assert "--import-cache=type=registry,ref=other.example/cache:1" in argv
    build, push = recipe(host=Host(podman=BUILDAH), settings=plain).commands
    assert "--tls-verify=false" in build.argv
    assert "--tls-verify=false" in push.argv
    same = replace(
        plain, cache="registry.example:5000/cache:1", insecure_registries=frozenset({"registry.example:5000"})
    )
    assert any(
        word.startswith("--import-cache=") and "insecure" in word for word in recipe(settings=same).commands[0].argv
    )


@pytest.mark.parametrize(
    ("registry", "is_plain"),
    [
        ("127.0.0.1:5055", True),
        ("localhost", True),
        ("[::1]:5000", True),
        ("127.example.org", False),
        ("r.example", False),
    ],
)
def test_a_registry_on_loopback(registry: str, is_plain: bool) -> None:
    """BuildKit pushes there without TLS, so whoever confirms it must ask without."""
    assert build_plan.is_plain(registry, SETTINGS) is is_plain


def test_logins() -> None:
    """Each tool is told in its own way where they are, and none on its command line."""
    env = dict(recipe(settings=replace(SETTINGS, auth_file="/d/auth.json")).commands[0].env)
    assert env == {"REGISTRY_AUTH_FILE": "/login/config.json", "DOCKER_CONFIG": "/login"}


@pytest.mark.parametrize(
    ("builder", "found", "host", "tool"),
    [
        ("auto", DOCKERFILE, ALL, "buildctl"),
        ("auto", DOCKERFILE, Host(podman=BUILDAH), BUILDAH),
        ("auto", NOTHING, ALL, "railpack"),
        ("buildkit", DOCKERFILE, ALL, "buildctl"),
        ("podman", DOCKERFILE, ALL, BUILDAH),
        ("auto", DOCKERFILE, Host(BUILDKIT), "buildctl"),
    ],
)
def test_what_builds(builder: build_plan.Choice, found: Found, host: Host, tool: str) -> None:
    """L66: what the operator chose, else BuildKit where its client is installed: never another one because that is down."""
    assert recipe(found, host, replace(SETTINGS, builder=builder)).commands[0].argv[0] == tool


@pytest.mark.parametrize(
    ("builder", "found", "host", "words"),
    [
        ("auto", NOTHING, Host(podman=BUILDAH), "without BuildKit this server builds nothing else; add a Dockerfile"),
        ("auto", NOTHING, Host(BUILDKIT), "Railpack is not used: it is not installed; add a Dockerfile"),
        ("auto", NOTHING, Host(BUILDKIT, railpack_fault="too old"), "Railpack is not used: too old"),
        ("podman", NOTHING, ALL, "builds nothing else; add a Dockerfile"),
        ("auto", DOCKERFILE, Host(), "neither buildah nor podman is installed"),
        ("auto", DOCKERFILE, Host(None, "connection refused", BUILDAH), "BuildKit does not answer: connection refused"),
        ("buildkit", DOCKERFILE, Host(podman=BUILDAH), "its client, buildctl, is not installed"),
        ("podman", DOCKERFILE, Host(BUILDKIT), "neither buildah nor podman is installed"),
    ],
)
def test_what_cannot_be_built(builder: build_plan.Choice, found: Found, host: Host, words: str) -> None:
    """The user is told what to add, the operator what is missing."""
    assert words in refusal(found, host, replace(SETTINGS, builder=builder))


@pytest.mark.parametrize("image", ["", "-x", "a,push=false", "Upper/Case:1", "a b", f"x@sha256:{'0' * 64}"])
def test_what_cannot_be_pushed(image: str) -> None:
    """L38: a name that could be an option, or that would change the output's meaning, builds nothing."""
    assert "is not the name of an image" in refusal(image=image)


@pytest.mark.parametrize("name", ["", "-x", "a,src=/etc/shadow", "a=b", "a b", "1a", "ä"])
def test_a_secret_that_cannot_be_handed_over(name: str) -> None:
    """Its name would change the meaning of the option."""
    assert (
        "its name is no name of a variable" in make(Asked(IMAGE, "s", {name: "x"}), DOCKERFILE, ALL, SETTINGS).failure()
    )


def test_the_hash_of_secrets() -> None:
    """Changes with every name and value, and does not depend on their order; moving text between them is a change."""
    assert secrets_hash({"a": "1", "b": "2"}) == secrets_hash({"b": "2", "a": "1"})
    hashes = [secrets_hash(one) for one in ({}, {"a": ""}, {"a": "1"}, {"a": "12"}, {"a1": "2"}, {"a": "1", "b": "2"})]
    assert len(set(hashes)) == len(hashes)


@pytest.mark.parametrize(
    ("chosen", "found", "why"),
    [
        (Layout(dockerfile="Dockerfil"), NOTHING, "the repository has no Dockerfil"),
        (Layout(folder="app"), Found(dockerfile=True, folder=False), "the repository has no folder app"),
    ],
)
def test_a_layout_that_is_not_there(chosen: Layout, found: Found, why: str) -> None:
    """A slip is no reason to build by Railpack; a folder may be a link to what is beside the repository."""
    assert make(Asked(IMAGE, "service", {}, chosen), found, ALL, SETTINGS).failure() == why
