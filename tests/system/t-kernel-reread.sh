#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Time limit: 900
#
# Reads of a store that fail do not fail the disk's: the daemon is asked again, told
# that the store has failed, and names another place.  It is not asked forever;
# and such reads can be suspended, swapped and removed like others that wait.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/kernel.sh"

SECTORS=$((8 * 2048))

# bad TARGET [FIRST NUMBER] - the first store is that from now on, or only so many
# of its sectors are
bad()
{
	local first=${2-0} nr=${3-$SECTORS} target
	local end=$((first + nr))

	case $1 in
	linear)	target="linear $STORE $first" ;;
	flakey)	target="flakey $STORE $first 1 1" ;;
	error)	target=error ;;
	esac
	{
		[ "$first" = 0 ] || echo "0 $first linear $STORE 0"
		echo "$first $nr $target"
		[ $end = $SECTORS ] || echo "$end $((SECTORS - end)) linear $STORE $end"
	} > "$T/table"
	if dmsetup info bad > /dev/null 2>&1; then
		dmsetup load bad "$T/table"
		dmsetup resume --noudevsync bad
	else
		dmsetup create bad --noudevsync "$T/table"
		dmsetup mknodes bad
	fi
}

# table [FEATURES] - of a disk with two stores that hold the same, and the first of
# which is bad
table() { echo "0 $SECTORS qcow2chain $ID $TIP 2 /dev/mapper/bad $OTHER ${1-}"; }

create()
{
	dmsetup create disk --noudevsync --table "$(table)"
	dmsetup mknodes disk
	DEV=$(dmsetup info -c --noheadings -o major,minor disk)
}

swap()
{
	dmsetup load disk --table "$(table "${1-}")"
	dmsetup resume --noflush --nolockfs --noudevsync disk
}

# start_daemon MODE - qc2nl copies or stubborn
start_daemon()
{
	build/user/tests/tools/qc2nl "$1" "$DEV" > "$T/qc2nl.log" 2>&1 &
	QC2NL_PID=$!
	wait_until 30 grep -q '^ready' "$T/qc2nl.log"
}

# next_daemon - another one, that has not been told of anything bad, and a map without
# the answers of the one before
next_daemon()
{
	stop_qc2nl
	wait_until 30 no_daemon
	dmsetup message disk 0 map_drop
	start_daemon copies
}

# start_reader BLOCK - a read of 64 KiB
start_reader()
{
	block=$1
	dd if=/dev/mapper/disk of="$T/read" bs=64k count=1 skip="$block" iflag=direct status=none \
		2> "$T/error" &
	reader=$!
}
finish_reader()
{
	wait $reader || fail "the read failed: $(cat "$T/error")"
	cmp "$T/read" <(dd if="$T/content" bs=64k count=1 skip="$block" status=none)
}
reader_fails()
{
	! wait $reader || fail "the read succeeded"
	grep -qi "input/output error" "$T/error" || fail "$(cat "$T/error")"
	[ "$(status_field 5) $(status_field 6)" = "0 0" ] ||
		fail "reads still wait: $(dmsetup status --noflush disk)"
}

# read_all SIZE - all of the disk in reads of this size, several at once
read_all() { cmp "$T/content" <(dd if=/dev/mapper/disk bs="$1" iflag=direct status=none); }
asked_again() { status_field 14; }
failed_lines() { grep -c '^failed' "$T/qc2nl.log" || true; }

make_disk
OTHER=$(losetup --find --show --direct-io=on --read-only "$T/content")
bad linear
create
start_daemon copies
read_all 1M
[ "$(asked_again) $(failed_lines)" = "0 0" ] || fail "$(dmsetup status disk)"

# A bad sector: the daemon is told of its block, and of no other, whatever the size
# of the read that comes upon it; also of the smallest.
for size in 1M 64k 4k 512; do
	bad linear
	next_daemon
	# All of it is in the map, so that reads are as long as they come.
	[ $size = 512 ] || read_all 1M
	bad error 1003 1
	again=$(asked_again)
	if [ $size = 512 ]; then
		cmp <(get 1003 1) <(dd if="$T/content" bs=512 skip=1003 count=1 status=none)
	else
		read_all $size
	fi
	[ "$(asked_again)" -gt "$again" ] || fail "nothing was asked again for $size"
	[ "$(grep '^failed' "$T/qc2nl.log" | sort -u)" = "failed 896 0" ] ||
		fail "$(cat "$T/qc2nl.log")"
done

# A store that is gone, with reads of what is known of it, and of what is not.
bad linear
next_daemon
read_all 1M
bad error
read_all 4M
next_daemon
read_all 64k
# Of what is known, and in the page cache's way, with read-ahead.
bad linear
next_daemon
read_all 1M
bad error
drop_caches
cmp "$T/content" /dev/mapper/disk
# A tip that has a part of each block.
cp "$T/content" "$T/copy"
bad linear
next_daemon
for ((i = 0; i < 20; i++)); do
	put $((i * 100 + 17)) 30
