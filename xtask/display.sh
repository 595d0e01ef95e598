#!/bin/sh
# Install what a window needs to open where there is no display: Xvfb, and the X libraries that windows load when they open.
#
#     xtask/display.sh
#
# On Debian and its relatives it installs what is missing (as root). Elsewhere it says what to install.
set -eu

say() { printf '%s\n' "$*" >&2; }

packages="xvfb libx11-6 libx11-xcb1 libxcursor1 libxi6 libxrandr2 libxkbcommon-x11-0"

if ! command -v apt-get >/dev/null; then
    command -v Xvfb >/dev/null && exit 0
    say "This script knows Debian's packages only. Install Xvfb: xorg-x11-server-Xvfb (Fedora), xorg-server-xvfb (Arch)"
    exit 1
fi
missing=
for package in $packages; do
    [ "$(dpkg-query -W -f '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing="$missing $package"
done
[ -n "$missing" ] || exit 0
if [ "$(id -u)" -ne 0 ]; then
    say "Run as root, or first: apt-get install$missing"
    exit 1
fi
apt-get update -qq >&2
# shellcheck disable=SC2086 # a list of words
DEBIAN_FRONTEND=noninteractive apt-get install -y -qq --no-install-recommends $missing >&2
