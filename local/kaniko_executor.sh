#!/usr/bin/env bash
# Print the path of Kaniko's executor, of the version that kaniko/Dockerfile names; builds it with Go when it isn't there.
#
# It is never to be run on this machine as it is: it replaces the root filesystem that it finds itself in.
set -euo pipefail
cd "$(dirname "$0")/.."

version=$(sed -n 's/^ARG KANIKO_VERSION=//p' kaniko/Dockerfile)
folder=$PWD/.cache/kaniko/$version
if [[ ! -x $folder/executor ]]; then
    if ! command -v go >/dev/null; then
        echo "Kaniko's executor is built with Go, which is not installed (go.dev/dl; it fetches the release it needs)" >&2
        exit 1
    fi
    mkdir -p "$folder"
    echo "Building Kaniko's executor $version (some minutes, once) ..." >&2
    if ! GOBIN=$folder CGO_ENABLED=0 nice go install -trimpath -ldflags '-s -w' \
        "github.com/osscontainertools/kaniko/cmd/executor@$version" >&2; then
        echo "Kaniko's executor $version can't be built here; KANIKO_IMAGE= names an image that has /kaniko/executor" >&2
        exit 1
    fi
fi
echo "$folder/executor"
