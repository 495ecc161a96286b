# SPDX-License-Identifier: GPL-2.0
#
# Compares maps of disks, as check-qcow2-matrix.sh notes them: for each one
#	{"name", "behind", "qemu": of qemu-img map, "ours": of chainctl map}
# and prints the name and the first difference of those that do not say the same.
#
# The same is: for each byte, whether it is data or zeros, and if data, the link
# that holds it ("depth"), where ("offset"), and whether it is compressed.  How a
# map is cut into pieces does not matter.  We differ from QEMU on purpose in that
#  - zeros are zeros: who made them, and a cluster that they may have, is not kept
#    in the index;
#  - the holes of a sparse raw file are data, as a store cannot tell;
#  - clusters that lie behind the end of the file are zeros, and not data; so many
#    bytes of them are expected in "behind".

def at($piece; $pos): if $piece.offset then $piece.offset + $pos - $piece.start else null end;

# What is wrong with that piece; null: nothing.  QEMU 7.2 does not say
# "compressed", but what is has no offset.
def wrong($q; $o; $pos):
	if $o.zero then
		if $o.data or $o.present or $o.offset != null or $o.depth != null then "zeros that are somewhere"
		elif $q.zero and ($q.data | not) then null
		elif $q.data and $q.offset != null then "behind"
		else "zeros to us" end
	elif ($o.data and $o.present) | not then "neither data nor zeros"
	elif $q.depth != $o.depth then "another depth"
	elif at($q; $pos) != at($o; $pos) then "another offset"
	elif $o.compressed != ($q.compressed // ($q.offset == null)) then "compressed or not"
	elif $q.data then null
	elif $q.zero and $o.offset != null and ($o.url | endswith(".img")) then null
	else "data to us" end;

def bounds: map([.start, .start + .length]) | (.[0][0], .[-1][1]);
def gaps: . as $list | any(range(1; length); $list[. - 1].start + $list[. - 1].length != $list[.].start);

def difference: . as $disk | .qemu as $qs | .ours.extents as $os |
	if [$qs | bounds] != [$os | bounds] then "from \($qs | [bounds]) to us \($os | [bounds])"
	elif $os | gaps then "pieces that do not touch"
	else
		{q: 0, o: 0, pos: $os[0].start, behind: 0, found: null} |
		until(.found or .o == ($os | length);
			$qs[.q] as $q | $os[.o] as $o | .pos as $pos |
			([$q, $o] | map(.start + .length) | min) as $stop |
			wrong($q; $o; $pos) as $what |
			if $what == "behind" then .behind += $stop - $pos
			elif $what then .found = "\($what): at \($pos), QEMU \($q), we \($o)"
			else . end |
			.pos = $stop |
			if $q.start + $q.length == $stop then .q += 1 else . end |
			if $o.start + $o.length == $stop then .o += 1 else . end) |
		if .found then .found
		elif .behind != $disk.behind then "\(.behind) bytes behind the end of the file"
		else empty end
	end;

"\(.name): \(difference)"
