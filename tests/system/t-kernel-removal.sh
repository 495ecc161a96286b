#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Removal, suspend and reload while reads wait for a daemon: nothing hangs that
# need not wait, nothing is lost, and there is always a way out.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/kernel.sh"

# start_reader BLOCK - a read of 64 KiB that nobody has asked for yet
start_reader()
{
	block=$1
	dd if=/dev/mapper/disk of="$T/read" bs=64k count=1 skip="$block" iflag=direct status=none \
		2> "$T/error" &
	reader=$!
	wait_until 60 parked
}

# The reader gets its data.
finish_reader()
{
	wait $reader || fail "the read failed: $(cat "$T/error")"
	cmp "$T/read" <(dd if="$T/content" bs=64k count=1 skip="$block" status=none)
}

gone() { ! dmsetup info disk > /dev/null 2>&1; }
suspended() { [ "$(dmsetup info -c --noheadings -o suspended disk)" = Suspended ]; }
# A flush suspend has begun, and waits: the core counts what it waits for.
waits() { grep -qE "dm_wait_for|io_schedule|dm_suspend" "/proc/$1/stack"; }

make_disk
create_disk

# In use: not removed, no harm done.  Later: removed when it is closed.
start_reader 3
must_fail "busy" dmsetup remove --noudevsync disk
kill -0 $reader || fail "the reader ended"
dmsetup remove --deferred --noudevsync disk
start_qc2nl
finish_reader
wait_until 30 gone
stop_qc2nl

# A daemon of a removed device is not the daemon of the next with its number.
create_disk "" --major "${DEV%:*}" --minor 77
start_qc2nl
kill -STOP $QC2NL_PID
remove_disk
create_disk "" --major "${DEV%:*}" --minor 77
no_daemon || fail "a new device has a daemon: $(dmsetup status disk)"
stop_qc2nl

# A killed reader stays until its read ends.  The way out: the table of errors.
start_reader 4
kill -KILL $reader
must_fail "busy" dmsetup remove --noudevsync disk
parked || fail "the read of a killed process is not parked any more"
dmsetup wipe_table --noflush --nolockfs --noudevsync disk
wait $reader 2> /dev/null && fail "the killed reader succeeded"
remove_disk
create_disk

# A suspend with flush waits for reads; interrupted, the device is as it was.
start_reader 5
dmsetup suspend --noudevsync disk 2> /dev/null &
suspend=$!
wait_until 30 waits $suspend
kill -TERM $suspend
wait $suspend && fail "suspended with flush while a read was parked"
! suspended || fail "an interrupted suspend left the device suspended"
parked || fail "the read is not parked any more"
dd if="$T/content" of=/dev/mapper/disk bs=64k count=1 skip=6 seek=6 oflag=direct conv=notrunc \
	status=none
# Another read of the same block, now that the suspend is over, waits as well.
dd if=/dev/mapper/disk of="$T/read2" bs=4k count=1 skip=$((5 * 16)) iflag=direct status=none &
second=$!
wait_until 30 eval '[ "$(status_field 5)" = 2 ]'

# With flush and a daemon it ends when the reads do.
dmsetup suspend --noudevsync disk &
suspend=$!
wait_until 30 waits $suspend
start_qc2nl
wait $suspend
suspended || fail "not suspended"
finish_reader
wait $second
cmp -n 4096 "$T/read" "$T/read2"
dmsetup resume --noudevsync disk
stop_qc2nl

# A reload with flush: the old table's reads end, then the new one takes over.
start_reader 7
dmsetup load disk --table "0 $SECTORS qcow2chain $ID $TIP 1 $STORE 2 map_limit_kb 1024"
dmsetup resume --noudevsync disk &
resume=$!
wait_until 30 waits $resume
start_qc2nl
wait $resume
finish_reader
[ "$(dmsetup table disk | cut -d' ' -f8-)" = "2 map_limit_kb 1024" ] ||
	fail "table: $(dmsetup table disk)"
stop_qc2nl

# The daemon stays across a reload without flush, and is told of the read again.
wait_until 30 no_daemon
start_qc2nl
kill -STOP $QC2NL_PID
start_reader 8
dmsetup load disk --table "0 $SECTORS qcow2chain $ID $TIP 1 $STORE"
dmsetup suspend --noflush --nolockfs --noudevsync disk
[ "$(status_field 5)" = 0 ] || fail "reads are parked in a suspended device"
kill -0 $reader || fail "the reader ended: $(cat "$T/error")"
dmsetup resume --noudevsync disk
wait_until 30 parked
kill -CONT $QC2NL_PID
finish_reader

# Reads wait in the core of a suspended device; a table of errors ends them.
stop_qc2nl
start_reader 9
dmsetup suspend --noflush --nolockfs --noudevsync disk
dmsetup wipe_table --noflush --nolockfs --noudevsync disk
wait $reader && fail "a read succeeded without a daemon"
grep -qi "input/output error" "$T/error" || fail "$(cat "$T/error")"

remove_disk
detach_disk
