# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# Part of tests/bench/local-guest: how fast I/O is, beside dm-linear and others.
#
# The contenders take turns of some milliseconds, see race() in qc2bench.c.
# "again" is dm-linear a second time: what it differs by is noise.
#
# Devices, for a disk of DISK MiB:
#   ram    RAM disks for tip and store
#   null   null_blk.  It keeps nothing, so the metadata of the tip lies on a
#          null_blk with memory, in front of one without, joined by dm-linear.
#          The contender dm-linear lies on top of that, too.
#   flush  null_blk with memory and a volatile cache: flushes are real
#   large  as null, for a disk of 1 TiB; 100 GiB in pieces of 64 KiB from all
#          over the store
declare -A DISK=([ram]=768 [null]=2048 [flush]=768 [large]=$((1 << 20)))
LARGE_MAPPED=$((100 << 10))

# Names of the works, and the least that is wanted of qcow2chain / dm-linear.
declare -A WORK=(
	[read_cache]='4K random read, in the cache'
	[read_tip]='4K random read, in the tip'
	[overwrite]='4K random overwrite'
	[first_write]='4K random first write'
	[first_write_flush]='4K random first write, flush after 32'
	[seq_read]='1M sequential read, in the cache'
	[seq_write]='1M sequential write'
)
declare -A GOAL=([read_cache]=0.97 [read_tip]=0.97 [overwrite]=0.97 [first_write]=0.90
	[first_write_flush]=0.80 [seq_read]=0.98 [seq_write]=0.98)
GOAL_NBD=3

# Each work: operation, bytes, depth, order of the places, writes between flushes,
# milliseconds and number of the turns; see race() in qc2bench.c.  First writes
# are committed and brought into the bitmap in the background.
declare -A RACE=(
	[read_cache]="read 4096 64 random 0 1 1000"
	[read_tip]="read 4096 64 random 0 1 1000"
	[overwrite]="write 4096 64 random 0 1 1000"
	[first_write]="write 4096 64 once 0 3000 1"
	[first_write_flush]="write 4096 64 once 32 3000 1"
	[seq_read]="read $((1 << 20)) 16 sequential 0 10 100"
	[seq_write]="write $((1 << 20)) 16 sequential 0 10 100"
)
# Contenders beside dm-linear.
OTHERS=

# qemu-img COMMAND… with the image on the block device $QCOW
make_qcow2() { qemu-img create -q -f qcow2 -b "$STORE" -F raw "$QCOW" "${MIB}M"; }

start_nbd()
{
	make_qcow2
	qemu-nbd --connect=/dev/nbd0 --format=qcow2 --cache=none --aio=native --discard=unmap \
		"$QCOW"
	wait_until 30 grep -qvx 0 /sys/block/nbd0/size
}
stop_nbd()
{
	qemu-nbd --disconnect /dev/nbd0 > /dev/null
	wait_until 30 grep -qx 0 /sys/block/nbd0/size
}

# Its smallest regions, so that a write of 4 KiB needs no copy.
start_clone()
{
	dd if=/dev/zero of="$CLONE_META" bs=4k count=1 oflag=direct status=none
	dmsetup create bench-clone --table \
		"0 $SECTORS clone $CLONE_META $CLONE $STORE 8 1 no_hydration"
}

# What the contenders lie on is fresh: an empty tip, nothing hydrated, no cluster.
fresh()
{
	local name

	for name in ours linear again; do
		! dmsetup info "bench-$name" > /dev/null 2>&1 || dmsetup remove "bench-$name"
	done
	command chainctl tip create --force "$TIP" --chain-id $ID --size $((SECTORS * 512)) > /dev/null
	qc2bench create bench-ours "0 $SECTORS qcow2chain $ID $TIP 1 $STORE" > /dev/null
	[ -z "$MAP" ] || $MAP | qc2bench map bench-ours
	if [[ " $OTHERS " = *" nbd "* ]]; then
		[ "$(cat /sys/block/nbd0/size)" = 0 ] || stop_nbd
		start_nbd
	fi
	if [[ " $OTHERS " = *" clone "* ]]; then
		! dmsetup info bench-clone > /dev/null 2>&1 || dmsetup remove bench-clone
		start_clone
	fi
}

map_identity() { echo "0 $SECTORS 0 0"; }
map_scattered()
{
	awk -v n=$((LARGE_MAPPED * 16)) 'BEGIN {
		for (i = 0; i < n; i++)
			print i * 128, 128, 0, (i * 611953) % n * 128
	}'
}

# over tip|store - what dm-linear maps, at the same places as qcow2chain
over()
{
	local name

	for name in linear again; do
		! dmsetup info "bench-$name" > /dev/null 2>&1 || dmsetup remove "bench-$name"
		case $1 in
		tip)	dmsetup create "bench-$name" --table "0 $SECTORS linear $TIP $TIP_START" ;;
		store)	dmsetup create "bench-$name" --table "0 $SECTORS linear $STORE 0" ;;
		esac
	done
}

