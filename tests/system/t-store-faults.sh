#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A store that makes trouble of every kind, one after another, and the daemon: while
# the trouble is there, reads wait or fail, and never get other data; when it is over,
# they go on.  Other disks and other stores do not suffer.
# Time limit: 900
. "$(dirname "$0")/lib.sh"

qc2fault=build/user/tests/tools/qc2fault
FAULTY=http://127.0.0.1:8081
disks=0

fault() { "$qc2fault" "$T/fault" "$@" > "$T/answer" || fail "qc2fault $*: $(cat "$T/answer")"; }
counter() { "$qc2fault" "$T/fault" count | jq ".$1 // 0"; }
tried() { [ "$(counter "faults.\"$1\"")" -ge "$2" ]; }
# Direct: a buffered read keeps others from seeking in the same device.
read_disk() { dd if=/dev/mapper/"${1-vmdisk}" of="$T/read.${1-vmdisk}" bs=256k iflag=direct status=none; }
same() { cmp "$T/expected" "$T/read.${1-vmdisk}" || fail "WRONG DATA: ${2-$what}"; }

make_chain "$T/store" 3 16 61 > /dev/null
flatten "$T/store/link2.qcow2" "$T/expected"
# The same images under many names, so that nothing is in the cache.
start_nginx "$T/store" "location ~ ^/v/[^/]+/(?<file>.*)\$ { alias $T/store/\$file; }"
"$qc2fault" serve "$T/fault" 8081 8080 > "$T/ready" &
proxy=$!
wait_until 30 grep -q ready "$T/ready"
start_chaind "[store]" "connect_timeout_s=2" "low_speed_time_s=1"

# start_disk - one that nothing was read of
start_disk()
{
	disks=$((disks + 1))
	chainctl start "$FAULTY/v/$disks/link2.qcow2" "${1-vmdisk}"
	fault zero
}

stop_disk()
{
	chainctl stop "${1-vmdisk}" --discard
}

# asked DISK NUMBER - its images were asked for so often
asked()
{
	[ "$(counter "paths | with_entries(select(.key | startswith(\"/v/$1/\"))) | add")" -ge "$2" ]
}
disk_stalled() { chainctl status "$1" | grep -qi "stalled.*127.0.0.1:8081"; }

# wait_for FAULT… - of these, each has a disk of its own; reads wait, however often the
# store is tried, and go on when the faults are over
wait_for()
{
	local f first=$((disks + 1)) disk readers=()

	what=$*
	for f; do
		start_disk "d$((disks + 1))"
	done
	for ((disk = first; disk <= disks; disk++)); do
		# shellcheck disable=SC2086 # words
		fault $1 path "/v/$disk/"
		set -- "${@:2}" "$1"
	done
	for ((disk = first; disk <= disks; disk++)); do
		read_disk d$disk &
		readers+=($!)
	done
	for ((disk = first; disk <= disks; disk++)); do
		wait_until 60 disk_stalled d$disk
		[ "$1" = refuse ] || wait_until 120 asked $disk 3
	done
	kill -0 "${readers[@]}" || fail "a reader did not wait: $what"
	fault clear
	for ((disk = first; disk <= disks; disk++)); do
		wait "${readers[disk - first]}" || fail "a reader got an error: $what"
		same d$disk
		wait_until 60 eval "! disk_stalled d$disk"
		stop_disk d$disk
	done
}

# goes_on FAULTS… - some requests only: nothing but time is lost
goes_on()
{
	local f

	what=$*
	start_disk
	for f; do
		# shellcheck disable=SC2086 # words
		fault $f
	done
	timeout $((120 * QC2_TIME_SCALE)) dd if=/dev/mapper/vmdisk of="$T/read.vmdisk" bs=64k \
		iflag=direct status=none || fail "the reader got an error or hung: $what"
	same
	[ "$(counter "faults | add")" -gt 0 ] || fail "no fault was seen: $what"
	fault clear
	stop_disk
}

# fails PATTERN FAULT… - reads fail at once, status says why, and nothing is repeated
# for ever.  When it is over, a start, at the latest, brings all back.
fails()
{
	local pattern=$1

	what=${*:2}
	start_disk
	fault "${@:2}"
	must_fail "input/output error" timeout $((120 * QC2_TIME_SCALE)) \
		dd if=/dev/mapper/vmdisk of=/dev/null bs=256k iflag=direct
	chainctl status vmdisk | grep -qiE "$pattern" ||
		fail "status does not say \"$pattern\": $(chainctl status vmdisk)"
	[ "$(counter requests)" -lt 20 ] || fail "$what: $(counter requests) requests"
	fault clear
	if ! read_disk 2> /dev/null; then
		stop_disk
		chainctl start "$FAULTY/v/$disks/link2.qcow2" vmdisk
		read_disk || fail "still an error: $what"
	fi
	same
	stop_disk
}

wait_for cut "cut 1000" "truncate 1" reset "reset 1000" "status 500" "status 503 error SlowDown" \
	"status 503 retry-after 1" "status 429 retry-after 1"
wait_for stall "stall 1000"
wait_for refuse

goes_on "delay 50"
goes_on "cut 20000 percent 20" "reset percent 10" "status 503 percent 10" "truncate 1 percent 10" \
	"stall 500 next 2" "delay 20 percent 50"

fails "sent bytes|range" wrong-range
fails "range" whole
fails "changed" wrong-etag
fails "403|access" status 403
fails "404|no such" status 404
fails "redirect" redirect eu-west-1

# An object is replaced under one disk.  Another disk, of the same store, goes on.
what="an object was replaced"
mkdir "$T/store/victim"
cp "$T"/store/*.qcow2 "$T/store/victim/"
chainctl start "$FAULTY/victim/link2.qcow2" victim
start_disk
for link in 0 1 2; do
	head -c "$(stat -c %s "$T/store/victim/link$link.qcow2")" /dev/urandom > "$T/new"
	touch -d 2001-01-01 "$T/new"
	mv "$T/new" "$T/store/victim/link$link.qcow2"
done
# What was read before may be there; what is read is right.
failed=0
for ((at = 0; at < 64; at++)); do
	if dd if=/dev/mapper/victim of="$T/part" bs=256k skip=$at count=1 iflag=direct status=none \
			2> /dev/null; then
		cmp -n 262144 -i 0:$((at * 262144)) "$T/part" "$T/expected" || fail "WRONG DATA at $at"
	else
		failed=$((failed + 1))
	fi
done
[ $failed -gt 0 ] || fail "a replaced object was not noticed"
chainctl status victim | grep -qi changed || fail "status does not say so: $(chainctl status victim)"
read_disk || fail "another disk got an error"
same
! chainctl status vmdisk | grep -qi changed || fail "blamed on another disk"
stop_disk victim
stop_disk

# A dead store and many who read from it: a disk of another store goes on.
what="another store is dead"
start_disk
chainctl start "$HTTP/v/alive/link2.qcow2" alive
fault stall
readers=()
for ((at = 0; at < 64; at += 2)); do
	dd if=/dev/mapper/vmdisk of=/dev/null bs=256k skip=$at count=1 iflag=direct status=none &
	readers+=($!)
done
wait_until 60 tried stall 3
timeout $((120 * QC2_TIME_SCALE)) dd if=/dev/mapper/alive of="$T/read.alive" bs=256k iflag=direct \
	status=none || fail "the other store's disk was held up"
same alive
kill -0 "${readers[@]}" || fail "the readers did not wait"
fault clear
for reader in "${readers[@]}"; do
	wait "$reader" || fail "a reader got an error: $what"
done
read_disk
same
stop_disk alive
stop_disk

# A bit is flipped on the way, once, which the digests of a manifest show.
what="a bit was flipped"
# Equal content is in the cache, under other names.
stop_chaind
rm "$T/cache"
start_chaind
chainctl publish "$FAULTY/v/flip/link2.qcow2" --output "$T/store/link2.qcow2.manifest" > /dev/null
chainctl start "$FAULTY/v/flip/link2.qcow2" vmdisk
verifies() { grep -q "verified with [1-9][0-9]* digests" "$T/chaind.log"; }
wait_until 60 verifies
fault zero
fault flip 300 next 1
if read_disk 2> /dev/null; then
	same
else
	stop_disk
	chainctl start "$FAULTY/v/flip/link2.qcow2" vmdisk
	read_disk || fail "still an error: $what"
	same
fi
[ "$(counter faults.flip)" = 1 ] || fail "no bit was flipped"
stop_disk

requests_wait 0 || fail "something waits still"
stop_chaind
kill $proxy
wait $proxy || true
stop_nginx
