#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Power failures.  With dm-log-writes below the tip, under a random load with
# flushes and FUA writes in flight, the power fails at each of them and at points
# between, some of which lose or tear what was not flushed.  Each time a new
# table must show everything that was acknowledged as durable, and nothing that
# was never written.  One of these crashes is gone on from.
#
# QC2_CRASH_POINTS (200) is how many crashes are tried, at least; QC2_CRASH_SEED
# (1) chooses another load and other points.
#
# Time limit: 900
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/kernel.sh"

points=${QC2_CRASH_POINTS:-200}
seed=${QC2_CRASH_SEED:-1}

# An odd size, so that the last pages and blocks are not full.
SECTORS=$((16 * 2048 + 1001))
# At the borders of what a tip keeps together, and at both ends.
zones=(0+1000 $((2 * 2048 - 600))+1200 $((16 * 2048 - 4200))+5201)

# Two flushes can be in flight.  dm-log-writes notes which writes a flush covers,
# and then sends it on; if another one got ahead in between, the log would be
# wrong.  All who flush share one processor, and the kernel is told not to have a
# task give way in the middle of that, as might_sleep() does otherwise.
cpus=/sys/devices/virtual/workqueue/cpumask
all_cpus=$(cat $cpus)
preempt=/sys/kernel/debug/sched/preempt
was_preempt=
end()
{
	echo "$all_cpus" > $cpus
	[ -z "$was_preempt" ] || echo "$was_preempt" > $preempt
	chaind_fate
}
trap end EXIT
echo 1 > $cpus
if [ -e $preempt ]; then
	was_preempt=$(sed 's/.*(\(.*\)).*/\1/' $preempt)
	echo none > $preempt
fi

# load OLD OPERATIONS - a random load on the tip in $T/tip, recorded in $T/record
# and logged in $T/log.  The disk held OLD before.
load()
{
	local log tip

	rm -f "$T/log"
	truncate -s 1G "$T/log"
	log=$(losetup --find --show --direct-io=on "$T/log")
	tip=$(losetup --find --show --direct-io=on "$T/tip")
	dmsetup create logged --noudevsync \
		--table "0 $(blockdev --getsz "$tip") log-writes $tip $log"
	dmsetup mknodes logged
	TIP=/dev/mapper/logged
	create_disk
	start_qc2nl --whole $SECTORS "$DEV"
	taskset -c 0 build/user/tests/tools/crashload --seed $seed --ops "$2" --mark logged \
		"${zones[@]/#/--zone=}" /dev/mapper/disk "$T/record"
	check "$1" --live look disk
	remove_disk
	stop_qc2nl
	[[ $(dmsetup status logged) != *logging_disabled* ]] || fail "dm-log-writes gave up"
	dmsetup remove --noudevsync logged
	losetup -d "$tip"
	losetup -d "$log"
}

# crashes OLD NUMBER - let the power fail in that load; keep one crash
crashes()
{
	cp "$T/ram/base" "$T/ram/image"
	TIP=$(losetup --find --show "$T/ram/image")
	create_disk
	start_qc2nl --whole $SECTORS "$DEV"
	check "$1" --points "$2" --save "$T/ram/next" \
		replay disk "$T/log" "$T/ram/base" "$T/ram/image" "$ID $TIP 1 $STORE"
	remove_disk
	stop_qc2nl
	losetup -d "$TIP"
	mv "$T/ram/next.tip" "$T/tip"
	mv "$T/ram/next.old" "$T/old"
}

# check OLD ARGUMENT... - crashcheck by the record of the last load
check()
{
	local old=$1
	shift
	build/user/tests/tools/crashcheck --seed $seed --record "$T/record" --old "$old" "$@"
}

modprobe -a dm-qcow2chain dm-log-writes
mkdir "$T/ram"
mount -t tmpfs none "$T/ram"
head -c $((SECTORS * 512)) /dev/urandom > "$T/content"
STORE=$(losetup --find --show --direct-io=on --read-only "$T/content")
head -c $((20 << 20)) /dev/urandom > "$T/tip"
# The small journal is used up several times, the large one never is.
for setup in "8K $points 2" "1M $((points / 2)) 1" "0 $((points / 2)) 2"; do
	read -r journal ops rounds <<< "$setup"
	# Made on a device full of something else; the later ones of other tips.
	TIP=$(losetup --find --show --direct-io=on "$T/tip")
	chainctl_tip create "$TIP" --force --chain-id $ID --size $((SECTORS * 512)) \
		--journal-size "$journal" > /dev/null
	losetup -d "$TIP"
	cp "$T/content" "$T/old"
	for ((round = 1; round <= rounds; round++)); do
		echo "journal $journal, round $round, seed $seed"
		cp "$T/tip" "$T/ram/base"
		load "$T/old" "$ops"
		crashes "$T/old" $((ops / 3))
		seed=$((seed + 1))
	done
done

losetup -d "$STORE"
umount "$T/ram"