# Everything is in the tip, and known to be since the disk was started.
fill()
{
	local name

	for name in ours $OTHERS; do
		dd if=/dev/zero of="$(device_of "$name")" bs=1M oflag=direct status=none \
			count="$MIB"
	done
	dmsetup suspend bench-ours
	dmsetup resume bench-ours
}

device_of()
{
	case $1 in
	--)	echo -- ;;
	nbd)	echo /dev/nbd0 ;;
	ublk)	echo /dev/ublkb0 ;;
	*)	echo "/dev/mapper/bench-$1" ;;
	esac
}

# run_work ROUND WORK [TIME]
run_work()
{
	local name size=$MIB i
	local -a devices=() order=(linear ours again)

	[ "$KIND $2" != "large read_cache" ] || size=$LARGE_MAPPED
	for ((i = 0; i < 3; i++)); do
		devices+=("$(device_of "${order[($1 + ${3-0} + i) % 3]}")")
	done
	for name in ${OTHERS:+--} $OTHERS; do
		devices+=("$(device_of "$name")")
	done
	# shellcheck disable=SC2086
	qc2bench race ${RACE[$2]} "$size" "${devices[@]}" |
		sed -E "s,^/dev/(mapper/bench-)?,$KIND\t$2\t$1\t,; s/nbd0/nbd/; s/ublkb0/ublk/" \
		>> "$T/samples"
}

# first_writes ROUND WORK - several times, each on a new tip: the fastest counts
first_writes()
{
	local i MAP=''

	for ((i = 0; i < 3; i++)); do
		fresh
		over tip
		run_work "$1" "$2" "$i"
	done
}

round()
{
	case $KIND in
	flush)	first_writes "$1" first_write_flush ;;
	large)
		fresh
		over store
		run_work "$1" read_cache
		first_writes "$1" first_write ;;
	*)
		fresh
		over store
		run_work "$1" read_cache
		run_work "$1" seq_read
		first_writes "$1" first_write
		fresh
		over tip
		run_work "$1" seq_write
		fill
		run_work "$1" read_tip
		run_work "$1" overwrite ;;
	esac
}

# Memory is allocated before anything is measured.
fill_device() { dd if=/dev/zero of="$1" bs=1M oflag=direct status=none 2> /dev/null || true; }

devices_ram()
{
	modprobe brd rd_nr=2 rd_size=$(((2 * MIB + 64) << 10)) max_part=4
	null_blk clonemeta 16 memory_backed=1
	part /dev/ram0 1 1 $((MIB + 16))
	part /dev/ram0 2 $((MIB + 17)) $MIB
	part /dev/ram1 1 1 $MIB
	part /dev/ram1 2 $((MIB + 1)) $((MIB + 32))
	TIP=/dev/ram0p1 CLONE=/dev/ram0p2 STORE=/dev/ram1p1 QCOW=/dev/ram1p2
	CLONE_META=/dev/clonemeta
	fill_device $TIP
	fill_device $STORE
}
undo_ram() { modprobe -r brd; remove_null_blk clonemeta; }

# A tip on null_blk: its metadata in front, with memory, and the rest.
tip_on_null_blk()
{
	concat tip /dev/meta "$TIP_START" "$1" "$SECTORS"
	TIP=/dev/mapper/tip
}

devices_null()
{
	null_blk meta $((TIP_START / 2048)) memory_backed=1
	null_blk clonemeta 16 memory_backed=1
	null_blk qcow2 $((MIB + 32)) memory_backed=1
	null_blk data $((3 * MIB + 1))
	part /dev/data 1 1 $MIB
	part /dev/data 2 $((MIB + 1)) $MIB
	part /dev/data 3 $((2 * MIB + 1)) $MIB
	tip_on_null_blk /dev/data1
	CLONE=/dev/data2 STORE=/dev/data3 QCOW=/dev/qcow2 CLONE_META=/dev/clonemeta
}
undo_null()
{
	dmsetup remove tip
	remove_null_blk meta
	remove_null_blk clonemeta
	remove_null_blk qcow2
	remove_null_blk data
}

devices_flush()
{
	local -a volatile=(memory_backed=1 cache_size=64)

	null_blk tip $((MIB + 16)) "${volatile[@]}"
	null_blk clone $MIB "${volatile[@]}"
	null_blk clonemeta 16 "${volatile[@]}"
	null_blk qcow2 $((MIB + 32)) "${volatile[@]}"
	null_blk store $MIB
	TIP=/dev/tip CLONE=/dev/clone STORE=/dev/store QCOW=/dev/qcow2 CLONE_META=/dev/clonemeta
	fill_device $TIP
}
undo_flush()
{
	local name

	for name in tip clone clonemeta qcow2 store; do
		remove_null_blk $name
	done
}

devices_large()
{
	null_blk meta $((TIP_START / 2048)) memory_backed=1
	null_blk data $MIB
	null_blk store $MIB
	tip_on_null_blk /dev/data
	STORE=/dev/store
}
undo_large()
{
	dmsetup remove tip
	remove_null_blk meta
	remove_null_blk data
	remove_null_blk store
}

