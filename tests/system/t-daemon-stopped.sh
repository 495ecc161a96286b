#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Time limit: 900
#
# chaind stands still, then is away, for QC2_STOP_SECONDS each: writes and reads of
# local data go on, other reads wait and get their data afterwards.  With a time
# limit these fail when it is over, not before, and nothing else does.
. "$(dirname "$0")/lib.sh"

seconds=${QC2_STOP_SECONDS:-3}

make_chain "$T/store" 3 96 33 > /dev/null
flatten "$T/store/link2.qcow2" "$T/expected"
start_nginx "$T/store"
start_chaind

status_field() { dmsetup status --noflush vmdisk | cut -d' ' -f$((3 + $1)); }
parked() { [ "$(status_field 5)" -gt 0 ]; }

# read_direct FIRST_MB COUNT_MB - a part of the disk
read_direct()
{
	dd if=/dev/mapper/vmdisk bs=1M skip="$1" count="$2" iflag=direct status=none
}

# learn_known - the first 16 MiB are read, so that the kernel knows where they are
learn_known() { cmp -n $((16 << 20)) "$T/expected" <(read_direct 0 16); }

# local_io - for some seconds, writes that are read back from 32 to 64 MiB, and
# reads of what the kernel knows; all without the daemon
local_io()
{
	local end=$((SECONDS + seconds)) fio rounds=0

	fio --name=local --filename=/dev/mapper/vmdisk --offset=32M --size=32M --rw=randwrite \
		--bsrange=512-64k --direct=1 --ioengine=libaio --iodepth=8 --fsync=32 \
		--verify=crc32c --verify_fatal=1 --verify_backlog=64 --randseed=4 \
		--time_based --runtime="$seconds" --output-format=json --output="$T/fio.json" \
		> "$T/fio.log" 2>&1 &
	fio=$!
	until [ $SECONDS -ge $end ] && [ $rounds -gt 0 ]; do
		learn_known
		rounds=$((rounds + 1))
	done
	wait $fio || fail "fio: $(cat "$T/fio.log")"
	echo "# without the daemon: $(jq '.jobs[0].write.total_ios' "$T/fio.json") writes," \
		"$(jq '.jobs[0].read.total_ios' "$T/fio.json") of them read back," \
		"$((rounds * 16)) MiB of known data read"
	[ "$(jq '[.jobs[0].write, .jobs[0].read] | map(.total_ios) | min' "$T/fio.json")" -gt 0 ] ||
		fail "fio did nothing: $(cat "$T/fio.json")"
}

# without_daemon COMMAND MB - local I/O goes on, and reads of the MiB MB, which the
# kernel does not know, wait until COMMAND has brought the daemon back
without_daemon()
{
	local reader before oldest

	read_direct "$2" 1 > "$T/read" &
	reader=$!
	wait_until 30 parked
	before=$(status_field 7)
	local_io
	kill -0 $reader || fail "a read of unknown data did not wait"
	parked || fail "nothing is parked: $(dmsetup status --noflush vmdisk)"
	oldest=$(status_field 7)
	[ "$oldest" -gt "$before" ] || fail "status: the read waited $before ms, now $oldest"
	$1
	wait $reader || fail "a read of unknown data failed"
	cmp "$T/read" <(dd if="$T/expected" bs=1M skip="$2" count=1 status=none)
}
go_on() { kill -CONT "$CHAIND_PID"; }

chainctl start "$HTTP/link2.qcow2" vmdisk
learn_known
kill -STOP "$CHAIND_PID"
without_daemon go_on 80

# A limit that is not reached changes nothing.
chainctl stop vmdisk --discard
chainctl start "$HTTP/link2.qcow2" vmdisk --fail-reads-after 3600
learn_known
kill_chaind
chainctl status vmdisk | grep -q "no daemon" || fail "status: $(chainctl status vmdisk)"
without_daemon start_chaind 88
chainctl stop vmdisk --discard

# When it is over, only the reads of unknown data fail.
chainctl start "$HTTP/link2.qcow2" vmdisk --fail-reads-after 1
wait_until 60 learn_known
kill -STOP "$CHAIND_PID"
read_direct 80 1 > "$T/read" 2> "$T/error" &
reader=$!
local_io
! wait $reader || fail "a read succeeded without the daemon"
grep -qi "input/output error" "$T/error" || fail "$(cat "$T/error")"
[ "$(status_field 5) $(status_field 6) $(status_field 7)" = "0 0 0" ] ||
	fail "reads still wait: $(dmsetup status --noflush vmdisk)"
[ "$(status_field 1)" = rw ] || fail "not writable: $(dmsetup status --noflush vmdisk)"
# The same read with the daemon, which answers the one that failed as well.
kill -CONT "$CHAIND_PID"
wait_until 60 eval 'cmp <(read_direct 80 1) <(dd if="$T/expected" bs=1M skip=80 count=1)'
chainctl stop vmdisk --discard

stop_chaind
stop_nginx
