#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# check-qcow2-matrix.sh [CHAINCAT [CHAINCTL]]
#
# Makes qcow2 chains of many kinds with qemu-img and qemu-io, reads each one
# with chaincat (that is, with the library) and compares every byte with what
# qemu-img convert makes of it, and chainctl map with qemu-img map.  Then: images
# that must be refused, with the reason.  SEED=N repeats a run with other random
# writes.
set -euo pipefail

cd "$(dirname "$0")/../.."
chaincat=$(realpath "${1:-build/asan/tests/tools/chaincat}")
chainctl=$(realpath "${2:-build/asan/chainctl}")
same_map=$PWD/tests/unit/same-map.jq
seed=${SEED:-1}
RANDOM=$seed

work=$(mktemp -d "${TMPDIR:-/tmp}/qcow2-matrix.XXXXXX")
passed=0
failed=0
nr_maps=0

finish() {
	local status=$?
	rm -rf "$work"
	if [ $status -ne 0 ]; then
		echo "FAIL: a command failed before the end" >&2
		failed=$((failed + 1))
	fi
	[ $failed -eq 0 ] || echo "repeat with SEED=$seed" >&2
	echo "$passed passed, $failed failed"
	[ $failed -eq 0 ] || exit 1
}
trap finish EXIT
cd "$work"

pass() {
	passed=$((passed + 1))
}

fail() {
	echo "FAIL: $1" >&2
	failed=$((failed + 1))
}

# maps NAME TOP FORMAT URL: notes both maps of a disk, to be compared at the end
maps() {
	local n=$((nr_maps++)) window=() qemu_window=()

	# Of every third disk a part only, that begins and ends within a sector.
	if [ $((n % 3)) = 2 ] && [ -z "${behind-}" ]; then
		window=(--offset $((n * 7919 % 900000)) --length $((1 + n * 104729 % 2000000)))
		qemu_window=(-s "${window[1]}" -l "${window[3]}")
	fi
	{
		printf '{"name": "%s", "behind": %d, "qemu": ' "$1" "${behind:-0}"
		qemu-img map -f "$3" --output=json "${qemu_window[@]}" "$2"
		printf ', "ours": '
		"$chainctl" --config /dev/null map --json "$4" "${window[@]}"
		echo '}'
	} >>maps.json
}

# same NAME TOP [FORMAT]: chaincat and QEMU see the same disk, and chainctl the
# same map.  $behind bytes of it are clusters behind the end of the file.
same() {
	local suffix=''
	rm -f out.raw ref.raw
	[ "${3:-qcow2}" = qcow2 ] || suffix="#format=raw"
	qemu-img convert -f "${3:-qcow2}" -O raw "$2" ref.raw
	if ! "$chaincat" "file://$PWD/$2$suffix" out.raw 2>err.txt; then
		fail "$1: $(cat err.txt)"
	elif ! cmp out.raw ref.raw >&2; then
		fail "$1: content differs"
	else
		pass
	fi
	maps "$1" "$2" "${3:-qcow2}" "file://$PWD/$2$suffix"
}

# same_snapshot NAME FILE SNAPSHOT: the same for an internal snapshot.  To QEMU's
# map, and to give it the size that it had, it has to be made the image itself.
same_snapshot() {
	local url="file://$PWD/$2#snapshot=$3"
	cp "$2" applied.qcow2
	qemu-img snapshot -a "$3" applied.qcow2
	qemu-img convert -f qcow2 -O raw applied.qcow2 ref.raw
	rm -f out.raw
	if "$chaincat" "$url" out.raw && cmp out.raw ref.raw >&2; then
		pass
	else
		fail "$1: snapshot $3"
	fi
	maps "$1: snapshot $3" applied.qcow2 qcow2 "$url"
}

# refused NAME TOP TEXT...: chaincat fails and says each TEXT
refused() {
	local name=$1 top=$2 text
	shift 2
	if "$chaincat" "$top" out.raw 2>err.txt; then
		fail "$name: not refused"
		return
	fi
	for text; do
		if ! grep -qF -- "$text" err.txt; then
			fail "$name: no \"$text\" in: $(cat err.txt)"
			return
		fi
	done
	pass
}

