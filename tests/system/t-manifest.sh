#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A disk starts from a published chain with two requests, and is what QEMU reads.  A
# link that was replaced since is a clear error, and nothing wrong is read; a stale or
# damaged manifest is not used, and the user is told.
. "$(dirname "$0")/lib.sh"

make_chain "$T/d" 20 16 44 cluster_size=16k > /dev/null
start_nginx "$T" "dav_methods PUT;"
start_chaind
url=$HTTP/d/link19.qcow2
flatten "$T/d/link19.qcow2" "$T/expected"
chainctl map "$url" --json > "$T/map"
chainctl publish "$url"

# As lookups of the start do: the first sectors are read by it.
http_reset
chainctl start "$url" vmdisk
[ "$(http_requests 'link19.qcow2.manifest')" = 1 ] || fail "not one GET of the manifest"
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

stop_chaind
stop_nginx
