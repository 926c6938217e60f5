#!/bin/sh
# The first program of a QEMU guest: this machine's files, read only below a tmpfs, and then LAB_OUT/second.
export PATH=/bin
mount -t proc proc /proc
mount -t sysfs sys /sys
mount -t devtmpfs dev /dev
while read -r module; do insmod "/modules/$module"; done </order
options=trans=virtio,version=9p2000.L,msize=512000
mount -t 9p -o "ro,cache=loose,$options" rootfs /ro && mount -t tmpfs -o size=80%,mode=755 rw /rw &&
    mkdir /rw/up /rw/work && mount -t overlay -o lowerdir=/ro,upperdir=/rw/up,workdir=/rw/work root /new || poweroff -f
for one in proc sys dev; do mount -o move "/$one" "/new/$one"; done
mkdir -p "/new/lib/modules/$(uname -r)" "/new$LAB_OUT"
mount -o bind "/new$LAB_MODULES/$(uname -r)" "/new/lib/modules/$(uname -r)"
mount -t 9p -o "cache=none,$options" out "/new$LAB_OUT"
exec switch_root /new /bin/bash "$LAB_OUT/second"
