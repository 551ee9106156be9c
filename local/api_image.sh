#!/usr/bin/env bash
# Make the image of the API service in Buildah's local storage, and print its reference.
#
#   local/api_image.sh [REFERENCE]      default: localhost/packager/api:latest
#
# It's this distribution's Python with odahu-packager[api] in /opt/packager at the pinned versions. It runs as user 10001 and
# writes below PACKAGER_API_DATA_DIR and TMPDIR only.
set -euo pipefail
cd "$(dirname "$0")/.."

reference=${1:-localhost/packager/api:latest}
base=$(local/base_image.sh python)
work=$(mktemp -d)
container=
trap 'rm -rf "$work"; [[ -z $container ]] || buildah rm "$container" >/dev/null' EXIT

echo "Making the API service's image ..." >&2
.venv/bin/uv pip install -q --no-config --python /usr/bin/python3 --target "$work/packager" --link-mode copy \
    --constraint requirements.lock "odahu-packager[api] @ file://$PWD"
# The image's files are all of one time, so bytecode must not ask for theirs.
/usr/bin/python3 -I -m compileall -q --invalidation-mode unchecked-hash -x 'bad_coding|badsyntax' "$work/packager"
container=$(buildah from "$base")
buildah add --quiet --chown 0:0 "$container" "$work/packager" /opt/packager >/dev/null
buildah config --cmd "" "$container" # of the base; a program before it would get it as a word
buildah config --env PYTHONPATH=/opt/packager --env PATH=/opt/packager/bin:/usr/local/bin:/usr/bin:/bin \
    --user 10001:10001 --entrypoint '["packager"]' --cmd api "$container"
buildah commit --quiet --timestamp 0 "$container" "$reference" >/dev/null
echo "$reference"
