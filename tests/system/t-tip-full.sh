#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The tip is a sparse file on a file system that gets full.  A write that needs
# room fails, and says so; everything else goes on, commits in the first place;
# what was acknowledged is there.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/kernel.sh"

SECTORS=$((2 * 4096 + 1001))
trap 'stop_uevents; chaind_fate' EXIT

start_disk()
{
	TIP=$(losetup --find --show --direct-io=on "$T/small/tip")
	create_disk
	start_qc2nl --whole $SECTORS "$DEV"
}

stop_disk()
{
	remove_disk
	stop_qc2nl
	losetup -d "$TIP"
}

modprobe dm-qcow2chain
head -c $((SECTORS * 512)) /dev/urandom > "$T/content"
cp "$T/content" "$T/copy"
STORE=$(losetup --find --show --direct-io=on --read-only "$T/content")
truncate -s 32M "$T/small.img"
mkfs.ext4 -q -m 0 "$T/small.img"
mkdir "$T/small"
mount -o loop "$T/small.img" "$T/small"
start_uevents

# A small journal, which is soon full: there are checkpoints, too.
chainctl_tip create "$T/small/tip" --chain-id $ID --size $((SECTORS * 512)) \
	--journal-size 8K > /dev/null
start_disk
put 100 2048
must_fail "no space left" dd if=/dev/zero of="$T/small/filler" bs=1M
sync -f "$T/small"
must_fail "no space left" put 6000 2000
wait_uevent TIP_FULL
must_fail "no space left" put 6000 2000 dsync
same_as_copy

# Without need of room for data.
flush
for ((i = 0; i < 5; i++)); do
	put $((200 + 9 * i)) 8
	blkdiscard -o $(((4000 + 300 * i) * 512)) -l 4096 /dev/mapper/disk
	head -c 4096 /dev/zero > "$T/zeros"
	keep "$T/zeros" $((4000 + 300 * i))
	flush
done
put 1000 8 dsync
expect_mode rw
same_as_copy

stop_disk
chainctl_tip check "$T/small/tip" > /dev/null
start_disk
same_as_copy

# With room again.
rm "$T/small/filler"
sync -f "$T/small"
put 6000 2000
flush
expect_mode rw
stop_disk
chainctl_tip check "$T/small/tip" > /dev/null
start_disk
same_as_copy
stop_disk

umount "$T/small"
losetup -d "$STORE"
