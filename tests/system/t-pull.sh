#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# An image is pulled into the cache: a disk that is started then, asks the store for no
# data, and is what QEMU reads; so does a second pull.  Reads of disks go before a pull;
# it waits for a store that went away, ends when its chainctl does, and says what is
# missing, or that the cache is too small.
# Time limit: 600
. "$(dirname "$0")/lib.sh"

# pull URL [OPTION…] - its report is in $T/report and must add up
pull()
{
	chainctl pull "$@" --json > "$T/report"
	jq -e '.live_bytes == .local_bytes + .same_bytes + .zero_bytes + .fetched_bytes' \
		"$T/report" > /dev/null || fail "does not add up: $(cat "$T/report")"
}
report() { jq -r ".$1" "$T/report"; }
# Of the pull that runs.
pulls() { chainctl status --json | jq -r ".pulls$1"; }
pulls_some() { [ "$(pulls "[0].fetched_bytes // 0")" -gt 0 ]; }
no_pull() { [ "$(pulls "| length")" = 0 ]; }
# Requests but for the manifest and the header of the top image.
data_requests() { http_requests "/[^ ]*(qcow2 bytes=[1-9]|/link[0-4].qcow2 bytes=0-)"; }
is_data() { [ "$(data_requests)" = "$1" ] || fail "$(data_requests) data requests, expected $1"; }

make_chain "$T/d" 6 24 71 cluster_size=16k > /dev/null
# A compressed one, in clusters of many blocks.
mkdir "$T/c" "$T/r"
qemu-img convert -q -c -f qcow2 -O qcow2 -o cluster_size=256k "$T/d/link5.qcow2" "$T/c/packed.qcow2"
# One without two blocks that are the same, for pulls that take long.
head -c 24M /dev/urandom > "$T/random"
qemu-img convert -q -f raw -O qcow2 "$T/random" "$T/r/random.qcow2"
start_nginx "$T"
start_chaind

for chain in d/link5 c/packed; do
	url=$HTTP/$chain.qcow2
	chainctl publish "$url" --output "$T/$chain.qcow2.manifest" > /dev/null
	flatten "$T/$chain.qcow2" "$T/expected"
	pull "$url"
	[ "$(report fetched_bytes)" -gt 0 ] || fail "nothing was fetched: $(cat "$T/report")"
	[ "$(report verified)" = true ] || fail "without digests: $(cat "$T/report")"
	[ "$(report requests)" -gt 0 ] || fail "no requests: $(cat "$T/report")"

	http_reset
	chainctl start "$url" vmdisk
	cmp "$T/expected" /dev/mapper/vmdisk || fail "$chain differs"
	is_data 0
	chainctl stop vmdisk --discard

	pull "$url"
	is_data 0
	[ "$(report "local_bytes + .zero_bytes")" = "$(report live_bytes)" ] ||
		fail "not local: $(cat "$T/report")"
	[ "$(report requests)" = 0 ] || fail "requests: $(cat "$T/report")"
done
chainctl pull "$url" > "$T/out"
grep -q "saved *100.0 %" "$T/out" || fail "report: $(cat "$T/out")"
no_pull || fail "still in the status"

# Two at once fetch everything once.
url=$HTTP/r/random.qcow2
http_reset
chainctl pull "$url" > "$T/out" &
first=$!
pull "$url"
wait $first || fail "one of two pulls failed"
[ "$(http_bytes)" -lt $((30 << 20)) ] || fail "$(http_bytes) bytes for two pulls"
chainctl start "$url" vmdisk
cmp "$T/random" /dev/mapper/vmdisk || fail "random differs"
chainctl stop vmdisk --discard

# A pull that takes long, of a store that is slow, and a disk that is read: what the
# pull would come to at last.  128 KiB/s for each connection.
slow() { stop_chaind; rm -rf "$T/cache" "$T/index"; start_chaind; }
url=$HTTP/slow/r/random.qcow2
slow
chainctl start "$url" vmdisk
pull "$url" &
puller=$!
wait_until 60 pulls_some
dd if=/dev/mapper/vmdisk of="$T/part" bs=64k skip=376 count=4 iflag=direct status=none
kill -0 $puller || fail "the reads ended after the pull"
cmp -n $((4 << 16)) -i 0:$((376 << 16)) "$T/part" "$T/random" || fail "wrong data"
chainctl status > "$T/out"
grep -q "pull of $url: .* of 24.0 MiB local" "$T/out" || fail "status: $(cat "$T/out")"
wait $puller || fail "the pull failed"
chainctl stop vmdisk --discard

# chainctl is killed: the pull ends, and what has come stays.
slow
# Not the function, which would be a shell of its own.
command chainctl --config "$CONF" pull "$url" > "$T/out" &
puller=$!
wait_until 60 pulls_some
kill -KILL $puller
pulled=$(pulls "[0].fetched_bytes // 0")
wait $puller 2> /dev/null || true
wait_until 60 no_pull
grep -q "pull of $url: called off" "$T/chaind.log" || fail "not in the log"
pull "$url"
[ "$(report local_bytes)" -ge "$pulled" ] || fail "$pulled had come, but: $(cat "$T/report")"
[ "$(report fetched_bytes)" -gt 0 ] || fail "it was not called off: $(cat "$T/report")"

# The store goes away, and comes back.
slow
pull "$url" &
puller=$!
wait_until 60 pulls_some
stop_nginx
stalled() { pulls "[0].stalled" | grep -q "127.0.0.1:8080"; }
wait_until 60 stalled
chainctl status | grep -q "stalled.*127.0.0.1:8080" || fail "status: $(chainctl status)"
kill -0 $puller || fail "the pull did not wait"
start_nginx "$T"
wait $puller || fail "the pull did not go on"
chainctl start "$url" vmdisk
cmp "$T/random" /dev/mapper/vmdisk || fail "random differs"
chainctl stop vmdisk --discard

# An image below the top is gone, which the manifest does not know.
slow
mv "$T/d/link0.qcow2" "$T/kept"
must_fail "link0.qcow2.*404.*offset [0-9]+" chainctl pull "$HTTP/d/link5.qcow2"
status=0
chainctl pull "$HTTP/d/link5.qcow2" > /dev/null 2>&1 || status=$?
[ "$status" = 6 ] || fail "exit status $status"
mv "$T/kept" "$T/d/link0.qcow2"
wait_until 10 pull "$HTTP/d/link5.qcow2"
status=0
chainctl pull "$HTTP/404/x.qcow2" > /dev/null 2>&1 || status=$?
[ "$status" = 3 ] || fail "exit status $status for an image that is not there"
must_fail "path, not a URL" chainctl pull /srv/x.qcow2

# A byte of an image is damaged, unnoticed but for its digest; then all of the base is
# another one, which the manifest does not know: what the images say counts.
url=$HTTP/m/link2.qcow2
make_chain "$T/m" 3 16 72 > /dev/null
make_chain "$T/other" 1 16 73 > /dev/null
base=$T/m/link0.qcow2
truncate -s 24M "$base"		# room for another image in its place
chainctl publish "$url" --output "$T/m/link2.qcow2.manifest" > /dev/null
cp -p "$base" "$T/kept"
offset=$(chainctl map "$url" --json |
	jq '[.extents[] | select(.data and (.url | endswith("link0.qcow2")))][0].offset')
printf '\x5a' | dd of="$base" bs=1 seek="$offset" conv=notrunc status=none
touch -r "$T/kept" "$base"
status=0
chainctl pull "$url" 2> "$T/err" || status=$?
[ "$status" = 7 ] || fail "exit status $status of a pull of what is damaged"
grep -q "link0.qcow2: the 64 KiB at offset $((offset & ~65535)) are not what the manifest says" \
	"$T/err" || fail "$(cat "$T/err")"
cp "$T/other/link0.qcow2" "$base"
truncate -r "$T/kept" "$base"
touch -r "$T/kept" "$base"
slow
pull "$url"
[ "$(report verified)" = false ] || fail "verified by a wrong manifest"
flatten "$T/m/link2.qcow2" "$T/expected"
chainctl start "$url" vmdisk 2> /dev/null
cmp "$T/expected" /dev/mapper/vmdisk || fail "not what the images say"
chainctl stop vmdisk --discard

# More than the cache holds.
stop_chaind
rm "$T/cache" "$CONF"
head -c 80M /dev/urandom > "$T/r/large.raw"
start_chaind "[cache]" "size=64M"
must_fail "live data, 80.0 MiB, is more than the cache holds, 64.0 MiB.*--force" \
	chainctl pull "$HTTP/r/large.raw#format=raw"
pull "$HTTP/r/large.raw#format=raw" --force
[ "$(report fetched_bytes)" = $((80 << 20)) ] || fail "$(cat "$T/report")"

stop_chaind
stop_nginx
