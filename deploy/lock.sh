#!/bin/sh
# Write requirements.lock: exact versions, with hashes, of everything pyproject.toml asks for, development tools included,
# for Python 3.11 and every later one (what only a later one needs is marked so).
#
# torch stands apart in deploy/torch.txt, without a hash: it is one version with several builds (CPU, CUDA), and each
# brings the NVIDIA libraries it wants. Everything else that torch needs is in the lock.
set -eu
python=${1:-python3}
cd "$(dirname "$0")/.."
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$python" -m venv "$work/venv"
"$work/venv/bin/python" -m pip install --quiet uv
"$work/venv/bin/uv" pip compile pyproject.toml --extra dev --upgrade --generate-hashes --python-version 3.11 --universal \
    --constraints deploy/torch.txt --no-emit-package torch --no-annotate --no-header --quiet --output-file "$work/lock"
{
    echo "# Everything Mynah runs and is tested with, but torch (deploy/torch.txt). Written by \`make lock\`; do not edit."
    awk '/^[a-z]/ { kept = $0 !~ /^(nvidia|cuda|triton)-?/ && $0 !~ /sys_platform == / } kept' "$work/lock"
} > "$work/whole"
mv "$work/whole" requirements.lock
