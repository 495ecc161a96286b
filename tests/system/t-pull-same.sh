#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The next version of an image is pulled: what of its content is local already, wherever
# it was in the last version, is not fetched; nor are zeros.
. "$(dirname "$0")/lib.sh"

BLOCK=65536
NR=512
NEW=40		# blocks of the second version that the first one has not
ZERO=16		# and zeros

mkdir "$T/v"
head -c $((NR * BLOCK)) /dev/urandom > "$T/v1"
# The same blocks in another order, some of them new, some zeros.
perl -e 'my ($nr, $new, $zero, $block) = @ARGV; local $/; my $data = <STDIN>; srand(1);
	my @b = unpack("(a$block)*", $data);
	for (my $i = $#b; $i > 0; $i--) { my $j = int rand($i + 1); @b[$i, $j] = @b[$j, $i]; }
	$b[$_ * 7] = pack("N*", map { int rand(2 ** 32) } 1 .. $block / 4) for 0 .. $new - 1;
	$b[$_ * 7 + 3] = "\0" x $block for 0 .. $zero - 1;
	print @b;' $NR $NEW $ZERO $BLOCK < "$T/v1" > "$T/v2"
for v in v1 v2; do
	qemu-img convert -q -f raw -O qcow2 -S 0 "$T/$v" "$T/v/$v.qcow2"
done
start_nginx "$T"
start_chaind
for v in v1 v2; do
	chainctl publish "$HTTP/v/$v.qcow2" --output "$T/v/$v.qcow2.manifest" > /dev/null
done
chainctl pull "$HTTP/v/v1.qcow2"
http_reset
chainctl pull "$HTTP/v/v2.qcow2" --json > "$T/report"
jq -e --argjson live $((NR * BLOCK)) --argjson zero $((ZERO * BLOCK)) --argjson new $((NEW * BLOCK)) \
	'.live_bytes == $live and .zero_bytes == $zero and .fetched_bytes == $new and
	.same_bytes == $live - $zero - $new and .local_bytes == 0' "$T/report" > /dev/null ||
	fail "expected $NEW of $NR blocks: $(cat "$T/report")"
[ "$(http_bytes)" -le $((NEW * BLOCK * 12 / 10)) ] || fail "$(http_bytes) bytes for $NEW blocks"

http_reset
chainctl start "$HTTP/v/v2.qcow2" vmdisk
cmp "$T/v2" /dev/mapper/vmdisk || fail "v2 differs"
[ "$(http_requests "v2.qcow2 bytes=[1-9]")" = 0 ] || fail "data was fetched"
chainctl stop vmdisk --discard
# What both have is there once.
chainctl start "$HTTP/v/v1.qcow2" vmdisk
cmp "$T/v1" /dev/mapper/vmdisk || fail "v1 differs"
chainctl stop vmdisk --discard

stop_chaind
stop_nginx
