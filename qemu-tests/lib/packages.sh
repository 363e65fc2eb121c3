# What the tests need, as Debian packages. Sourced.
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
    criu tar             # checkpoints
    systemd dbus         # a service manager and its bus, for the systemd cgroup driver
    util-linux uidmap    # setpriv, unshare; newuidmap for containers without root
    podman conmon catatonit slirp4netns netavark iptables iproute2 # a client of the OCI command line, and what it runs containers with
    containerd           # another
    docker.io            # a third
    fuse-overlayfs       # puts layers together where the kernel's overlay can't
    jq cpio zstd xz-utils bzip2
)
