#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Bios fail, on the store and on the tip, below a load.  Reads and writes may
# fail; nothing that is read is wrong, and afterwards the disk works.  A failed
# write does not make it read-only; a failed commit does, and what was
# acknowledged as durable before is there under the next table.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/../kernel.sh"
. "$(dirname "$0")/faults.sh"

# load STATE FLUSHES PERCENT DEVICE… - leaves the disk in that state; with or
# without flushes while there are faults
load()
{
	local state=$1 flags=direct options=(--continue_on_error=io) nr

	create_disk
	start_qc2nl
	if [ "$2" = flushes ]; then
		flags=direct,dsync
		# With --fsync fio would ask again for ever for one that failed.
		options+=(--sync=dsync)
	fi
	start_load $flags "${options[@]}"
	fail_io "${@:3}"
	finish_load
	faults_off
	nr=$(nr_faults fail_make_request)
	echo "# $2, $3% on ${*:4}: $nr faults, $(wc -l < "$T/acknowledged") of $WRITES writes worked"
	[ "$nr" != 0 ] || fail "the kernel made no fault"
	[ "$(status_field 1)" = "$state" ] || fail "the disk is $(status_field 1)"
	check_load
	# Durable is what a flush covers.
	if [ "$2" != flushes ]; then
		dd if=/dev/null of=/dev/mapper/disk conv=notrunc,fsync status=none
	fi
	stop_qc2nl
	remove_disk

	create_disk
	start_qc2nl
	[ "$(status_field 1)" = rw ] || fail "a new table is $(status_field 1)"
	check_load
	dd if="$T/content" of=/dev/mapper/disk bs=4k count=1 seek=$((SECTORS / 16)) \
		oflag=direct,dsync status=none
	stop_qc2nl
	remove_disk
	mv "$T/found" "$T/old"
}

make_disk
cp "$T/content" "$T/old"
load rw flushes 30 "$STORE"
load rw none 10 "$STORE" "$TIP"
load ro flushes 10 "$TIP"

# Tables that cannot read their tip are refused, or cannot be resumed yet.
fail_io 30 "$TIP"
refused=0
for ((i = 0; i < 30; i++)); do
	if ! dmsetup create disk --noudevsync \
			--table "0 $SECTORS qcow2chain $ID $TIP 1 $STORE" > /dev/null 2>&1; then
		refused=$((refused + 1))
		continue
	fi
	remove_disk
done
faults_off
echo "# of 30 tables $refused were refused"
[ $refused != 0 ] || fail "every table was loaded"

create_disk
start_qc2nl
check_load
stop_qc2nl
remove_disk
chainctl_tip check "$T/tip"
detach_disk
