#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The store goes away and comes back: reads wait, status says for what, writes
# and local data go on; with --fail-reads-after the reads fail.  An image that
# was replaced under its disk is an error, never other data.
. "$(dirname "$0")/lib.sh"

make_chain "$T/store" 2 16 8 > /dev/null
flatten "$T/store/link1.qcow2" "$T/expected"
start_nginx "$T/store"
start_chaind
chainctl start "$HTTP/link1.qcow2" vmdisk
stop_nginx

# Direct: a buffered read keeps others from seeking in the same device.
dd if=/dev/mapper/vmdisk of="$T/read" bs=64k iflag=direct status=none &
reader=$!
stalled() { chainctl status vmdisk | grep -qi "stalled.*127.0.0.1:8080"; }
wait_until 60 stalled
dd if=/dev/zero of=/dev/mapper/vmdisk bs=4k count=1 seek=100 oflag=direct conv=notrunc,fsync \
	status=none
kill -0 $reader || fail "the reader did not wait"
dd if="$T/expected" of=/dev/mapper/vmdisk bs=4k count=1 seek=100 skip=100 oflag=direct \
	conv=notrunc status=none
start_nginx "$T/store"
wait $reader || fail "the reader got an error"
cmp "$T/expected" "$T/read"
wait_until 60 eval "! chainctl status vmdisk | grep -qi stalled"
chainctl stop vmdisk --discard

chainctl start "$HTTP/link1.qcow2" vmdisk --fail-reads-after 2
stop_chaind
rm "$T/cache"
must_fail "input/output error" dd if=/dev/mapper/vmdisk of=/dev/null bs=1M iflag=direct
chainctl stop vmdisk --discard
start_chaind

# Replaced by an object of the same size.
chainctl start "$HTTP/link1.qcow2" vmdisk
for link in link0 link1; do
	head -c "$(stat -c %s "$T/store/$link.qcow2")" /dev/urandom > "$T/new"
	touch -d "2001-01-01" "$T/new"
	mv "$T/new" "$T/store/$link.qcow2"
done
must_fail "input/output error" dd if=/dev/mapper/vmdisk of=/dev/null bs=1M iflag=direct
chainctl status vmdisk | grep -qi "changed" || fail "status does not say so: $(chainctl status)"
chainctl stop vmdisk --discard

stop_chaind
stop_nginx
