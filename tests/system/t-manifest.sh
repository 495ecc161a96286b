#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A disk starts from a published chain with two requests, and is what QEMU reads.  A
# link that was replaced since is a clear error, and nothing wrong is read; a stale or
# damaged manifest is not used, and the user is told.
. "$(dirname "$0")/lib.sh"

make_chain "$T/d" 20 16 44 cluster_size=16k > /dev/null
truncate -s 24M "$T/d/link0.qcow2"	# room for another image in its place
start_nginx "$T" "dav_methods PUT;"
start_chaind
url=$HTTP/d/link19.qcow2
flatten "$T/d/link19.qcow2" "$T/expected"
chainctl map "$url" --json > "$T/map"
chainctl publish "$url"

# As lookups of the start do: the first sectors are read by it.
http_reset
chainctl start "$url" vmdisk
# The digests may follow already.
[ "$(http_requests 'link19.qcow2.manifest bytes=0-')" = 1 ] || fail "not one GET of the manifest"
[ "$(http_requests '/d/link19.qcow2 bytes=0-')" = 1 ] || fail "not one GET of the top's first bytes"
# Whatever else was asked for is data that the disk shows.
[ "$(http_requests '^(4|5)')" = 0 ] || fail "an error of the server"
chainctl status vmdisk --json | jq -e '.disks[0].from_manifest' > /dev/null || fail "not used"
grep -q "20 links, by its manifest" "$T/chaind.log" || fail "not logged"
cmp "$T/expected" /dev/mapper/vmdisk || fail "content differs"
chainctl stop vmdisk --discard
stop_chaind

