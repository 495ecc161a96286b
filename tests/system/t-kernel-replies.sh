#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Replies that are malformed, late, doubled or from the wrong socket are refused
# and harm nothing; a second daemon is refused; reads wait for a daemon that
# ended and go on with the next.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/kernel.sh"

parked() { [ "$(status_field 5)" != 0 ]; }

make_disk
create_disk

dd if=/dev/mapper/disk of="$T/read" bs=64k count=1 skip=5 iflag=direct status=none &
reader=$!
wait_until 30 parked
qc2nl hostile "$DEV"
wait $reader
cmp "$T/read" <(dd if="$T/content" bs=64k count=1 skip=5 status=none)

# Reads made while there is no daemon are served by the next one.
wait_until 10 no_daemon
cmp "$T/content" /dev/mapper/disk &
reader=$!
start_qc2nl
qc2nl second "$DEV"
wait $reader

# The way out when no daemon will come: the reads fail, the device goes.
stop_qc2nl
dmsetup message disk 0 map_drop
dd if=/dev/mapper/disk of=/dev/null bs=64k count=1 iflag=direct status=none 2> "$T/error" &
reader=$!
wait_until 30 parked
dmsetup wipe_table --noflush --nolockfs --noudevsync disk
! wait $reader || fail "a read succeeded without a daemon"
grep -qi "input/output error" "$T/error" || fail "$(cat "$T/error")"

remove_disk
detach_disk
