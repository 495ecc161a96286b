#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A chain whose links lie in three stores.  One dies: reads of the others' data go on,
# status says which store it is, since when, and how many reads wait; when it answers
# again all goes on.  With a limit for reads, those fail, and no others.
. "$(dirname "$0")/lib.sh"

qc2fault=build/user/tests/tools/qc2fault
DEAD=http://127.0.0.1:8081

fault() { "$qc2fault" "$T/fault" "$@" > "$T/answer" || fail "qc2fault $*: $(cat "$T/answer")"; }
read_part()
{
	dd if=/dev/mapper/vmdisk of="$T/part" bs=1M iflag=direct skip="$1" count="$2" status=none ||
		return 1
	cmp -n $(($2 << 20)) -i $(($1 << 20)):0 "$T/expected" "$T/part" ||
		fail "WRONG DATA at $1 MiB"
}
dead_store()
{
	chainctl status --json | jq ".stores[] | select(.store == \"$DEAD\") | .$1"
}
reads_wait() { [ "$(dead_store waiting)" -gt 0 ]; }

# 8 MiB each: the base behind the proxy, a link in nginx, the top in a folder.
mkdir -p "$T/a" "$T/b" "$T/c"
qemu-img create -q -f qcow2 "$T/a/base.qcow2" 24M
qemu-io -f qcow2 -c "write -q -P 1 0 24M" "$T/a/base.qcow2"
qemu-img create -q -f qcow2 -b "$T/a/base.qcow2" -F qcow2 "$T/b/middle.qcow2"
qemu-io -f qcow2 -c "write -q -P 2 8M 16M" "$T/b/middle.qcow2"
qemu-img create -q -f qcow2 -b "$T/b/middle.qcow2" -F qcow2 "$T/c/top.qcow2"
qemu-io -f qcow2 -c "write -q -P 3 16M 8M" "$T/c/top.qcow2"
flatten "$T/c/top.qcow2" "$T/expected"
qemu-img rebase -q -u -f qcow2 -b "$DEAD/a/base.qcow2" -F qcow2 "$T/b/middle.qcow2"
qemu-img rebase -q -u -f qcow2 -b "$HTTP/b/middle.qcow2" -F qcow2 "$T/c/top.qcow2"

start_nginx "$T"
"$qc2fault" serve "$T/fault" 8081 8080 > "$T/ready" &
proxy=$!
wait_until 30 grep -q ready "$T/ready"
start_chaind "[chain]" "allow=$HTTP/ $DEAD/" "[store]" "connect_timeout_s=2" "low_speed_time_s=2"
chainctl start "file://$T/c/top.qcow2" vmdisk
wait_until 60 eval "chainctl status vmdisk --json | jq -e '.disks[0].index_complete' > '$T/answer'"

fault stall
dd if=/dev/mapper/vmdisk of="$T/waits" bs=1M iflag=direct count=8 status=none &
reader=$!
wait_until 60 reads_wait
read_part 8 8 || fail "reads of a store that answers fail"
read_part 16 8 || fail "reads of a folder fail"
wait_until 60 eval '[ "$(dead_store trouble)" != null ]'
[ "$(dead_store trouble_s)" -ge 0 ] || fail "status does not say since when"
chainctl status vmdisk > "$T/status"
grep -q "stalled.*127.0.0.1:8081" "$T/status" || fail "status does not say which: $(cat "$T/status")"
kill -0 $reader || fail "the reader did not wait"
fault clear
wait $reader || fail "the reader got an error"
cmp -n $((8 << 20)) "$T/expected" "$T/waits" || fail "WRONG DATA after the store was back"
wait_until 60 eval '[ "$(dead_store trouble)" = null ]'
chainctl stop vmdisk --discard
stop_chaind

# The same with a limit for reads.
rm -r "$T/cache"
start_chaind
chainctl start "file://$T/c/top.qcow2" vmdisk --fail-reads-after 3
fault stall
must_fail "input/output error" read_part 0 8
read_part 8 16 || fail "reads of stores that answer fail"
fault clear
wait_until 120 read_part 0 8
chainctl stop vmdisk --discard

stop_chaind
kill $proxy
stop_nginx
