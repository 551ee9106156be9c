#!/usr/bin/env bash
# Print the path of a program that is built with Go, at the version that is pinned here; builds it when it isn't there.
#
#   local/go_program.sh NAME             conformance, crane, distribution, helm or kaniko-executor
#   local/go_program.sh --built NAME     never builds: fails when it isn't there
#
# Never run kaniko-executor on this machine as it is: it replaces the root filesystem that it finds itself in.
set -euo pipefail
cd "$(dirname "$0")/.."

build=true
if [[ ${1:-} == --built ]]; then
    build=false
    shift
fi
name=${1:-}
case $name in
    conformance) # has no releases
        package=github.com/opencontainers/distribution-spec/conformance version=v0.0.0-20260831232431-97274622c111
        ;;
    crane) # the yardstick of `make bench`; its registry answers a blob's PATCH with 204, later ones with 202
        package=github.com/google/go-containerregistry/cmd/crane version=v0.20.6
        ;;
    distribution) package=github.com/distribution/distribution/v3/cmd/registry version=v3.1.2 ;;
    helm) package=helm.sh/helm/v4/cmd/helm version=v4.3.1 ;;
    kaniko-executor)
        package=github.com/osscontainertools/kaniko/cmd/executor
        version=$(sed -n 's/^ARG KANIKO_VERSION=//p' kaniko/Dockerfile)
        ;;
    *)
        echo "usage: local/go_program.sh [--built] conformance|crane|distribution|helm|kaniko-executor" >&2
        exit 2
        ;;
esac
folder=$PWD/.cache/go/$name-$version
program=$folder/${package##*/}
if [[ ! -x $program ]]; then
    $build || exit 1
    if ! command -v go >/dev/null; then
        echo "$name is built with Go, which is not installed (go.dev/dl; it fetches the release it needs)" >&2
        exit 1
    fi
    mkdir -p "$folder"
    echo "Building $name $version (some minutes, once) ..." >&2
    if ! GOBIN=$folder CGO_ENABLED=0 nice go install -trimpath -ldflags '-s -w' "$package@$version" >&2; then
        echo "$name $version can't be built here" >&2
        exit 1
    fi
fi
echo "$program"
