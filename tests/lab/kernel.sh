#!/bin/sh
# The lab's guest where LAB_UML names no User Mode Linux: QEMU, and Debian's kernel unpacked below .cache/lab/kernel with
# an initramfs that mounts this machine's files. Where that cannot be, one line says why; the lab is skipped then.
set -eu

kernel=$PWD/.cache/lab/kernel
busybox=$PWD/.cache/engines/20.10/bin/busybox
modules="virtio_pci 9p 9pnet_virtio virtio_rng overlay 8021q bridge br_netfilter ipvlan veth nf_tables"

failed() {
    echo "no guest for the lab: $1"
    exit 0
}

# The modules with what they depend on, in the order in which they are loaded.
needed() {
    for module in $modules; do
        modprobe -d "$kernel" -S "$version" --show-depends "$module" | sed -n 's/^insmod \([^ ]*\).*/\1/p'
    done | awk '!seen[$0]++'
}

initramfs() {
    tree=$kernel/initramfs
    rm -rf "$tree" && mkdir -p "$tree/bin" "$tree/dev" "$tree/proc" "$tree/sys" "$tree/ro" "$tree/rw" "$tree/new" "$tree/modules"
    cp "$busybox" "$tree/bin/busybox"
    "$busybox" --list | while read -r name; do [ "$name" = busybox ] || ln -s busybox "$tree/bin/$name"; done
    needed | while read -r file; do cp "$file" "$tree/modules/" && basename "$file"; done >"$tree/order"
    cp tests/lab/initramfs.sh "$tree/init" && chmod 755 "$tree/init"
    (cd "$tree" && find . | cpio --quiet -o -H newc | gzip -1) >"$kernel/initramfs.part"
    mv "$kernel/initramfs.part" "$kernel/initramfs.gz"
    rm -rf "$tree"
}

[ "$(id -u)" = 0 ] || failed "it needs root"
[ -z "${LAB_UML-}" ] || exit 0
[ "$(uname -m)" = x86_64 ] || failed "it is made for x86_64"
[ -x "$busybox" ] || failed "engine 20.10 is not there"
for package in qemu-system-x86 cpio kmod; do
    dpkg-query -W -f '${db:Status-Abbrev}' "$package" 2>/dev/null | grep -q '^ii' || missing="${missing-} $package"
done
[ -z "${missing-}" ] || { echo "installing:$missing" && apt-get -qq update &&
    DEBIAN_FRONTEND=noninteractive apt-get -qq install --no-install-recommends $missing >/dev/null; } ||
    failed "$missing cannot be installed"
if ! [ -e "$kernel/initramfs.gz" ] || [ tests/lab/initramfs.sh -nt "$kernel/initramfs.gz" ]; then
    rm -rf "$kernel" && mkdir -p "$kernel/fetch"
    image=$(apt-cache depends linux-image-amd64 | sed -n 's/.*Depends: \(linux-image-[^ ]*\)$/\1/p' | head -n 1)
    (cd "$kernel/fetch" && apt-get -qq -o APT::Sandbox::User=root download "$image" && dpkg -x ./*.deb "$kernel") || failed "$image cannot be fetched"
    rm -rf "$kernel/fetch"
    version=$(basename "$kernel"/lib/modules/*)
    depmod -b "$kernel" "$version"
    initramfs
fi