create() { # FILE SIZE OPTIONS [BASE BASE_FORMAT]
	local args=(-q -f qcow2)
	[ -z "$3" ] || args+=(-o "$3")
	[ $# -lt 4 ] || args+=(-b "$4" -F "$5")
	qemu-img create "${args[@]}" "$1" "$2"
}

io() { # FILE COMMAND...
	local file=$1 args=() cmd
	shift
	for cmd; do args+=(-c "$cmd"); done
	qemu-io -f qcow2 -t unsafe -d unmap "${args[@]}" "$file" >io.log 2>&1 ||
		{ cat io.log >&2; return 1; }
}

# Writes of random size and place, 512-byte granular, that overlap: data, zero
# clusters with and without their allocation, discards.
scribble() { # FILE SECTORS COUNT
	local i off len cmds=() max=$(($2 / 12 + 1))
	for ((i = 0; i < $3; i++)); do
		off=$(((RANDOM * 32768 + RANDOM) % $2))
		len=$((1 + (RANDOM * 32768 + RANDOM) % max))
		[ $((off + len)) -le "$2" ] || len=$(($2 - off))
		off=$((off * 512)) len=$((len * 512))
		case $((RANDOM % 8)) in
		0) cmds+=("write -z $off $len") ;;
		1) cmds+=("write -z -u $off $len") ;;
		2) cmds+=("discard $off $len") ;;
		*) cmds+=("write -P $((1 + RANDOM % 255)) $off $len") ;;
		esac
	done
	io "$1" "${cmds[@]}"
}

# chain NAME SECTORS OPTIONS...: one layer for each OPTIONS, from the base up
chain() {
	local name=$1 sectors=$2 below='' layer=0 opts file
	shift 2
	for opts; do
		file=$name-$layer.qcow2
		if [ -n "$below" ]; then
			create "$file" $((sectors * 512)) "$opts" "$below" qcow2
		else
			create "$file" $((sectors * 512)) "$opts"
		fi
		scribble "$file" "$sectors" 12
		below=$file
		layer=$((layer + 1))
	done
	same "$name" "$below"
	rm -f "$name"-*.qcow2
}

# edit FILE OFFSET HEX: writes bytes into a header
edit() {
	# shellcheck disable=SC2001,SC2059
	printf "$(sed 's/../\\x&/g' <<<"$3")" |
		dd of="$1" bs=1 seek="$2" conv=notrunc status=none
}

# --- what must read as QEMU reads it ---------------------------------------

for compat in 0.10 1.1; do
	for cs in 512 1k 4k 64k 256k 2M; do
		sectors=$((16384 + RANDOM % 4096))
		[ $cs != 2M ] || sectors=$((65536 + RANDOM % 4096))
		o=compat=$compat,cluster_size=$cs
		chain "v$compat-$cs-1" $sectors $o
		chain "v$compat-$cs-2" $sectors $o $o
	done
done
chain mixed-sizes-5 20001 cluster_size=64k cluster_size=512 \
	compat=0.10,cluster_size=4k cluster_size=2M cluster_size=8k
chain mixed-versions-5 9999 compat=0.10 compat=1.1 compat=0.10 compat=1.1 \
	compat=0.10
chain lazy 16384 lazy_refcounts=on lazy_refcounts=on,cluster_size=4k
chain refcount-bits 8192 refcount_bits=1 refcount_bits=64,cluster_size=1k

for prealloc in metadata falloc full; do
	for cs in 4k 64k; do
		o=preallocation=$prealloc,cluster_size=$cs
		create empty.qcow2 5000001 $o
		same "prealloc-$prealloc-$cs-empty" empty.qcow2
		chain "prealloc-$prealloc-$cs-base" 8190 $o cluster_size=$cs
		rm empty.qcow2
	done
done
# Zero clusters that keep their allocation.
create prealloc.qcow2 8M preallocation=full
io prealloc.qcow2 "write -P 3 0 8M" "write -z 1M 2M"
create prealloc-top.qcow2 8M "" prealloc.qcow2 qcow2
io prealloc-top.qcow2 "write -P 4 1M 4M" "write -z 2M 1M"
same prealloc-zero prealloc-top.qcow2

# Overlays longer and shorter than what is below.
for compat in 0.10 1.1; do
	create len0.qcow2 8M compat=$compat
	io len0.qcow2 "write -P 1 0 8M"
	create len1.qcow2 3000832 compat=$compat len0.qcow2 qcow2
	io len1.qcow2 "write -P 2 1M 64k"
	same shorter-$compat len1.qcow2
	create len2.qcow2 12M compat=$compat,cluster_size=4k len1.qcow2 qcow2
	io len2.qcow2 "write -P 3 2900000 64k" "write -P 4 9M 1M"
	same shorter-then-longer-$compat len2.qcow2
	create len3.qcow2 20M compat=$compat len0.qcow2 qcow2
	io len3.qcow2 "write -P 5 7M 2M"
	same longer-$compat len3.qcow2
	rm len?.qcow2
done

# Raw bases; one ends within a sector.
head -c 5000003 /dev/urandom >raw-odd.img
head -c 4194304 /dev/urandom >raw-even.img
for base in raw-odd raw-even; do
	same "$base-top" $base.img raw
	for size in 3M 8M; do
		create over.qcow2 $size cluster_size=4k $base.img raw
		same "$base-empty-overlay-$size" over.qcow2
		scribble over.qcow2 6144 10
		create over2.qcow2 9M "" over.qcow2 qcow2
		scribble over2.qcow2 18432 10
		same "$base-overlays-$size" over2.qcow2
	done
