#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The cache: it lasts over restarts and crashes of chaind, damage in it is noticed before
# anybody reads it and by the scrubber, equal content is fetched once, zeros take no room,
# its size is changed while disks read, and without its index disks go on.
#
# Time limit: 600
. "$(dirname "$0")/lib.sh"

make_chain "$T/store/a" 3 16 11 > /dev/null
flatten "$T/store/a/link2.qcow2" "$T/raw"
start_nginx "$T/store" "dav_methods PUT;"
start_chaind
chainctl publish "$HTTP/a/link2.qcow2" > /dev/null
# The same content, as other objects.
cp -r "$T/store/a" "$T/store/b"
rm "$T/store/b/link2.qcow2.manifest"
touch -d "1 hour ago" "$T"/store/b/*
chainctl publish "$HTTP/b/link2.qcow2" > /dev/null

# Headers and manifests are read at each start; this is about data.
data_requests() { http_requests 'link[0-9]+\.qcow2 bytes=[1-9]'; }
cache_field() { chainctl status --json | jq ".cache.$1"; }
# What is equal is known by the digests, which come soon after the start.
verifications() { grep -c "verified with [1-9][0-9]* digests" "$T/chaind.log" || true; }
verifies() { [ "$(verifications)" -gt "$before" ]; }

# disk_is URL REQUESTS - a disk made of it has the content, which takes so many requests
disk_is()
{
	local n before

	before=$(verifications)
	http_reset
	chainctl start "$1" vmdisk
	wait_until 30 verifies
	dd if=/dev/mapper/vmdisk bs=64k iflag=direct status=none | cmp - "$T/raw" ||
		fail "$1: wrong data"
	n=$(data_requests)
	[ "$2" = any ] || [ "$n" = "$2" ] || fail "$1: $n requests, not $2: $(cat "$T/access.log")"
	echo "    $n requests" >&2
	chainctl stop vmdisk --discard
}

echo "a second start, and one after a restart"
disk_is "$HTTP/a/link2.qcow2" any
[ "$(data_requests)" -gt 0 ] || fail "nothing was fetched"
disk_is "$HTTP/a/link2.qcow2" 0
stop_chaind
start_chaind
disk_is "$HTTP/a/link2.qcow2" 0
used=$(cache_field used_bytes)
[ "$(cache_field unverified_bytes)" = 0 ] || fail "the cache was not closed in order"

echo "equal content under another name"
disk_is "$HTTP/b/link2.qcow2" 0
[ "$(cache_field used_bytes)" = "$used" ] || fail "it was stored twice"
[ "$(cache_field logical_bytes)" -gt "$used" ] || fail "$(cache_field logical_bytes) of names"

echo "zeros"
qemu-img create -q -f qcow2 "$T/store/zeros.qcow2" 8M
qemu-io -c "write -q -P 0 0 4M" -c "write -q -P 7 4M 1M" "$T/store/zeros.qcow2"
flatten "$T/store/zeros.qcow2" "$T/zeros"
chainctl start "$HTTP/zeros.qcow2" zeros
cmp "$T/zeros" <(dd if=/dev/mapper/zeros bs=64k iflag=direct status=none)
[ "$(cache_field used_bytes)" -le $((used + (2 << 20))) ] || fail "zeros were stored"
[ "$(cache_field zero_bytes)" -ge $((3 << 20)) ] || fail "$(cache_field zero_bytes) of zeros"
chainctl stop zeros --discard

echo "a crash, and damage meanwhile"
stop_chaind
start_chaind
loaded() { [ "$(cache_field used_bytes)" -gt 0 ]; }
wait_until 30 loaded
kill_chaind
# In the first block behind that of the superblock.
[ "$(dd if="$T/cache" bs=64k skip=1 count=1 status=none | tr -d '\0' | wc -c)" -gt 0 ] ||
	fail "there is no block at 64 KiB of the cache"
perl -e 'open my $f, "+<:raw", shift or die; seek $f, 65536, 0; read $f, my $b, 65536;
	seek $f, 65536, 0; print $f ~$b' "$T/cache"
start_chaind
disk_is "$HTTP/a/link2.qcow2" any
disk_is "$HTTP/b/link2.qcow2" any
wait_until 60 eval '[ "$(cache_field unverified_bytes)" = 0 ]'
[ "$(cache_field damaged)" = 1 ] || fail "damaged: $(cache_field damaged)"
disk_is "$HTTP/a/link2.qcow2" 0

echo "the scrubber"
stop_chaind
start_chaind "[cache]" "scrub_rate=4M"
chainctl start "$HTTP/a/link2.qcow2" vmdisk
dd if=/dev/mapper/vmdisk bs=64k iflag=direct status=none | cmp - "$T/raw"
loop=$(losetup -n -O NAME -j "$T/cache")
dd if=/dev/urandom of="$loop" bs=64k seek=1 count=256 oflag=direct conv=notrunc status=none
found() { [ "$(cache_field damaged)" -ge 90 ]; }
wait_until 60 found
healed() { dd if=/dev/mapper/vmdisk bs=64k iflag=direct status=none | cmp -s - "$T/raw"; }
wait_until 60 healed
chainctl stop vmdisk --discard

echo "its size is changed"
chainctl start "$HTTP/a/link2.qcow2" vmdisk
(
	for _ in 1 2 3; do
		chainctl cache resize 2G > /dev/null
		resized() { chainctl cache resize 64M > /dev/null 2>&1; }
		wait_until 60 resized
		small() { [ "$(cache_field size_bytes)" = $((64 << 20)) ] &&
			chainctl cache resize 64M > /dev/null 2>&1; }
		wait_until 60 small
	done
) &
resizer=$!
while kill -0 $resizer 2> /dev/null; do
	dd if=/dev/mapper/vmdisk bs=64k iflag=direct status=none | cmp - "$T/raw"
done
wait $resizer || fail "resizing failed"
must_fail "least" chainctl cache resize 1M
[ "$(du -k "$T/cache" | cut -f1)" -le $((65 << 10)) ] || fail "no space was given back"
chainctl stop vmdisk --discard

echo "without its index"
stop_chaind
head -c 100000 /dev/urandom > "$T/cache.index"
rm -f "$T"/cache.index-*
start_chaind
disk_is "$HTTP/a/link2.qcow2" any
disk_is "$HTTP/a/link2.qcow2" 0
stop_chaind
mkdir -p "$T/full"
mount -t tmpfs -o size=256k none "$T/full"
start_chaind "[cache]" "index=$T/full/index"
head -c 1M /dev/zero > "$T/full/filler" 2> /dev/null || true
disk_is "$HTTP/a/link2.qcow2" any
troubled() { chainctl status --json | jq -e '.cache.trouble | test("index|disk|full|space"; "i")'; }
wait_until 60 troubled
rm "$T/full/filler"
mended() { [ "$(cache_field trouble)" = null ]; }
wait_until 60 mended
disk_is "$HTTP/a/link2.qcow2" any
stop_chaind
umount "$T/full"
stop_nginx
