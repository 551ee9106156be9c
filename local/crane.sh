#!/usr/bin/env bash
# Print the path of crane, the yardstick of `make bench`; builds it with Go when it isn't there.
set -euo pipefail
cd "$(dirname "$0")/.."

version=v0.20.6
folder=$PWD/.cache/crane/$version
if [[ ! -x $folder/crane ]]; then
    if ! command -v go >/dev/null; then
        echo "crane is built with Go, which is not installed (go.dev/dl)" >&2
        exit 1
    fi
    mkdir -p "$folder"
    echo "Building crane $version (a minute, once) ..." >&2
    GOBIN=$folder CGO_ENABLED=0 go install -trimpath "github.com/google/go-containerregistry/cmd/crane@$version" >&2
fi
echo "$folder/crane"
