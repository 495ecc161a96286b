#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A file system with files in three layers: mounted, read, written, checked; what
# was written is there after stop and start, and after a restart of chaind.
. "$(dirname "$0")/lib.sh"

mkdir -p "$T/store" "$T/root/dir" "$T/mnt"
for ((i = 0; i < 40; i++)); do
	head -c $((RANDOM * 8)) /dev/urandom > "$T/root/dir/file$i"
done
truncate -s 96M "$T/raw"
mke2fs -q -t ext4 -d "$T/root" "$T/raw"
qemu-img convert -f raw -O qcow2 "$T/raw" "$T/store/base.qcow2"
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 "$T/store/middle.qcow2"
qemu-img create -q -f qcow2 -b middle.qcow2 -F qcow2 "$T/store/top.qcow2"
(cd "$T/root" && find . -type f -print0 | xargs -0 sha256sum) > "$T/sums"

start_nginx "$T/store"
start_chaind
chainctl start "$HTTP/top.qcow2" vmdisk
mount /dev/mapper/vmdisk "$T/mnt"
(cd "$T/mnt" && sha256sum --quiet -c "$T/sums")

cp -r "$T/root/dir" "$T/mnt/copy"
rm -r "$T/mnt/dir"
echo hello > "$T/mnt/hello"
sync -f "$T/mnt"
fstrim "$T/mnt"
umount "$T/mnt"
e2fsck -f -n /dev/mapper/vmdisk

chainctl stop vmdisk
stop_chaind
start_chaind
chainctl start "$HTTP/top.qcow2" vmdisk
e2fsck -f -n /dev/mapper/vmdisk
mount /dev/mapper/vmdisk "$T/mnt"
[ "$(cat "$T/mnt/hello")" = hello ] || fail "a file got lost"
[ ! -e "$T/mnt/dir" ] || fail "a removed directory is back"
(cd "$T/mnt" && sed 's|\./dir/|./copy/|' "$T/sums" | sha256sum --quiet -c)
umount "$T/mnt"
chainctl stop vmdisk --discard
[ ! -e "$T/tips/vmdisk.tip" ] || fail "the tip was not discarded"

stop_chaind
stop_nginx
