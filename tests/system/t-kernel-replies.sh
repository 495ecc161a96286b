#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Messages to the kernel that are malformed, late, doubled, from the wrong socket,
# without privilege, or about another device or table: each is refused with its
# errno and has no effect.  A good reply never hides what is in the tip.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/kernel.sh"

make_disk
create_disk

# Another disk over the same content, with logical blocks of 4096 bytes.
chainctl_tip create "$T/tip4k" --chain-id $ID --size $((SECTORS * 512)) > /dev/null
store4k=$(losetup --find --show --direct-io=on --read-only --sector-size 4096 "$T/content")
tip4k=$(losetup --find --show --direct-io=on --sector-size 4096 "$T/tip4k")
dmsetup create disk4k --noudevsync \
	--table "0 $SECTORS qcow2chain $ID $tip4k 1 $store4k"
dmsetup mknodes disk4k
dev4k=$(dmsetup info -c --noheadings -o major,minor disk4k)
parked4k() { [ "$(dmsetup status --noflush disk4k | cut -d' ' -f8)" != 0 ]; }

# 64 KiB in one block, of which a part is written while the read waits.
cp "$T/content" "$T/copy"
head -c 4096 /dev/urandom > "$T/piece"
dd if="$T/piece" of="$T/copy" bs=4k seek=85 conv=notrunc status=none
dd if=/dev/mapper/disk of="$T/read" bs=64k count=1 skip=5 iflag=direct status=none &
reader=$!
wait_until 30 parked
dd if="$T/piece" of=/dev/mapper/disk bs=4k seek=85 oflag=direct conv=notrunc status=none
qc2nl hostile "$DEV" "$dev4k"
wait $reader
cmp "$T/read" <(dd if="$T/copy" bs=64k count=1 skip=5 status=none)

dd if=/dev/mapper/disk4k of="$T/read" bs=64k count=1 skip=300 iflag=direct status=none &
reader=$!
wait_until 30 parked4k
qc2nl hostile "$dev4k" "$DEV"
wait $reader
cmp "$T/read" <(dd if="$T/content" bs=64k count=1 skip=300 status=none)
dmsetup remove --noudevsync disk4k
losetup -d "$store4k"
losetup -d "$tip4k"

# Without the right, or in another network namespace.
setpriv --reuid=65534 --regid=65534 --clear-groups build/user/tests/tools/qc2nl denied "$DEV"
setpriv --bounding-set=-sys_admin build/user/tests/tools/qc2nl denied "$DEV"
unshare --user --map-root-user build/user/tests/tools/qc2nl denied "$DEV"
must_fail "family qcow2chain: object not found" \
	unshare --net build/user/tests/tools/qc2nl zero "$DEV"
wait_until 30 no_daemon

# Replies are for one table: after a reload the request has another generation.
# The old table is there until the resume has returned.
dmsetup message disk 0 map_drop
dd if=/dev/mapper/disk of="$T/read" bs=64k count=1 skip=9 iflag=direct status=none &
reader=$!
mkfifo "$T/reloaded"
qc2nl late "$DEV" < "$T/reloaded" > "$T/late.log" 2>&1 &
late=$!
exec 3> "$T/reloaded"
wait_until 30 grep -q holding "$T/late.log"
dmsetup load disk --table "0 $SECTORS qcow2chain $ID $TIP 1 $STORE"
dmsetup suspend --noflush --nolockfs --noudevsync disk
dmsetup resume --noudevsync disk
exec 3>&-
wait $late || fail "$(cat "$T/late.log")"
wait $reader
cmp "$T/read" <(dd if="$T/content" bs=64k count=1 skip=9 status=none)

# A daemon that says the whole disk is zeros: the tip is as it was.
qc2nl zero "$DEV"
dd if=/dev/zero of="$T/copy" bs=$((SECTORS * 512)) count=1 status=none
dd if="$T/piece" of="$T/copy" bs=4k seek=85 conv=notrunc status=none
drop_caches
cmp "$T/copy" /dev/mapper/disk

remove_disk
detach_disk
