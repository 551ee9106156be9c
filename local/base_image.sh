#!/usr/bin/env bash
# Make a base image of this distribution's own packages, in Buildah's local storage, and print its reference.
#
#   local/base_image.sh [base|python]
#
#   base     localhost/packager/base:<codename>: glibc, libstdc++, certificates, a shell; for models with a conda file,
#            which bring their Python along
#   python   localhost/packager/python:<3.x>: the same with the distribution's python3, for models with a pip file
#
# Both are tagged `latest` too. Nothing of this machine stays in the image: no apt sources, lists, logs, host name or
# machine id. The same packages give the same bytes. An image that exists is left as it is; the archive that it was made of
# is kept in .cache/.
set -euo pipefail
cd "$(dirname "$0")/.."

kind=${1:-base}
include=libstdc++6,ca-certificates
case $kind in
    base) ;;
    python) include+=,python3 ;;
    *)
        echo "usage: local/base_image.sh [base|python]" >&2
        exit 2
        ;;
esac
export SOURCE_DATE_EPOCH=0

# shellcheck source=/dev/null
. /etc/os-release
codename=${VERSION_CODENAME:?this distribution names no release in /etc/os-release}
case $ID in
    debian) origin=Debian ;;
    ubuntu) origin=Ubuntu ;;
    *)
        echo "a base image can be made on Debian and Ubuntu; this is $ID: give another one with BASE=" >&2
        exit 1
        ;;
esac

name=localhost/packager/$kind
recipe=$(sha256sum "$0" | cut -c1-12)
archive=.cache/$kind-$codename-$recipe.tar
made=$archive.made # the reference and the id of the image that was made of it

mkdir -p .cache
exec 9>".cache/$kind.lock"
flock 9
id_of() { buildah images --quiet --no-trunc "$1" 2>/dev/null || true; }
if [[ -s $made ]] && read -r reference id <"$made" && [[ $(id_of "$reference") == "$id" ]]; then
    echo "$reference"
    exit 0
fi

# Where this machine's own packages come from, whatever form its sources have, without anybody else's repositories.
sources() {
    # shellcheck disable=SC2016  # apt-get's variables, not the shell's
    apt-get indextargets --format 'deb $(REPO_URI) $(RELEASE) $(COMPONENT)' \
        'Created-By: Packages' "Origin: $origin" 'Component: main'
}
if [[ -z $(sources) ]]; then # the lists were never fetched
    as_root=()
    [[ $(id -u) -eq 0 ]] || as_root=(sudo)
    "${as_root[@]}" apt-get -qq update
fi

if [[ ! -s $archive ]]; then
    echo "Making a base image of $PRETTY_NAME's packages (about a minute, once) ..." >&2
    log=$(mktemp)
    trap 'rm -f "$log" "$archive.part"' EXIT
    # shellcheck disable=SC2016  # mmdebstrap's shell expands the hook's variables
    options=(
        --quiet --format=tar --variant=essential "--include=$include"
        --skip=output/dev # device nodes can't be unpacked without root, and every container gets its own /dev
        --dpkgopt='path-exclude=/usr/share/doc/*' --dpkgopt='path-include=/usr/share/doc/*/copyright'
        --dpkgopt='path-exclude=/usr/share/man/*' --dpkgopt='path-exclude=/usr/share/info/*'
        --dpkgopt='path-exclude=/usr/share/locale/*'
        --customize-hook='cd "$1" && rm -rf etc/apt/sources.list etc/apt/sources.list.d/* etc/apt/auth.conf* \
            etc/apt/apt.conf.d/99mmdebstrap etc/hostname etc/resolv.conf var/lib/apt/* var/cache/* var/log/* \
            var/lib/dpkg/*-old && mkdir -p var/lib/apt/lists/partial && : > etc/machine-id'
    )
    # On releases whose packages ask for it, a merged /usr is made by this hook, and not by 50 MB of Perl.
    hooks=/usr/share/mmdebstrap/hooks/maybe-merged-usr
    [[ -d $hooks ]] && options+=("--hook-dir=$hooks")
    if ! sources | mmdebstrap "${options[@]}" "$codename" "$archive.part" - >"$log" 2>&1; then
        tail -n 30 "$log" >&2
        exit 1
    fi
    mv "$archive.part" "$archive"
fi

if [[ $kind == python ]]; then
    # usr/bin/python3 is a link to python3.x
    tag=$(tar -tvf "$archive" ./usr/bin/python3 | sed -n 's/.*-> python//p')
else
    tag=$codename
fi
container=$(buildah from scratch)
trap 'buildah rm "$container" >/dev/null' EXIT
buildah add --quiet "$container" "$archive" / >/dev/null
buildah config \
    --env PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin --env LANG=C.UTF-8 \
    --cmd /bin/bash --created-by "local/base_image.sh $kind" "$container"
buildah commit --quiet --timestamp 0 "$container" "$name:$tag" >/dev/null
buildah tag "$name:$tag" "$name:latest"
echo "$name:$tag $(id_of "$name:$tag")" >"$made"
echo "$name:$tag"
