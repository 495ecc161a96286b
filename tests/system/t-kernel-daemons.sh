#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Reads wait for a daemon that is not there yet, that is stopped, or that ended,
# and go on with the next; a second daemon is refused everything.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/kernel.sh"

make_disk
create_disk

# Reads made while there is no daemon are served by the next one.
cmp "$T/content" /dev/mapper/disk &
reader=$!
wait_until 30 parked
start_qc2nl
qc2nl second "$DEV"
wait $reader
qc2nl second "$DEV"
stop_qc2nl
wait_until 30 no_daemon

# From one socket to the next, in the middle of a request.
dmsetup message disk 0 map_drop
dd if=/dev/mapper/disk of="$T/read" bs=64k count=1 skip=7 iflag=direct status=none &
reader=$!
wait_until 30 parked
qc2nl handover "$DEV"
wait $reader
cmp "$T/read" <(dd if="$T/content" bs=64k count=1 skip=7 status=none)

# The daemon ends between fetching a request and answering it.
dmsetup message disk 0 map_drop
dd if=/dev/mapper/disk of="$T/read" bs=64k count=1 skip=8 iflag=direct status=none &
reader=$!
build/user/tests/tools/qc2nl late "$DEV" > "$T/late.log" 2>&1 &
late=$!
wait_until 30 grep -q holding "$T/late.log"
kill -KILL $late
wait $late 2> /dev/null || true
kill -0 $reader || fail "the reader did not wait"
start_qc2nl
wait $reader
cmp "$T/read" <(dd if="$T/content" bs=64k count=1 skip=8 status=none)

remove_disk
stop_qc2nl
detach_disk
