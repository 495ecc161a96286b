#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# check-tip.sh [CHAINCTL]
#
# chainctl tip create, check and dump: what they print, as text and as JSON, for
# tips that were written to, and what they refuse, with reason and exit status.
# Journal and bitmap are written here, by the tables of docs/tip-format.md.
set -euo pipefail

cd "$(dirname "$0")/../.."
chainctl=$(realpath "${1:-build/asan/chainctl}")
work=$(mktemp -d "${TMPDIR:-/tmp}/tip.XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'echo "line $LINENO: failed: $BASH_COMMAND" >&2' ERR
set -o errtrace
cd "$work"

ID=00112233445566778899aabbccddeeff
SUMMARY=$((136 * 512)) JOURNAL=$((144 * 512)) BITMAP=$((2192 * 512))

fail() {
	trap - ERR
	echo "$*" >&2
	exit 1
}

tip() { "$chainctl" --config /dev/null tip "$@"; }

# poke OFFSET PACK-TEMPLATE VALUE...: change the file "tip", by perl's pack()
poke() {
	perl -e '
		my ($at, $template) = splice @ARGV, 0, 2;
		open(my $file, "+<", "tip") or die; binmode $file;
		seek($file, $at, 0); print $file pack($template, @ARGV) or die;
		close $file or die;' "$@"
}

# seal OFFSET LENGTH FIELD: put the checksum of LENGTH bytes at OFFSET into them,
# at FIELD
seal() {
	perl -e '
		my ($at, $length, $field) = @ARGV;
		open(my $file, "+<", "tip") or die; binmode $file;
		seek($file, $at, 0); read($file, my $block, $length) == $length or die;
		substr($block, $field, 4) = "\0" x 4;
		my $crc = 0xffffffff;
		for my $byte (unpack("C*", $block)) {
			$crc ^= $byte;
			$crc = $crc & 1 ? $crc >> 1 ^ 0x82f63b78 : $crc >> 1 for 1 .. 8;
		}
		substr($block, $field, 4) = pack("V", $crc ^ 0xffffffff);
		seek($file, $at, 0); print $file $block or die;
		close $file or die;' "$@"
}

# super FIELD PACK-TEMPLATE VALUE...: change a field in both superblocks
super() {
	local field=$1 at
	shift
	for at in 0 65536; do
		poke $((at + field)) "$@"
		seal $at 4096 12
	done
}

# record SECTOR TIP_ID [FIRST NR]...: write a sector of the journal
record() {
	local at=$((JOURNAL + $1 * 512)) id=$2
	local -a ranges=()
	shift 2
	while [ $# -gt 0 ]; do
		ranges+=($(($1 | $2 << 40)))
		shift 2
	done
	poke $at 'VVH16Q<*' 0 ${#ranges[@]} "$(fold -w 2 <<< "$id" | tac | tr -d '\n')" "${ranges[@]}"
	seal $at 512 0
}

# new [OPTION...]: a new tip of 100,000 sectors
new() {
	rm -f tip
	tip create tip --chain-id $ID --size 51200000 "$@" > /dev/null
}

# same WHAT EXPECTED COMMAND...: the command prints just that
same() {
	local what=$1 expected=$2 output
	shift 2
	output=$("$@")
	[ "$output" = "$expected" ] || fail "$what: expected
$expected
but got
$output"
}

# refused STATUS TEXT: check and dump, of both kinds, fail so and print nothing
refused() {
	local status args output
	for args in check "check --json" dump "dump --json" "dump --journal --json"; do
		status=0
		# shellcheck disable=SC2086
		output=$(tip $args tip 2> err) || status=$?
		[ $status = "$1" ] || fail "$args: status $status instead of $1 for: $2"
		[ -z "$output" ] || fail "$args: printed before it failed: $output"
		grep -qF -- "$2" err || fail "$args: no \"$2\" in: $(cat err)"
	done
}

ranges() { tip dump tip "$@" | grep -v '^#' || true; }
json() { tip "$1" tip --json "${@:3}" | jq -c "$2"; }

# An empty tip, with journals of several sizes.
new
same "empty tip" "" ranges
same "empty tip" '[51200000,0,1048576,2048,[]]' \
	json dump '[.size, .dirty_bytes, .journal.bytes, .journal.sectors.empty, .ranges]'
tip_id=$(json dump .journal.tip_id | tr -d '"')
[[ $tip_id =~ ^[0-9a-f]{16}$ ]] || fail "tip id $tip_id"
new --journal-size 24K
same "small journal" 24576 json check .journal.bytes
new --journal-size 32M
same "largest journal" 33554432 json check .journal.bytes
new --journal-size 0
same "no journal" null json dump .journal
same "no journal" "tip: tip of chain $ID, 48.8 MiB, 0 B written, without a journal" tip check tip
for size in 1 4K 12K 33M 64G 1K; do
	rm -f tip
	if tip create tip --chain-id $ID --size 1M --journal-size $size 2> err; then
		fail "a journal of $size was made"
	fi
	grep -q -- "--journal-size" err || fail "journal of $size: $(cat err)"
	[ ! -e tip ] || fail "a tip with a journal of $size is there"
done

# Bitmap and journal together; a torn sector and one of another tip beside it.
new
tip_id=$(json dump .journal.tip_id | tr -d '"')
other=$(printf %016x $((16#$tip_id ^ 1)))
poke $SUMMARY C 1
poke $BITMAP CCC 255 0 128
record 0 "$tip_id" 24 8 99999 1
record 1023 "$other" 500 1
record 1024 "$tip_id" 8 1
record 1025 "$tip_id" 700 1
poke $((JOURNAL + 1025 * 512 + 300)) C 1
same "ranges" "0 9
23 9
99999 1" ranges
same "dump" "# tip
# version 1
# seq 1
# incompat 0x1 (journal)
# compat 0x0
# chain_id $ID
# nr_sectors 100000
# summary_start 136
# journal_start 144
# journal_sectors 2048
# tip_id $tip_id
# bitmap_start 2192
# data_start 4096
# superblock: 2 good copies
# journal: 3 ranges; 2 sectors valid, 1 of another tip, 1 damaged, 2044 empty
# in the tip: 19 sectors
# journal sector 144: valid, 2 ranges
#   24 8
#   99999 1
# journal sector 1167: other_tip, 0 ranges
# journal sector 1168: valid, 1 ranges
#   8 1
# journal sector 1169: damaged, 0 ranges
0 9
23 9
99999 1" tip dump tip --journal
facts='"journal":{"offset":73728,"bytes":1048576,"tip_id":"'$tip_id'","ranges":3,'
facts+='"sectors":{"valid":2,"other_tip":1,"damaged":1,"empty":2044}}'
common='"schema":1,"path":"tip","version":1,"seq":1,"incompat":"0x1","compat":"0x0",'
common+='"superblock_copies":2,"chain_id":"'$ID'","size":51200000,"dirty_bytes":9728,'
common+='"summary_offset":69632,"bitmap_offset":1122304,"data_offset":2097152,'
common+='"device_bytes":53297152,'$facts
list='"ranges":[{"offset":0,"bytes":4608},{"offset":11776,"bytes":4608},{"offset":51199488,"bytes":512}]'
sectors='"journal_sectors":[{"offset":73728,"state":"valid","ranges":[{"offset":12288,"bytes":4096},'
sectors+='{"offset":51199488,"bytes":512}]},{"offset":597504,"state":"other_tip","ranges":[]},'
sectors+='{"offset":598016,"state":"valid","ranges":[{"offset":4096,"bytes":512}]},'
sectors+='{"offset":598528,"state":"damaged","ranges":[]}]'
same "check --json" "{$common}" json check .
same "dump --json" "{$common,$list}" json dump .
same "dump --json --journal" "{$common,$sectors,$list}" json dump . --journal
same "check" "tip: tip of chain $ID, 48.8 MiB, 9.5 KiB written, with a journal of 1.0 MiB: 3 ranges in 2 sectors
note: journal sectors with a wrong checksum: 1; writing them was interrupted before a flush had completed, or they are damaged" tip check tip
poke 100 C 255
same "one good superblock" 1 json check .superblock_copies
tip check tip | grep -q '^note: one of the two copies of the superblock' || fail "no note"

# Output that cannot be written is no success.
must_report() { ! tip dump tip "$@" > /dev/full 2> err && grep -q "standard output" err; }
must_report || fail "a full disk goes unnoticed"
must_report --json || fail "a full disk goes unnoticed"

# Refused: foreign,
head -c 4000000 /dev/zero > tip
refused 7 "not a tip (no superblock)"
perl -e 'srand(1); print pack("C*", map { int rand 256 } 1 .. 4000000)' > tip
refused 7 "not a tip (no superblock)"
: > tip
refused 7 "not a tip (no superblock)"
rm tip
refused 3 "tip: No such file"
mkdir tip
refused 7 "a directory"
rmdir tip
mkfifo tip
refused 7 "neither a regular file nor a block device"
# truncated,
new
truncate -s -512 tip
refused 7 "truncated"
truncate -s 1M tip
refused 7 "truncated"
# of another version,
new
super 8 V 2
refused 1 "format version 2; this program knows version 1"
poke 16 C 77
poke $((65536 + 16)) C 77
refused 1 "a damaged tip, or one of format version 2"
# with unknown features,
new
super 24 Q\< 5
refused 1 "needs features that this program does not know: 0x4"
# damaged: superblocks,
new
poke 16 C 77
poke $((65536 + 16)) C 77
refused 7 "both copies of the tip's superblock have wrong checksums"
# areas,
new
super 88 Q\< 152
refused 7 "bitmap cannot be at sector 2192"
new
super 88 Q\< 136
refused 7 "journal cannot be at sector 136"
new
super 96 Q\< 2047
refused 7 "2047 sectors of journal"
# journal,
new
tip_id=$(json dump .journal.tip_id | tr -d '"')
record 5 "$tip_id" 100000 1
refused 7 "sector 149, of the tip's journal, names 1 sectors from 100000 on"
record 5 "$tip_id" 7 0
refused 7 "names 0 sectors"
record 5 "$tip_id"
refused 7 "says that it has 0 ranges"
poke $((JOURNAL + 5 * 512 + 4)) V 63
seal $((JOURNAL + 5 * 512)) 512 0
refused 7 "says that it has 63 ranges"
# bitmap and summary.
new
poke $((SUMMARY + 4)) C 1
refused 7 "summary has bits"
new
poke $SUMMARY C 8
poke $((BITMAP + 3 * 4096 + 4095)) C 128
refused 7 "bits behind the end of the disk"
