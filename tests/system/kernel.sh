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
SECTORS=$((32 * 2048))
ID=00112233445566778899aabbccddeeff
STORE= TIP= DEV= QC2NL_PID=

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
