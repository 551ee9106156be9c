#!/usr/bin/env bash
# Make the Job image in Buildah's local storage, and print its reference.
#
#   local/packager_image.sh [REFERENCE]      default: localhost/packager/job:latest
#
# Kaniko's executor comes from the image KANIKO_IMAGE when that is set, else it is built with Go. An image that was made of
# the same files is left as it is.
set -euo pipefail
cd "$(dirname "$0")/.."

reference=${1:-localhost/packager/job:latest}
version=$(sed -n 's/^ARG KANIKO_VERSION=//p' kaniko/Dockerfile)
work=.cache/kaniko
mkdir -p "$work"
exec 9>"$work/image.lock"
flock 9

executor_image=${KANIKO_IMAGE:-}
if [[ -z $executor_image ]]; then
    executor=$(local/go_program.sh kaniko-executor) || {
        echo "KANIKO_IMAGE= names an image that has /kaniko/executor" >&2
        exit 1
    }
    executor_image=localhost/packager/kaniko:$version
    container=$(buildah from scratch)
    trap 'buildah rm "$container" >/dev/null' EXIT
    buildah add --quiet --chmod 0755 "$container" "$executor" /kaniko/executor >/dev/null
    buildah commit --quiet --timestamp 0 "$container" "$executor_image" >/dev/null
fi

files=$(find packager kaniko local/channel.py local/packager_image.sh requirements.lock pyproject.toml \
    -type f -not -path '*/__pycache__/*' | LC_ALL=C sort | xargs sha256sum | sha256sum | cut -c1-16)
of=$(buildah inspect --type image --format '{{.FromImageID}}' "$executor_image" 2>/dev/null || echo "$executor_image")
made_of=$files-${of:0:16}
label=org.odahu.packager.made-of
if [[ $(buildah inspect --type image --format "{{index .OCIv1.Config.Labels \"$label\"}}" "$reference" 2>/dev/null) == "$made_of" ]]; then
    echo "$reference"
    exit 0
fi

echo "Making the Job image ..." >&2
rm -rf "$work/context"
mkdir "$work/context"
PYTHONPATH=local .venv/bin/python kaniko/make_root.py "$work/context/root" >&2
buildah build --quiet --layers=false --force-rm --timestamp 0 --identity-label=false \
    --build-arg "KANIKO_IMAGE=$executor_image" --label "$label=$made_of" \
    --file kaniko/Dockerfile --tag "$reference" "$work/context" >/dev/null
rm -rf "$work/context"
echo "$reference"
