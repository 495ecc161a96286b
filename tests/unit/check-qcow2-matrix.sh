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
		qemu-img convert -l snapshot.name="$name" -f qcow2 -O raw snap.qcow2 ref.raw
		rm -f out.raw
		# QEMU gives it the size of today.
		truncate -s 6M ref.raw
		if "$chaincat" "file://$PWD/snap.qcow2#snapshot=$name" out.raw && cmp out.raw ref.raw; then
			pass
		else
			fail "snapshot $name of $o"
		fi
		# To QEMU's map a snapshot has to be made the image itself.
		cp snap.qcow2 applied.qcow2
		qemu-img snapshot -a "$name" applied.qcow2
		maps "snapshot $name of $o" applied.qcow2 qcow2 \
			"file://$PWD/snap.qcow2#snapshot=$name"
	done
	rm snap.qcow2
done

# Thirty layers.
deep=()
for i in {1..30}; do deep+=(cluster_size=4k); done
chain deep-30 16384 "${deep[@]}"

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