done

# Resized in both directions.
create size.qcow2 4M cluster_size=4k
io size.qcow2 "write -P 1 0 4M"
qemu-img resize -q size.qcow2 9M
io size.qcow2 "write -P 2 5M 1M" "write -P 3 8M 1M"
same resized-up size.qcow2
qemu-img resize -q --shrink size.qcow2 6500352
same resized-down size.qcow2
create size-top.qcow2 9M "" size.qcow2 qcow2
same resized-down-base size-top.qcow2

# Internal snapshots, persistent bitmaps, an image that was not closed.
create extra.qcow2 8M ""
io extra.qcow2 "write -P 1 0 4M"
qemu-img snapshot -c one extra.qcow2
io extra.qcow2 "write -P 2 1M 2M" "discard 3M 512k"
same snapshots extra.qcow2
qemu-img bitmap --add extra.qcow2 bitmap
io extra.qcow2 "write -P 3 2M 1M"
same bitmaps extra.qcow2
create unclean.qcow2 8M lazy_refcounts=on
io unclean.qcow2 "write -P 3 2M 1M" "flush"
edit unclean.qcow2 79 01
qemu-img info -U unclean.qcow2 >/dev/null
cp unclean.qcow2 unclean-ref.qcow2
rm -f out.raw
if "$chaincat" unclean.qcow2 out.raw && cmp unclean.qcow2 unclean-ref.qcow2; then
	pass
else
	fail "dirty image not read, or written to"
fi
qemu-img convert -f qcow2 -O raw unclean-ref.qcow2 ref.raw
if cmp out.raw ref.raw; then pass; else fail "dirty image differs"; fi

# The last data cluster is not whole in the file: QEMU reads zeros, and not
# what the backing file has there.
create cut-base.qcow2 1M ""
io cut-base.qcow2 "write -P 1 0 1M"
for cut in 512 1000 65000; do
	create cut.qcow2 1M "" cut-base.qcow2 qcow2
	io cut.qcow2 "write -P 2 0 64k"
	truncate -s $(($(stat -c %s cut.qcow2) / 65536 * 65536 - cut)) cut.qcow2
	behind=$((cut / 512 * 512)) same "last-cluster-without-$cut" cut.qcow2
done

# A virtual size that is no multiple of 512.
create odd.qcow2 1M ""
io odd.qcow2 "write -P 7 0 1M"
edit odd.qcow2 24 00000000000F0123
same odd-size odd.qcow2

# As qemu-img convert lays images out; names that need care in a URL.
head -c 20000000 /dev/urandom >random.img
qemu-img convert -f raw -O qcow2 random.img converted.qcow2
same converted converted.qcow2
mkdir "sub dir"
cp converted.qcow2 "sub dir/a%20b#c?d;e.qcow2"
create names.qcow2 20000256 "" "sub dir/a%20b#c?d;e.qcow2" qcow2
io names.qcow2 "write -P 1 5M 1M"
same names names.qcow2
create absolute.qcow2 20000256 "" "$PWD/names.qcow2" qcow2
same absolute-path absolute.qcow2
rm -f random.img

# Compressed clusters: as qemu-img convert -c writes them, in or out of order,
# under and over other layers, with clusters cut at the end of the disk.
head -c 3000000 /dev/urandom | base64 -w 0 >text.img
truncate -s 6000128 text.img
for type in zlib zstd; do
	for cs in 512 4k 64k 2M; do
		o=compression_type=$type,cluster_size=$cs
		[ $type-$cs != zstd-512 ] || o=compression_type=zstd,cluster_size=1k
		qemu-img convert -c -W -f raw -O qcow2 -o $o text.img packed.qcow2
		same "packed-$type-$cs" packed.qcow2
		create packed-top.qcow2 7M "" packed.qcow2 qcow2
		scribble packed-top.qcow2 14000 10
		same "packed-$type-$cs-base" packed-top.qcow2
		# Overwritten in part, and written compressed over a base.
		io packed.qcow2 "write -P 9 1M 100k" "write -z 3M 64k"
		same "packed-$type-$cs-written" packed.qcow2
		create packed-over.qcow2 7M $o packed-top.qcow2 qcow2
		io packed-over.qcow2 "write -c -P 5 2M 2M" "write -P 6 3M 5k"
		same "packed-$type-$cs-overlay" packed-over.qcow2
		rm packed*.qcow2
	done
