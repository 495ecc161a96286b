#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Time limit: 1200
#
# The tip is swapped for a new one under load, QC2_SWAPS times, as a snapshot does
# it: the old tip becomes a store device of the new table.  Writes and reads go on,
# also reads that wait while the daemon stands still, and none gets other data.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/kernel.sh"

swaps=${QC2_SWAPS:-8}
now_us() { echo "${EPOCHREALTIME/./}"; }

make_disk
create_disk
start_qc2nl

# From 8 to 24 MiB fio writes and verifies until it is told to end.  Its greatest
# latencies of writes are kept, in ms.
load()
{
	local seed=0

	until [ -e "$T/enough" ]; do
		seed=$((seed + 1))
		fio --name=verify --filename=/dev/mapper/disk --rw=randwrite --bsrange=512-64k \
			--direct=1 --ioengine=libaio --iodepth=8 --fsync=64 --offset=8M --size=16M \
			--verify=crc32c --do_verify=1 --verify_fatal=1 --randseed=$seed \
			--output-format=json --output="$T/fio.json" > "$T/fio.log" 2>&1 || return
		jq '.jobs[0].write.clat_ns.max / 1000000 | floor' "$T/fio.json" >> "$T/latencies"
	done
}
# The first 8 MiB are read again and again; after a swap all of it is unknown.
reread()
{
	until [ -e "$T/enough" ]; do
		cmp -n $((8 << 20)) "$T/content" \
			<(dd if=/dev/mapper/disk bs=1M count=8 iflag=direct status=none) || return
	done
}
load &
load=$!
reread &
reread=$!

loaded() { kill -0 $load && kill -0 $reread; } 2> /dev/null

stores=$STORE
tips=("$TIP")
for ((i = 1; i <= swaps; i++)); do
	stores+=" $TIP"
	chainctl_tip create "$T/tip$i" --chain-id $ID --size $((SECTORS * 512)) > /dev/null
	TIP=$(losetup --find --show --direct-io=on "$T/tip$i")
	tips+=("$TIP")
	dmsetup load disk --table "0 $SECTORS qcow2chain $ID $TIP $((i + 1)) $stores"
	# Every other time reads are parked, and are so for certain.
	if [ $((i % 2)) = 1 ]; then
		kill -STOP $QC2NL_PID
		dmsetup message disk 0 map_drop
		wait_until 60 eval 'parked || ! loaded'
	fi
	start=$(now_us)
	# A resume is also a suspend if there is a new table.
	[ $((i % 4)) -lt 2 ] || dmsetup suspend --noflush --nolockfs --noudevsync disk
	dmsetup resume --noflush --nolockfs --noudevsync disk
	pauses[i]=$((($(now_us) - start) / 1000))
	kill -CONT $QC2NL_PID
	# Something is written to each tip.
	wait_until 60 eval '[ "$(status_field 3)" -gt 0 ] || ! loaded'
	loaded || break
done
: > "$T/enough"
wait $load || fail "fio: $(cat "$T/fio.log")"
wait $reread || fail "the first 8 MiB are not the base's"
[ "$(dmsetup table disk | cut -d' ' -f6)" = $((swaps + 1)) ] || fail "$(dmsetup table disk)"
sorted() { printf '%s\n' "$@" | sort -n; }
middle() { sorted "$@" | sed -n "$((($# + 1) / 2))p"; }
# shellcheck disable=SC2046 # numbers
echo "# $swaps swaps of $(sorted "${pauses[@]}" | head -n 1) to" \
	"$(sorted "${pauses[@]}" | tail -n 1) ms, median $(middle "${pauses[@]}") ms;" \
	"slowest write of each run of fio: $(sorted $(< "$T/latencies") | tail -n 1) ms," \
	"median $(middle $(< "$T/latencies")) ms"

# What nobody wrote is the base's.
drop_caches
cmp -n $((8 << 20)) "$T/content" /dev/mapper/disk
cmp -i $((24 << 20)) "$T/content" /dev/mapper/disk

remove_disk
stop_qc2nl
for TIP in "${tips[@]}"; do
	losetup -d "$TIP"
done
losetup -d "$STORE"
