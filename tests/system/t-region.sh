#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Hosts that share a regional cache, one after another.  What the first one read of a far
# store, the others find there, and ask the far store for no data.  What was changed in the
# bucket is noticed, fetched from the far store, and right again for the next host.  While
# the bucket is gone, refuses or hangs, reads go on, and it is used when it is back.  It is
# left alone for stores in the region, and for those with credentials.
# Time limit: 600
. "$(dirname "$0")/lib.sh"

qc2fault=build/user/tests/tools/qc2fault
FAR=http://127.0.0.1:8081 BUCKET=http://127.0.0.1:8082/bucket
URL=$FAR/d/top.qcow2
proxies=()

# proxy NAME PORT - in front of nginx
proxy()
{
	"$qc2fault" serve "$T/$1" "$2" 8080 > "$T/$1.ready" &
	proxies+=($!)
	wait_until 30 grep -q ready "$T/$1.ready"
}
fault() { "$qc2fault" "$T/$1" "${@:2}" > "$T/answer" || fail "qc2fault $*: $(cat "$T/answer")"; }
region() { chainctl status --json | jq ".region.$1"; }
region_is() { test "$(region "$1")" "$2" "$3"; }
verifies() { grep -q "verified with [1-9][0-9]* digests" "$T/chaind.log"; }
stored_all() { region_is queued = 0; }
far_data() { http_requests '/d/(base|middle|top).qcow2 bytes=[1-9]'; }

# host NAME [CONFIG-LINE…] - a host without anything, with the disk on it
host()
{
	CONF=$T/$1.conf
	: > "$T/chaind.log"
	start_chaind "[cache]" "path=$T/$1.cache" "size=256M" "[tip]" "dir=$T/$1.tips" \
		"[chain]" "index_dir=$T/$1.index" "[region]" "cache=$BUCKET" \
		"timeout_ms=20000" "${@:2}"
	http_reset
	chainctl start "$URL" vmdisk
	wait_until 30 verifies
}

leave()
{
	chainctl stop vmdisk --discard
	stop_chaind
}

# read_part SKIP_MB COUNT_MB WHAT - the part must be right
read_part()
{
	dd if=/dev/mapper/vmdisk of="$T/part" bs=1M iflag=direct skip="$1" count="$2" status=none ||
		fail "reading $2 MiB at $1 MiB failed: $3"
	cmp -n $(($2 << 20)) -i $(($1 << 20)):0 "$T/expected" "$T/part" ||
		fail "WRONG DATA: $3"
}
read_all() { read_part 0 16 "$1"; }

# The first and the last MiB are empty: looking at a new disk needs no data.
mkdir -p "$T/images/d" "$T/data/bucket"
head -c 10M /dev/urandom > "$T/random"
qemu-img create -q -f qcow2 "$T/images/d/base.qcow2" 16M
qemu-io -f qcow2 -c "write -q -s $T/random 1M 10M" -c "write -q -P 7 11M 2M" \
	"$T/images/d/base.qcow2"
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 "$T/images/d/middle.qcow2"
qemu-io -f qcow2 -c "write -q -P 8 12M 2M" "$T/images/d/middle.qcow2"
qemu-img create -q -f qcow2 -b middle.qcow2 -F qcow2 "$T/images/d/top.qcow2"
qemu-io -f qcow2 -c "write -q -s $T/random 13M 2M" "$T/images/d/top.qcow2"
flatten "$T/images/d/top.qcow2" "$T/expected"
openssl rand -hex 32 > "$T/key"
chmod 600 "$T/key"

start_nginx "$T/images" "dav_methods PUT;
	location /bucket/ { root $T/data; dav_methods PUT; create_full_put_path on; }"
proxy far 8081
proxy bucket 8082
# Look-ups are given up that take three times as long.
fault far delay 400
printf '[cache]\npath=%s/cache\n' "$T" > "$CONF"
chainctl publish "$URL" > /dev/null

# A host that looks at the far store, and shares what it read.
host one "key_file=$T/key"
read_all "of the far store"
[ "$(far_data)" -gt 0 ] || fail "the far store was not read"
wait_until 60 stored_all
region_is dropped = 0 || fail "dropped: $(chainctl status)"
stored=$(region stored)
[ "$stored" = "$(region 'misses + .region.slow')" ] ||
	fail "not one PUT for each miss: $(chainctl status)"
[ "$(http_requests 'PUT.*/bucket/v1/')" = "$stored" ] || fail "PUTs: $(http_requests PUT)"
# Equal content is there once: both fills, and what the top has of the base.
files=$(find "$T/data/bucket" -type f | wc -l)
[ "$files" -lt 176 ] || fail "$files objects for 162 different blocks"
leave

