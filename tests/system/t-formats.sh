#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Compressed clusters, extended L2 entries, external data files and internal
# snapshots are read byte for byte as QEMU reads them, in any order, over HTTP
# and from files, and fetched once.  A damaged cluster fails the reads of it, and
# no others.
#
# Time limit: 600
. "$(dirname "$0")/lib.sh"

mkdir "$T/d"
cd "$T/d"
head -c $((9 << 20)) /dev/urandom | base64 -w 0 > content
truncate -s 14M content
io() { qemu-io -f qcow2 "$@" > /dev/null; }

qemu-img convert -q -c -W -O qcow2 content zlib
qemu-img convert -q -c -O qcow2 -o compression_type=zstd,cluster_size=2M content zstd
qemu-img convert -q -c -O qcow2 -o cluster_size=4k content small
qemu-img create -q -f qcow2 -o extended_l2=on -b zlib -F qcow2 subclusters 14M
io -c "write -P 1 1M 5k" -c "write -z 2M 1M" -c "write -P 2 3333k 300k" \
	-c "write -c -P 3 8M 64k" subclusters
qemu-img create -q -f qcow2 -o data_file=data -b zstd -F qcow2 datafile 14M
io -c "write -P 4 0 100k" -c "write -P 5 7M 2M" datafile
cp small snapshots
qemu-img snapshot -c before snapshots
io -c "write -P 6 1M 3M" snapshots
cd "$OLDPWD"

start_nginx "$T"
start_chaind

# check URL EXPECTED - twice: in large pieces from the start, then in small ones
# from the end, and the third time from the cache
check()
{
	local i

	chainctl start "$1" vmdisk
	for ((i = 0; i < 14 * 16; i += 11)); do
		cmp -n 4096 -i $(((14 * 16 - 1 - i) << 16)) "$2" /dev/mapper/vmdisk ||
			fail "$1 differs at block $i from the end"
	done
	cmp "$2" /dev/mapper/vmdisk || fail "$1 differs"
	http_reset
	dmsetup message vmdisk 0 map_drop
	blockdev --flushbufs /dev/mapper/vmdisk
	cmp "$2" /dev/mapper/vmdisk || fail "$1 differs the second time"
	[ "$(http_requests)" = 0 ] || fail "the second reading made requests"
	chainctl stop vmdisk --discard
}

for image in zlib zstd small subclusters snapshots datafile; do
	# QEMU looks for a data file in the current directory.
	(cd "$T/d" && flatten "$image" "$T/expected")
	check "$HTTP/d/$image" "$T/expected"
done
check "file://$T/d/datafile" "$T/expected"
check "$HTTP/d/snapshots#snapshot=before" "$T/d/content"

# A compressed cluster is larger than the extension, and than what that needs.
stop_chaind
start_chaind "[store]" connections=1 extension=64K
check "$HTTP/d/zstd" "$T/d/content"
stop_chaind
start_chaind "[store]"

# entry OFFSET - a big-endian entry of a table of the image "damaged"
entry() { echo $((0x$(od -A n -t x8 --endian=big -j "$1" -N 8 "$T/d/damaged" | tr -d ' '))); }

# Compressed cluster 20 begins with a block of a type that does not exist.
cp "$T/d/zlib" "$T/d/damaged"
l1=$(entry 40)
l2=$(($(entry "$l1") & 0xfffffffffffe00))
cluster=$(($(entry $((l2 + 8 * 20))) & ((1 << 54) - 1)))
printf '\xff' | dd of="$T/d/damaged" bs=1 seek=$cluster conv=notrunc status=none
must_fail "error" qemu-img convert -q -O raw "$T/d/damaged" "$T/expected"
chainctl start "file://$T/d/damaged" vmdisk
failed=0
for ((i = 0; i < 14 * 16; i++)); do
	if dd if=/dev/mapper/vmdisk of="$T/block" bs=64k skip=$i count=1 iflag=direct \
		status=none 2> /dev/null; then
		cmp -n 65536 -i $((i << 16)):0 "$T/d/content" "$T/block" || fail "block $i differs"
	else
		failed=$((failed + 1))
	fi
done
[ $failed = 1 ] || fail "$failed blocks cannot be read, not one"
chainctl status --json vmdisk | grep -q "compressed cluster at offset $cluster is damaged" ||
	fail "status does not say why"
chainctl stop vmdisk --discard

stop_chaind
stop_nginx
