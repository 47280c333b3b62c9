#!/usr/bin/env bash
# Makes a Debian 12 machine ready to run, demonstrate and test the project: system packages, and .venv in the project's
# root with the locked Python packages and the `agent` command. Run it again whenever you like: with nothing to do it
# ends within a second. Starts no service, and leaves packages that are there already as they are.
set -euo pipefail
cd "$(dirname "$0")/.."
root=$PWD

packages=(
    podman netavark runc crun conmon buildah skopeo        # containers and their images
    dnsmasq-base caddy wireguard-go wireguard-tools        # what else an agent drives (dnsmasq-base: without its service)
    docker-registry busybox-static                         # a registry, and images for it, made here
    qemu-system-x86 cpio kmod e2fsprogs                    # virtual machines: a kernel with WireGuard, a whole server
    mmdebstrap                                             # a Debian to install on
    iproute2 iptables nftables slirp4netns iputils-ping bind9-dnsutils procps wrk curl openssl ca-certificates
    git tmux python3-venv
)
# Debian enables these when they are installed; what this project needs of them it starts itself.
unwanted_services=(caddy.service docker-registry.service)
stamp=.venv/.set-up

fail() { echo "setup: $*" >&2; exit 1; }
say() { echo "setup: $*"; }

missing_packages() {
    comm -23 <(printf '%s\n' "${packages[@]}" | sort) \
        <(dpkg-query --show --showformat '${db:Status-Status} ${Package}\n' "${packages[@]}" 2>/dev/null | sed -n 's/^installed //p' | sort -u)
}

install_packages() {
    local missing=("$@")
    [[ $(id -u) == 0 ]] || fail "run it as root, or install first: ${missing[*]}"
    command -v apt-get >/dev/null || fail "there is no apt-get here; these packages are needed: ${missing[*]}"
    say "installing ${missing[*]}"
    export DEBIAN_FRONTEND=noninteractive
    local apt=(apt-get -q -y -o DPkg::Lock::Timeout=600 -o Acquire::Retries=3 -o APT::Update::Error-Mode=any)
    # A repository of someone else's that is away must not be in the way: the installation itself decides.
    "${apt[@]}" update >/dev/null || say "not every package list could be brought up to date; going on"
    forbid_service_starts
    "${apt[@]}" install --no-install-recommends "${missing[@]}" >/dev/null
    local service
    for service in "${unwanted_services[@]}"; do
        if [[ " ${missing[*]} " == *" ${service%.service} "* ]] && command -v systemctl >/dev/null; then
            systemctl --quiet disable "$service" 2>/dev/null || say "could not disable $service"
        fi
    done
}

# Debian's packages ask this file whether they may start their services; 101 says no. Gone again when the script ends.
forbid_service_starts() {
    local policy=/usr/sbin/policy-rc.d marker="of the set-up of techulus-agent"
    # One that an earlier run has left when it was killed is ours as well.
    [[ -e $policy ]] && ! grep -qxF "# $marker" "$policy" && return
    trap 'rm -f /usr/sbin/policy-rc.d' EXIT
    printf '#!/bin/sh\n# %s\nexit 101\n' "$marker" >"$policy"
    chmod 755 "$policy"
}

# The first interpreter that is new enough and can make virtual environments; the system's own as a fallback, since the
# first one on the path may be too old or incomplete.
find_python() {
    local candidate
    for candidate in python3 /usr/bin/python3 python3.13 python3.12 python3.11; do
        if "$candidate" -c 'import ensurepip, sys, venv; sys.exit(sys.version_info < (3, 11))' 2>/dev/null; then
            "$candidate" -c 'import sys; print(sys.executable)'
            return
        fi
    done
    fail "no Python 3.11 or newer with the modules venv and ensurepip was found"
}

# What the environment was made for and of: a moved project, another lock or another script makes it again.
fingerprint() { { echo "$root"; cat deploy/setup.sh deploy/requirements.lock pyproject.toml; } | sha256sum; }

make_environment() {
    if ! .venv/bin/python -c 'import pip' 2>/dev/null || ! head -1 .venv/bin/pip | grep -qF "$root/.venv/"; then
        local python
        python=$(find_python)
        say "making .venv with $python"
        "$python" -m venv --clear .venv
    fi
    # Twice quiet: errors only; warnings about places that lack a package are of no use to anyone here.
    local pip=(.venv/bin/python -m pip --quiet --quiet --disable-pip-version-check --no-input)
    say "installing the locked Python packages"
    "${pip[@]}" install --require-hashes --requirement deploy/requirements.lock
    # All that it needs is there now, also what builds it: no index is asked.
    "${pip[@]}" install --no-index --no-deps --no-build-isolation --editable .
    fingerprint >"$stamp"
}

# Two at a time would be in each other's way.
exec 9<deploy/setup.sh
flock 9

mapfile -t missing < <(missing_packages)
if [[ ${#missing[@]} -gt 0 ]]; then
    install_packages "${missing[@]}"
fi
if [[ $(cat "$stamp" 2>/dev/null) != "$(fingerprint)" ]] || [[ ! -x .venv/bin/agent ]]; then
    rm -f "$stamp"
    make_environment
    say "ready: .venv/bin/agent --help"
fi
