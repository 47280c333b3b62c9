#!/usr/bin/env bash
# Makes the bundle that a server is installed from: dist/techulus-agent-<version>.tar.gz with the installer, the wheel, the lock of what it
# needs at run time, and those packages for this machine's kind (elsewhere the installer gets them from the index, held by the same hashes).
# `--wheel` makes the wheel alone, in $AGENT_DIST, and prints its path.
set -euo pipefail
cd "$(dirname "$(readlink -f "${BASH_SOURCE[0]}")")/.."

dist=${AGENT_DIST:-$PWD/dist}
scratch=$(mktemp -d)
trap 'rm -rf "$scratch"' EXIT

# The environment of the checkout has what builds the project; without one, pip gets it.
python=$PWD/.venv/bin/python isolation=(--no-build-isolation --no-index)
if [[ ! -x $python ]]; then
    python3 -m venv "$scratch/venv"
    python=$scratch/venv/bin/python isolation=()
fi
# Twice quiet: errors only.
pip=("$python" -m pip --quiet --quiet --disable-pip-version-check --no-input)

# From a copy, so that nothing an earlier build left gets in, and the checkout stays as it is.
build_wheel() { # folder
    local commit=
    if git rev-parse --git-dir >/dev/null 2>&1; then
        commit=$(git describe --always --abbrev=12 --exclude='*' --dirty)
        git ls-files -z --cached --others --exclude-standard -- core shell pyproject.toml setup.py README.md LICENSE |
            xargs -0 cp --parents --target-directory "$scratch/source"
    else
        cp -r core shell pyproject.toml setup.py README.md LICENSE "$scratch/source"
    fi
    AGENT_COMMIT=$commit "${pip[@]}" wheel --no-deps "${isolation[@]}" --wheel-dir "$1" "$scratch/source"
}

mkdir -p "$dist" "$scratch/source" "$scratch/wheel"
build_wheel "$scratch/wheel"
wheel=("$scratch"/wheel/*.whl)
if [[ ${1-} == --wheel ]]; then
    mv "${wheel[0]}" "$dist/"
    echo "$dist/${wheel[0]##*/}"
    exit
fi

version=${wheel[0]##*/techulus_agent-}
name=techulus-agent-${version%%-*}
mkdir "$scratch/$name"
mv "${wheel[0]}" "$scratch/$name/"
cp deploy/{install,uninstall,common}.sh deploy/requirements-agent.lock deploy/techulus-agent.service deploy/caddy-{admin,resume}.conf "$scratch/$name/"
"${pip[@]}" download --require-hashes --no-deps --requirement deploy/requirements-agent.lock --dest "$scratch/$name/wheels"
tar --create --gzip --file "$dist/$name.tar.gz" --directory "$scratch" --sort=name --owner=0 --group=0 --numeric-owner "$name"
echo "$dist/$name.tar.gz"
