#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The kernel target alone: reads by the daemon's answers, writes of all sizes to
# the tip, flush, discard; what was written is there under a new table.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/kernel.sh"

make_disk
create_disk
start_qc2nl

# Everything is read as the store has it, and a second time without a miss.
cmp "$T/content" /dev/mapper/disk
missed=$(status_field 11)
[ "$missed" -gt 0 ] || fail "no read missed in a new map"
drop_caches
cmp "$T/content" /dev/mapper/disk
[ "$(status_field 11)" = "$missed" ] || fail "reads missed again"

# The same through an empty map and the smallest one.
dmsetup message disk 0 map_drop
dmsetup message disk 0 map_limit_kb 256
drop_caches
cmp "$T/content" /dev/mapper/disk

# Writes at every alignment, beside a copy that they are made to as well.
cp "$T/content" "$T/copy"
RANDOM=7
for ((i = 0; i < 60; i++)); do
	count=$((RANDOM % (1 << (RANDOM % 12)) + 1))
	sector=$(((RANDOM << 15 | RANDOM) % (SECTORS - count)))
	head -c $((count * 512)) /dev/urandom > "$T/piece"
	dd if="$T/piece" of="$T/copy" bs=512 seek=$sector conv=notrunc status=none
	dd if="$T/piece" of=/dev/mapper/disk bs=$((count * 512)) seek=$((sector * 512)) \
		oflag=direct,seek_bytes conv=notrunc status=none
	[ $((i % 8)) != 0 ] || sync -d /dev/mapper/disk
done
drop_caches
cmp "$T/copy" /dev/mapper/disk
[ "$(status_field 3)" -gt 0 ] || fail "no dirty sectors"

# Discarded and zeroed sectors read as zeros.
blkdiscard -o $((5 << 20)) -l $((3 << 20)) /dev/mapper/disk
blkdiscard -z -o $((20 << 20 | 512)) -l $((1 << 20)) /dev/mapper/disk
dd if=/dev/zero of="$T/copy" bs=1M seek=5 count=3 conv=notrunc status=none
dd if=/dev/zero of="$T/copy" bs=512 seek=$((20 * 2048 + 1)) count=2048 conv=notrunc status=none
drop_caches
cmp "$T/copy" /dev/mapper/disk

# Unaligned reads over tip and store.
for ((i = 0; i < 16; i++)); do
	count=$((RANDOM % 3000 + 1))
	sector=$(((RANDOM << 15 | RANDOM) % (SECTORS - count)))
	cmp <(dd if="$T/copy" bs=512 skip=$sector count=$count status=none) \
		<(dd if=/dev/mapper/disk bs=$((count * 512)) skip=$((sector * 512)) count=1 \
			iflag=direct,skip_bytes status=none)
done

# A new table reads the state from the tip.
dirty=$(status_field 3)
remove_disk
chainctl_tip check "$T/tip" > /dev/null
stop_qc2nl
create_disk
start_qc2nl
[ "$(status_field 3)" = "$dirty" ] || fail "dirty sectors changed from $dirty to $(status_field 3)"
cmp "$T/copy" /dev/mapper/disk

# A whole disk in the tip needs neither daemon nor store.
dd if="$T/copy" of=/dev/mapper/disk bs=1M oflag=direct status=none
sync -d /dev/mapper/disk
stop_qc2nl
wait_until 10 no_daemon
drop_caches
cmp "$T/copy" /dev/mapper/disk
[ "$(status_field 3)" = $SECTORS ] || fail "$(status_field 3) of $SECTORS sectors dirty"

remove_disk
detach_disk
