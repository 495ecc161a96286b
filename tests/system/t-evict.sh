#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
# Time limit: 900
#
# Eviction under load: eight disks over eight chains, whose data is several times the
# smallest cache, so that hardly anything is added without something being evicted.
# All disks are read at random and compared with what QEMU makes of their chains, some
# are written and verified, while reads of the cache take long, its size is changed, and
# chaind is stopped, killed and started.  A slot that is used again while a kernel still
# knows it, or reads it, shows as wrong data.
#
# Goes through all that once, with less data and fewer evictions, or again and again for
# QC2_SOAK_SECONDS.
. "$(dirname "$0")/lib.sh"

CACHE_MB=64
LARGE_MB=96		# while it is larger
SLOTS=$((CACHE_MB * 16))
READ_MB=32		# of each disk are read
STAGE=$((SLOTS / 4))	# evictions at least, before something changes
RESIZES=1		# in a round
WRITE_MB=8		# behind them are written, on some
THREADS=8		# for each disk
READ_DELAY_MS=1500
if [ "${QC2_SOAK_SECONDS:-0}" != 0 ]; then
	READ_MB=48
	STAGE=$SLOTS
	RESIZES=2
fi

# Links, size of clusters and other options, of all links; whether the base is
# compressed; whether there is a manifest.
CHAINS=(
	"1 cluster_size=64k - -"
	"4 cluster_size=64k - manifest"
	"3 cluster_size=4k - -"
	"2 cluster_size=4k - manifest"
	"1 cluster_size=64k,compression_type=zlib compressed manifest"
	"3 cluster_size=64k,compression_type=zstd compressed -"
	"3 cluster_size=64k,extended_l2=on - -"
	"2 cluster_size=16k,compression_type=zstd compressed manifest"
)

