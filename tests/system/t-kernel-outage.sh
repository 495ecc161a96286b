#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What a disk does without its daemon is chosen by its table, and can be changed
# while reads wait: a swap of tables makes them fail, or go on waiting.  Writes and
# reads of what is known are not affected.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/kernel.sh"

# start_reader BLOCK - a read of 64 KiB that the kernel knows nothing of
start_reader()
{
	block=$1
	dd if=/dev/mapper/disk of="$T/read" bs=64k count=1 skip="$block" iflag=direct status=none \
		2> "$T/error" &
	reader=$!
}
block_is_right() { cmp "$T/read" <(dd if="$T/content" bs=64k count=1 skip="$block" status=none); }
reader_fails()
{
	! wait $reader || fail "the read succeeded without a daemon"
	grep -qi "input/output error" "$T/error" || fail "$(cat "$T/error")"
	[ "$(status_field 5) $(status_field 6) $(status_field 7)" = "0 0 0" ] ||
		fail "reads still wait: $(dmsetup status --noflush disk)"
}

# Blocks 0 to 3 are known, 4 to 7 in the tip, both with the base's content.
local_works()
{
	dd if="$T/content" of=/dev/mapper/disk bs=64k count=4 skip=4 seek=4 oflag=direct \
		conv=notrunc,fsync status=none
	cmp -n $((8 << 16)) "$T/content" \
		<(dd if=/dev/mapper/disk bs=64k count=8 iflag=direct status=none)
}

# policy SECONDS - swap to a table with this limit; the new one knows nothing
policy()
{
	dmsetup load disk --table "0 $SECTORS qcow2chain $ID $TIP 1 $STORE 2 fail_reads_after $1"
	dmsetup resume --noflush --nolockfs --noudevsync disk
}

# A slow machine may take longer than the limit even with the daemon.
make_disk
create_disk "2 fail_reads_after 1"
start_qc2nl
wait_until 60 local_works

# The daemon stands still; what it says when it goes on is too late for the reader.
kill -STOP $QC2NL_PID
start_reader 10
reader_fails
local_works
kill -CONT $QC2NL_PID
wait_until 60 eval 'start_reader 10; wait $reader'
block_is_right

# The daemon is gone.
stop_qc2nl
wait_until 30 no_daemon
start_reader 11
reader_fails
local_works

# The limit is taken away: the reads wait, also those that waited before.
policy 3600
start_reader 12
wait_until 30 parked
policy 0
wait_until 30 parked
kill -0 $reader || fail "the read did not wait: $(cat "$T/error")"

# It is set while a read waits.
policy 1
reader_fails
start_reader 13
reader_fails

# The next daemon serves the disk as if nothing had been.
policy 0
start_qc2nl
local_works
drop_caches
cmp "$T/content" /dev/mapper/disk

remove_disk
stop_qc2nl
detach_disk
