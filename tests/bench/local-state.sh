# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# Part of tests/bench/local-guest: memory of the map, time of an activation,
# pause of a tip swap, and that small writes read nothing.

# map_kib DEVICE
map_kib() { status_field "$1" 4 | cut -d/ -f1; }

# row NAME JSON - one object of a result; a table is printed from them at last
row() { jq -c -n "${@:2}" >> "$T/rows.$1"; }
# result NAME - collect the rows of a result
result() { jq -s --arg name "$1" '{($name): .}' "$T/rows.$1" > "$T/measured.$1.json"; }
# show NAME COLUMN… - print them; a column is FIELD or FIELD=TITLE
show()
{
	local fields titles name=$1
	shift
	fields=$(printf ', .%s' "${@%%=*}")
	titles=$(printf '%s\t' "${@#*=}")
	{
		printf '%s\n' "${titles%$'\t'}"
		jq -r "[${fields#, }] | map(if . == null then \"-\" else . end) | @tsv" "$T/rows.$name"
	} | column -t -s $'\t'
	echo
}

# spread FILE - of numbers, one in each line
spread()
{
	jq -s 'sort | {min: min, max: max, times: length,
		median: ((.[(length - 1) / 2 | floor] + .[length / 2 | floor]) * 500 | round / 1000)}' "$1"
}

# null_tip NAME MIB - /dev/mapper/NAME, room for a tip of a disk: the metadata is
# kept in memory, the data is not kept
null_tip()
{
	local start

	start=$(data_start "$2")
	null_blk "$1-meta" $((start / 2048)) memory_backed=1
	null_blk "$1-data" "$2"
	concat "$1" "/dev/$1-meta" "$start" "/dev/$1-data" $(($2 * 2048))
}
remove_null_tip()
{
	dmsetup remove "$1"
	remove_null_blk "$1-meta"
	remove_null_blk "$1-data"
}

new_tip() { command chainctl tip create --force "/dev/mapper/$1" --chain-id $ID --size "${2}M" > /dev/null; }

# slab_kib - memory of the kernel's allocators
slab_kib() { awk '/^Slab:/ { print $2 }' /proc/meminfo; }

# read_disk NAME sequential|random - all of it, 64 KiB at a time
read_disk()
{
	local rw=read
	[ "$2" = sequential ] || rw=randread
	fio --name=all --filename="/dev/mapper/$1" --rw=$rw --bs=64k --direct=1 \
		--ioengine=io_uring --iodepth=32 --output="$T/fio.log" || fail "$(cat "$T/fio.log")"
}

# map_of IMAGE ORDER - start a disk with a cold cache, read all of it, and print
# the size of its map in KiB
map_of()
{
	rm -f "$T/cache"
	start_chaind
	chainctl start "file://$1" disk > /dev/null
	read_disk disk "$2"
	map_kib disk
	chainctl stop disk --discard > /dev/null
	stop_chaind
}

# live_mib IMAGE - data in a chain
live_mib()
{
	qemu-img map --output=json "$1" |
		jq '[.[] | select(.data) | .length] | add / 1048576 | floor'
}

measure_map()
{
	local disk=$((100 << 10)) images=build/bench/images image order kib mib before after

	null_tip tip $disk
	null_blk store $disk
	new_tip tip $disk
	qc2bench create disk "0 $((disk * 2048)) qcow2chain $ID /dev/mapper/tip 1 /dev/store" \
		> /dev/null
	before=$(slab_kib)
	LARGE_MAPPED=$disk map_scattered | qc2bench map disk
	after=$(slab_kib)
	row map --argjson kib "$(map_kib disk)" --argjson slab "$((after - before))" \
		--argjson mib $disk '{what: "100 GiB in pieces of 64 KiB from all over", live_mib: $mib,
			map_kib: $kib, slab_kib: $slab, mb: ($kib * 1.024 | round / 1000), goal_mb: 30,
			met: ([$kib, $slab] | max * 1.024 <= 30000)}'
	dmsetup remove disk
	remove_null_tip tip
	remove_null_blk store

	cat > "$CONF" <<-END
	[cache]
	path=$T/cache
	size=5G
	[tip]
	dir=$T/tips
	END
	image=$PWD/$images/root.qcow2
	mib=$(live_mib "$image")
	for order in sequential random; do
		kib=$(map_of "$image" $order)
		row map --arg order $order --argjson kib "$kib" --argjson mib "$mib" \
			'{what: "a root disk, read in \($order) order", live_mib: $mib, map_kib: $kib,
			  kib_per_gib: ($kib * 1024 / $mib | floor), goal_kib_per_gib: 64,
			  met: ($kib * 1024 / $mib <= 64)}'
	done
	local -A of=()
	for image in flat deep/link499; do
		of[$image]=$(map_of "$PWD/$images/$image.qcow2" sequential)
		mib=$(live_mib "$images/$image.qcow2")
		row map --arg what "the same content as $([ $image = flat ] && echo 1 image || echo 500 images)" \
			--argjson kib "${of[$image]}" --argjson mib "$mib" --argjson flat "${of[flat]}" \
			'{$what, live_mib: $mib, map_kib: $kib, kib_per_gib: ($kib * 1024 / $mib | floor),
			  met: ($kib <= 1.1 * $flat)}'
	done
	result map
	echo "Kernel memory of the map (MB: 10^6 bytes; slab: growth of all of the kernel's"
	echo "allocators).  Goals: 30 MB for the first, 64 KiB for each GiB of a root disk, and"
	echo "within a tenth the same at any depth."
	echo
	show map what live_mib="live MiB" map_kib="map KiB" slab_kib="slab KiB" mb=MB \
		kib_per_gib="KiB/GiB" met
}