# make_disk DIRECTORY LINKS OPTIONS COMPRESSED - a chain without two equal blocks, which
# the cache would store once; its top is top.qcow2, what it holds the file "raw"
make_disk()
{
	local dir=$1 links=$2 link piece backing name=base.qcow2 size=$((READ_MB + WRITE_MB))
	local -a commands=()

	mkdir -p "$dir/pieces"
	# The compressed ones can be.
	if [ "$4" = compressed ]; then
		head -c $((READ_MB * 3 / 4))M /dev/urandom | base64 -w 0 > "$dir/raw"
	else
		head -c ${READ_MB}M /dev/urandom > "$dir/raw"
	fi
	truncate -s ${size}M "$dir/raw"
	[ "$links" -gt 1 ] || name=top.qcow2
	qemu-img convert -q ${4/#compressed/-c} -f raw -O qcow2 -o "$3" "$dir/raw" "$dir/$name"
	for ((link = 1; link < links; link++)); do
		backing=$name
		name=link$link.qcow2
		[ $link -lt $((links - 1)) ] || name=top.qcow2
		qemu-img create -q -f qcow2 -o "${3/,compression_type=*/}" -b "$backing" -F qcow2 \
			"$dir/$name"
		commands+=(-c "open -t unsafe -o driver=qcow2 $dir/$name")
		head -c 3M /dev/urandom | split -b 192K - "$dir/pieces/$link."
		for piece in "$dir/pieces/$link."*; do
			# Some begin in the middle of a cluster.
			commands+=(-c "write -q -s $piece $((RANDOM % ((READ_MB - 1) * 256) * 4))k 192k")
		done
		commands+=(-c close)
	done
	[ "$links" = 1 ] || qemu-io "${commands[@]}"
	rm -r "$dir/pieces"
	flatten "$dir/top.qcow2" "$dir/raw"
}

RANDOM=6
nr=0
for chain in "${CHAINS[@]}"; do
	read -r links options compressed _ <<< "$chain"
	make_disk "$T/store/$nr" "$links" "$options" "${compressed#-}"
	nr=$((nr + 1))
done
[ $((nr * READ_MB)) -ge $((4 * CACHE_MB)) ] || fail "$nr disks are too few"

# In memory, so that nothing but what is made slow on purpose is slow.
modprobe -q dm-delay || true
mkdir "$T/fast"
mount -t tmpfs -o size=$((LARGE_MB + 64))M none "$T/fast"
truncate -s ${LARGE_MB}M "$T/fast/cache"
loop=$(losetup --find --show "$T/fast/cache")
# reads_take MS - in an eighth of the cache, from now on; the others go on adding meanwhile,
# so that a slot of it is wanted again before a read of it is over
reads_take()
{
	local table first=$((CACHE_MB * 2048 / 2)) nr=$((CACHE_MB * 2048 / 8)) end

	end=$((first + nr))
	table="0 $first linear $loop 0
		$first $nr delay $loop $first $1 $loop $first 0
		$end $((LARGE_MB * 2048 - end)) linear $loop $end"
	if dmsetup info slowcache > /dev/null 2>&1; then
		dmsetup load slowcache <<< "$table" && dmsetup resume --noudevsync slowcache
	else
		dmsetup create slowcache --noudevsync <<< "$table" && dmsetup mknodes slowcache
	fi
}
reads_take 0

start_nginx "$T/store" "dav_methods PUT;"
start_chaind "[cache]" "path=/dev/mapper/slowcache" "size=${CACHE_MB}M" "index=$T/fast/index" \
	"scrub_rate=4M"
for ((i = 0; i < nr; i++)); do
	[ "${CHAINS[i]##* }" != manifest ] || chainctl publish "$HTTP/$i/top.qcow2" > /dev/null
	chainctl start "$HTTP/$i/top.qcow2" "disk$i" > /dev/null
done

readers=()
for ((i = 0; i < nr; i++)); do
	direct=--direct
	[ $((i % 2)) = 0 ] || direct=
	build/user/tests/tools/qc2cmp $direct "/dev/mapper/disk$i" "$T/store/$i/raw" \
		$((READ_MB << 20)) $THREADS "$i" > "$T/reader$i" 2>&1 &
	readers+=($!)
done

# writes DISK - fio verifies what it wrote, until "enough" is there
writes()
{
	local pass=0

	until [ -e "$T/enough" ]; do
		pass=$((pass + 1))
		fio --name=writes --filename="/dev/mapper/disk$1" --direct=1 --ioengine=libaio \
			--iodepth=8 --randseed=$pass --rw=randwrite --bsrange=512-256k \
			--offset=${READ_MB}M --size=${WRITE_MB}M --verify=crc32c --verify_fatal=1 \
			--do_verify=1 --verify_backlog=64 --fsync=32 > "$T/fio$1" 2>&1 || return
	done
	echo $pass > "$T/passes$1"
}
writers=()
for i in 0 3 5; do
	writes $i &
	writers+=($!)
done

cache_field() { chainctl status --json | jq ".cache.$1"; }

# What ended early found something.
all_run()
{
	local pid

	for pid in "${readers[@]}" "${writers[@]}"; do
		kill -0 "$pid" 2> /dev/null || return 1
	done
}
found_wrong() { fail "wrong data, or an error: $(cat "$T"/reader*; tail -n 5 "$T"/fio*)"; }
still_all() { all_run || found_wrong; }

# evicts - until a stage's number of blocks was evicted
evicts()
{
	local goal=$(($(cache_field evictions) + STAGE))

	# Not ten times a second: asking takes what the load could have.
	evicted() { sleep 1; ! all_run || [ "$(cache_field evictions)" -ge $goal ]; }
	wait_until 300 evicted
	still_all
}

total=0 bypassed=0
# The counters of a daemon end with it.
count()
{
	local status

	status=$(chainctl status --json)
	jq -e '.cache.errors == 0 and .cache.damaged == 0' <<< "$status" > /dev/null ||
		fail "errors in the cache: $(chainctl status)"
	jq -e '[.disks[].daemon.errors] | add == 0' <<< "$status" > /dev/null ||
		fail "errors of disks: $(chainctl status)"
	total=$((total + $(jq .cache.evictions <<< "$status")))
	bypassed=$((bypassed + $(jq .cache.bypass.written_bytes <<< "$status")))
}

# resize MB - until it has that size, and could be changed once more
resize()
{
	resized() { chainctl cache resize "$1M" && [ "$(cache_field size_bytes)" = $(($1 << 20)) ]; }
	wait_until 60 resized "$1"
}

round=0 start=$SECONDS
until [ $round -gt 0 ] && [ $((SECONDS - start)) -ge "${QC2_SOAK_SECONDS:-0}" ]; do
	round=$((round + 1))
	evicts

	reads_take $READ_DELAY_MS
	evicts
	reads_take 0

	for ((i = 0; i < RESIZES; i++)); do
		resize $LARGE_MB
		in_use() { ! all_run || [ "$(cache_field used_bytes)" -gt $((CACHE_MB * 5 / 4 << 20)) ]; }
		wait_until 60 in_use
		resize $CACHE_MB
	done
	still_all

	count
	stop_chaind
	start_chaind
	evicts

	# Soon, what it took over is not all compared yet.
	count
	kill_chaind
	start_chaind
	evicts
done
took=$((SECONDS - start))

: > "$T/enough"
kill -TERM "${readers[@]}"
for pid in "${readers[@]}" "${writers[@]}"; do
	wait "$pid" || found_wrong
done
wait_until 60 requests_wait 0
count
reads=$(cat "$T"/reader* | awk '{ n += $1 } END { print n }')
mb=$(cat "$T"/reader* | awk '{ n += $2 } END { printf "%d\n", n / 1048576 }')
passes=$(cat "$T"/passes* | awk '{ n += $1 } END { print n }')
echo "# $round rounds in $took s: $total evictions from $SLOTS slots; $reads reads," \
	"$mb MiB compared; $passes passes of fio; $((bypassed >> 20)) MiB bypassed the cache"
[ $total -ge $((4 * round * STAGE)) ] || fail "$total evictions"

for ((i = 0; i < nr; i++)); do
	cmp -n $((READ_MB << 20)) "$T/store/$i/raw" \
		<(dd if="/dev/mapper/disk$i" bs=1M iflag=direct status=none)
	chainctl stop "disk$i" --discard
done
stop_chaind
dmsetup remove --noudevsync slowcache
losetup -d "$loop"
umount "$T/fast"
stop_nginx
