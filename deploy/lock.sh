#!/bin/sh
# Write requirements.lock: exact versions of everything pyproject.toml asks for, development tools included.
#
# Versions without hashes, on purpose: torch is one version with several builds (CPU, CUDA), and a hash would allow
# only one of them. torch is pinned first, so that no open range of another package picks a newer build.
set -eu
python=${1:-python3}
torch=2.13.0
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet --upgrade pip
"$work/venv/bin/python" - > "$work/wanted" <<'PY'
import tomllib
project = tomllib.load(open("pyproject.toml", "rb"))["project"]
print(*project["dependencies"], *project["optional-dependencies"]["dev"], sep="\n")
PY
echo "torch==$torch" > "$work/constraints"
"$work/venv/bin/python" -m pip install --quiet -c "$work/constraints" -r "$work/wanted"
{
    echo "# Exact versions of everything Mynah runs and is tested with. Written by \`make lock\`; do not edit."
    "$work/venv/bin/python" -m pip freeze --exclude pip --exclude setuptools | sed 's/^torch==.*/torch=='"$torch"'/'
} > "$work/lock"
mv "$work/lock" requirements.lock