# Another one, with all of it from the bucket.
host two "key_file=$T/key"
read_all "of the regional cache"
[ "$(far_data)" = 0 ] || fail "the far store was asked for data: $(cat "$T/access.log")"
region_is misses = 0 || fail "misses: $(chainctl status)"
region_is hits -gt 100 || fail "hits: $(chainctl status)"
chainctl status | grep -q "^regional cache: $BUCKET/, [1-9]" || fail "no line in the status"
leave

# Whoever has another key, or none, finds nothing.
(cd "$T/data" && find bucket -type f -printf '/%p\n') > "$T/keyed"
host three
read_part 1 2 "without the key"
http_requests 'GET.*/bucket/' > /dev/null
! grep -E "^20[06] GET" "$T/access.log" | grep -qFf "$T/keyed" ||
	fail "found without the key: $(chainctl status)"
[ "$(far_data)" -gt 0 ] || fail "the far store was not read"
leave
find "$T/data/bucket" -type f -newer "$T/three.conf" -delete

# Bytes changed, cut off, and those of another block.
mapfile -t victims < <(find "$T/data/bucket" -type f -size +60k | sort | head -n 4)
[ "${#victims[@]}" = 4 ] || fail "only ${#victims[@]} objects"
printf '\x5a\xa5' | dd of="${victims[0]}" bs=1 seek=5000 conv=notrunc status=none
truncate -s 30000 "${victims[1]}"
cp "${victims[3]}" "${victims[2]}"
: > "${victims[3]}"
host four "key_file=$T/key"
read_all "after the bucket was tampered with"
region_is bad -ge 4 || fail "bad: $(chainctl status)"
[ "$(far_data)" -gt 0 ] || fail "the far store was not read"
grep -q "regional cache: .*it is fetched from its store" "$T/chaind.log" || fail "not logged"
wait_until 60 stored_all
leave
host five "key_file=$T/key"
read_all "after the bucket was mended"
region_is bad = 0 || fail "still bad: $(chainctl status)"
[ "$(far_data)" = 0 ] || fail "the far store was asked for data: $(cat "$T/access.log")"
leave

# In trouble, and back.  Reads from behind to the front, so that nothing is read ahead.
at=176
read_pieces()	# NUMBER WHAT
{
	local i

	for ((i = 0; i < $1; i++)); do
		at=$((at - 4))
		dd if=/dev/mapper/vmdisk of="$T/part" bs=64k iflag=direct skip=$at count=1 status=none ||
			fail "a read failed: $2"
		cmp -n 65536 -i $((at * 65536)):0 "$T/expected" "$T/part" || fail "WRONG DATA: $2"
	done
}
host six "key_file=$T/key" "timeout_ms=1000" "[store]" "extension=64K"
for how in refuse "status 403" stall "status 503 retry-after 1" "delay 3000"; do
	# shellcheck disable=SC2086
	fault bucket $how
	read_pieces 4 "with the bucket in trouble: $how"
	wait_until 60 region_is trouble != null
	read_pieces 1 "with the bucket known to be in trouble: $how"
	fault bucket clear
	wait_until 60 region_is trouble = null
	hits=$(region hits)
	for try in 1 2 3; do
		read_pieces 1 "with the bucket back: $how"
		! region_is hits -gt "$hits" || break
	done
	[ "$try" != 3 ] || region_is hits -gt "$hits" || fail "not used after: $how: $(chainctl status)"
done
[ "$(far_data)" -gt 0 ] || fail "the far store was not read"
leave

# Where the folder was is a file: nothing is there, and nothing can be stored.
rm -r "$T/data/bucket"
: > "$T/data/bucket"
host seven "key_file=$T/key"
read_part 1 4 "with a bucket that takes nothing"
wait_until 60 region_is store_trouble != null
leave
rm "$T/data/bucket"
mkdir "$T/data/bucket"
fault far clear

# A store that lies in the region.
host eight "key_file=$T/key" "stores=$FAR/d"
read_part 1 2 "of a near store"
[ "$(http_requests /bucket/)" = 0 ] || fail "asked for data of a near store"
region_is misses = 0 || fail "misses: $(chainctl status)"
leave

# One with credentials.
echo "X-Api-Key: secret" > "$T/header"
printf '[%s/d/]\nheader_file = %s\n' "$FAR" "$T/header" > "$T/stores.conf"
chmod 600 "$T/header" "$T/stores.conf"
host nine "key_file=$T/key" "[store]" "sites_file=$T/stores.conf"
read_part 1 2 "of a store with credentials"
[ "$(http_requests /bucket/)" = 0 ] || fail "data of a store with credentials went to the bucket"
[ "$(grep -c "private = yes" "$T/chaind.log")" = 1 ] || fail "not logged once"
leave
host ten "key_file=$T/key" "private=yes" "[store]" "sites_file=$T/stores.conf"
read_part 1 2 "of a store with credentials"
wait_until 60 stored_all
region_is stored -gt 0 || fail "private = yes does nothing"
leave

kill "${proxies[@]}"
stop_nginx
