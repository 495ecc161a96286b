#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Time limit: 1200
#
# chaind is killed every second, QC2_KILLS times, and started again, as a service
# manager does, while fio verifies what the chain holds and what it writes itself.
# No read or write fails, and none returns other data.
. "$(dirname "$0")/lib.sh"

kills=${QC2_KILLS:-8}

# What fio wrote to the base can be verified through the chain: 24 MiB of it.
mkdir "$T/store"
truncate -s 80M "$T/raw"
fio --name=prepare --filename="$T/raw" --size=24M --rw=write --bs=64k --ioengine=psync \
	--verify=crc32c --do_verify=0 > /dev/null
head -c 16M /dev/urandom | dd of="$T/raw" bs=1M seek=40 conv=notrunc iflag=fullblock status=none
qemu-img convert -q -f raw -O qcow2 "$T/raw" "$T/store/base.qcow2"
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 "$T/store/top.qcow2"
qemu-io -f qcow2 -c "write -q -P 7 44M 3M" -c "write -q -z 50M 2M" "$T/store/top.qcow2"
rm "$T/raw"
flatten "$T/store/top.qcow2" "$T/expected"

start_nginx "$T/store" "limit_rate 4m;"
start_chaind
chainctl start "$HTTP/top.qcow2" vmdisk
status_field() { dmsetup status --noflush vmdisk | cut -d' ' -f$((3 + $1)); }
served() { [ "$(status_field 2)" != 0 ]; }
parked() { [ "$(status_field 5)" != 0 ]; }

# verify NAME OPTION… - run fio until "enough" is there; "passes" gets a line for
# each run
verify()
{
	local pass=0

	until [ -e "$T/enough" ]; do
		# All that fio reads of the chain has to be asked for; and a new daemon
		# compares what is in its cache first.
		dmsetup message vmdisk 0 map_drop
		pass=$((pass + 1))
		fio --name="$1" --filename=/dev/mapper/vmdisk --direct=1 --ioengine=libaio \
			--iodepth=8 --randseed=$pass --verify=crc32c --verify_fatal=1 --do_verify=1 \
			--output-format=json --output="$T/$1.json" "${@:2}" > "$T/$1.log" 2>&1 || return
		jq -r '.jobs[0] | "\(.read.total_ios) \(.write.total_ios)"' "$T/$1.json" \
			>> "$T/$1.passes"
	done
}
verify remote --rw=randread --bs=64k --size=24M &
remote=$!
verify local --rw=randwrite --bsrange=512-64k --offset=32M --size=16M --verify_backlog=64 \
	--fsync=32 &
local=$!
fio_runs() { kill -0 $remote && kill -0 $local; } 2> /dev/null

# Every other daemon has a second from when it serves the disk, the others from
# when they are started.
waited=0 start=$SECONDS
for ((i = 0; i < kills; i++)); do
	[ $((i % 2)) = 1 ] || wait_until 60 eval 'served || ! fio_runs'
	sleep 1
	kill_chaind
	! parked || waited=$((waited + 1))
	# Without a daemon the next read waits, if none does yet.
	wait_until 60 eval 'parked || ! fio_runs'
	fio_runs || break
	chaind --config "$CONF" >> "$T/chaind.log" 2>&1 &
	CHAIND_PID=$!
done
took=$((SECONDS - start))
: > "$T/enough"
wait $local || fail "fio: $(cat "$T/local.log")"
wait $remote || fail "fio: $(cat "$T/remote.log")"
sum() { awk -v n="$2" '{ sum += $n } END { print sum }' "$T/$1.passes"; }
echo "# $kills kills in $took s, $waited of them while reads waited;" \
	"$(sum remote 1) reads of the chain, $(status_field 11) misses;" \
	"$(sum local 2) writes, $(sum local 1) of them read back"
[ "$waited" -gt 0 ] || fail "the daemon was never killed while a read waited"

# All that fio did not write is as it was.
wait_until 60 chaind_answers
blockdev --flushbufs /dev/mapper/vmdisk
cmp -n $((32 << 20)) "$T/expected" /dev/mapper/vmdisk
cmp -i $((48 << 20)) "$T/expected" /dev/mapper/vmdisk

wait_until 60 served
chainctl stop vmdisk --discard
stop_chaind
stop_nginx
