# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# Helpers for tests of the kernel target alone, without chaind: the store device
# holds the virtual disk itself, and qc2nl plays the daemon.
#
#   SECTORS  size of the disk made by make_disk
#   ID       its chain id
#   STORE    loop device with its content, from $T/content
#   TIP      loop device of $T/tip
#   DEV      MAJOR:MINOR of the disk, after create_disk
#   $T/copy  what the disk should hold, for put, keep and same_as_copy
SECTORS=$((32 * 2048))
ID=00112233445566778899aabbccddeeff
STORE= TIP= DEV= QC2NL_PID= UEVENTS_PID=

qc2nl() { build/user/tests/tools/qc2nl "$@"; }

# make_disk - content, store device and an empty tip
make_disk()
{
	modprobe dm-qcow2chain
	head -c $((SECTORS * 512)) /dev/urandom > "$T/content"
	chainctl_tip create "$T/tip" --chain-id $ID --size $((SECTORS * 512)) > /dev/null
	STORE=$(losetup --find --show --direct-io=on --read-only "$T/content")
	TIP=$(losetup --find --show --direct-io=on "$T/tip")
}

chainctl_tip() { command chainctl tip "$@"; }

# create_disk [FEATURES [OPTION…]] - the device-mapper device "disk", with options
# of dmsetup
create_disk()
{
	dmsetup create disk --noudevsync "${@:2}" \
		--table "0 $SECTORS qcow2chain $ID $TIP 1 $STORE ${1-}"
	dmsetup mknodes disk
	DEV=$(dmsetup info -c --noheadings -o major,minor disk)
}

# start_qc2nl [ARGUMENT…] - a daemon, by default for the disk
start_qc2nl()
{
	[ $# -gt 0 ] || set -- "$DEV"
	build/user/tests/tools/qc2nl identity "$@" > "$T/qc2nl.log" 2>&1 &
	QC2NL_PID=$!
	wait_until 30 grep -q '^ready' "$T/qc2nl.log"
}

# stop_qc2nl - end it as a crash would
stop_qc2nl()
{
	kill -KILL "$QC2NL_PID"
	wait "$QC2NL_PID" 2> /dev/null || true
}

# Reads wait for the daemon.
parked() { [ "$(status_field 5)" != 0 ]; }

no_daemon() { [ "$(status_field 2)" = 0 ]; }

# status_field N - one field of the status line, from 1
status_field() { dmsetup status --noflush disk | cut -d' ' -f$((3 + $1)); }

drop_caches() { blockdev --flushbufs /dev/mapper/disk; echo 3 > /proc/sys/vm/drop_caches; }

remove_disk() { dmsetup remove --noudevsync disk; }

detach_disk()
{
	losetup -d "$STORE"
	losetup -d "$TIP"
}

expect_mode() { [ "$(status_field 1)" = "$1" ] || fail "the disk is $(status_field 1), not $1"; }

# get SECTOR COUNT - read from the disk
get()
{
	dd if=/dev/mapper/disk bs=$(($2 * 512)) count=1 skip=$(($1 * 512)) \
		iflag=direct,skip_bytes status=none
}

# put SECTOR COUNT [dsync] - write random sectors, which are in $T/piece then, as one
# bio if that is possible
put()
{
	head -c $(($2 * 512)) /dev/urandom > "$T/piece"
	dd if="$T/piece" of=/dev/mapper/disk bs=$(($2 * 512)) count=1 seek=$(($1 * 512)) \
		oflag=direct,seek_bytes${3:+,$3} conv=notrunc status=none || return
	keep "$T/piece" "$1"
}

# keep FILE SECTOR - the disk should hold that there
keep() { dd if="$1" of="$T/copy" bs=512 seek="$2" conv=notrunc status=none; }

same_as_copy() { cmp "$T/copy" <(dd if=/dev/mapper/disk bs=1M iflag=direct status=none); }

flush() { sync -d /dev/mapper/disk; }

dm_events() { dmsetup info -c --noheadings -o events disk; }

# start_uevents - note uevents from now on, for wait_uevent; stop_uevents at exit
start_uevents()
{
	build/user/tests/tools/uevents >> "$T/uevents" &
	UEVENTS_PID=$!
	wait_until 30 grep -q '^ready' "$T/uevents"
}

# wait_uevent ACTION - wait for one that was not waited for before
wait_uevent()
{
	wait_until 30 grep -q "DM_TARGET=qcow2chain DM_ACTION=$1" "$T/uevents"
	: > "$T/uevents"
}

stop_uevents() { [ -z "$UEVENTS_PID" ] || kill "$UEVENTS_PID"; }
