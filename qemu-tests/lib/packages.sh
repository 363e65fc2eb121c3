# Installing what the tests and the demo need. Sourced.
# shellcheck shell=bash

# The reason stands beside each: a list that nobody dares to shorten grows for ever.
# shellcheck disable=SC2034 # read by those who source this
test_packages=(
    gcc pkg-config       # linking Rust, finding libseccomp
    libseccomp-dev       # compiles the seccomp profile
    qemu-system-x86      # the machines
    ovmf                 # UEFI firmware for them
    systemd-boot-efi     # boot loader and UKI stub of the disk image
    e2fsprogs            # data filesystem (mke2fs), and its check
    erofs-utils          # fsck.erofs judges our images
    cryptsetup-bin       # veritysetup judges our hash trees
    gdisk mtools         # judge our partition tables and ESP
    crun                 # a second opinion on OCI bundles
    debootstrap debian-archive-keyring umoci # make the test images
    buildah skopeo       # likewise
    busybox-static       # a program that runs anywhere, for native tests
    util-linux uidmap    # setpriv, unshare; newuidmap for containers without root
    jq cpio zstd xz-utils
)

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
    if [ ${#missing[@]} -gt 0 ] || ! apt-cache policy | grep 'Packages$' >/dev/null; then
        as_root apt-get update --quiet=2 </dev/null >&2
    fi
    [ ${#missing[@]} -gt 0 ] || return 0
    echo "Installing ${missing[*]}" >&2
    as_root env DEBIAN_FRONTEND=noninteractive apt-get install --yes --quiet=2 --no-install-recommends "${missing[@]}" </dev/null >&2
}

as_root() {
    if [ "$(id -u)" = 0 ]; then
        "$@"
    elif command -v sudo >/dev/null; then
        sudo --non-interactive "$@" || { echo "sudo refused: run as root: $*" >&2; return 1; }
    else
        echo "Neither root nor sudo here. Run as root: $*" >&2
        return 1
    fi
}
