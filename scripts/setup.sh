#!/bin/sh
# Make .venv with the pinned dependencies: setup.sh demo | dev | docs. Prints the command line for root if it is needed.
# setup.sh frameworks makes .frameworks, which has PyTorch and other large packages that only some tests need.
set -eu
cd "$(dirname "$0")/.."
kind=${1:?usage: setup.sh demo|dev|docs|frameworks}

say() { printf '%s\n' "$*" >&2; }

python=""
for candidate in ${PYTHON:-} python3 python3.14 python3.13 python3.12 python3.11; do
    if command -v "$candidate" >/dev/null 2>&1 &&
        "$candidate" -c 'import sys; sys.exit(not (3, 11) <= sys.version_info[:2] <= (3, 14))' 2>/dev/null; then
        python=$candidate
        break
    fi
done
if [ -z "$python" ]; then
    say "extmem needs Python 3.11 to 3.14, and none is on the PATH. As root:"
    say "    apt-get install -y python3 python3-venv"
    exit 1
fi

as_root() { # as_root PACKAGES...: install Debian packages as root; other users get the line to type
    if [ "$(id -u)" = 0 ] && command -v apt-get >/dev/null 2>&1; then
        apt-get update -qq >/dev/null && DEBIAN_FRONTEND=noninteractive apt-get install -y -qq "$@" >/dev/null && return 0
    fi
    say "As root:"
    say "    apt-get install -y $*"
    return 1
}

loader_here() { # ldconfig is not on every user's PATH
    PATH="$PATH:/sbin:/usr/sbin" ldconfig -p 2>/dev/null | grep -q 'libvulkan\.so\.1'
}

driver_here() { # each Vulkan driver has a file
    [ -n "${VK_DRIVER_FILES:-}${VK_ICD_FILENAMES:-}" ] && return 0
    for file in /usr/share/vulkan/icd.d/*.json /etc/vulkan/icd.d/*.json /usr/local/share/vulkan/icd.d/*.json; do
        [ -e "$file" ] && return 0
    done
    return 1
}

layer_here() {
    grep -qs VK_LAYER_KHRONOS_validation /usr/share/vulkan/explicit_layer.d/*.json \
        /usr/local/share/vulkan/explicit_layer.d/*.json /etc/vulkan/explicit_layer.d/*.json
}

swiftshader=.swiftshader/usr/lib/chromium
swiftshader_here() { [ -e $swiftshader/libvk_swiftshader.so ] && [ -e $swiftshader/vk_swiftshader_icd.json ]; }

get_swiftshader() { # Debian's chromium-common contains it. The package is unpacked, not installed, so root is not needed.
    rm -rf .swiftshader && mkdir -p .swiftshader/package || return 1
    command -v apt-get >/dev/null 2>&1 && command -v dpkg-deb >/dev/null 2>&1 &&
        (cd .swiftshader/package && apt-get download -qq chromium-common >/dev/null 2>&1) &&
        dpkg-deb --fsys-tarfile .swiftshader/package/chromium-common_*.deb |
        tar -x -C .swiftshader ./usr/lib/chromium/libvk_swiftshader.so ./usr/lib/chromium/vk_swiftshader_icd.json &&
        rm -rf .swiftshader/package && return 0
    say "SwiftShader could not be installed: apt-get download chromium-common failed."
    return 1
}

if ! "$python" -c 'import ensurepip, venv' 2>/dev/null; then
    version=$("$python" -c 'import sys; print("%d.%d" % sys.version_info[:2])')
    say "$python cannot make virtual environments: python$version-venv is missing."
    as_root "python$version-venv" || exit 1
fi

# The layout tests need a C compiler and Debian's Vulkan headers; without them they compare with the committed values.
if [ "$kind" = dev ]; then
    missing=""
    command -v cc >/dev/null 2>&1 || missing="$missing gcc libc6-dev"
    [ -e /usr/include/vulkan/vulkan_core.h ] || missing="$missing libvulkan-dev"
    if [ -n "$missing" ]; then
        # shellcheck disable=SC2086  # a list of package names
        as_root $missing || say "(continuing without them: the C layout tests compare with the committed values only)"
    fi
    # Any driver works for the Vulkan tests; if there is none, Mesa's software driver is installed.
    missing=""
    loader_here || missing="$missing libvulkan1"
    driver_here || missing="$missing mesa-vulkan-drivers"
    if [ -n "$missing" ]; then
        # shellcheck disable=SC2086  # a list of package names
        as_root $missing || say "(continuing without them: the tests of the Vulkan device are skipped)"
    fi
    # `make test-all` also runs them under the Khronos validation layer, and on a second software driver.
    layer_here || as_root vulkan-validationlayers || say "(continuing without it: no tests under the validation layer)"
    swiftshader_here || get_swiftshader || say "(continuing without it: no tests on SwiftShader)"
fi

case $kind in
frameworks) venv=.frameworks extras=dev,frameworks compile=--no-compile ;; # most of its modules are never imported
*) venv=.venv extras=$kind compile=--compile ;;
esac

get_torch() { # PyTorch for the CPU is on PyTorch's own index only, unless pip is set up with a mirror that has it
    torch=$(grep '^torch==' constraints.txt)
    pip="$venv/bin/python -m pip install --quiet --disable-pip-version-check --no-deps $compile"
    $pip "$torch" 2>/dev/null || $pip --index-url https://download.pytorch.org/whl/cpu "$torch"
}

stamp=$venv/.extmem-$kind
fresh() { [ -e "$stamp" ] && [ "$stamp" -nt constraints.txt ] && [ "$stamp" -nt pyproject.toml ]; }
if ! fresh; then
    say "Setting up $venv ($kind) ..."
    [ -x $venv/bin/python ] || "$python" -m venv $venv
    [ "$kind" != frameworks ] || get_torch
    $venv/bin/python -m pip install --quiet --disable-pip-version-check $compile -c constraints.txt -e ".[$extras]"
    touch "$stamp"
fi
