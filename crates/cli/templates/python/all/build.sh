#!/bin/sh
# Builds {{type}}.wasm. The first time it installs componentize-py, of the version in requirements.txt, into .venv.
set -e
if [ ! -x .venv/bin/componentize-py ]; then
    python3 -m venv .venv
    .venv/bin/pip install --quiet --disable-pip-version-check --require-hashes -r requirements.txt
fi
.venv/bin/componentize-py --quiet --wit-path wit --world {{type}} componentize {{type}} --output {{type}}.wasm
