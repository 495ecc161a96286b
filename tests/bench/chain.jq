# What tests/bench/chain measured, summed up; see tests/bench/chain-report.

def median: sort | (.[(length - 1) / 2 | floor] + .[length / 2 | floor]) / 2;
def spread: {min: min, median: median, max: max};
# @value says what was measured.
def goal($goal; $limit; $value; $met): {goal: $goal, limit: $limit, value: $value, met: $met};
def decimals($n): pow(10; $n) as $p | . * $p | round / $p;

($latency | map(.latency_ms)) as $ms |

# All times that a chain was opened at one depth in one way.
def sum_up:
	. as $all | .[0] as $first |
	($chains[] | select(.chain == $first.chain and .depth == $first.depth)) as $about |
	[$ms[] as $l | [$all[] | select(.latency_ms == $l) | .us / 1e6] | spread + {latency_ms: $l}] as $seconds |
	def kib(f): map(f | . * 1024) | median;
	# Counted with the longest latency: with a short one, what comes while the reader
	# is waiting for the processor is counted, too.
	map(select(.latency_ms == $ms[-1])) as $slow |
	{chain: $first.chain, depth: $first.depth, place: $first.place, who: $first.who,
	 extents: $about.extents,
	 times: length,
	 requests: ($slow | map(.requests) | spread), bytes: ($slow | map(.bytes) | spread),
	 serial: ($slow | map(.serial) | max),
	 requests_all: (map(.requests_all) | spread), bytes_all: (map(.bytes_all) | spread),
	 round_trips: (if ($ms | length) == 1 then $seconds[0].median * 1000 / $ms[0] else
		($seconds[-1].median - $seconds[0].median) * 1000 / ($ms[-1] - $ms[0]) end),
	 seconds: $seconds, peak: kib(.peak_kib)} +
	if $first.who == "qemu" then {} else
		kib(.open_rss_kib - .idle_rss_kib) as $rss |
		{up_seconds: (map(.up_us / 1e6) | spread), idle_rss: kib(.idle_rss_kib), open_rss: $rss,
		 open_pss: kib(.open_pss_kib - .idle_pss_kib),
		 open_anonymous: kib(.open_anonymous_kib - .idle_anonymous_kib),
		 peak_above_idle: kib(.peak_kib - .idle_rss_kib),
		 bytes_per_extent: ($rss / $about.extents)}
	end;

[$opened | group_by([.chain, .place != "first", .depth, (.who | {qemu: 0, walk: 1, manifest: 2}[.])])[] | sum_up] as $sums |
[$building | group_by(.chain)[] | . as $all |
	{chain: .[0].chain, depth: .[0].depth} +
	([("qemu_img_map_us", "chainctl_info_us", "chain_open_us") as $what | {($what): ($all | map(.[$what]) | spread)}] | add) +
	{open_ratio: (map(.chain_open_us / .qemu_img_map_us) | spread),
	 info_ratio: (map(.chainctl_info_us / .qemu_img_map_us) | spread)}] as $builds |
[$lookups | group_by(.distribution)[] |
	{distribution: .[0].distribution, extents: .[0].extents,
	 per_second: (map(.lookups_per_second) | spread)}] as $rates |

def of($who): $sums[] | select(.who == $who and .place == "first");
def mb: . / 1e6 | decimals(2);
def what: "\(.chain), depth \(.depth)";
def how: if .who == "manifest" then ", with manifest" else "" end;

[
	([$sums[] | select(.who == "manifest")] |
	 if length == 0 then goal("with manifest"; "<= 3 requests, <= 1 MB, <= 2.5 round trips"; null; null) else
		(.[] | goal("with manifest, \(what), \(.place)"; "<= 3 requests, <= 1 MB, <= 2.5 round trips";
			"\(.requests.max), \(.bytes.max | mb) MB, \(.round_trips | decimals(1))";
			.requests.max <= 3 and .bytes.max <= 1e6 and .round_trips <= 2.5)),
		(map(select(.place == "first")) | group_by(.chain)[] | (map(.round_trips) | max - min | decimals(1)) as $differ |
		 goal("with manifest, \(.[0].chain), at every depth"; "the same";
			"\([.[].requests.max | tostring] | join(", ")) requests, round trips differ by \($differ)";
			([.[].requests.max] | unique | length == 1) and $differ <= 0.5))
	 end),
	(of("walk") | select(.depth == 100) |
	 goal("without, \(what)"; "<= 2.2 requests per link";
		"\(.requests.max / .depth | decimals(2))"; .requests.max <= 2.2 * .depth),
	 goal("without, \(what)"; "1 per link one after another, the others at least 8 at once";
		"\(.serial) of \(.requests.max)"; .serial <= .depth + (.requests.max - .depth) / 8 + 4),
	 goal("without, \(what)"; "<= 10 MB"; "\(.bytes.max | mb)"; .bytes.max <= 1e7)),
	(of("walk", "manifest") | select(.depth == 100) |
	 goal("memory of chaind above idle, \(what)\(how)"; "<= 4 MB"; "\(.open_rss | mb)";
		.open_rss <= 4e6)),
	(of("walk", "manifest") | select(.depth == 500) | . as $deep |
	 of($deep.who) | select(.depth == 100 and .chain == $deep.chain) |
	 goal("bytes of it per extent, \($deep | what)\(how)"; "<= those at depth 100";
		"\($deep.bytes_per_extent | round), \(.bytes_per_extent | round)";
		$deep.bytes_per_extent <= .bytes_per_extent)),
	($rates[] | goal("lookups, \(.extents) extents, \(.distribution)"; ">= 15 million/s";
		"\(.per_second.median / 1e6 | decimals(1))"; .per_second.median >= 15e6)),
	($builds[] | goal("index of \(what), to qemu-img map"; "<= 0.5";
		"\(.open_ratio.median | decimals(2))"; .open_ratio.median <= 0.5))
] as $goals |

{machine: $machine[0], latency: $latency, chains: $chains, opened: $sums, lookups: $rates,
 building: $builds, goals: $goals}
