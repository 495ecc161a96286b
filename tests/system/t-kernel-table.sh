#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# The table line: what dmsetup shows, and what is refused with a reason.
. "$(dirname "$0")/lib.sh"
. "$(dirname "$0")/kernel.sh"

make_disk

# refused REASON TABLE-ARGUMENTS - dmsetup fails, the kernel says why, and
# nothing is left
refused()
{
	local reason=$1
	shift
	dmesg -C
	if dmsetup create bad --noudevsync --table "0 $SECTORS qcow2chain $*" 2> /dev/null; then
		fail "accepted: $*"
	fi
	dmesg | grep -qF "$reason" || fail "no '$reason' for '$*': $(dmesg)"
	! dmsetup info bad > /dev/null 2>&1 || fail "a device was left: $*"
}

refused "Invalid chain id"
refused "Invalid chain id" "${ID%f}" "$TIP" 0
refused "Invalid chain id" "${ID%f}g" "$TIP" 0
refused "Tip device is missing" "$ID"
refused "Cannot open tip device" "$ID" /dev/nonexistent 0
refused "Invalid number of store devices" "$ID" "$TIP"
refused "Invalid number of store devices" "$ID" "$TIP" 129
refused "Invalid number of store devices" "$ID" "$TIP" -1
refused "Store device is missing" "$ID" "$TIP" 2 "$STORE"
refused "Cannot open store device" "$ID" "$TIP" 1 /dev/nonexistent
refused "Invalid number of feature arguments" "$ID" "$TIP" 1 "$STORE" 9
refused "Feature without a value" "$ID" "$TIP" 1 "$STORE" 1 map_limit_kb
refused "Unknown feature" "$ID" "$TIP" 1 "$STORE" 2 turbo 1
refused "Invalid map_limit_kb" "$ID" "$TIP" 1 "$STORE" 2 map_limit_kb 255
refused "Invalid map_limit_kb" "$ID" "$TIP" 1 "$STORE" 2 map_limit_kb lots
refused "Invalid fail_reads_after" "$ID" "$TIP" 1 "$STORE" 2 fail_reads_after -1
refused "Too many arguments" "$ID" "$TIP" 1 "$STORE" 0 more

# Tips that do not fit.
refused "Tip belongs to another chain" ffeeddccbbaa99887766554433221100 "$TIP" 1 "$STORE"
refused "not a tip" "$ID" "$STORE" 1 "$STORE"
chainctl_tip create "$T/small" --chain-id $ID --size $((SECTORS * 256)) > /dev/null
small=$(losetup --find --show "$T/small")
refused "disk of another size" "$ID" "$small" 1 "$STORE"
losetup -d "$small"

# with_tip SHELL-COMMAND - the command damages a copy of the tip, $T/bad
with_tip()
{
	cp --sparse=always "$T/tip" "$T/bad"
	eval "$1"
	bad=$(losetup --find --show "$T/bad")
}
# set_version OFFSET VERSION - of a superblock, with the right checksum
set_version()
{
	perl -e '
		open(my $file, "+<", $ARGV[0]) or die; binmode $file;
		seek($file, $ARGV[1], 0); read($file, my $block, 4096) == 4096 or die;
		substr($block, 8, 8) = pack("VV", $ARGV[2], 0);
		my $crc = 0xffffffff;
		for my $byte (unpack("C*", $block)) {
			$crc ^= $byte;
			$crc = $crc & 1 ? $crc >> 1 ^ 0x82f63b78 : $crc >> 1 for 1 .. 8;
		}
		substr($block, 12, 4) = pack("V", $crc ^ 0xffffffff);
		seek($file, $ARGV[1], 0); print $file $block or die;
		close $file or die;' "$T/bad" "$1" "$2"
}
poke() { printf "$2" | dd of="$T/bad" bs=1 seek="$1" conv=notrunc status=none; }

# One damaged copy of the superblock is no harm; two are.
with_tip 'poke 100 "\xff"'
dmsetup create good --noudevsync --table "0 $SECTORS qcow2chain $ID $bad 0"
dmsetup remove --noudevsync good
losetup -d "$bad"
with_tip 'poke 100 "\xff"; poke 65636 "\xff"'
refused "damaged in both copies" "$ID" "$bad" 1 "$STORE"
losetup -d "$bad"
with_tip 'set_version 0 2; set_version 65536 2'
refused "newer format version" "$ID" "$bad" 1 "$STORE"
losetup -d "$bad"
with_tip 'set_version 65536 1; truncate -s 20M "$T/bad"'
refused "truncated" "$ID" "$bad" 1 "$STORE"
losetup -d "$bad"

# A tip is used by one device at a time.
create_disk
dmsetup create bad --noudevsync --notable
dmsetup load bad --table "0 $SECTORS qcow2chain $ID $TIP 1 $STORE"
must_fail "busy" dmsetup resume --noudevsync bad
dmesg | grep -qF "the tip is in use by device $DEV" || fail "no reason in the kernel log"
dmsetup remove --noudevsync bad
remove_disk

# What dmsetup shows.
create_disk "4 fail_reads_after 7 map_limit_kb 512"
expected="0 $SECTORS qcow2chain $ID $(lsblk -dno MAJ:MIN "$TIP" | tr -d ' ') 1"
expected+=" $(lsblk -dno MAJ:MIN "$STORE" | tr -d ' ') 4 map_limit_kb 512 fail_reads_after 7"
[ "$(dmsetup table disk)" = "$expected" ] || fail "table: $(dmsetup table disk)"
dmsetup status disk | grep -qE "^0 $SECTORS qcow2chain rw 0 0 0/512 0 0 0( [0-9]+){7}$" ||
	fail "status: $(dmsetup status disk)"
dmsetup message disk 0 map_limit_kb 2048
[ "$(status_field 4)" = 0/2048 ] || fail "map limit: $(status_field 4)"
must_fail "invalid" dmsetup message disk 0 map_limit_kb 1
must_fail "invalid" dmsetup message disk 0 nonsense

# Without a daemon a read fails after the time given.
must_fail "input/output error" dd if=/dev/mapper/disk of=/dev/null bs=4k count=1 iflag=direct
remove_disk
detach_disk