# The link with most of the live data, but for the top, is replaced.
victim=$(jq -r '[.extents[] | select(.data and .depth > 0)] | group_by(.depth) |
	max_by(map(.length) | add)[0].url' "$T/map")
file=$T/d/${victim##*/}
cp "$file" "$T/kept"
perl -e 'my $path = shift; local $/; open my $f, "<:raw", $path or die; my $data = <$f>; close $f;
	substr($data, $_, 1) ^= "\xff" for map { 65536 + 512 * $_ } 0 .. (length($data) - 65536) / 512 - 1;
	unlink $path; open $f, ">:raw", $path or die; print $f $data; close $f;' "$file"
touch -d "2 hours ago" "$file"

# With an empty cache.
rm "$T/cache"
start_chaind
chainctl start "$url" vmdisk 2> "$T/err" || true
failed=0 good=0
while read -r at length from; do
	if dd if=/dev/mapper/vmdisk of="$T/part" iflag=direct,skip_bytes,count_bytes bs=1M \
			skip="$at" count="$length" status=none 2> /dev/null; then
		[ "$from" != "$victim" ] || fail "data of a replaced link was read"
		cmp -n "$length" -i "0:$at" "$T/part" "$T/expected" || fail "wrong data at $at"
		good=$((good + 1))
	else
		# Or of another link within the same 64 KiB of the disk.
		failed=$((failed + 1))
	fi
done < <(jq -r '.extents[] | select(.data) | "\(.start) \(.length) \(.url)"' "$T/map")
[ "$failed" -gt 0 ] && [ "$good" -gt 0 ] || fail "$failed failed, $good good"
chainctl status vmdisk | grep -q "${victim##*/}.*changed" || fail "status does not say what changed: $(chainctl status vmdisk)"
chainctl stop vmdisk --discard

# The next start does not use that manifest.  The same content is under the name
# again, but as another version.
cp "$T/kept" "$file"
touch -d "3 hours ago" "$file"
chainctl start "$url" vmdisk 2> "$T/err"
grep -q "manifest not used.*wrong when the disk was read before" "$T/err" ||
	fail "no warning: $(cat "$T/err")"
cmp "$T/expected" /dev/mapper/vmdisk || fail "content differs"
chainctl stop vmdisk --discard

# The link is put back, and the top replaced: the manifest is stale.
cp -p "$T/kept" "$file"
rm "$T/kept"
touch -d "1 hour ago" "$T/d/link19.qcow2"
chainctl start "$url" vmdisk 2> "$T/err"
grep -q "manifest not used.*stale" "$T/err" || fail "no warning: $(cat "$T/err")"
chainctl status vmdisk | grep -q "manifest  not used: .*stale" || fail "not in the status"
grep -q "disk vmdisk: manifest not used.*stale" "$T/chaind.log" || fail "not logged"
cmp "$T/expected" /dev/mapper/vmdisk || fail "content differs after a walk"
chainctl stop vmdisk --discard
# Published again; then damaged.
chainctl publish "$url" > /dev/null
chainctl start "$url" vmdisk 2> "$T/err"
[ ! -s "$T/err" ] || fail "a warning: $(cat "$T/err")"
chainctl stop vmdisk --discard
truncate -s -1 "$T/d/link19.qcow2.manifest"
chainctl start "$url" vmdisk 2> "$T/err"
grep -q "manifest not used.*truncated" "$T/err" || fail "no warning: $(cat "$T/err")"
cmp "$T/expected" /dev/mapper/vmdisk || fail "content differs"
chainctl stop vmdisk --discard

# Data that was changed while size and version stayed the same is noticed by its digest.
chainctl publish "$url" > /dev/null
chainctl start "$url" vmdisk
verifies() { grep -q "verified with [1-9][0-9]* digests" "$T/chaind.log"; }
wait_until 30 verifies
chainctl stop vmdisk --discard
stop_chaind
rm "$T/cache"

# damage FILE OFFSET - one byte, unnoticed
damage()
{
	touch -r "$1" "$T/time"
	printf '\x5a' | dd of="$1" bs=1 seek="$2" conv=notrunc status=none
	touch -r "$T/time" "$1"
}

# start_verified - start the disk, and wait until its digests are there
start_verified()
{
	: > "$T/chaind.log"
	start_chaind
	chainctl start "$url" vmdisk
	wait_until 30 verifies
}

read -r at length offset < <(jq -r '[.extents[] | select(.data and .url == $url and .start > 1048576)][0] |
	"\(.start) \(.length) \(.offset)"' --arg url "$victim" "$T/map")
cp -p "$file" "$T/kept"
damage "$file" "$offset"
start_verified
must_fail "input/output error" dd if=/dev/mapper/vmdisk of=/dev/null iflag=direct,skip_bytes bs=512 \
	skip="$at" count=1 status=none
grep -q "its manifest is right; an image of the chain is damaged" "$T/chaind.log" ||
	fail "not logged: $(cat "$T/chaind.log")"
chainctl status vmdisk | grep -q "failed.*${victim##*/}: .*not what the manifest says" ||
	fail "not in the status: $(chainctl status vmdisk)"
chainctl stop vmdisk --discard
stop_chaind
rm "$T/cache"

# The manifest is that of another chain, of the same sizes and versions: what the
# images say counts.
mv "$T/kept" "$file"
cp -p "$T/d/link0.qcow2" "$T/kept"
make_chain "$T/other" 1 16 45 cluster_size=16k > /dev/null
cp "$T/other/link0.qcow2" "$T/d/link0.qcow2"
truncate -r "$T/kept" "$T/d/link0.qcow2"
touch -r "$T/kept" "$T/d/link0.qcow2"
flatten "$T/d/link19.qcow2" "$T/other.raw"
! cmp -s "$T/expected" "$T/other.raw" || fail "no other content"
start_verified
cmp "$T/other.raw" /dev/mapper/vmdisk || fail "not what the images say"
grep -q "data has another digest than its manifest says; the chain is walked" "$T/chaind.log" ||
	fail "not logged: $(cat "$T/chaind.log")"
chainctl status vmdisk | grep -q "manifest  not used: .*wrong when" || fail "not in the status"
chainctl stop vmdisk --discard

stop_chaind
stop_nginx
