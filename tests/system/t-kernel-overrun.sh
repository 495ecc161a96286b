#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A daemon with a tiny receive buffer does not read while thousands of reads on
# many disks miss: the kernel's doorbells get lost (ENOBUFS), no read does.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/kernel.sh"

NR_DISKS=8
SECTORS=$((16 * 2048))
blocks=$((SECTORS / 128))

head -c $((SECTORS * 512)) /dev/urandom > "$T/content"
modprobe dm-qcow2chain
STORE=$(losetup --find --show --direct-io=on --read-only "$T/content")
devs=()
for ((i = 0; i < NR_DISKS; i++)); do
	chainctl_tip create "$T/tip$i" --chain-id $ID --size $((SECTORS * 512)) > /dev/null
	tips[i]=$(losetup --find --show --direct-io=on "$T/tip$i")
	dmsetup create "disk$i" --noudevsync \
		--table "0 $SECTORS qcow2chain $ID ${tips[i]} 1 $STORE"
	dmsetup mknodes "disk$i"
	devs+=("$(dmsetup info -c --noheadings -o major,minor "disk$i")")
done

# The smallest buffer there is, of 2304 bytes, holds a few doorbells.
start_qc2nl --rcvbuf 1 "${devs[@]}"
# Twice: what the daemon knows after the first time is made unknown again.
for round in 1 2; do
	kill -STOP $QC2NL_PID
	readers=()
	for ((i = 0; i < NR_DISKS; i++)); do
		dmsetup message "disk$i" 0 map_drop
		# One read of all of it, so that all blocks miss at once.
		dd if="/dev/mapper/disk$i" of="$T/read$i" bs=$((SECTORS * 512)) count=1 iflag=direct \
			status=none &
		readers+=($!)
	done
	wait_until 60 requests_wait $((NR_DISKS * blocks))
	kill -CONT $QC2NL_PID
	for reader in "${readers[@]}"; do
		wait "$reader" || fail "a read failed"
	done
	for ((i = 0; i < NR_DISKS; i++)); do
		cmp "$T/content" "$T/read$i"
	done
	[ "$(grep -c overrun "$T/qc2nl.log")" -ge $round ] ||
		fail "no overrun in round $round: $(cat "$T/qc2nl.log")"
done
requests_wait 0 || fail "reads are parked: $(dmsetup status)"
echo "# $(grep -c overrun "$T/qc2nl.log") overruns, $((2 * NR_DISKS * blocks)) requests"

stop_qc2nl
for ((i = 0; i < NR_DISKS; i++)); do
	dmsetup remove --noudevsync "disk$i"
	losetup -d "${tips[i]}"
done
losetup -d "$STORE"
