#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Time limit: 1200
#
# Reclaim never waits for chaind.  While it stands still and a read waits for it,
# programs dirty QC2_RECLAIM_MB through the page cache, on the disk itself and on a
# file system: first in a memory cgroup of 64 MiB, then with 128 MiB left in the
# whole machine.  They finish, and everything is there afterwards.
. "$(dirname "$0")/lib.sh"

mb=${QC2_RECLAIM_MB:-192}
size=$((mb + 160))

make_chain "$T/store" 2 $size 14 > /dev/null
flatten "$T/store/link1.qcow2" "$T/expected"
mkdir "$T/cgroup" "$T/mnt" "$T/hog"
# The multi-generational LRU of 6.12 does not wake the flushers for a cgroup full of dirty
# pages; fio is killed there on a plain loop device and on dm-linear, too.
lru_gen=/sys/kernel/mm/lru_gen/enabled
if [ -e $lru_gen ]; then
	lru=$(cat $lru_gen)
	echo 0 > $lru_gen
fi
mount -t cgroup2 none "$T/cgroup"
echo +memory > "$T/cgroup/cgroup.subtree_control"
mkdir "$T/cgroup/small"
echo 64M > "$T/cgroup/small/memory.max"

start_chaind
chainctl start "file://$T/store/link1.qcow2" raw
chainctl start "file://$T/store/link1.qcow2" fs
# All that the file system reads later is written here, so it is in the tip.
mkfs.ext4 -q -E lazy_itable_init=0,lazy_journal_init=0,nodiscard /dev/mapper/fs

# Every 4 KiB hold their offset.
PATTERN=(--bs=256k --verify=pattern --verify_pattern=%o --verify_interval=4k --ioengine=psync)
# dirty FILE [OFFSET_MB] - write so much through the page cache, and flush it
dirty()
{
	fio --name=dirty --filename="$1" --rw=write --size="${mb}M" --offset="${2-0}M" \
		--end_fsync=1 --do_verify=0 "${PATTERN[@]}" > "$T/fio.log" ||
		fail "fio: $(cat "$T/fio.log")"
}
verify()
{
	fio --name=verify --filename="$1" --rw=read --size="${mb}M" --offset="${2-0}M" \
		--verify_fatal=1 "${PATTERN[@]}" > "$T/fio.log" || fail "fio: $(cat "$T/fio.log")"
}
# The data of a disk from the device, not from the page cache.
drop_caches()
{
	sync
	echo 3 > /proc/sys/vm/drop_caches
}
event() { awk -v name="$1" '$1 == name { print $2 }' "$T/cgroup/small/memory.events"; }
oom_kills() { awk '$1 == "oom_kill" { print $2 }' /proc/vmstat; }
kills=$(oom_kills)

mount -t ext4 /dev/mapper/fs "$T/mnt"
kill -STOP "$CHAIND_PID"
# Direct: a buffered one keeps others from seeking in the same device.
dd if=/dev/mapper/raw of="$T/read" bs=64k count=1 iflag=direct status=none &
reader=$!
wait_until 60 requests_wait 1

# in_cgroup FUNCTION… - run it in the small cgroup, whose limit it must reach
in_cgroup()
{
	local before

	before=$(event max)
	(
		echo $BASHPID > "$T/cgroup/small/cgroup.procs"
		"$@"
	)
	[ "$(event max)" -gt "$before" ] || fail "the limit of the cgroup was not reached"
}
# From 128 MiB: what is before stays the chain's.
in_cgroup dirty /dev/mapper/raw 128
in_cgroup dirty "$T/mnt/file"
echo "# cgroup of 64 MiB: $(event max) times at its limit, $mb MiB written twice"

# Little memory for everybody.  That of a tmpfs cannot be reclaimed without swap.
available() { awk '$1 == "MemAvailable:" { print int($2 / 1024) }' /proc/meminfo; }
mount -t tmpfs -o size=100% none "$T/hog"
drop_caches
left=$(available)
fallocate -l $((left - 128))M "$T/hog/hog"
echo "# $(available) of $left MiB left"
dirty /dev/mapper/raw 128
rm "$T/mnt/file"
dirty "$T/mnt/file"
[ "$(oom_kills)" = "$kills" ] || fail "processes were killed for want of memory"
requests_wait 1 || fail "other reads wait as well: $(dmsetup status --noflush)"

# With the daemon, in as little memory: what was written, and the chain's data.
kill -CONT "$CHAIND_PID"
wait $reader || fail "the read failed"
cmp -n 65536 "$T/expected" "$T/read"
drop_caches
verify /dev/mapper/raw 128
verify "$T/mnt/file"
cmp -n $((128 << 20)) "$T/expected" /dev/mapper/raw
cmp -i $(((128 + mb) << 20)) "$T/expected" /dev/mapper/raw
rm "$T/hog/hog"
umount "$T/hog"
umount "$T/mnt"
e2fsck -fn /dev/mapper/fs > "$T/fsck" || fail "$(cat "$T/fsck")"

rmdir "$T/cgroup/small"
umount "$T/cgroup"
chainctl stop raw --discard
chainctl stop fs --discard
stop_chaind
[ ! -e $lru_gen ] || echo "$lru" > $lru_gen
