#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# fio writes and verifies a mix of 512 bytes to 1 MiB over a chain, two disks of
# which share the lower links, with a cache too small for them.
. "$(dirname "$0")/lib.sh"

make_chain "$T/store" 5 160 5 > /dev/null
cp "$T/store/link4.qcow2" "$T/store/other.qcow2"
flatten "$T/store/link4.qcow2" "$T/expected"
start_nginx "$T/store"
start_chaind "[cache]" "size=64M"
chainctl start "$HTTP/link4.qcow2" one
chainctl start "$HTTP/other.qcow2" two

verify()
{
	fio --name=verify --filename="/dev/mapper/$1" --rw=randrw --bsrange=512-1M \
		--direct=1 --ioengine=libaio --iodepth=16 --size=48M --offset=32M \
		--verify=crc32c --do_verify=1 --verify_fatal=1 --randseed="$2" \
		--fsync=64 > "$T/fio.$1" 2>&1
}
verify one 1 &
first=$!
verify two 2 || fail "fio: $(cat "$T/fio.two")"
wait $first || fail "fio: $(cat "$T/fio.one")"

# What fio did not write is still as it was, whatever the cache evicted.
for disk in one two; do
	blockdev --flushbufs /dev/mapper/$disk
	cmp -n $((32 << 20)) "$T/expected" /dev/mapper/$disk
	cmp -i $((80 << 20)) "$T/expected" /dev/mapper/$disk
done

chainctl stop one --discard
chainctl stop two --discard
stop_chaind
stop_nginx
