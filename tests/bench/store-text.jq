# Parts of the report of tests/bench/store-report, from the figures of store.jq.

def fixed($n):
	if . == null then "-" else
		(. * pow(10; $n) | round | tostring) as $digits |
		if $n == 0 then $digits else
			(("0000000000" + $digits) | .[-([($digits | length), $n + 1] | max):]) as $padded |
			"\($padded[:-$n]).\($padded[-$n:])"
		end
	end;
def mb: if . == null then "-" else . / 1e6 | fixed(1) end;
def range($n): "\(.median | fixed($n)), \(.min | fixed($n))-\(.max | fixed($n))";
def what($what): .measured[] | select(.what == $what);
def order: sort_by([.latency_ms, (.who | startswith("qcow2chain"))])[];

def latencies($what):
	"added latency: \([what($what) | "\(.latency_ms) ms (measured: \(.value | range(1)))"] | join("; "))";

if $what == "machine" then
	(select(.client_machine) |
	 "client, natively: \(.client_machine | "\(.kernel), \(.cpus) processors (\(.cpu)), \(.curl)")",
	 "\(.client_machine | "\(.rounds) rounds, \(.connections) connections, of which a store gets \(.curl_connections), as does curl")",
	 latencies("client-round-trip")),
	(select(.machine) |
	 "virtual machine: \(.machine.kernel), \(.machine.cpus) processors, \(.machine.curl), \(.machine.qemu), \(.machine.nbdkit)",
	 "\(.machine.rounds) rounds, \(.machine.connections) connections of chaind and of curl",
	 latencies("round-trip")),
	(.machine.hangs // 0 | select(. > 0) | "QEMU hung and was started again: \(.) times")
elif $what == "client-sequential" then
	(["added ms", "", "MB/s", "requests"] | @tsv),
	([what("client-sequential")] | order |
		[.latency_ms, .who, (.value | range(1)), .requests // "-"] | @tsv)
elif $what == "client-random" then
	(["added ms", "", "reads/s", "p50 ms", "p99 ms"] | @tsv),
	([what("client-random")] | order |
		[.latency_ms, .who, (.value | range(0)), (.p50_ms | fixed(1)), (.p99_ms | fixed(1))] | @tsv)
elif $what == "client-latency" then
	(["added ms", "", "p50 ms", "p99 ms", "round trip", "requests", "reads", "hedges"] | @tsv),
	([what("client-single", "client-slow")] | sort_by([.what, .latency_ms])[] |
		[.latency_ms, {"client-single": "one at a time", "client-slow": "1 % of requests slow"}[.what] +
			if .who == "curl" then ", curl" else "" end, (.p50_ms // .value.median | fixed(1)),
		 (.p99_ms, .round_trip_ms | fixed(1)), .requests // "-", .reads // "-",
		 .hedges // "-"] | @tsv)
elif $what == "client-cpu" then
	(["", "processor s/GiB", "seconds"] | @tsv),
	([what("client-cpu")] | order | [.who, (.value | range(2)), (.seconds | fixed(1))] | @tsv)
elif $what == "sequential" then
	(["added ms", "", "MB/s", "requests", "MB"] | @tsv),
	([what("sequential")] | order |
		[.latency_ms, .who, (.value | range(1)), .requests, (.bytes | mb)] | @tsv)
elif $what == "random" then
	(["added ms", "", "reads/s", "p50 ms", "p99 ms"] | @tsv),
	([what("random")] | order |
		[.latency_ms, .who, (.value | range(0)), (.p50_ms | fixed(1)), (.p99_ms | fixed(1))] | @tsv)
elif $what == "latency" then
	(["added ms", "", "p50 ms", "p90 ms", "p99 ms", "max ms", "round trip", "requests/read"] | @tsv),
	([what("idle", "slow")] | sort_by([.what, .latency_ms])[] |
		[.latency_ms, {idle: "one at a time", slow: "1 % of requests slow"}[.what] +
			if .who == "curl" then ", curl, 64 KiB" else "" end, (.p50_ms // .value.median | fixed(1)), (.p90_ms, .p99_ms, .max_ms | fixed(1)),
		 (.round_trip_ms | fixed(1)), (if .reads then .requests / .reads | fixed(3) else "-" end)] | @tsv)
elif $what == "cpu" then
	(["", "processor s/GiB", "seconds", "page faults", "switches"] | @tsv),
	([what("cpu")] | order | [.who, (.value | range(2)),
		(.seconds | fixed(1)), .faults // "-", .switches // "-"] | @tsv)
elif $what == "trace" then
	.boot | select(.) | "\(.reads) reads of \(.bytes_read | mb) MB; different live bytes: \(.needed | mb) MB"
elif $what == "boot" then
	(["added ms", "", "seconds", "requests", "MB", "to those needed"] | @tsv),
	([what("boot")] | order |
		[.latency_ms, .who, (.value | range(1)), (.requests | fixed(0)), (.bytes | mb),
		 (.amplification | range(2))] | @tsv)
elif $what == "goals" then
	(.goals[] | [.goal, .limit, (.value // "-"), (if .met == null then "shown only" elif .met then "met" else "missed" end)] | @tsv)
elif $what == "plot" then
	([["client-sequential", 0, 0, "Client: a whole object, MB/s"],
	  ["client-random", 1, 0, "Client: blocks of 64 KiB, 32 at a time, per second"],
	  ["sequential", 0, 1, "Whole path: sequential read, MB/s"],
	  ["random", 1, 1, "Whole path: cold reads of 4 KiB, depth 32, per second"],
	  ["boot", 2, 1, "A machine starts, seconds"]][]) as $p |
	what($p[0]) | select(.latency_ms > 0) |
	[$p[0], $p[1], $p[2], $p[3], "latency added to a request, ms", .who, .latency_ms,
	 .value.median] | @tsv
else
	error("nothing is called \($what)")
end