done
qemu-img convert -c -f raw -O qcow2 -o compat=0.10 text.img packed.qcow2
same packed-v2 packed.qcow2

# Extended L2 entries: subclusters of data, of zeros, and of the backing file.
for cs in 16k 64k 2M; do
	o=extended_l2=on,cluster_size=$cs
	[ $cs != 2M ] || sectors=70001
	[ $cs = 2M ] || sectors=$((16384 + RANDOM % 4096))
	chain "subclusters-$cs-1" $sectors $o
	chain "subclusters-$cs-3" $sectors cluster_size=64k $o $o
	qemu-img convert -c -f raw -O qcow2 -o $o text.img packed.qcow2
	create packed-top.qcow2 7M $o packed.qcow2 qcow2
	scribble packed-top.qcow2 14000 12
	same "subclusters-$cs-packed" packed-top.qcow2
	for prealloc in metadata falloc full; do
		create pre.qcow2 8M $o,preallocation=$prealloc
		same "subclusters-$cs-$prealloc" pre.qcow2
		scribble pre.qcow2 16384 10
		same "subclusters-$cs-$prealloc-written" pre.qcow2
		rm pre.qcow2
	done
	rm packed*.qcow2
done

# External data files: preallocated, raw, longer and shorter than the disk.
for o in cluster_size=64k cluster_size=4k,data_file_raw=on extended_l2=on; do
	create ext-data.qcow2 5000192 "data_file=ext-data.img,$o"
	same "data-file-$o-empty" ext-data.qcow2
	scribble ext-data.qcow2 9766 12
	same "data-file-$o" ext-data.qcow2
	case $o in
	*data_file_raw*) ;;	# cannot have a backing file
	*)
		create ext-over.qcow2 8M "data_file=ext-over.img,$o" ext-data.qcow2 qcow2
		scribble ext-over.qcow2 16384 12
		same "data-file-$o-over" ext-over.qcow2 ;;
	esac
	rm ext-*
done

# Internal snapshots as the source, also of another size, compressed, extended.
for o in compat=0.10 cluster_size=4k extended_l2=on compression_type=zstd; do
	create snap.qcow2 6M $o
	io snap.qcow2 "write -c -P 4 1M 1M" "write -c -P 7 4M 64k"
	scribble snap.qcow2 12288 6
	qemu-img snapshot -c "the first" snap.qcow2
	io snap.qcow2 "write -P 5 2M 1M"
	qemu-img snapshot -c second snap.qcow2
	[ $o = compat=0.10 ] || qemu-img resize -q snap.qcow2 9M
	scribble snap.qcow2 12288 6
	same "snapshots-$o-active" snap.qcow2
	for name in "the first" second; do
		same_snapshot "snapshots-$o" snap.qcow2 "$name"
	done
	rm snap.qcow2
done

# --- borders -----------------------------------------------------------------

# Text that compresses to three quarters, zeros, what does not compress, what
# compresses to almost nothing; in pieces that end nowhere in particular.
for i in 1 2 3; do
	head -c 700001 text.img | tail -c $((600000 + i))
	head -c 199999 /dev/zero
	head -c 300001 /dev/urandom
	head -c 400003 /dev/zero | tr '\0' x
done >varied.img
end=4400128
truncate -s $end varied.img

# around FILE AT UNIT: data, zeros and discards, of up to three units, that begin
# and end on borders of units and within them.  They take 12 units from AT on.
around() {
	local at=$2 u=$3
	io "$1" "write -P 1 $((at + u - 512)) 1024" "write -z $((at + 3 * u)) $u" \
		"write -P 2 $((at + 3 * u + 512)) 512" "write -P 3 $((at + 5 * u)) $((3 * u))" \
		"write -z -u $((at + 5 * u - 512)) $((u + 1024))" "discard $((at + 7 * u)) $u" \
		"write -P 4 $((at + 9 * u)) $((3 * u))" "write -z $((at + 10 * u - 512)) 1024" \
		"discard $((at + 11 * u)) $u" "write -P 5 $((at + 12 * u - 512)) 512"
}