done
same_as_copy
bad error
same_as_copy
# And when they are asked for anew: one answer is for many parts of a read.
next_daemon
same_as_copy
blkdiscard -f -o 0 -l $((2048 * 512)) /dev/mapper/disk
dd if=/dev/zero of="$T/copy" bs=1M count=1 conv=notrunc status=none
same_as_copy
stop_qc2nl

# A daemon that always gives the same answer: the read fails, after as many tries as
# there are to be.  What is not bad works, and all of it with the next daemon.
wait_until 30 no_daemon
start_daemon stubborn
bad error
dmsetup message disk 0 map_drop
again=$(asked_again)
start_reader 100
reader_fails
[ "$(failed_lines)" = 4 ] || fail "asked $(failed_lines) times"
[ "$(asked_again)" = $((again + 4)) ] || fail "counted $(asked_again) after $again"
# Of a longer read one piece is enough.
must_fail "input/output error" dd if=/dev/mapper/disk of=/dev/null bs=1M count=1 skip=5 \
	iflag=direct status=none
bad linear
start_reader 100
finish_reader
stop_qc2nl

# A request that has been made without it is made again when a store fails.
wait_until 30 no_daemon
remove_disk
rm "$T/tip"
losetup -d "$TIP"
chainctl_tip create "$T/tip" --chain-id $ID --size $((SECTORS * 512)) > /dev/null
TIP=$(losetup --find --show --direct-io=on "$T/tip")
create
bad error
qc2nl retold "$DEV" > "$T/retold.log" 2>&1 &
retold=$!
wait_until 30 grep -q named "$T/retold.log"
dd if=/dev/mapper/disk of="$T/read1" bs=4k count=1 skip=1 iflag=direct status=none &
reader1=$!
wait_until 30 grep -q holding "$T/retold.log"
start_reader 0
wait $retold || fail "$(cat "$T/retold.log")"
finish_reader
wait $reader1
cmp "$T/read1" <(dd if="$T/content" bs=4k count=1 skip=1 status=none)

# fill_map - the daemon names the first store for everything, and is gone
fill_map()
{
	bad linear
	dmsetup message disk 0 map_drop
	start_daemon copies
	read_all 1M
	stop_qc2nl
	wait_until 30 no_daemon
}

# Without a daemon such a read waits for the next one, as others do.
fill_map
bad error
start_reader 3
wait_until 30 parked
kill -0 $reader || fail "the read did not wait: $(cat "$T/error")"
start_daemon copies
finish_reader
grep -q "^failed $((3 * 128)) 0" "$T/qc2nl.log" || fail "$(cat "$T/qc2nl.log")"
stop_qc2nl

# It is asked for again under a new table, which makes it fail after a time.
fill_map
bad error
start_reader 4
wait_until 30 parked
swap
wait_until 30 parked
dmsetup suspend --noflush --nolockfs --noudevsync disk
[ "$(status_field 5)" = 0 ] || fail "reads are parked in a suspended device"
kill -0 $reader || fail "the reader ended: $(cat "$T/error")"
dmsetup resume --noudevsync disk
wait_until 30 parked
start_daemon copies
finish_reader
stop_qc2nl
fill_map
bad error
start_reader 5
wait_until 30 parked
swap "2 fail_reads_after 1"
reader_fails
start_daemon copies
bad linear
wait_until 60 read_all 1M
kill -STOP $QC2NL_PID
bad error
start_reader 6
reader_fails
kill -CONT $QC2NL_PID
stop_qc2nl
swap

# While it waits the disk is not removed; the table of errors ends it.
fill_map
bad error
start_reader 7
wait_until 30 parked
must_fail "busy" dmsetup remove --noudevsync disk
parked || fail "the read is not parked any more"
dmsetup wipe_table --noflush --nolockfs --noudevsync disk
! wait $reader || fail "the read succeeded"
remove_disk
create

# Random reads, verified, of a store that fails every other second, while tables are
# swapped and daemons change.
fio --name=fill --filename="$T/content" --rw=write --bs=64k --size=$((SECTORS * 512)) \
	--verify=crc32c --verify_interval=4096 --do_verify=0 --end_fsync=1 > "$T/fio.log"
load()
{
	local seed=0

	until [ -e "$T/enough" ]; do
		seed=$((seed + 1))
		fio --name=verify --filename=/dev/mapper/disk --rw=randread --bsrange=4k-512k \
			--direct=1 --ioengine=libaio --iodepth=16 --size=$((SECTORS * 512)) \
			--verify=crc32c --verify_interval=4096 --verify_fatal=1 --randseed=$seed \
			> "$T/fio.log" 2>&1 || return
	done
}
loaded() { kill -0 $load 2> /dev/null; }
bad flakey
start_daemon copies
load &
load=$!
told=0
for ((i = 0; i < 8; i++)); do
	wait_until 60 eval '[ "$(failed_lines)" -gt 0 ] || ! loaded'
	loaded || break
	[ $((i % 2)) = 0 ] || swap
	told=$((told + $(failed_lines)))
	next_daemon
done
: > "$T/enough"
wait $load || fail "reads failed or were wrong: $(cat "$T/fio.log")"
echo "# $told requests said that a store had failed"

remove_disk
stop_qc2nl
dmsetup remove --noudevsync bad
losetup -d "$OTHER"
detach_disk
