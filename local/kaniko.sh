#!/usr/bin/env bash
# What `make kaniko-local` does: package a model with the Kaniko engine in the Job image, run as a pod would run it.
#
# Not privileged: the capabilities that Kaniko needs and no other, no new privileges, the model and the manifest mounted
# read-only, the termination log mounted as a file. The registry is one of this machine's own, on a loopback port; its
# folder in .cache/ is kept, so that a second run finds the layers of the first in Kaniko's cache.
#
# Takes the Makefile's variables from the environment: MODEL PACKAGER IMAGE_NAME BASE ARGS.
set -euo pipefail
cd "$(dirname "$0")/.."

bin=$PWD/.venv/bin
work=build/kaniko
job_image=$(local/packager_image.sh)
case ${BASE:=base} in
    base | python) base=$(local/base_image.sh "$BASE") ;;
    *) base=$BASE ;;
esac

rm -rf "$work"
mkdir -p "$work/workspace" .cache/kaniko/registry .cache/kaniko/cache
: >"$work/termination-log"

port=$("$bin/python" -c 'import socket; s = socket.socket(); s.bind(("127.0.0.1", 0)); print(s.getsockname()[1])')
registry=127.0.0.1:$port
cat >"$work/registry.yml" <<END
version: "0.1"
log: {level: error}
storage: {filesystem: {rootdirectory: $PWD/.cache/kaniko/registry}}
http: {addr: "$registry"}
END
docker-registry serve "$work/registry.yml" >"$work/registry.log" 2>&1 &
server=$!
trap 'kill $server' EXIT
for _ in {1..50}; do
    (: <"/dev/tcp/127.0.0.1/$port") 2>/dev/null && break
    sleep 0.1
done
buildah push --quiet --tls-verify=false "$base" "docker://$registry/base:1" >/dev/null

mounts=()
variables=()
if [[ -z ${PACKAGER_CONDA_MIRRORS:-}${PACKAGER_CONDA_CHANNEL_ALIAS:-} ]] && ! forge=$("$bin/python" local/probe.py conda-forge); then
    echo "$forge does not answer: a small channel, made here, takes its place."
    "$bin/python" local/channel.py .cache/channel
    mounts+=(--volume "$PWD/.cache/channel:/mnt/channel:ro")
    variables+=(--env "PACKAGER_CONDA_MIRRORS=$forge=file:///mnt/channel" --env "PACKAGER_CONDA_DEFAULT_CHANNELS=$forge")
fi
# The user's own settings and proxies; where things are is the Job image's business.
for name in $(compgen -e); do
    case $name in
        PACKAGER_WORK_DIR | PACKAGER_CACHE_DIR) ;;
        PACKAGER_* | SOURCE_DATE_EPOCH | http_proxy | https_proxy | no_proxy | HTTP_PROXY | HTTPS_PROXY | NO_PROXY)
            variables+=(--env "$name") ;;
    esac
done

# What the platform writes into mp.json.
IMAGE=$registry/base:1 REGISTRY=$registry "$bin/python" - >"$work/mp.json" <<'END'
import json
import os

arguments = {"dockerfileBaseImage": os.environ["IMAGE"], "imageName": os.environ["IMAGE_NAME"]}
spec = {"integrationName": os.environ["PACKAGER"], "artifactName": "model.zip", "arguments": arguments}
connection = {"id": "local", "spec": {"type": "docker", "uri": os.environ["REGISTRY"], "username": "", "password": ""}}
targets = [{"name": "docker-push", "connectionName": "local", "connection": connection}]
print(json.dumps({"modelPackaging": {"id": "local", "spec": spec}, "targets": targets}, indent=2))
END

podman=(podman)
run=(--rm --network host)
if ! podman run "${run[@]}" "$base" true >/dev/null 2>&1; then
    podman=(podman --runtime runc --cgroup-manager cgroupfs)
    run+=(--ulimit nofile=1024:1024 --ulimit nproc=1024:1024)
fi
run+=(--cap-drop all --security-opt no-new-privileges)
for capability in CHOWN DAC_OVERRIDE FOWNER SETGID SETUID SETFCAP KILL; do
    run+=(--cap-add "$capability")
done
model=/mnt/$(basename "${MODEL:?}")
mounts+=(
    --volume "$(realpath "$MODEL"):$model:ro"
    --volume "$PWD/$work/mp.json:/mnt/mp.json:ro"
    --volume "$PWD/$work/workspace:/kaniko/workspace"
    --volume "$PWD/$work/termination-log:/dev/termination-log"
    --volume "$PWD/.cache/kaniko/cache:/kaniko/cache-packager"
)
# shellcheck disable=SC2206  # words, as in every Makefile
words=("$job_image" run "$model" /mnt/mp.json --engine kaniko --results-dir /kaniko/workspace/results ${ARGS:-})
command=("${podman[@]}" run "${run[@]}" "${mounts[@]}" "${variables[@]}" "${words[@]}")
echo "+ ${command[*]@Q}"
code=0
"${command[@]}" || code=$?
echo
echo "The termination log:"
cat "$work/termination-log"
[[ $code -eq 0 ]] || exit $code

image=$("$bin/python" -c 'import json, sys; print(json.load(sys.stdin)["imageDigest"])' <"$work/workspace/result.json")
archive=build/$(basename "$MODEL" .zip)-$PACKAGER-kaniko.oci.tar
rm -f "$archive"
skopeo copy --quiet --src-tls-verify=false "docker://$image" "oci-archive:$archive"
BASE=$base local/how_to_run.sh "$archive"