# Each kind of base below each kind of entry: at the start of the disk, across the
# border of two clusters, at the end of the base and behind it.
qemu-img convert -f raw -O qcow2 varied.img base-qcow2.qcow2
qemu-img convert -f raw -O qcow2 -o compat=0.10,cluster_size=512 varied.img base-v2.qcow2
qemu-img convert -f raw -O qcow2 -o extended_l2=on,cluster_size=16k varied.img base-ext.qcow2
qemu-img convert -c -f raw -O qcow2 varied.img base-zlib.qcow2
qemu-img convert -c -f raw -O qcow2 -o compression_type=zstd,cluster_size=8k varied.img base-zstd.qcow2
create base-datafile.qcow2 $end data_file=base-data.img
qemu-img convert -n -f raw -O qcow2 varied.img base-datafile.qcow2
cp base-qcow2.qcow2 base-snapshot.qcow2
qemu-img snapshot -c one base-snapshot.qcow2
io base-snapshot.qcow2 "write -P 9 100k 3M" "discard 2M 200k"
cp varied.img base-raw.img
for kind in none raw qcow2 v2 ext zlib zstd datafile snapshot; do
	under=("base-$kind.qcow2" qcow2)
	[ $kind != raw ] || under=(base-raw.img raw)
	[ $kind != none ] || under=()
	for o in compat=0.10,cluster_size=64k cluster_size=512 extended_l2=on,cluster_size=64k; do
		unit=512 cs=65536
		[[ $o != ext* ]] || unit=2048
		[[ $o != *=64k || $o = ext* ]] || unit=65536
		create over.qcow2 6M $o "${under[@]}"
		around over.qcow2 0 $unit
		around over.qcow2 $((20 * cs - 5 * unit)) $unit
		around over.qcow2 $((end / unit * unit - 6 * unit)) $unit
		around over.qcow2 $((6 * 1048576 - 12 * unit)) $unit
		same "around-$o-over-$kind" over.qcow2
	done
done
for cs in 16384 2097152; do
	create over.qcow2 68M extended_l2=on,cluster_size=$cs base-zlib.qcow2 qcow2
	around over.qcow2 0 $((cs / 32))
	around over.qcow2 $((2 * cs - 5 * cs / 32)) $((cs / 32))
	around over.qcow2 $((68 * 1048576 - 12 * cs / 32)) $((cs / 32))
	same "around-subclusters-of-$((cs / 32))" over.qcow2
done
# Preallocated over a base, only so: clusters none of whose subclusters is used.
for prealloc in metadata falloc full; do
	create over.qcow2 6M extended_l2=on,preallocation=$prealloc base-qcow2.qcow2 qcow2
	same "subclusters-$prealloc-over" over.qcow2
	around over.qcow2 $((20 * 65536 - 5 * 2048)) 2048
	same "subclusters-$prealloc-over-written" over.qcow2
done

# Lengths that differ by a sector, by about a cluster, and by many; what a shorter
# link hides stays hidden below a longer one.
for cs in 512 64k 2M; do
	for delta in -3000832 -66048 -512 512 66048 3000832; do
		create over.qcow2 $((end + delta)) cluster_size=$cs base-zstd.qcow2 qcow2
		io over.qcow2 "write -P 6 $((end + delta - 1024)) 1024"
		same "length$delta-$cs" over.qcow2
		create over2.qcow2 $((end + 70144)) cluster_size=4k over.qcow2 qcow2
		io over2.qcow2 "write -P 7 $((end + 40000)) 1k"
		same "length$delta-$cs-longer" over2.qcow2
	done
done
# Disks of one sector, and around what one L2 table maps.
for size in 512 32256 32768 33280; do
	create tiny.qcow2 $size cluster_size=512
	io tiny.qcow2 "write -P 1 $((size - 512)) 512"
	create tiny2.qcow2 1M cluster_size=512,compat=0.10 tiny.qcow2 qcow2
	io tiny2.qcow2 "write -P 2 33k 512"
	same "tiny-$size" tiny2.qcow2
done

# --- tables ------------------------------------------------------------------

# Two thousand L2 tables of 64 entries, in the order of the disk and against it;
# each run of data begins in one and ends in the next.
cmds=()
for ((i = 1; i < 2048; i++)); do
	cmds+=("write -P $((1 + i % 255)) $((i * 32768 - 1024)) 2048")
done
for compat in 0.10 1.1; do
	create tables.qcow2 64M compat=$compat,cluster_size=512
	io tables.qcow2 "${cmds[@]}"
	same tables-$compat tables.qcow2
done
mapfile -t cmds < <(printf '%s\n' "${cmds[@]}" | tac)
create tables-over.qcow2 64M cluster_size=512 tables.qcow2 qcow2
io tables-over.qcow2 "${cmds[@]/ 2048/ 1536}"
same tables-backwards tables-over.qcow2
# An L1 table that had to move.
create moved.qcow2 1M cluster_size=512
io moved.qcow2 "write -P 1 0 1M"
qemu-img resize -q moved.qcow2 33000960
io moved.qcow2 "write -P 2 20M 1M" "write -P 3 32999936 1024"
same l1-moved moved.qcow2

