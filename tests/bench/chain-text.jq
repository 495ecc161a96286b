# Parts of the report of tests/bench/chain-report, from the figures of chain.jq.

def who: {qemu: "QEMU", walk: "qcow2chain", manifest: "with manifest"}[.];
def fixed($n):
	if . == null then "-" else
		(. * pow(10; $n) | round | tostring) as $digits |
		($digits | ltrimstr("-")) as $abs | ($digits | if startswith("-") then "-" else "" end) as $sign |
		if $n == 0 then $digits else
			(("0000000000" + $abs) | .[-([($abs | length), $n + 1] | max):]) as $padded |
			"\($sign)\($padded[:-$n]).\($padded[-$n:])"
		end
	end;
def mb: if . == null then "-" else . / 1e6 | fixed(2) end;
def range($unit; $n):
	"\(.median / $unit | fixed($n)), \(.min / $unit | fixed($n))-\(.max / $unit | fixed($n))";
def brackets: "[\(.)]";

if $what == "machine" then
	"\(.machine.kernel), \(.machine.qemu), \(.machine.rounds) rounds",
	"added latency: \([.latency[] | "\(.latency_ms) ms (measured: \(.measured_ms))"] | join(", "))",
	(.machine.hangs | select(. > 0) | "qemu-io hung and was started again: \(.) times")
elif $what == "chain" then
	[.chains[] | select(.chain == $chain)] | last |
	"Chain \"\($chain)\", disk of \(.virtual_size / 1073741824) GiB; at depth \(.depth) \(.files_bytes / 1e6 | floor) MB in files, \(.live_bytes / 1e6 | floor) MB live, in \(.extents) extents"
elif $what == "opened" then
	(["depth", "read", "", "requests", "", "MB", "", "serial", "round trips"] +
		[.latency[] | "at \(.latency_ms) ms"] | @tsv),
	(.opened[] | select(.chain == $chain) |
		[.depth, .place, (.who | who), .requests.max, (.requests_all.max | brackets),
		 (.bytes.max | mb), (.bytes_all.max | mb | brackets), .serial, (.round_trips | fixed(1))] +
		[.seconds[] | range(1; 2)] | @tsv)
elif $what == "memory" then
	(["depth", "", "peak", "idle", "open: +RSS", "+PSS", "+anonymous", "peak: +RSS", "extents",
	  "bytes/extent"] | @tsv),
	(.opened[] | select(.chain == $chain and .place == "first") |
		[.depth, (.who | who), (.peak | mb), (.idle_rss | mb), (.open_rss | mb), (.open_pss | mb),
		 (.open_anonymous | mb), (.peak_above_idle | mb), .extents, (.bytes_per_extent | fixed(0))] | @tsv)
elif $what == "index" then
	(.lookups[] | ["million lookups per second, \(.extents) extents, \(.distribution)",
		(.per_second | range(1e6; 1))] | @tsv),
	(.building[] | "\(.chain), depth \(.depth)" as $of |
		["\($of): qemu-img map, ms", (.qemu_img_map_us | range(1e3; 0))],
		["\($of): the chain opened, ms", (.chain_open_us | range(1e3; 0))],
		["\($of): to qemu-img map", (.open_ratio | range(1; 2))],
		["\($of): chainctl info, ms", (.chainctl_info_us | range(1e3; 0))],
		["\($of): to qemu-img map", (.info_ratio | range(1; 2))] | @tsv)
elif $what == "goals" then
	(.goals[] | [.goal, .limit, (.value // "-"),
		(if .met == null then "not measured" elif .met then "met" else "missed" end)] | @tsv)
elif $what == "plot" then
	(.latency | .[length / 2 | floor].latency_ms) as $ms |
	([.chains[].chain] | unique) as $chains |
	(.opened[] | select(.place == "first") | . as $o | .seconds[] | select(.latency_ms == $ms) |
		($chains | index($o.chain)) as $column |
		["requests", $column, 0, "Chain “\($o.chain)”: requests until 4 KiB are read",
		 "depth of the chain", ($o.who | who), $o.depth, $o.requests.median],
		["seconds", $column, 1, "Seconds, with \($ms) ms added to each request",
		 "depth of the chain", ($o.who | who), $o.depth, .median] | @tsv)
else
	error("nothing is called \($what)")
end
