#!/usr/bin/env bash
# Print how to start an image, and how to compare its answers with the model's own.
#
#   local/how_to_run.sh ARCHIVE|REFERENCE      an oci-archive, or an image by digest in a registry on this machine
#
# Takes from the environment: MODEL PACKAGER ARGS as in the Makefile, and BASE, the base image in the local storage.
set -euo pipefail
cd "$(dirname "$0")/.."

case $1 in
    *@sha256:*) where=$1 image=$1 pull=(--tls-verify=false) ;;
    *) where="in $1" image=oci-archive:$1 pull=() ;;
esac
base=${BASE:?}

# How to run it: with what this machine's container runtime needs, found out by running the base image.
podman=(podman)
run=(--rm --network host)
if command -v podman >/dev/null && ! podman run "${run[@]}" "$base" true >/dev/null 2>&1; then
    podman=(podman --runtime runc --cgroup-manager cgroupfs)
    run+=(--ulimit nofile=1024:1024 --ulimit nproc=1024:1024)
fi
port=5000
[[ $ARGS =~ port=([0-9]+) ]] && port=${BASH_REMATCH[1]}
request=examples/wine/request.json
[[ $MODEL == .cache/example/* ]] || request=REQUEST.json
start="${podman[*]} run ${pull[*]}${pull:+ }${run[*]}"
echo
echo "The image is $where. Start it:"
echo
if [[ $PACKAGER == docker-cli ]]; then
    echo "  mkdir -p volume && cp $request volume/request.json"
    echo "  $start $image info"
    echo "  $start -v ./volume:/volume $image predict /volume/request.json /volume"
    echo "  cat volume/result.json"
else
    echo "  $start $image"
    echo
    echo "and from another terminal:"
    echo
    echo "  curl http://localhost:$port/api/model/info"
    echo "  curl -X POST -H 'Content-Type: application/json' -d @$request http://localhost:$port/api/model/invoke"
fi
if [[ $request == examples/* ]]; then
    echo
    echo "The same, from the model itself:"
    echo
    echo "  .cache/example-venv/bin/python examples/wine/predict_directly.py $MODEL $request"
fi