# Disks of TiB: several L2 tables of 2 MiB; the place of a sector in 64 bits.
for cs in 64k 2M; do
	create large.qcow2 5T cluster_size=$cs
	io large.qcow2 "write -P 1 0 64k" "write -P 2 549755813376 1024" \
		"write -P 3 2199023255040 1M" "write -z 3T 1M" "write -P 4 5497558138368 512"
	create large-over.qcow2 5497558204416 cluster_size=$cs large.qcow2 qcow2
	io large-over.qcow2 "write -P 5 1T 64k" "write -P 6 2199023255552 512" \
		"write -z 549755813888 512" "write -P 7 5497558203904 512"
	"$chaincat" large-over.qcow2 out.raw
	qemu-img convert -f qcow2 -O raw large-over.qcow2 ref.raw
	# It skips what is in no cluster of either file.
	if qemu-img compare -q -f raw -F raw out.raw ref.raw; then
		pass
	else
		fail "large-$cs: content differs"
	fi
	maps "large-$cs" large-over.qcow2 qcow2 "file://$PWD/large-over.qcow2"
done
rm -f out.raw ref.raw

# --- compressed clusters -----------------------------------------------------

# One behind the other, so that they cross sectors, clusters and the blocks that
# are fetched; many in one sector; the last one ends with the file.
for type in zlib zstd; do
	for cs in 1k 8k 64k 256k 2M; do
		o=compression_type=$type,cluster_size=$cs
		qemu-img convert -c -f raw -O qcow2 -o $o varied.img packed.qcow2
		same "varied-$type-$cs" packed.qcow2
		# Its end hides half a compressed cluster.
		create packed-top.qcow2 2000384 "" packed.qcow2 qcow2
		io packed-top.qcow2 "write -c -P 8 0 64k" "write -P 1 64k 512"
		create packed-longer.qcow2 5M "" packed-top.qcow2 qcow2
		same "varied-$type-$cs-over" packed-longer.qcow2
	done
done
qemu-img convert -c -f raw -O qcow2 -o extended_l2=on,compression_type=zstd,cluster_size=16k \
	varied.img packed.qcow2
around packed.qcow2 0 512
same varied-zstd-subclusters packed.qcow2

# --- chains of everything ----------------------------------------------------

# Read at each depth.
mixed() { # NAME BASE FORMAT SECTORS OPTIONS...
	local name=$1 below=$2 format=$3 sectors=$4 layer=0 o
	shift 4
	for o; do
		create $name$layer.qcow2 $((sectors * 512)) "$o" "$below" "$format"
		scribble $name$layer.qcow2 $sectors 8
		same "$name-$layer" $name$layer.qcow2
		below=$name$layer.qcow2 format=qcow2 layer=$((layer + 1))
	done
}
mixed v3-v2-over-raw raw-odd.img raw 9766 cluster_size=64k compat=0.10 compat=0.10,cluster_size=4k \
	cluster_size=512
mixed zoo raw-odd.img raw 10001 cluster_size=2M compat=0.10,cluster_size=512 \
	extended_l2=on,cluster_size=16k compression_type=zstd,cluster_size=4k data_file=zoo.img \
	extended_l2=on,cluster_size=2M refcount_bits=1,cluster_size=1k lazy_refcounts=on

# Rebased, flattened, committed; a name as long as can be.
create re.qcow2 6M "" base-zstd.qcow2 qcow2
around re.qcow2 0 65536
qemu-img rebase -f qcow2 -F qcow2 -b base-ext.qcow2 re.qcow2
same rebased re.qcow2
create re2.qcow2 7M cluster_size=4k re.qcow2 qcow2
around re2.qcow2 4096 4096
qemu-img commit -q -d re2.qcow2
same committed re2.qcow2
qemu-img rebase -f qcow2 -b '' re.qcow2
same flattened re.qcow2
mkdir d
name=./$(printf 'd/../%.0s' {1..201})base-qcow2.qcow2	# 1023 characters
create long.qcow2 5M "" base-qcow2.qcow2 qcow2
qemu-img rebase -u -F qcow2 -b "$name" long.qcow2
same long-name long.qcow2

# What lies in a raw base is data, also if it looks like an image.
cp --sparse=never base-qcow2.qcow2 guest.img
create guest.qcow2 6M "" guest.img raw
around guest.qcow2 65536 512
same image-in-raw-base guest.qcow2

# --- what QEMU keeps beside the disk ------------------------------------------

