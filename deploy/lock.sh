#!/usr/bin/env bash
# Makes requirements.lock again from pyproject.toml: every package with its version and the hashes of its files, nothing
# about where they come from, so that any index or folder of wheels that has these very files will do.
set -euo pipefail
cd "$(dirname "$0")/.."

lock=deploy/requirements.lock
uv=.venv/bin/uv
[[ -x $uv ]] || uv=$(command -v uv) || { echo "lock.sh: uv is needed: .venv/bin/pip install uv" >&2; exit 1; }

# What builds the project itself is locked too: it is installed without build isolation, so that nothing unlocked runs.
printf 'setuptools\nwheel\n' | "$uv" pip compile pyproject.toml - --extra dev --universal --python-version 3.11 \
    --generate-hashes --no-annotate --no-header --no-emit-index-url --no-emit-find-links --quiet --output-file "$lock" "$@"

if grep -nE 'https?:|file:|--(extra-)?index-url|--find-links' "$lock"; then
    echo "lock.sh: $lock names a place where packages come from" >&2
    exit 1
fi