# measure_speed KIND - all rounds on one kind of device
measure_speed()
{
	local round name

	KIND=$1 MIB=${DISK[$1]} MAP=map_identity OTHERS=$CONTENDERS
	[ "$KIND" != large ] || MAP=map_scattered OTHERS=
	SECTORS=$((MIB * 2048))
	TIP_START=$(data_start "$MIB")
	"devices_$KIND"
	[[ " $OTHERS " != *" ublk "* ]] ||
		"$QC2_BENCH_UBLK" add -t loop -q 1 -d 64 "$CLONE" > /dev/null
	for ((round = 0; round < ROUNDS; round++)); do
		echo "speed, $KIND: round $((round + 1)) of $ROUNDS" >&2
		round $round
	done
	[[ " $OTHERS " != *" ublk "* ]] || "$QC2_BENCH_UBLK" del -a > /dev/null
	[[ " $OTHERS " != *" nbd "* ]] || stop_nbd
	for name in ours linear again clone; do
		! dmsetup info "bench-$name" > /dev/null 2>&1 || dmsetup remove "bench-$name"
	done
	"undo_$KIND"
}

# find_contenders - sets CONTENDERS, beside dm-linear
find_contenders()
{
	CONTENDERS=
	[ -n "$QC2_BENCH_OTHERS" ] || return 0
	modprobe nbd
	CONTENDERS=nbd
	if dmsetup targets | grep -q '^clone ' || modprobe -q dm-clone; then
		CONTENDERS+=" clone"
	else
		echo "dm-clone: this kernel does not have it"
	fi
	if [ -n "$QC2_BENCH_UBLK" ] && modprobe -q ublk_drv; then
		CONTENDERS+=" ublk"
	else
		echo "ublk: left out, see QC2_BENCH_UBLK in docs/bench.md"
	fi
}

sum_up_speed()
{
	local work

	for work in "${!WORK[@]}"; do
		jq -n --arg work "$work" --arg title "${WORK[$work]}" --arg goal "${GOAL[$work]}" \
			'{($work): {$title, goal: ($goal | tonumber)}}'
	done | jq -s add > "$T/works.json"
	jq -R -n --slurpfile works "$T/works.json" --argjson nbd "$GOAL_NBD" '
		def median: sort | if length % 2 == 1 then .[length / 2 | floor]
			else (.[length / 2 - 1] + .[length / 2]) / 2 end;
		def spread: {min: min, median: median, max: max};
		[inputs | split("\t") | {device: .[0], work: .[1], round: .[2], contender: .[3],
			rate: (.[4] | tonumber)}]
		| group_by([.device, .work]) | map(
			(group_by(.round) | map(group_by(.contender) |
				map({(.[0].contender): (map(.rate) | max)}) | add)) as $rounds |
			$works[0][.[0].work] as $work |
			def ratio($a; $b): [$rounds[] | select(.[$b]) | .[$a] / .[$b]] |
				if length > 0 then spread else null end;
			def with_goal($goal): if . then . + {goal: $goal, met: (.median >= $goal)}
				else null end;
			{device: .[0].device, work: .[0].work, title: $work.title,
			 rate: ($rounds[0] | keys | map(. as $name |
				{($name): ([$rounds[] | .[$name]] | median)}) | add),
			 linear: (ratio("ours"; "linear") | with_goal($work.goal)),
			 noise: ratio("again"; "linear"),
			 nbd: (ratio("ours"; "nbd") | with_goal($nbd)),
			 clone: ratio("ours"; "clone"), ublk: ratio("ours"; "ublk")})
		| {speed: .}' "$T/samples" > "$T/measured.speed.json"
	print_speed
}

print_speed()
{
	echo
	echo "Ratios of qcow2chain to others, I/O for I/O: least, median and greatest of $ROUNDS rounds."
	echo "In a round the contenders take turns of some milliseconds.  The goal is compared with"
	echo "the median.  \"noise\" is dm-linear against itself."
	echo
	jq -r '
		def digits($n): . * pow(10; $n) | round | tostring | if length <= $n then "0" * ($n + 1 - length) + . else . end | .[:-$n] + "." + .[-$n:];
		def two: digits(2);
		def spread: "\(.min | digits(3)) \(.median | digits(3)) \(.max | digits(3))";
		def verdict: if .met then "met" else "MISSED" end;
		(["device", "work", "dm-linear/s", "to dm-linear", "goal", "", "noise", "to qemu-nbd", "", "to dm-clone", "to ublk"],
		 (.speed[] | [.device, .title, (.rate.linear | round), (.linear | spread),
			">= \(.linear.goal)", (.linear | verdict), (.noise | spread),
			(if .nbd then (.nbd.median | two) else "-" end),
			(if .nbd then (.nbd | verdict) else "" end),
			(if .clone then (.clone.median | two) else "-" end),
			(if .ublk then (.ublk.median | two) else "-" end)])) | @tsv' "$T/measured.speed.json" |
		column -t -s $'\t'
	echo
}