# External data files of each layout, of an image that was resized; raw ones that
# were written to themselves, and that are shorter and longer than the disk.
for cs in 512 64k 2M; do
	for prealloc in off metadata falloc full; do
		create ext.qcow2 5000192 data_file=ext.img,cluster_size=$cs,preallocation=$prealloc
		scribble ext.qcow2 9766 10
		same "data-file-$prealloc-$cs" ext.qcow2
		rm ext.*
	done
	create ext.qcow2 5000192 data_file=ext.img,data_file_raw=on,cluster_size=$cs
	around ext.qcow2 0 65536
	qemu-io -f raw -c "write -P 9 1234567 1M" ext.img >/dev/null
	same "data-file-raw-written-$cs" ext.qcow2
	truncate -s 9M ext.img
	same "data-file-raw-longer-$cs" ext.qcow2
	truncate -s 3000100 ext.img
	behind=$((5000192 - 3000320)) same "data-file-raw-shorter-$cs" ext.qcow2
	rm ext.*
	create ext.qcow2 3M data_file=ext.img,cluster_size=$cs
	io ext.qcow2 "write -P 1 0 3M"
	qemu-img resize -q ext.qcow2 5000192
	io ext.qcow2 "write -P 2 4M 10k" "write -P 3 4999680 512"
	same "data-file-resized-$cs" ext.qcow2
	rm ext.*
done

# Snapshots of a disk that was longer and shorter.
for o in cluster_size=512 cluster_size=64k extended_l2=on; do
	create snap.qcow2 6M $o
	io snap.qcow2 "write -P 1 0 6M"
	qemu-img snapshot -c one snap.qcow2
	qemu-img resize -q snap.qcow2 9000448
	io snap.qcow2 "write -P 2 5M 3M" "write -P 3 8999936 512"
	qemu-img snapshot -c two snap.qcow2
	qemu-img resize -q --shrink snap.qcow2 3000320
	io snap.qcow2 "write -P 4 2999808 512" "discard 1M 1M"
	qemu-img snapshot -c three snap.qcow2
	same "resized-$o" snap.qcow2
	for name in one two three; do
		same_snapshot "resized-$o" snap.qcow2 $name
	done
	create over.qcow2 9M "" snap.qcow2 qcow2
	around over.qcow2 $((3000320 - 6 * 512)) 512
	same "resized-$o-over" over.qcow2
done

# The state of a virtual machine, in clusters behind the end of the disk.
for cs in 512 64k; do
	create vm.qcow2 4000256 cluster_size=$cs
	io vm.qcow2 "write -P 1 0 3M" "write -P 2 4000000 256"
	qemu-system-x86_64 -machine isapc,accel=tcg -m 16 -nodefaults -display none -S \
		-drive if=none,format=qcow2,file=vm.qcow2 -monitor stdio <<<$'savevm one\nquit' >/dev/null
	qemu-img snapshot -l vm.qcow2 | grep -q " KiB "
	io vm.qcow2 "write -P 3 1M 100k"
	same "vm-state-$cs" vm.qcow2
	same_snapshot "vm-state-$cs" vm.qcow2 one
done

# Images of a QEMU that was killed: marked dirty, refcounts and bitmaps not as they
# should be, clusters that nothing leads to.
for o in cluster_size=64k cluster_size=512 extended_l2=on; do
	create killed.qcow2 6M lazy_refcounts=on,$o base-zstd.qcow2 qcow2
	qemu-img bitmap --add killed.qcow2 bitmap
	# The shell says "Killed".
	{ qemu-io -f qcow2 -c "write -P 1 1M 2M" -c "write -z 2M 100k" -c "discard 3M 1M" -c flush \
		-c "write -P 2 5M 1M" -c "sigraise 9" killed.qcow2 >/dev/null || true; } 2>/dev/null
	qemu-img info --output=json killed.qcow2 | jq -e '."dirty-flag"' >/dev/null
	same "killed-$o" killed.qcow2
	create over.qcow2 6M $o killed.qcow2 qcow2
	around over.qcow2 $((1048576 - 6 * 512)) 512
	same "killed-$o-over" over.qcow2
done

# Unknown flags that say "ignore me", and an unknown header extension.
cp base-snapshot.qcow2 flags.qcow2
qemu-img bitmap --add -g 4096 flags.qcow2 bitmap
edit flags.qcow2 80 8000000000000000
edit flags.qcow2 88 8000000000000001
same unknown-flags flags.qcow2
at=$(LC_ALL=C grep -aboP '\x68\x03\xf8\x57' flags.qcow2 | head -n1 | cut -d: -f1)
edit flags.qcow2 "$at" 12345678
same unknown-extension flags.qcow2

# Thirty layers.
deep=()
for i in {1..30}; do deep+=(cluster_size=4k); done
chain deep-30 16384 "${deep[@]}"

echo "$passed images and chains, each byte as QEMU reads it"

# --- maps ---------------------------------------------------------------------

