# What tests/bench/cache measured, summed up; see tests/bench/cache-report.

def median: sort | (.[(length - 1) / 2 | floor] + .[length / 2 | floor]) / 2;
def spread: {min: min, median: median, max: max};
# @value says what was measured, null if it is not there; @met: null if it cannot be judged.
def goal($work; $limit; $value; $met): {work: $work, limit: $limit, value: $value, met: $met};
def decimals($n): pow(10; $n) as $p | . * $p | round / $p;
def mb: . / 1e6 | decimals(1);
def ratio_text: "\(.median | decimals(2)), \(.min | decimals(2))-\(.max | decimals(2))";

def rows($what; $who): [$measured[] | select(.what == $what and .who == $who and .value != null)];
# The ratio of each round, of @a to @b.
def ratios($a; $b; f):
	[$a[] | . as $x | $b[] | select(.round == $x.round) | ($x | f) / f] |
	if length == 0 then null else spread end;
# Rows that were asked for and could not be measured.
def missing($what): any($measured[]; .what == $what and .value == null);

[$measured | map(select(.value != null)) | group_by([.what, .who])[] | . as $all |
	(.[0] | {what, who, latency_ms}) + {rounds: length} +
	([.[0] | keys_unsorted[] | select(IN("what", "who", "latency_ms", "round") | not) |
		. as $key | {($key): ($all | map(.[$key]) | spread)}] | add)] as $sums |

rows("boot100"; "qcow2chain") as $deep |
rows("boot1"; "qcow2chain") as $flat |
rows("boot100"; "QEMU") as $qemu |
[
	($deep | select(length > 0) |
	 (map(.requests) | max) as $requests | (map(.bytes) | max) as $bytes |
	 goal("start, depth 100, cold: requests"; "<= 350"; "\($requests)"; $requests <= 350),
	 goal("start, depth 100, cold: MB"; "<= 300"; "\($bytes | mb)"; $bytes <= 300e6)),
	(ratios($qemu; $deep; .value) | select(.) |
	 goal("start, depth 100, cold: speed to QEMU's"; ">= 20"; ratio_text; .median >= 20)),
	(ratios($deep; $flat; .value) | select(.) |
	 goal("start, depth 100 to depth 1: time"; "<= 1.3"; ratio_text; .median <= 1.3)),
	({second: "second start on the host", clone: "start of a clone",
	  restart: "start after a restart of chaind"} | to_entries[] | . as $e |
	 rows($e.key; "qcow2chain") | select(length > 0) | (map(.data_requests) | max) as $n |
	 goal("\($e.value): data requests"; "0"; "\($n)"; $n == 0)),
	(ratios(rows("clones10"; "qcow2chain"); rows("clones1"; "qcow2chain"); .requests) | select(.) |
	 goal("ten clones at once, cold: requests to those of one"; "<= 1.1"; ratio_text; .max <= 1.1)),
	(if missing("region") then
		goal("far start, regional cache warm: time to that of a near store"; "<= 1.2"; null; null),
		goal("far start, regional cache warm: requests to the far store"; "0"; null; null)
	 else
		(ratios(rows("region"; "qcow2chain"); rows("local"; "qcow2chain"); .value) | select(.) |
		 goal("far start, regional cache warm: time to that of a near store"; "<= 1.2";
			ratio_text; .median <= 1.2)),
		(rows("region"; "qcow2chain") | select(length > 0) | (map(.far_requests) | max) as $n |
		 goal("far start, regional cache warm: requests to the far store"; "0";
			"\($n), \(map(.far_data_requests) | max) of data"; $n == 0))
	 end),
	($hit[] | goal("4K random read, in the cache, to dm-linear"; ">= 0.97"; ratio_text; .median >= 0.97)),
	(if missing("pull") then
		goal("pull of a second version: bytes to those that differ"; "<= 1.2"; null; null)
	 else
		(rows("pull"; "qcow2chain") | select(length > 0) |
		 (map(.bytes / $about[0].v2_differ) | spread) |
		 goal("pull of a second version: bytes to those that differ"; "<= 1.2"; ratio_text; .max <= 1.2))
	 end),
	(rows("index"; "qcow2chain") | select(length > 0) |
	 (map(.value) | spread) |
	 goal("memory for a TB that is cached, MB"; "<= 64"; ratio_text; .max <= 64))
] as $goals |

{machine: $machine[0], images: $about[0], measured: $sums, goals: $goals}
