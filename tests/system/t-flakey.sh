#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Failing devices, with dm-flakey below the tip and below the store.  A write, a
# flush or a read that cannot be done fails; a commit that cannot makes the disk
# read-only; no wrong data is read, ever, and everything that was acknowledged as
# durable is there when the device is.
#
# QC2_FLAKEY_SEED (1) chooses another random load.
#
# Time limit: 600
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/kernel.sh"

SECTORS=$((2 * 4096 + 1001))
# What comes before the data of such a tip: commits fail, but no write of data.
metadata=2048
seed=${QC2_FLAKEY_SEED:-1}
EIO="input/output error"
trap 'stop_uevents; chaind_fate' EXIT

tip_is() { lower lowtip "$tip" "$@"; }
store_is() { lower lowstore "$store" "$@"; }

# new_tip JOURNAL - an empty tip on a working device, and a disk of it, which holds
# what $T/copy does
new_tip()
{
	rm -f "$T/tip"
	chainctl_tip create "$T/tip" --chain-id $ID --size $((SECTORS * 512)) \
		--journal-size "$1" > /dev/null
	tip=$(losetup --find --show --direct-io=on "$T/tip")
	tip_is linear
	TIP=/dev/mapper/lowtip
	create_disk
	start_qc2nl --whole $SECTORS "$DEV"
	cp "$T/content" "$T/copy"
	[ "$(chainctl_tip check --json "$T/tip" | jq .data_offset)" = $((metadata * 512)) ]
}

# mend - the device works again, and the disk was made anew
mend()
{
	remove_disk
	stop_qc2nl
	tip_is linear
	create_disk
	start_qc2nl --whole $SECTORS "$DEV"
}

end_tip()
{
	remove_disk
	stop_qc2nl
	dmsetup remove --noudevsync lowtip
	losetup -d "$tip"
	chainctl_tip check "$T/tip" > /dev/null
}

modprobe -a dm-qcow2chain dm-flakey
head -c $((SECTORS * 512)) /dev/urandom > "$T/content"
store=$(losetup --find --show --direct-io=on --read-only "$T/content")
store_is linear
STORE=/dev/mapper/lowstore
start_uevents

# A random load that runs into a failure half-way: the device loses all that is
# written, as if the power failed; fails; fails writes; fails those of metadata.
# Then what the disk shows is checked, as it is and made anew.
{ echo "set -euo pipefail"; declare -f lower; echo 'lower "$@"'; } > "$T/lower"
check()
{
	build/user/tests/tools/crashcheck --seed $seed --record "$T/record" --old "$T/copy" "$@" \
		look disk
}
# load_fails JOURNAL - each line of the input: an option of crashload, and what
# becomes of the device half-way
load_fails()
{
	new_tip "$1"
	while IFS='|' read -r options features; do
		echo "journal $1: $features"
		seed=$((seed + 1))
		# shellcheck disable=SC2086 # words
		build/user/tests/tools/crashload --seed $seed --ops 80 --errors --at 40 $options \
			--run "bash $T/lower lowtip $tip $features" /dev/mapper/disk "$T/record"
		# It can be read, and does not lie.
		[[ $features != *error_writes* ]] || check --live
		mend
		check
		get 0 $SECTORS > "$T/found"
		mv "$T/found" "$T/copy"
	done
	end_tip
}
load_fails 8K <<- END
	--cut|flakey '1 drop_writes'
	|error
	|flakey '1 error_writes'
	|flakey '1 error_writes' $metadata
END
load_fails 0 <<- END
	--cut|flakey '1 drop_writes'
	|flakey '1 error_writes' $metadata
END

echo "writes fail"
new_tip 8K
put 100 16
flush
tip_is flakey "1 error_writes"
must_fail "$EIO" put 100 8
must_fail "$EIO" put 9000 9
must_fail "$EIO" put 9000 9 dsync
must_fail "$EIO" blkdiscard -z -o $((6000 * 512)) -l 4096 /dev/mapper/disk
same_as_copy
# No commit has failed so far.
expect_mode rw
tip_is linear
put 9000 9
put 108 20
flush
same_as_copy

# settle SECTOR COUNT - the disk has what is in $T/unflushed there, or still what
# is in $T/durable; $T/copy follows
settle()
{
	cp "$T/durable" "$T/copy"
	get "$1" "$2" > "$T/found"
	if cmp -s "$T/found" "$T/unflushed"; then
		keep "$T/found" "$1"
	else
		cmp "$T/found" <(dd if="$T/durable" bs=512 skip="$1" count="$2" status=none)
	fi
}

refuses_writes()
{
	expect_mode ro
	must_fail "$EIO" put 100 8
	must_fail "$EIO" flush
}

echo "a flush cannot be committed"
cp "$T/copy" "$T/durable"
put 5000 33
cp "$T/piece" "$T/unflushed"
before=$(dm_events)
tip_is flakey "1 error_writes"
must_fail "$EIO" flush
wait_uevent READ_ONLY
[ "$(dm_events)" -gt "$before" ] || fail "no dm event"
refuses_writes
must_fail "$EIO" put 8500 8 dsync
must_fail "$EIO" blkdiscard -z -o $((6000 * 512)) -l 4096 /dev/mapper/disk
same_as_copy
# It stays so, whatever becomes of the device and of the table.
tip_is linear
refuses_writes
dmsetup load disk --table "$(dmsetup table disk)"
dmsetup resume --noudevsync disk
refuses_writes
settle 5000 33
same_as_copy
# A disk made anew is not, and what was flushed is there.
mend
settle 5000 33
expect_mode rw
same_as_copy

echo "a FUA write cannot be committed"
cp "$T/copy" "$T/durable"
tip_is flakey "1 error_writes" $metadata
must_fail "$EIO" put 5500 8 dsync
cp "$T/piece" "$T/unflushed"
wait_uevent READ_ONLY
refuses_writes
settle 5500 8
same_as_copy
mend
settle 5500 8
put 5500 8 dsync
same_as_copy

echo "reads fail"
put 7000 8
get 8000 8 > "$T/found"
lower_reads_fail lowtip "$tip"
must_fail "$EIO" get 7000 8
get 8000 8 | cmp "$T/found" -
expect_mode rw
tip_is linear
same_as_copy

# The kernel knows where everything is.
store_is flakey
must_fail "$EIO" get 8000 8
# Half of it is in the tip.
must_fail "$EIO" get 7000 16
put 8000 8
flush
get 8000 8 | cmp "$T/piece" -
get 7000 8 > /dev/null
expect_mode rw
store_is linear
same_as_copy
end_tip

dmsetup remove --noudevsync lowstore
losetup -d "$store"
