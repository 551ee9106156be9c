#!/usr/bin/env bash
# Print the path of Helm, of the version that is pinned here; builds it with Go when it isn't there.
set -euo pipefail
cd "$(dirname "$0")/.."

version=v4.3.1
folder=$PWD/.cache/helm/$version
if [[ ! -x $folder/helm ]]; then
    if ! command -v go >/dev/null; then
        echo "Helm is built with Go, which is not installed (go.dev/dl; it fetches the release it needs)" >&2
        exit 1
    fi
    mkdir -p "$folder"
    echo "Building Helm $version (some minutes, once) ..." >&2
    if ! GOBIN=$folder CGO_ENABLED=0 nice go install -trimpath -ldflags '-s -w' "helm.sh/helm/v4/cmd/helm@$version" >&2; then
        echo "Helm $version can't be built here" >&2
        exit 1
    fi
fi
echo "$folder/helm"
