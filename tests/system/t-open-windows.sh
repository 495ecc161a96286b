#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A disk is up as soon as its first read can be answered: its L2 tables are read
# in windows where reads need them, in front of the rest.  What windows say is what
# the whole index says; the first read costs two or three requests for each link.
. "$(dirname "$0")/lib.sh"

depth=12
top=$(make_chain "$T/store" $depth 1024 7)
for cluster in 4k,extended_l2=off 2M,extended_l2=on 1k,extended_l2=off; do
	image=$T/store/over-${cluster%%,*}.qcow2
	qemu-img create -q -f qcow2 -o "cluster_size=$cluster" -u -b "${top##*/}" -F qcow2 \
		"$image" 1G
	qemu-io -t unsafe -f qcow2 -c "write -q -P 7 127M 2M" -c "write -q -P 8 1000M 300k" \
		-c "write -q -z 383M 3M" "$image"
	top=$image
done
flatten "$T/store/link$((depth - 1)).qcow2" "$T/plain"
flatten "$top" "$T/mixed"
start_nginx "$T/store"
start_chaind

index_complete() { [ "$(chainctl status vmdisk --json | jq '.disks[0].index_complete')" = true ]; }

# read_at MIB EXPECTED
read_at()
{
	cmp <(dd if=/dev/mapper/vmdisk bs=1M skip="$1" count=1 iflag=direct status=none) \
		<(dd if="$2" bs=1M skip="$1" count=1 status=none) || fail "$2 differs at $1 MiB"
}

# Headers, then the first window; what else is read comes behind the first answer.
read -r place above offset < <(qemu-img map --output=json "$T/store/link$((depth - 1)).qcow2" |
	jq -r 'map(select(.data))[0] | "\(.start) \(.depth) \(.offset)"')
file=link$((depth - 1 - above)).qcow2
[ "$place" -lt $((128 << 20)) ]
chainctl start "$HTTP/link$((depth - 1)).qcow2" vmdisk
read_at $((place >> 20)) "$T/plain"
http_settled
# A line of the log is written when the answer has been sent.
requests=$(grep -n -m 1 "/$file bytes=$((offset - offset % 65536))-" "$T/access.log") ||
	fail "no request for $file at $offset: $(cat "$T/access.log")"
requests=${requests%%:*}
echo "# $depth links: $requests requests up to the first data"
# Header, L1 table with what is behind it, part of an L2 table that lies elsewhere;
# and the manifest, which is not there.
[ "$requests" -le $((3 * depth + 2)) ] || fail "$requests requests: $(cat "$T/access.log")"
wait_until 30 index_complete
cmp "$T/plain" /dev/mapper/vmdisk
chainctl stop vmdisk --discard

# The tables of a link are read once on a host: the same chain again needs the
# headers alone (and asks for a manifest), another top image over it besides those
# its own tables.
http_reset
chainctl start "$HTTP/link$((depth - 1)).qcow2" vmdisk
index_complete
[ "$(http_requests)" = $((depth + 1)) ] || fail "$(cat "$T/access.log")"
[ "$(http_requests "^404 .*manifest ")" = 1 ] || fail "$(cat "$T/access.log")"
read_at $((place >> 20)) "$T/plain"
[ "$(http_requests)" = $((depth + 1)) ] || fail "what is in the cache was fetched"
chainctl stop vmdisk --discard
qemu-img create -q -f qcow2 -u -b "link$((depth - 1)).qcow2" -F qcow2 "$T/store/other.qcow2" 1G
http_reset
chainctl start "$HTTP/other.qcow2" vmdisk
cmp "$T/plain" /dev/mapper/vmdisk
wait_until 30 index_complete
[ "$(http_requests " /link.* bytes=0-12287 ")" = $depth ]
[ "$(http_requests " 81920 /link")" = 0 ] || fail "$(cat "$T/access.log")"
chainctl stop vmdisk --discard

# Nobody reads: the index comes all the same.
chainctl start "$HTTP/${top##*/}" vmdisk
wait_until 30 index_complete
chainctl stop vmdisk --discard

# All over the disk at once, from the start on.
for url in "$HTTP/${top##*/}" "file://$top"; do
	chainctl start "$url" vmdisk
	readers=()
	for place in 1023 127 128 0 300 428 511 512 640 768 1000 999 256 384; do
		read_at "$place" "$T/mixed" &
		readers+=($!)
	done
	for reader in "${readers[@]}"; do
		wait "$reader"
	done
	cmp "$T/mixed" /dev/mapper/vmdisk
	index_complete || wait_until 30 index_complete
	chainctl stop vmdisk --discard
done

# A damaged table is found at the start in the first window, else behind it; reads
# fail then, and status says why.
cp "$T/store/link0.qcow2" "$T/store/damaged.qcow2"
entry() { echo $((0x$(od -A n -t x8 --endian=big -j "$1" -N 8 "$T/store/damaged.qcow2" | tr -d ' '))); }
l1=$(entry 40)
l2=$(($(entry "$l1") & 0xfffffffffffe00))
printf '\x80\0\0\0\0\0\x12\0' |
	dd of="$T/store/damaged.qcow2" bs=1 seek=$((l2 + 8 * 8000)) conv=notrunc status=none
must_fail "error" qemu-img convert -q -O raw "$T/store/damaged.qcow2" "$T/raw"
chainctl start "$HTTP/damaged.qcow2" vmdisk
failed() { chainctl status vmdisk | grep -q "damaged: entry 8000 of the L2 table"; }
wait_until 30 failed
must_fail "input/output error" dd if=/dev/mapper/vmdisk of="$T/raw" bs=1M iflag=direct
chainctl stop vmdisk --discard

stop_chaind
stop_nginx