# As text, a disk with pieces of all kinds.
create text-base.qcow2 4M ""
io text-base.qcow2 "write -P 1 0 1M" "write -c -P 2 2M 64k" "write -c -P 3 3M 128k"
create text.qcow2 4M "data_file=text-data.img" text-base.qcow2 qcow2
io text.qcow2 "write -P 4 512k 64k" "write -z 3M 64k"
url=file://$PWD/text.qcow2
"$chainctl" --config /dev/null map --json "$url" --offset 1000 |
	jq -r '.extents[] | select(.data) | "\(.start) \(.length) \(.offset) \(.url)"' |
	while read -r start length offset file; do
		[ "$offset" = null ] && offset=compressed || offset=$(printf '%#x' "$offset")
		printf '%#-15x %#-15x %-15s %s\n' "$start" "$length" "$offset" "$file"
	done >lines.txt
if "$chainctl" --config /dev/null map "$url" --offset 1000 | tail -n +2 | diff lines.txt - >&2 &&
	[ "$(wc -l <lines.txt)" = 5 ]; then
	pass
else
	fail "chainctl map as text"
fi
status=0
"$chainctl" --config /dev/null map --json "$url" --offset 4194305 >map.json 2>err.txt || status=$?
if [ $status = 2 ] && [ ! -s map.json ] && grep -qF "the disk has 4194304 bytes" err.txt; then
	pass
else
	fail "chainctl map behind the end, status $status: $(cat err.txt)"
fi
rm text-base.qcow2 text.qcow2 text-data.img

different=$(jq -r -f "$same_map" maps.json)
if [ -n "$different" ]; then
	fail "chainctl map and qemu-img map differ:"$'\n'"$different"
else
	passed=$((passed + nr_maps))
fi

# --- what must be refused ---------------------------------------------------

# On a busy machine qemu-img can fail to measure how fast that is.
for _ in {1..50}; do
	! qemu-img create -q -f qcow2 --object secret,id=s,data=secret \
		-o encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10 luks.qcow2 4M || break
done
refused luks luks.qcow2 luks.qcow2 "encrypted (LUKS)"

create datafile.qcow2 4M data_file=datafile.img
rm datafile.img
refused data-file-gone datafile.qcow2 datafile.qcow2 datafile.img "external data file"
create snapshots.qcow2 4M ""
refused no-snapshot "file://$PWD/snapshots.qcow2#snapshot=x" snapshots.qcow2 "no snapshot" "'x'"

create base.qcow2 4M ""
create noformat.qcow2 4M "" base.qcow2 qcow2
at=$(grep -abo "$(printf '\xe2\x79\x2a\xca')" noformat.qcow2 | head -n1 | cut -d: -f1) || at=
if [ -z "$at" ]; then
	at=$(LC_ALL=C grep -aboP '\xe2\x79\x2a\xca' noformat.qcow2 | head -n1 | cut -d: -f1)
fi
edit noformat.qcow2 "$at" 12345678
refused missing-format noformat.qcow2 noformat.qcow2 \
	"qemu-img rebase -u -F qcow2 -b 'base.qcow2'"
qemu-img rebase -u -F qcow2 -b base.qcow2 noformat.qcow2
same missing-format-repaired noformat.qcow2

create corrupt.qcow2 4M ""
edit corrupt.qcow2 79 02
refused corrupt corrupt.qcow2 corrupt.qcow2 "marked corrupt"
create unknown.qcow2 4M ""
edit unknown.qcow2 72 80
refused unknown-feature unknown.qcow2 unknown.qcow2 "bit 63"
create other.qcow2 4M ""
qemu-img rebase -u -F vmdk -b base.vmdk other.qcow2
refused other-format other.qcow2 other.qcow2 vmdk "only qcow2 and raw"

create loop-a.qcow2 4M "" base.qcow2 qcow2
create loop-b.qcow2 4M "" loop-a.qcow2 qcow2
qemu-img rebase -u -F qcow2 -b loop-b.qcow2 loop-a.qcow2
refused loop loop-b.qcow2 loop-a.qcow2 loop-b.qcow2 "a loop"
create orphan.qcow2 4M "" base.qcow2 qcow2
qemu-img rebase -u -F qcow2 -b gone.qcow2 orphan.qcow2
refused missing-parent orphan.qcow2 orphan.qcow2 gone.qcow2
create escape.qcow2 4M "" base.qcow2 qcow2
qemu-img rebase -u -F raw -b ../../etc/passwd escape.qcow2
refused escape escape.qcow2 "outside the folder" '"allow"'
qemu-img rebase -u -F raw -b nbd:localhost:1 escape.qcow2
refused protocol escape.qcow2 '"nbd:" is not supported'
qemu-img rebase -u -F raw -b 'json:{"driver":"raw"}' escape.qcow2
refused json escape.qcow2 '"json:"'
refused not-qcow2 raw-even.img "not a qcow2 image"

io base.qcow2 "write -P 1 0 4M"
truncate -s 2M base.qcow2
refused truncated base.qcow2 base.qcow2 truncated
truncate -s 100 base.qcow2
refused truncated-header base.qcow2 base.qcow2 truncated
