#!/usr/bin/env bash
# Makes the locks again from pyproject.toml: every package with its version and the hashes of its files, nothing about where they come
# from, so that any index or folder of wheels that has these very files will do. requirements.lock is what the project is developed with,
# requirements-agent.lock the part of it that an agent needs at run time.
set -euo pipefail
cd "$(dirname "$0")/.."

uv=.venv/bin/uv
[[ -x $uv ]] || uv=$(command -v uv) || { echo "lock.sh: uv is needed: .venv/bin/pip install uv" >&2; exit 1; }
compile=("$uv" pip compile --universal --python-version 3.11
    --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links --quiet)

# What builds the project itself is locked too: it is installed without build isolation, so that nothing unlocked runs.
printf 'setuptools\nwheel\n' | "${compile[@]}" pyproject.toml - --extra dev --output-file deploy/requirements.lock "$@"
"${compile[@]}" pyproject.toml --constraint deploy/requirements.lock --output-file deploy/requirements-agent.lock

if grep -nE 'https?:|file:|--(extra-)?index-url|--find-links' deploy/requirements*.lock; then
    echo "lock.sh: a lock names a place where packages come from" >&2
    exit 1
fi
