#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Suspend and reload with reads parked: a suspend without flush does not wait for
# them, they are asked for again under the new table, and writes before and
# after the swap are kept, also when a table between could not be resumed.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/kernel.sh"

make_disk
create_disk
cp "$T/content" "$T/copy"
head -c 100000 /dev/urandom > "$T/piece"
truncate -s 99840 "$T/piece"
dd if="$T/piece" of="$T/copy" bs=99840 seek=$((777 * 512)) oflag=seek_bytes conv=notrunc status=none
dd if="$T/piece" of=/dev/mapper/disk bs=99840 seek=$((777 * 512)) oflag=direct,seek_bytes \
	conv=notrunc status=none

# No daemon: the reads wait.
cmp "$T/copy" /dev/mapper/disk &
reader=$!
parked() { [ "$(status_field 5)" -gt 0 ]; }
wait_until 30 parked

dmsetup load disk --table "0 $SECTORS qcow2chain $ID $TIP 1 $STORE 2 map_limit_kb 1024"
dmsetup suspend --noflush --nolockfs --noudevsync disk
[ "$(status_field 5)" = 0 ] || fail "reads are parked in a suspended device"
dmsetup resume --noudevsync disk
wait_until 30 parked
[ "$(dmsetup table disk | cut -d' ' -f8-)" = "2 map_limit_kb 1024" ] ||
	fail "table: $(dmsetup table disk)"

start_qc2nl
wait $reader

# Swaps under load.
fio --name=verify --filename=/dev/mapper/disk --rw=randwrite --bsrange=512-64k \
	--direct=1 --ioengine=libaio --iodepth=8 --size=16M --offset=8M --verify=crc32c \
	--do_verify=1 --verify_fatal=1 --randseed=3 > "$T/fio.log" 2>&1 &
fio=$!
for ((i = 0; i < 20; i++)); do
	dmsetup load disk --table "0 $SECTORS qcow2chain $ID $TIP 1 $STORE"
	dmsetup suspend --noflush --nolockfs --noudevsync disk
	dmsetup resume --noudevsync disk
done
wait $fio || fail "fio: $(cat "$T/fio.log")"
cmp -n $((8 << 20)) "$T/copy" /dev/mapper/disk

# A table that cannot be resumed leaves the device suspended; the line it had
# before brings everything back.
chainctl_tip create "$T/other" --chain-id $ID --size $((SECTORS * 512)) > /dev/null
other=$(losetup --find --show --direct-io=on "$T/other")
dmsetup create other --noudevsync --table "0 $SECTORS qcow2chain $ID $other 1 $STORE"
line=$(dmsetup table disk)
dmsetup load disk --table "0 $SECTORS qcow2chain $ID $other 1 $STORE"
must_fail "busy" dmsetup resume --noudevsync disk
[ "$(dmsetup info -c --noheadings -o suspended disk)" = Suspended ] || fail "not suspended"
dmsetup load disk --table "$line"
dmsetup resume --noudevsync disk
cmp -n $((8 << 20)) "$T/copy" /dev/mapper/disk
dmsetup remove --noudevsync other
losetup --detach "$other"

remove_disk
stop_qc2nl
detach_disk
