# shellcheck shell=bash
# Sourced by what packages the example: sets the conda channel where nobody has set one.
#
# Whoever sets a channel or a mirror wants that one; otherwise conda-forge, or what stands in for it where it can't be
# reached: a small channel, made here, that offers this distribution's Python.
if [[ -z ${PACKAGER_CONDA_MIRRORS:-}${PACKAGER_CONDA_CHANNEL_ALIAS:-} ]] && ! forge=$(.venv/bin/python local/probe.py conda-forge); then
    echo "$forge does not answer: a small channel, made here, takes its place."
    .venv/bin/python local/channel.py .cache/channel
    channel=$(.venv/bin/python -c 'import pathlib; print(pathlib.Path(".cache/channel").resolve().as_uri())')
    export PACKAGER_CONDA_MIRRORS=$forge=$channel PACKAGER_CONDA_DEFAULT_CHANNELS=$forge
fi
