# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# Faults on request, and a load on /dev/mapper/disk that checks itself meanwhile.
# $T/content is what the disk's chain holds, $T/old all that the disk holds.
FAULTS=/sys/kernel/debug
MANY=1000000

# set_fault KIND PERCENT
set_fault()
{
	local dir=$FAULTS/$1

	echo 0 > "$dir/probability"
	echo 1 > "$dir/interval"
	echo 0 > "$dir/space"
	echo 0 > "$dir/verbose"
	echo $MANY > "$dir/times"
	echo "$2" > "$dir/probability"
}

# nr_faults KIND - since set_fault
nr_faults() { echo $((MANY - $(cat "$FAULTS/$1/times"))); }

# fail_memory PERCENT - of the allocations that functions of our module make,
# and those they call
fail_memory()
{
	local base size kind

	read -r base size < <(awk '$1 == "dm_qcow2chain" { print $6, $2 }' /proc/modules)
	for kind in failslab fail_page_alloc; do
		echo "$base" > $FAULTS/$kind/require-start
		printf '%#x\n' $((base + size)) > $FAULTS/$kind/require-end
		# Also of those that may wait.
		echo N > $FAULTS/$kind/ignore-gfp-wait
	done
	echo 0 > $FAULTS/fail_page_alloc/min-order
	set_fault failslab "$1"
	set_fault fail_page_alloc "$1"
}

# fail_io PERCENT DEVICE… - of the bios that block devices get
fail_io()
{
	local percent=$1 device
	shift
	for device; do
		echo 1 > "/sys/block/${device##*/}/make-it-fail"
	done
	set_fault fail_make_request "$percent"
}

faults_off()
{
	local kind file

	for kind in failslab fail_page_alloc fail_make_request; do
		echo 0 > $FAULTS/$kind/probability
	done
	for file in /sys/block/*/make-it-fail; do
		echo 0 > "$file"
	done
}

# Until $T/stop is there, compare blocks of the lower half of the disk with the
# chain's content, and let the map forget now and then.  Reads may fail, but not
# be wrong: what is goes to $T/wrong, and a line for each other one to $T/right.
read_at_random()
{
	local block blocks=$((DISK_BYTES >> 17))

	RANDOM=1
	while [ ! -e "$T/stop" ]; do
		block=$(((RANDOM << 15 | RANDOM) % blocks))
		((block % 8)) || dmsetup message disk 0 map_drop
		dd if=/dev/mapper/disk of="$T/block" bs=64k skip=$block count=1 iflag=direct \
			status=none 2> /dev/null || continue
		if cmp -n 65536 -i 0:$((block << 16)) "$T/block" "$T/content" >> "$T/wrong" 2>&1; then
			echo $block >> "$T/right"
		fi
	done
}

# The first of the blocks that write_one_by_one writes, and their number
WRITES=40
first_write() { echo $((DISK_BYTES * 3 / 4 / 4096)); }

# Writes from $T/new, with flags of dd; $T/acknowledged gets the numbers of the
# blocks whose write did not fail.
write_one_by_one()
{
	local block first

	first=$(first_write)
	for ((block = first; block < first + WRITES; block++)); do
		! dd if="$T/new" of=/dev/mapper/disk bs=4k count=1 skip=$((block - first)) \
			seek=$block oflag="$1" status=none 2> /dev/null || echo $block
	done > "$T/acknowledged"
}

# start_load DD-FLAGS [FIO-OPTION…] - read the lower half, let fio write to the
# next quarter what it then verifies, and write single blocks to the last one.
# Returns when reads are under way.
start_load()
{
	local flags=$1
	shift

	rm -f "$T"/{stop,wrong,right}
	head -c $((WRITES * 4096)) /dev/urandom > "$T/new"
	DISK_BYTES=$(blockdev --getsize64 /dev/mapper/disk)
	read_at_random &
	READER_PID=$!
	wait_until 60 test -s "$T/right"

	fio --name=load --filename=/dev/mapper/disk --rw=randwrite --bs=4k --direct=1 \
		--offset=$((DISK_BYTES / 2)) --size=4M --ioengine=libaio --iodepth=8 \
		--verify=crc32c --do_verify=1 --verify_fatal=1 "$@" > "$T/fio.log" 2>&1 &
	FIO_PID=$!
	write_one_by_one "$flags" &
	WRITER_PID=$!
}

# finish_load - until the writers have done all that they do
finish_load()
{
	wait "$WRITER_PID"
	wait "$FIO_PID" || fail "fio: $(cat "$T/fio.log")"
	touch "$T/stop"
	wait "$READER_PID"
	[ ! -s "$T/wrong" ] || fail "wrong data was read: $(cat "$T/wrong")"
}

# blocks FILE FIRST - those that are written one by one, a line for each
blocks() { od -An -v -tx1 -w4096 -j $(($2 * 4096)) -N $((WRITES * 4096)) "$1"; }

# check_load - what the disk holds after a load: what was acknowledged, and in
# other blocks that were written one by one either the new or the old content
check_load()
{
	local first i block old new found acknowledged

	first=$(first_write)
	dd if=/dev/mapper/disk of="$T/found" bs=1M iflag=direct status=none
	cmp -n $((DISK_BYTES / 2)) "$T/content" "$T/found"
	mapfile -t old < <(blocks "$T/old" "$first")
	mapfile -t new < <(blocks "$T/new" 0)
	mapfile -t found < <(blocks "$T/found" "$first")
	mapfile -t acknowledged < "$T/acknowledged"
	[ ${#new[@]} = $WRITES ] && [ ${#found[@]} = $WRITES ] || fail "blocks are missing"
	for ((i = 0; i < WRITES; i++)); do
		[ "${found[i]}" != "${new[i]}" ] || continue
		block=$((first + i))
		[[ " ${acknowledged[*]} " != *" $block "* ]] ||
			fail "block $block was acknowledged, and is lost"
		[ "${found[i]}" = "${old[i]}" ] || fail "block $block is neither old nor new"
	done
}
