#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Images in two places, as the stores file says: reads go on when the place that is used
# dies in the middle, and when it comes back and the other one dies; a place that has
# other bytes is never read from.
. "$(dirname "$0")/lib.sh"

qc2fault=build/user/tests/tools/qc2fault
FIRST=http://127.0.0.1:8081 SECOND=http://127.0.0.1:8082
proxies=()

# proxy NAME PORT - in front of nginx
proxy()
{
	"$qc2fault" serve "$T/$1" "$2" 8080 > "$T/$1.ready" &
	proxies+=($!)
	wait_until 30 grep -q ready "$T/$1.ready"
}
fault() { "$qc2fault" "$T/$1" "${@:2}" > "$T/answer" || fail "qc2fault $*: $(cat "$T/answer")"; }
requests() { "$qc2fault" "$T/$1" count | jq .requests; }
logged() { grep -q "$1" "$T/chaind.log"; }

# read_part SKIP_MB COUNT_MB WHAT - the part must be right
read_part()
{
	dd if=/dev/mapper/vmdisk of="$T/part" bs=1M iflag=direct skip="$1" count="$2" status=none ||
		fail "reading $2 MiB at $1 MiB failed: $3"
	cmp -n $(($2 << 20)) -i $(($1 << 20)):0 "$T/expected" "$T/part" ||
		fail "WRONG DATA: $3"
}

qemu-img create -q -f qcow2 "$T/base.qcow2" 32M
qemu-io -f qcow2 -c "write -q -P 5 0 12M" -c "write -q -P 6 12M 12M" -c "write -q -P 7 24M 8M" \
	"$T/base.qcow2"
mkdir -p "$T/store/good" "$T/store/copy" "$T/store/bad"
cp "$T/base.qcow2" "$T/store/good/disk.qcow2"
cp "$T/base.qcow2" "$T/store/copy/disk.qcow2"
cp "$T/base.qcow2" "$T/store/bad/disk.qcow2"
# The copy has another ETag; the bad one is as long, and differs in the middle.
touch -d 2001-01-01 "$T/store/copy/disk.qcow2"
size=$(stat -c %s "$T/base.qcow2")
head -c 65536 /dev/urandom | dd of="$T/store/bad/disk.qcow2" bs=1 seek=$((size / 2 - 32768)) \
	conv=notrunc status=none
flatten "$T/base.qcow2" "$T/expected"

cat > "$T/stores.conf" <<END
[$FIRST/good/]
replica = $SECOND/copy/
replica = http://127.0.0.1:8080/bad/
END
chmod 600 "$T/stores.conf"
start_nginx "$T/store"
proxy first 8081
proxy second 8082
start_chaind "[store]" "sites_file=$T/stores.conf" "connect_timeout_s=2" "low_speed_time_s=2"
chainctl start "$FIRST/good/disk.qcow2" vmdisk
wait_until 60 logged "$SECOND/copy/disk.qcow2: is a replica"
wait_until 60 logged "bad/disk.qcow2: other bytes.*not used"
compared=$(http_requests /bad/)

fault first refuse
read_part 0 8 "the first place is gone"
[ "$(requests second)" -gt 3 ] || fail "the replica was not used"
fault second reset 1000 next 2
read_part 8 8 "the replica cuts answers, and the first place is gone"

fault second refuse
fault first clear
read_part 16 8 "the first place is back, and the replica is gone"

# Changed: not used any more, and no error.
fault second clear
fault second wrong-etag
fault first refuse
dd if=/dev/mapper/vmdisk of="$T/part" bs=1M iflag=direct skip=24 count=8 status=none &
reader=$!
wait_until 60 logged "not used any more"
kill -0 $reader || fail "the reader did not wait for the first place"
fault first clear
wait $reader || fail "the reader got an error when a replica had changed"
cmp -n $((8 << 20)) -i $((24 << 20)):0 "$T/expected" "$T/part" || fail "WRONG DATA: changed replica"
chainctl status vmdisk --json | jq -e '.stores | map(.store) |
	contains(["http://127.0.0.1:8081", "http://127.0.0.1:8082"])' > "$T/answer" ||
	fail "status does not name both stores: $(chainctl status vmdisk --json)"
[ "$(http_requests /bad/)" = "$compared" ] || fail "the bad replica was read"
chainctl stop vmdisk --discard

stop_chaind
kill "${proxies[@]}"
stop_nginx