# write_tip NAME GIB sequential|random - write so much to a disk, in pieces of
# 1 MiB in a row or of 64 KiB all over
write_tip()
{
	local -a how=(--rw=write --bs=1M --size="$2G")

	[ "$2" != 0 ] || return 0
	[ "$3" = sequential ] ||
		how=(--rw=randwrite --bs=64k --random_generator=lfsr --number_ios=$(($2 << 14)))
	fio --name=write --filename="/dev/mapper/$1" --direct=1 --ioengine=io_uring --iodepth=16 \
		"${how[@]}" --output="$T/fio.log" || fail "$(cat "$T/fio.log")"
}

# activation DISK_GIB WRITTEN_GIB ORDER [GOAL_MS]
activation()
{
	local mib=$(($1 << 10)) round table dirty

	null_tip tip $mib
	new_tip tip $mib
	table="0 $((mib * 2048)) qcow2chain $ID /dev/mapper/tip 0"
	qc2bench create disk "$table" > /dev/null
	write_tip disk "$2" "$3"
	dmsetup remove disk
	: > "$T/times"
	for ((round = 0; round < ROUNDS; round++)); do
		us_to_ms "$(qc2bench create disk "$table")" >> "$T/times"
		echo >> "$T/times"
		dirty=$(status_field disk 3)
		dmsetup remove disk
	done
	# Random places of 64 KiB may coincide.
	[ "$dirty" = $(($2 << 21)) ] || { [ "$3" = random ] && [ "$dirty" -gt $(($2 << 20)) ]; } ||
		fail "$dirty sectors in the tip, $2 GiB were written"
	row activation --argjson disk "$1" --argjson written "$2" --arg order "$3" \
		--argjson ms "$(spread "$T/times")" --argjson goal "${4:-null}" \
		'{disk_gib: $disk, written_gib: $written, order: (if $written == 0 then null else $order end),
		  min_ms: $ms.min, median_ms: $ms.median, max_ms: $ms.max, goal_ms: $goal,
		  met: (if $goal then $ms.median <= $goal else null end)}'
	remove_null_tip tip
}

measure_activation()
{
	activation 16 0 sequential
	activation 1024 0 sequential 50
	activation 8192 0 sequential
	activation 1024 1 sequential
	activation 16 10 sequential
	activation 1024 10 sequential
	activation 8192 10 sequential
	activation 1024 100 sequential
	activation 1024 1 random
	activation 1024 10 random
	result activation
	echo "Time to make a disk (create, load, resume), of $ROUNDS times.  Written in pieces of 1 MiB"
	echo "in sequence, or of 64 KiB in random places.  Goal: 50 ms for an empty tip of 1 TiB;"
	echo "else it follows what was written and not the size of the disk."
	echo
	show activation disk_gib="disk GiB" written_gib="written GiB" order min_ms=min median_ms="median ms" \
		max_ms=max goal_ms=goal met
}

