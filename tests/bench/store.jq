# What tests/bench/store measured, summed up; see tests/bench/store-report.

def median: sort | (.[(length - 1) / 2 | floor] + .[length / 2 | floor]) / 2;
def spread: {min: min, median: median, max: max};
# @value says what was measured; @met: null if it is only shown.
def goal($goal; $limit; $value; $met): {goal: $goal, limit: $limit, value: $value, met: $met};
def decimals($n): pow(10; $n) as $p | . * $p | round / $p;

# The ratio of each round, of @a to @b.
def ratios($a; $b):
	[$a[] | . as $x | $b[] | select(.round == $x.round and .latency_ms == $x.latency_ms) |
		$x.value / .value] | if length == 0 then null else spread end;
def ratio_text: "\(.median | decimals(2)), \(.min | decimals(2))-\(.max | decimals(2))";

($boot[0]) as $trace |
($measured | map(.latency_ms) | unique) as $ms |
def all($what; $who; $l): [$measured[] | select(.what == $what and .who == $who and .latency_ms == $l)];

# All rounds of one measurement.
def sum_up:
	. as $all |
	(.[0] | {what, who, latency_ms}) + {rounds: length, value: (map(.value) | spread)} +
	([.[0] | keys_unsorted[] | select(IN("what", "who", "latency_ms", "round", "value") | not) |
		. as $key | {($key): ($all | map(.[$key]) | median)}] | add // {}) +
	if .[0].what == "boot" and $trace then
		{amplification: (map(.bytes / $trace.needed) | spread)} else {} end;

[$measured | group_by([.what, .who, .latency_ms])[] | sum_up] as $sums |
def of($what; $who): $sums[] | select(.what == $what and .who == $who);

# Part @part natively, where it is judged, or in the virtual machine.
def sequential_goal($part; $who; $name):
	$ms[] as $l | ratios(all($part; $who; $l); all($part; "curl"; $l)) | select(.) |
	goal("\($name), \($l) ms, to curl"; ">= 0.9"; ratio_text; .median >= 0.9);
def random_goal($part; $name):
	of($part; "qcow2chain") | select(.latency_ms == 30) |
	goal("\($name), 32 at a time, 30 ms"; ">= 853/s (0.8 x 32 / 30 ms)";
		"\(.value.median | round)"; .value.median >= 0.8 * 32 / 0.03);
def single_goal($part; $name):
	of($part; "qcow2chain") |
	goal("\($name), \(.latency_ms) ms";
		"<= 1.1 x \(.round_trip_ms | decimals(1)) ms, the round trip";
		"\(.value.median | decimals(1)) ms"; .value.median <= 1.1 * .round_trip_ms);
def slow_goals($part; $name):
	of($part; "qcow2chain") |
	goal("\($name), p99, \(.latency_ms) ms"; "<= 3 x \(.p50_ms | decimals(1)) ms, p50";
		"\(.value.median | decimals(1)) ms"; .value.median <= 3 * .p50_ms),
	goal("\($name), requests per read"; "<= 1.03"; "\(.requests / .reads | decimals(3))";
		.requests <= 1.03 * .reads);
def cpu_goal($part; $name):
	ratios(all($part; "qcow2chain"; 0); all($part; "curl"; 0)) | select(.) |
	goal("\($name), to curl"; "<= 1.3"; ratio_text; .median <= 1.3);

[
	sequential_goal("client-sequential"; "qcow2chain"; "client, sequential"),
	random_goal("client-random"; "client, random reads"),
	single_goal("client-single"; "client, one read at a time"),
	slow_goals("client-slow"; "client, 1 % of requests slow"),
	cpu_goal("client-cpu"; "client, processor time over TLS"),
	(of("boot"; "qcow2chain") |
	 goal("a machine starts, bytes to those needed, \(.latency_ms) ms"; "<= 3.0";
		(.amplification | ratio_text); .amplification.median <= 3)),
	((sequential_goal("sequential"; "qcow2chain"; "all, sequential"),
	  sequential_goal("sequential"; "qcow2chain, buffered"; "all, sequential, buffered"),
	  random_goal("random"; "all, random reads"),
	  single_goal("idle"; "all, one read at a time"),
	  slow_goals("slow"; "all, 1 % of requests slow"),
	  cpu_goal("cpu"; "all, processor time over TLS")) | .met = null)
] as $goals |

{machine: $machine[0], client_machine: $client_machine[0], boot: $trace, measured: $sums, goals: $goals}
