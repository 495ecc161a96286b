#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Allocations of the kernel target fail, while a disk with a daemon is under a
# load that drops its map again and again, and while its table is replaced.  No
# write fails, nothing that is read is wrong, nothing hangs, and what was
# acknowledged is there under the next table.
. "$(dirname "$0")/../lib.sh"
. "$(dirname "$0")/faults.sh"

make_chain "$T/store" 3 64 9 > /dev/null
flatten "$T/store/link2.qcow2" "$T/content"
cp "$T/content" "$T/old"
start_chaind
chainctl start "file://$T/store/link2.qcow2" disk

# swap - replace the table by the same one; a step may fail
swap()
{
	dmsetup table disk | dmsetup load disk 2> /dev/null || return 0
	dmsetup suspend --noflush --nolockfs --noudevsync disk
	# Its state is read now.  The kernel allows another try.
	until dmsetup resume --noudevsync disk 2> /dev/null; do :; done
	swaps=$((swaps + 1))
}

# faults - prints how many allocations failed; there must be some
faults()
{
	local nr=$(($(nr_faults failslab) + $(nr_faults fail_page_alloc)))

	[ $nr != 0 ] || fail "the kernel made no fault"
	echo "$nr faults"
}

# load PERCENT [swap] - with so many failing allocations
load()
{
	swaps=0
	start_load direct,dsync --fsync=16
	fail_memory "$1"
	while [ "${2-}" = swap ] && kill -0 "$WRITER_PID" 2> /dev/null; do
		swap
	done
	finish_load
	faults_off
	echo "# $1%: $(faults), $swaps swaps, $(wc -l < "$T/right") reads"
	[ "${2-}" != swap ] || [ $swaps != 0 ] || fail "no table was replaced"
	[ "$(wc -l < "$T/acknowledged")" = "$WRITES" ] || fail "a write has failed"
	check_load
	mv "$T/found" "$T/old"
}

# A table needs hundreds of allocations.
load 1 swap
load 30
[ "$(dmsetup status --noflush disk | cut -d' ' -f4)" = rw ] || fail "the disk is read-only"
chainctl stop disk

# Disks start or are refused, and nothing is left of those refused.
fail_memory 3
started=0
for ((i = 0; i < 15; i++)); do
	! chainctl start "file://$T/store/link2.qcow2" disk > /dev/null 2>&1 || started=$((started + 1))
	chainctl stop disk > /dev/null 2>&1 || true
done
faults_off
echo "# $(faults), of 15 starts $started worked"

chainctl stop disk > /dev/null 2>&1 || true
chainctl start "file://$T/store/link2.qcow2" disk
check_load
chainctl stop disk --discard
stop_chaind
