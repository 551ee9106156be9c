#!/usr/bin/env bash
# What `make build-local` does once everything is installed: base image, channel, image, and how to run it.
#
# Takes the Makefile's variables from the environment: MODEL PACKAGER IMAGE_NAME ENGINE BASE ARGS.
set -euo pipefail
cd "$(dirname "$0")/.."

export PACKAGER_CACHE_DIR=${PACKAGER_CACHE_DIR:-$PWD/.cache/packager}
bin=$PWD/.venv/bin

case ${BASE:=base} in
    base | python) base=$(local/base_image.sh "$BASE") ;;
    *) base=$BASE ;;
esac

# shellcheck source=local/find_channel.sh
. local/find_channel.sh

arguments=(--packager "$PACKAGER" --engine "$ENGINE" -a "dockerfileBaseImage=$base" -a "imageName=$IMAGE_NAME")
# shellcheck disable=SC2206  # words, as in every Makefile
more=($ARGS)
archive=
if [[ " $ARGS" != *" --output"* ]]; then
    mkdir -p build
    name=$(basename "$MODEL" .zip)-$PACKAGER
    archive=build/$name.oci.tar
    rm -f "$archive"
    arguments+=(--output "oci-archive:$archive")
fi
echo "+ packager build $MODEL ${arguments[*]@Q} ${more[*]}"
"$bin/packager" build "$MODEL" "${arguments[@]}" "${more[@]}"
[[ -n $archive ]] || exit 0
BASE=$base exec local/how_to_run.sh "$archive"
