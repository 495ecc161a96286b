#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A failing cache device, with dm-flakey below chaind's cache: while it takes no
# writes, or cannot be read, data comes through the bypass; in a power failure it
# loses what was written to it, which is noticed.  No read fails, and no wrong data
# is read, ever.
#
# Time limit: 600
. "$(dirname "$0")/lib.sh"

modprobe dm-flakey
seed=31
for chain in one two three; do
	make_chain "$T/store/$chain" 2 16 $((seed++)) > /dev/null
	flatten "$T/store/$chain/link1.qcow2" "$T/$chain"
done
truncate -s 64M "$T/cachefile"
loop=$(losetup --find --show --direct-io=on "$T/cachefile")
cache_is() { lower lowcache "$loop" "$@"; }
cache_is linear

# read_disk NAME - all of it; direct, or the page cache would hide the device
read_disk() { dd if="/dev/mapper/$1" bs=64k iflag=direct status=none; }
# put SECTOR - write 4 KiB to disk one, durably
put()
{
	head -c 4096 /dev/urandom > "$T/piece"
	dd if="$T/piece" of=/dev/mapper/one bs=4k seek=$(($1 * 512)) \
		oflag=direct,seek_bytes conv=notrunc,fsync status=none
	dd if="$T/piece" of="$T/one" bs=512 seek="$1" conv=notrunc status=none
}

start_nginx "$T/store"
start_chaind "[cache]" "path=/dev/mapper/lowcache" "size=64M" "index=$T/cache.index"
chainctl start "$HTTP/one/link1.qcow2" one

# cache_has JQ-CONDITION - of the cache's part of status
cache_has() { chainctl status --json | jq -e ".cache | $1" > /dev/null; }

echo "the cache takes no writes"
cache_is flakey "1 error_writes"
cmp "$T/one" <(read_disk one)
put 20000
cache_has '.errors > 0 and .bypass.written_bytes > 0 and (.trouble | test("write of 64 KiB"))' ||
	fail "not in status: $(chainctl status)"
grep -q "lowcache.*write .* failed" "$T/chaind.log" || fail "not in the log"
[ "$(chainctl status --json | jq .cache.used_bytes)" = 0 ] || fail "a write was believed"
! chainctl pull "$HTTP/three/link1.qcow2" 2> "$T/err" || fail "pulled into nothing"
grep -q "could not keep it" "$T/err" || fail "$(cat "$T/err")"
cache_is linear
# What is in the bypass stays there for a while, then it is kept again.
chainctl start "$HTTP/three/link1.qcow2" three
kept() { read_disk three > /dev/null; cache_has '.used_bytes > 0 and .trouble == null'; }
wait_until 60 kept
cmp "$T/one" <(read_disk one)
cmp "$T/three" <(read_disk three)
chainctl stop three --discard

echo "the cache cannot be read"
lower_reads_fail lowcache "$loop"
cmp "$T/one" <(read_disk one)
put 10000
dd if=/dev/mapper/one bs=4k skip=$((10000 * 512)) count=1 iflag=direct,skip_bytes status=none |
	cmp "$T/piece" -
cache_is linear
cmp "$T/one" <(read_disk one)

echo "the cache is gone when chaind starts"
stop_chaind
rm /dev/mapper/lowcache
start_chaind
cache_has '.device == "" and .size_bytes == 0 and (.trouble | test("lowcache: No such file"))' ||
	fail "not in status: $(chainctl status)"
cmp "$T/one" <(read_disk one)
put 15000
must_fail "the cache is absent until this is mended" chainctl start "$HTTP/two/link1.qcow2" two
must_fail "the cache is absent until this is mended" chainctl pull "$HTTP/two/link1.qcow2"
must_fail "the cache is absent until this is mended" chainctl cache pin one
[ ! -e /dev/mapper/lowcache ] || fail "a file in the place of the device"
dmsetup mknodes lowcache
wait_until 60 cache_has '.trouble == null and .used_bytes > 0'
# Not a file that stands in for it, either.
stop_chaind
mv /dev/mapper/lowcache "$T/lowcache"
truncate -s 64M /dev/mapper/lowcache
start_chaind
cache_has '.trouble | test("disk one cannot use it")' || fail "not in status: $(chainctl status)"
cmp "$T/one" <(read_disk one)
mv "$T/lowcache" /dev/mapper/lowcache
wait_until 60 cache_has '.trouble == null and .used_bytes > 0'
cmp "$T/one" <(read_disk one)

echo "the power fails"
chainctl start "$HTTP/two/link1.qcow2" two
cache_is flakey "1 drop_writes"
# What the device makes of it now is its own affair.  The end of a pull is in the index.
pulls() { chainctl pull "$HTTP/two/link1.qcow2" 2> /dev/null; }
wait_until 90 pulls
kill_chaind
dmsetup remove --noudevsync one
dmsetup remove --noudevsync two
cache_is linear
start_chaind
for chain in one two; do
	chainctl start "$HTTP/$chain/link1.qcow2" $chain
	cmp "$T/$chain" <(read_disk $chain)
done
cache_has '.damaged > 0' || fail "nothing was damaged: $(chainctl status)"
wait_until 60 cache_has '.unverified_bytes == 0'

chainctl stop one --discard
chainctl stop two --discard
stop_chaind
stop_nginx
dmsetup remove --noudevsync lowcache
losetup -d "$loop"
