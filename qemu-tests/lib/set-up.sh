# Setting a machine up for building, testing and the demo. Sourced.
# shellcheck shell=bash

# Installs those Debian packages that are missing, as root or by sudo. Elsewhere says what to install and fails.
install_packages() {
    local package missing=()
    if ! command -v dpkg-query >/dev/null || ! command -v apt-get >/dev/null; then
        echo "This machine has no apt. Install what these Debian packages hold: $*" >&2
        return 1
    fi
    for package in "$@"; do
        [ "$(dpkg-query --show --showformat '${db:Status-Status}' "$package" 2>/dev/null)" = installed ] || missing+=("$package")
    done
    # Package lists are needed later too: for the kernel and for the test images.
    if [ ${#missing[@]} -gt 0 ] || ! apt_has_lists; then
        echo "Updating apt's package lists" >&2
        apt_get update
    fi
    [ ${#missing[@]} -gt 0 ] || return 0
    echo "Installing ${missing[*]}" >&2
    without_services apt_get install --yes --no-install-recommends "${missing[@]}" || return
    if [[ " ${missing[*]} " == *" docker.io "* ]]; then
        # Nor with the next boot, when it would change how the machine forwards packets: the tests start one of their own.
        as_root systemctl --quiet disable docker.service docker.socket 2>/dev/null || true
        as_root update-rc.d docker disable 2>/dev/null || true
    fi
}

# Runs a command that installs packages: what these bring as services isn't started, unless the machine has a policy of its own
# (invoke-rc.d(8)).
without_services() {
    local policy=/usr/sbin/policy-rc.d
    if [ -e "$policy" ]; then
        "$@"
        return
    fi
    (
        # Also when it is interrupted: no service of the machine would start any more.
        trap 'as_root rm --force "$policy"' EXIT
        printf '#!/bin/sh\nexit 101\n' | as_root install --mode=755 /dev/stdin "$policy" || exit
        "$@"
    )
}

apt_has_lists() {
    apt-cache policy | grep 'Packages$' >/dev/null
}

# A machine that has just started may be updating itself: its lock is waited for.
apt_get() {
    as_root env DEBIAN_FRONTEND=noninteractive apt-get --quiet=2 -o DPkg::Lock::Timeout=300 "$@" </dev/null >&2
}

# sudo may ask for a password if there is a person to ask.
as_root() {
    local sudo=(sudo)
    [ -t 2 ] || sudo+=(--non-interactive)
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        "${sudo[@]}" "$@" || { echo "sudo failed: run as root: $*" >&2; return 1; }
    else
        echo "Neither root nor sudo here. Run as root: $*" >&2
        return 1
    fi
}

# cargo, of rustup or at least new enough. Debian 12's own is neither, and doesn't read rust-toolchain.toml.
require_rust() {
    local wanted found
    if ! command -v cargo >/dev/null && [ -r "${CARGO_HOME:-$HOME/.cargo}/env" ]; then
        # shellcheck disable=SC1091 # rustup's own file
        . "${CARGO_HOME:-$HOME/.cargo}/env"
    fi
    wanted=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
    if ! command -v cargo >/dev/null; then
        echo "cargo is missing: install Rust from https://rustup.rs, which reads rust-toolchain.toml here" >&2
        return 1
    fi
    found=$(cargo --version | cut -d' ' -f2)
    if [ "$(printf '%s\n' "$wanted" "$found" | sort --version-sort | head -n 1)" != "$wanted" ]; then
        echo "cargo is $found, needed is $wanted: install Rust from https://rustup.rs, which reads rust-toolchain.toml here" >&2
        return 1
    fi
}
