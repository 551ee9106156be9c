#!/usr/bin/env bash
# Install what is missing of the programs that a task needs, from Debian's or Ubuntu's own packages.
#
#   local/install.sh build        what `make build-local` runs
#   local/install.sh build test   and what the tests run besides
#   local/install.sh registry     a registry for this machine
#
# Installs nothing when everything is there. Exits 1, naming programs and packages, when something can't be installed.
set -euo pipefail

# program:package, one a line
needs_of() {
    case $1 in
        build) echo \
            buildah:buildah skopeo:skopeo podman:podman runc:runc mmdebstrap:mmdebstrap patchelf:patchelf \
            newuidmap:uidmap update-ca-certificates:ca-certificates ;;
        test) echo \
            docker-registry:docker-registry htpasswd:apache2-utils openssl:openssl busybox:busybox-static file:file \
            git:git shellcheck:shellcheck kubectl:kubernetes-client pg_lsclusters:postgresql chromium:chromium ;;
        registry) echo docker-registry:docker-registry ;;
        *)
            echo "usage: local/install.sh build|test|registry..." >&2
            exit 2
            ;;
    esac
}

# Debian keeps runc and its like out of an ordinary user's PATH.
have() { PATH="$PATH:/usr/sbin:/sbin" command -v "$1" >/dev/null; }

programs=()
packages=()
for group in "$@"; do
    for need in $(needs_of "$group"); do
        have "${need%%:*}" || { programs+=("${need%%:*}"); packages+=("${need##*:}"); }
    done
done
if ! have python3; then
    programs+=(python3)
    packages+=(python3 python3-venv)
elif ! python3 -c 'import ensurepip, venv' 2>/dev/null; then
    programs+=("python3's venv")
    packages+=(python3-venv)
fi
[[ ${#packages[@]} -eq 0 ]] && exit 0

cannot() {
    echo "missing: ${programs[*]}" >&2
    echo "$1; install these packages, then run it again: ${packages[*]}" >&2
    exit 1
}

as_root=()
if [[ $(id -u) -ne 0 ]]; then
    have sudo || cannot "apt-get needs root, and there is no sudo"
    as_root=(sudo)
fi
have apt-get || cannot "this machine has no apt-get"
apt() { "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive apt-get -qq -o Dpkg::Use-Pty=0 "$@"; }

echo "Installing: ${packages[*]}"
# Debian's package starts a registry on port 5000, which is the model servers' port; we only want the program.
quiet_registry=false
if [[ " ${packages[*]} " == *" docker-registry "* && -d /run/systemd/system ]]; then
    quiet_registry=true
    "${as_root[@]}" systemctl mask --runtime --quiet docker-registry.service
fi
# Debian's package of PostgreSQL makes and starts a server; the tests start their own (README of postgresql-common).
if [[ " ${packages[*]} " == *" postgresql "* && ! -e /etc/postgresql-common/createcluster.conf ]]; then
    "${as_root[@]}" mkdir -p /etc/postgresql-common
    echo "create_main_cluster = false" | "${as_root[@]}" tee /etc/postgresql-common/createcluster.conf >/dev/null
fi
apt update || cannot "apt-get update failed"
apt install -y --no-install-recommends "${packages[@]}" >/dev/null || cannot "apt-get install failed"
if $quiet_registry; then
    "${as_root[@]}" systemctl unmask --runtime --quiet docker-registry.service
    "${as_root[@]}" systemctl disable --quiet docker-registry.service
fi
