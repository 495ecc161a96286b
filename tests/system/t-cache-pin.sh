#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Pins in the cache: what it has of the images of a pinned disk, and what comes later, stays
# while much more data than it holds goes through it; over restarts and crashes of chaind
# and the end of the disk; until it is unpinned.  No more than half of the cache is pinned.
# An index that is damaged where nothing looks is found out after a crash.
#
# Time limit: 600
. "$(dirname "$0")/lib.sh"

# Compressed clusters, and a link over them; twice the cache; another one.
mkdir "$T/store"
seq 2000000 > "$T/base.all"
head -c 8M "$T/base.all" > "$T/base"
qemu-img convert -q -c -f raw -O qcow2 "$T/base" "$T/store/base.qcow2"
qemu-img create -q -f qcow2 -b base.qcow2 -F qcow2 "$T/store/a.qcow2"
for i in 0 1 2 3 4 5 6 7; do
	qemu-io -c "write -q -P $((i + 1)) ${i}M 128k" "$T/store/a.qcow2"
done
flatten "$T/store/a.qcow2" "$T/a"
for image in b:72 c:40; do
	head -c "${image#*:}M" /dev/urandom > "$T/${image%:*}"
	qemu-img convert -q -f raw -O qcow2 "$T/${image%:*}" "$T/store/${image%:*}.qcow2"
done
start_nginx "$T/store"
start_chaind "[cache]" "size=64M"

read_disk() { dd if="/dev/mapper/$1" bs=1M iflag=direct status=none; }
# Headers are read at each start, and the tables at the first one; this is about data.
data_requests() { http_requests '(base|a)\.qcow2 bytes=[1-9]'; }
status_is() { chainctl status --json | jq -e "$1" > /dev/null; }
pinned() { chainctl status --json | jq .cache.pinned_bytes; }

# through IMAGE - all of it, through the cache
through()
{
	chainctl start "$HTTP/$1.qcow2" "$1"
	cmp "$T/$1" <(read_disk "$1")
	chainctl stop "$1" --discard
}

# a_is REQUESTS - disk a has the content, which takes so many requests, or some
a_is()
{
	local n

	http_reset
	[ -e /dev/mapper/a ] || chainctl start "$HTTP/a.qcow2" a
	cmp "$T/a" <(read_disk a)
	n=$(data_requests)
	case $1 in
	some)	[ "$n" -gt 0 ] || fail "nothing was fetched" ;;
	*)	[ "$n" = "$1" ] || fail "$n requests, not $1: $(cat "$T/access.log")" ;;
	esac
}

echo "what cannot be pinned"
must_fail "there is no disk a" chainctl cache pin a
must_fail "there is no disk a" chainctl cache unpin a
must_fail "nothing is pinned" chainctl cache unpin --all
must_fail "either the name of a disk or --all" chainctl cache unpin

echo "without a pin"
a_is some
a_is 0
chainctl stop a --discard
through b
a_is some

echo "what is there, and what comes"
status_is '.disks[0].pinned == false'
wait_until 30 chainctl cache pin a
status_is '.disks[0].pinned == true and .cache.pins_full == false'
[ "$(pinned)" -ge $((8 << 20)) ] || fail "$(pinned) bytes are pinned"
chainctl status | grep -q "pinned  *[0-9].*are not evicted" || fail "$(chainctl status)"
# The disk runs.
through b
a_is 0
chainctl stop a --discard
through b
a_is 0
chainctl stop a --discard

echo "after a restart"
stop_chaind
start_chaind
[ "$(pinned)" -ge $((8 << 20)) ] || fail "$(pinned) bytes are pinned"
through b
a_is 0
status_is '.disks[0].pinned == true'
chainctl stop a --discard

echo "after a crash"
kill_chaind
start_chaind
sound() { grep -q "the index is not damaged" "$T/chaind.log"; }
wait_until 60 sound
through b
a_is 0

echo "unpinned, by a disk over the same images"
chainctl cache unpin a
[ "$(pinned)" = 0 ] || fail "$(pinned) bytes are pinned"
status_is '.disks[0].pinned == false'
chainctl stop a --discard
through b
through b
a_is some

echo "pinned before it is there"
chainctl stop a --discard
through b
through b
chainctl start "$HTTP/a.qcow2" a
wait_until 30 chainctl cache pin a
a_is some
through b
a_is 0

echo "more than half"
chainctl start "$HTTP/b.qcow2" b
wait_until 30 chainctl cache pin b
cmp "$T/b" <(read_disk b)
status_is '.cache.pins_full and .cache.pinned_bytes <= .cache.size_bytes / 2'
grep -q "half of it is pinned" "$T/chaind.log" || fail "not in the log"
cmp "$T/b" <(read_disk b)
# Others have room, half of the cache, and those pinned first are.
through c
a_is 0
[ "$(chainctl status --json | jq .cache.bypass.written_bytes)" = 0 ] ||
	fail "there was no room: $(chainctl status)"
chainctl cache resize 256M
all() { status_is '.cache.pins_full == false'; }
wait_until 30 all
small() { chainctl cache resize 64M > /dev/null 2>&1; }
wait_until 30 small
half() { status_is '.cache.size_bytes == 67108864 and .cache.pinned_bytes <= 33554432'; }
wait_until 60 half
cmp "$T/b" <(read_disk b)
cmp "$T/a" <(read_disk a)
chainctl stop a --discard
chainctl stop b --discard
chainctl cache unpin --all
[ "$(pinned)" = 0 ] || fail "$(pinned) bytes are pinned"

echo "an index that is damaged where nothing looks"
chainctl start "$HTTP/a.qcow2" a
wait_until 30 chainctl cache pin a
stop_chaind
start_chaind
wait_until 30 status_is '.cache.used_bytes > 0'
kill_chaind
# The number of free pages of the database.
perl -e 'open my $f, "+<:raw", shift or die; seek $f, 36, 0; print $f pack("N", 1000)' \
	"$T/cache.index"
start_chaind
lost() { grep -q "index .* is lost.*nothing is pinned" "$T/chaind.log"; }
wait_until 60 lost
cmp "$T/a" <(read_disk a)
status_is '.disks[0].pinned == false'
wait_until 30 chainctl cache pin a
chainctl stop a --discard
stop_chaind
stop_nginx
