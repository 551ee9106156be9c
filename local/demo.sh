#!/usr/bin/env bash
# What `make demo` does once everything is installed: base image, channel, and local/demo.py.
#
# Takes from the environment: MODEL, the archive to package, and LISTEN, HOST:PORT of the service (loopback).
set -euo pipefail
cd "$(dirname "$0")/.."

export PACKAGER_CACHE_DIR=${PACKAGER_CACHE_DIR:-$PWD/.cache/packager}
BASE=$(local/base_image.sh base)
export BASE
# shellcheck source=local/find_channel.sh
. local/find_channel.sh
exec .venv/bin/python local/demo.py "$MODEL" "$BASE" "$LISTEN"
