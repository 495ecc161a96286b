#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# chaind is killed in the middle of reads, again and again: the reader gets no
# error and the right data; writes and local reads go on meanwhile.
. "$(dirname "$0")/lib.sh"

make_chain "$T/store" 3 96 21 > /dev/null
flatten "$T/store/link2.qcow2" "$T/expected"
cp "$T/expected" "$T/expected.new"
start_nginx "$T/store" "limit_rate 4m;"
start_chaind
chainctl start "$HTTP/link2.qcow2" vmdisk

# All but the last megabyte, which is written meanwhile.  Direct: a buffered read
# that waits holds a lock of the block device that lseek() takes.
cmp -n $((95 << 20)) "$T/expected" <(dd if=/dev/mapper/vmdisk bs=1M iflag=direct status=none) &
reader=$!
for ((i = 0; i < 5; i++)); do
	before=$(http_requests)
	wait_until 60 eval "! kill -0 $reader || [ \"\$(http_requests)\" -gt $before ]"
	kill_chaind

	# Without the daemon: writes, and reads of what was written.
	head -c 65536 /dev/urandom > "$T/piece"
	dd if="$T/piece" of="$T/expected.new" bs=64k seek=$((1528 + i)) conv=notrunc status=none
	dd if="$T/piece" of=/dev/mapper/vmdisk bs=64k seek=$((1528 + i)) oflag=direct \
		conv=notrunc,fsync status=none
	cmp "$T/piece" <(dd if=/dev/mapper/vmdisk bs=64k skip=$((1528 + i)) count=1 iflag=direct \
		status=none)
	start_chaind
	wait_until 60 eval "chainctl status vmdisk --json | grep -q '\"attached\"'"
done
wait $reader || fail "the reader got an error or wrong data"
blockdev --flushbufs /dev/mapper/vmdisk
cmp "$T/expected.new" /dev/mapper/vmdisk

chainctl stop vmdisk --discard
stop_chaind
stop_nginx
