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

# Whoever sets a channel or a mirror wants that one; otherwise conda-forge, or what stands in for it where it can't be
# reached: a small channel, made here, that offers this distribution's Python.
if [[ -z ${PACKAGER_CONDA_MIRRORS:-}${PACKAGER_CONDA_CHANNEL_ALIAS:-} ]] && ! forge=$("$bin/python" local/probe.py conda-forge); then
    echo "$forge does not answer: a small channel, made here, takes its place."
    "$bin/python" local/channel.py .cache/channel
    channel=$("$bin/python" -c 'import pathlib; print(pathlib.Path(".cache/channel").resolve().as_uri())')
    export PACKAGER_CONDA_MIRRORS=$forge=$channel PACKAGER_CONDA_DEFAULT_CHANNELS=$forge
fi

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
