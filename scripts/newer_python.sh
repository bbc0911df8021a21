#!/bin/sh
# Run this project on the Python of a newer Debian: newer_python.sh FOLDER [COMMAND...]
# Without COMMAND it runs the threads and the interrupts of the soak.
#
# The newer Debian has a newer Mesa, too: MORE=vulkan-validationlayers newer_python.sh FOLDER python -m pytest --layer …
# runs tests on its software driver under its validation layer. MORE lists additional packages for the first call.
#
# How this works. FOLDER becomes the root directory of a chroot (made at the first call, kept for the next): Debian
# packages of $SUITE, resolved and verified by apt with separate lists, and unpacked without their installation
# scripts. /dev, /proc, /sys and the project are mounted into it, in a mount namespace that ends with the command.
# COMMAND runs there in the project's folder, with `python` from an environment that has the project's requirements.
# The script needs root, apt and dpkg of Debian or Ubuntu, and the network at the first call.
set -eu
SUITE=${SUITE:-sid}
VERSION=${VERSION:-3.14}
MIRROR=${MIRROR:-http://deb.debian.org/debian}
KEYS=${KEYS:-/usr/share/keyrings/debian-archive-keyring.gpg}
PACKAGES="python$VERSION python$VERSION-venv python$VERSION-dev gcc g++ libc6-dev coreutils bash dash grep sed findutils
    procps util-linux mesa-vulkan-drivers libvulkan1 ${MORE:-}"

[ $# -ge 1 ] || { echo "usage: newer_python.sh FOLDER [COMMAND...]" >&2; exit 2; }
mkdir -p "$1"
root=$(cd "$1" && pwd)
project=$(cd "$(dirname "$0")/.." && pwd)
shift
[ $# -gt 0 ] || set -- python -m scripts.soak --iterations 0 --attempts 0 --rounds 0

unpack() {
    apt=$root.apt
    mkdir -p "$apt/lists/partial" "$apt/archives/partial" "$apt/etc"
    : >"$apt/status"
    echo "deb [signed-by=$KEYS] $MIRROR $SUITE main" >"$apt/etc/sources.list"
    settings="-o Dir::State=$apt -o Dir::State::Lists=$apt/lists -o Dir::State::status=$apt/status -o Dir::Cache=$apt
        -o Dir::Cache::archives=$apt/archives -o Dir::Etc::sourcelist=$apt/etc/sources.list -o Dir::Etc::sourceparts=-
        -o Dir::Etc::preferencesparts=- -o APT::Install-Recommends=false -o APT::Get::List-Cleanup=false
        -o APT::Sandbox::User=root"
    # shellcheck disable=SC2086  # lists of words
    apt-get $settings -qq update
    # shellcheck disable=SC2086
    apt-get $settings -qq --download-only -y install base-files $PACKAGES
    for folder in bin sbin lib lib64; do # in newer Debians these are links into /usr
        mkdir -p "$root/usr/$folder"
        ln -sfn "usr/$folder" "$root/$folder"
    done
    for package in "$apt"/archives/*.deb; do
        dpkg -x "$package" "$root"
    done
    ln -sfn dash "$root/usr/bin/sh"
    mkdir -p "$root/dev" "$root/proc" "$root/sys" "$root/tmp" "$root/root" "$root/run" "$root/project"
    chmod 1777 "$root/tmp"
    cp /etc/passwd /etc/group /etc/resolv.conf /etc/hosts "$root/etc/"
    cp -L /etc/ssl/certs/ca-certificates.crt "$root/etc/ssl/certs/" # the certificates of this machine
    rm -rf "$apt"
    touch "$root/.unpacked"
}

[ -e "$root/.unpacked" ] || unpack
export root project VERSION
exec unshare --mount --propagation private sh -c '
    set -eu
    mount --bind "$root" "$root" # programs that unshare mounts need a root directory that is a mount
    mount --rbind /dev "$root/dev"
    mount --rbind /proc "$root/proc"
    mount --rbind /sys "$root/sys"
    mount --bind "$project" "$root/project"
    exec chroot "$root" /usr/bin/env -i HOME=/root TERM=dumb LANG=C.UTF-8 VERSION="$VERSION" \
        PATH=/env/bin:/usr/bin:/usr/sbin PIP_INDEX_URL="${PIP_INDEX_URL:-https://pypi.org/simple}" \
        PYTHONPATH=/project/src PYTHONDONTWRITEBYTECODE=1 /bin/sh -c "
            set -eu
            cd /project
            if [ ! -e /env/.ready ]; then
                python$VERSION -m venv /env
                # Without the constraints: a package without a wheel for this Python in the pinned release may have
                # one in a newer release. A package without any wheel is built with the compiler above.
                pip install -q -e .[dev]
                touch /env/.ready
            fi
            exec \"\$@\"" sh "$@"
' sh "$@"