# swaps TARGET DISK_MIB WRITTEN_GIB - swap tips 24 times under random writes; with
# dm-linear, tables over the same devices
swaps()
{
	local i size=$(($2 * 2048)) tips=(tip-a tip-b) fio tables

	null_tip tip-a "$2"
	null_tip tip-b "$2"
	case $1 in
	qcow2chain)
		tables=("0 $size qcow2chain $ID /dev/mapper/tip-a 0"
			"0 $size qcow2chain $ID /dev/mapper/tip-b 0") ;;
	linear)	tables=("0 $size linear /dev/tip-a-data 0" "0 $size linear /dev/tip-b-data 0") ;;
	esac
	new_tip tip-a "$2"
	qc2bench create disk "${tables[0]}" > /dev/null
	write_tip disk "$3" sequential
	: > "$T/times"

	fio --name=load --filename=/dev/mapper/disk --rw=randwrite --bs=4k --direct=1 \
		--norandommap --ioengine=io_uring --iodepth=32 --iodepth_batch_submit=16 \
		--iodepth_batch_complete_min=8 --time_based --runtime=3600 > "$T/fio.log" &
	fio=$!
	for ((i = 1; i <= 24; i++)); do
		new_tip "${tips[i % 2]}" "$2"
		wait_writes
		us_to_ms "$(qc2bench swap disk "${tables[i % 2]}")" >> "$T/times"
		echo >> "$T/times"
	done
	kill -INT "$fio"
	wait "$fio" || true
	dmsetup remove disk
	remove_null_tip tip-a
	remove_null_tip tip-b
	row pause --arg target "$1" --argjson disk $(($2 >> 10)) --argjson written "$3" \
		--argjson ms "$(spread "$T/times")" \
		'{$target, disk_gib: $disk, written_gib: $written, swaps: $ms.times, min_ms: $ms.min,
		  median_ms: $ms.median, max_ms: $ms.max} +
		 if $target == "qcow2chain" then {goal_ms: 50, met: ($ms.median <= 50)} else {} end'
}

# wait_writes - until the disk has taken so many more that it has begun to bring
# its journal into the bitmap
wait_writes()
{
	local stat from
	stat=/sys/block/dm-$(dmsetup info -c --noheadings -o minor disk)/stat
	from=$(awk '{ print $5 }' "$stat")
	while [ $(($(awk '{ print $5 }' "$stat") - from)) -lt 70000 ]; do :; done
}

measure_pause()
{
	swaps linear 1024 0
	swaps qcow2chain 1024 0
	swaps qcow2chain $((1 << 20)) 0
	swaps qcow2chain $((1 << 20)) 10
	result pause
	echo "Pause of a swap of tips (suspend --noflush, resume) under random writes of 4 KiB, at least"
	echo "70,000 since the swap before: the longest that a write took.  Goal: median of 50 ms,"
	echo "whatever the sizes.  The pause of a swap of dm-linear's tables is device-mapper's own"
	echo "part: it waits for grace periods of RCU, which last some ticks of the kernel's clock."
	echo
	show pause target disk_gib="disk GiB" written_gib="in first tip GiB" swaps min_ms=min median_ms="median ms" \
		max_ms=max goal_ms=goal met
}

# Nobody answers: a write that had to read would not end.
measure_small()
{
	local mib=64 read

	null_blk tip $((mib + 16)) memory_backed=1 blocksize=512
	null_blk store $mib blocksize=512
	command chainctl tip create --force /dev/tip --chain-id $ID --size ${mib}M > /dev/null
	qc2bench create disk "0 $((mib * 2048)) qcow2chain $ID /dev/tip 1 /dev/store" > /dev/null
	read=$(awk '{ print $1 }' /sys/block/store/stat)
	fio --name=small --filename=/dev/mapper/disk --rw=randwrite --bs=512 --direct=1 \
		--random_generator=lfsr --size=$((mib / 2))M --ioengine=io_uring --iodepth=64 \
		--iodepth_batch_submit=32 --iodepth_batch_complete_min=16 \
		--output-format=json --output="$T/fio.json"
	[ "$(status_field disk 3)" = $((mib * 1024)) ] || fail "not all was written"
	read=$(($(awk '{ print $1 }' /sys/block/store/stat) - read))
	row small --argjson writes "$(status_field disk 12)" --argjson read "$read" \
		--argjson missed "$(status_field disk 11)" --argjson requests "$(status_field disk 6)" \
		'{writes: $writes, reads_of_store: $read, reads_that_asked: $missed, requests: $requests,
		  met: ($read == 0 and $missed == 0 and $requests == 0)}'
	dmsetup remove disk
	remove_null_blk tip
	remove_null_blk store
	result small
	echo "First writes of 512 bytes, without any daemon.  Goal: no read of the chain."
	echo
	show small writes reads_of_store="reads of the store" reads_that_asked="reads that asked" requests met
}
