#!/bin/sh
# Install two Vulkan drivers that need no GPU, to test shaders on: Mesa's lavapipe and SwiftShader.
#
#     xtask/software-gpus.sh
#
# Prints, on standard output, what to set VK_DRIVER_FILES to so that the Vulkan loader sees one of them alone:
#
#     lavapipe=/.../lvp_icd.x86_64.json
#     swiftshader=/.../vk_swiftshader_icd.json
#
# On Debian and its relatives it installs what is missing (as root): mesa-vulkan-drivers and libvulkan1. No
# package holds SwiftShader by itself, so its library is taken out of Chromium's (about 30 MB, downloaded
# and not installed) into target/software-gpus/swiftshader. Elsewhere it says what to install.
#
# The two differ in what matters to a shader: lavapipe has f16 and subgroups of 4 or 8 lanes (by the width
# of the processor's vectors), SwiftShader has no f16 and subgroups of 4.
set -eu

root=$(cd "$(dirname "$0")/.." && pwd)
swiftshader=${CARGO_TARGET_DIR:-$root/target}/software-gpus/swiftshader

say() { printf '%s\n' "$*" >&2; }

if ! command -v apt-get >/dev/null || ! command -v dpkg-deb >/dev/null; then
    say "This script knows Debian's packages only. Install instead:"
    say "- the Vulkan loader (libvulkan.so.1): vulkan-loader (Fedora, openSUSE), vulkan-icd-loader (Arch)"
    say "- lavapipe: mesa-vulkan-drivers (Fedora), vulkan-swrast (Arch), libvulkan_lvp (openSUSE)"
    say "- SwiftShader: libvk_swiftshader.so and vk_swiftshader_icd.json, which lie beside the binary of Chromium,"
    say "  Chrome and Electron; copy both to $swiftshader"
    say "Then set VK_DRIVER_FILES to the driver's .json file."
    exit 1
fi

updated=
update() {
    [ -z "$updated" ] || return 0
    updated=yes
    [ "$(id -u)" -ne 0 ] || apt-get update -qq >&2
}

installed() { [ "$(dpkg-query -W -f '${db:Status-Status}' "$1" 2>/dev/null)" = installed ]; }

missing=
for package in libvulkan1 mesa-vulkan-drivers; do
    installed "$package" || missing="$missing $package"
done
if [ -n "$missing" ]; then
    if [ "$(id -u)" -ne 0 ]; then
        say "Run as root, or first: apt-get install$missing"
        exit 1
    fi
    update
    # shellcheck disable=SC2086 # a list of words
    DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >&2
fi

# Mesa names the file with or without the processor, by version.
lavapipe=
for icd in /usr/share/vulkan/icd.d/lvp_icd*.json; do
    [ ! -f "$icd" ] || lavapipe=$icd
done
[ -n "$lavapipe" ] || { say "mesa-vulkan-drivers holds no lavapipe on this architecture"; exit 1; }

if [ ! -f "$swiftshader/libvk_swiftshader.so" ] || [ ! -f "$swiftshader/vk_swiftshader_icd.json" ]; then
    work=$(mktemp -d)
    trap 'rm -rf "$work"' EXIT
    # Which of the two packages holds the library depends on Debian's release.
    for package in chromium-common chromium; do
        apt-cache show "$package" >/dev/null 2>&1 || update
        (cd "$work" && apt-get download -qq -o APT::Sandbox::User=root "$package" >&2) || continue
        rm -rf "$work/tree"
        dpkg-deb -x "$work/$package"_*.deb "$work/tree"
        for file in libvk_swiftshader.so vk_swiftshader_icd.json; do
            find "$work/tree" -name "$file" -exec sh -c 'mkdir -p "$2" && cp "$1" "$2/"' sh {} "$swiftshader" \;
        done
        [ ! -f "$swiftshader/libvk_swiftshader.so" ] || break
    done
    [ -f "$swiftshader/vk_swiftshader_icd.json" ] || { say "Chromium's packages hold no SwiftShader here"; exit 1; }
fi

printf 'lavapipe=%s\nswiftshader=%s\n' "$lavapipe" "$swiftshader/vk_swiftshader_icd.json"
