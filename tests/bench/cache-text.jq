# Parts of the report of tests/bench/cache-report, from the figures of cache.jq.

def decimals($n): pow(10; $n) as $p | . * $p | round / $p;
def mb: if . == null then "-" else . / 1e6 | decimals(1) end;
def range($n): if . == null then "-" else
	"\(.median | decimals($n)), \(.min | decimals($n))-\(.max | decimals($n))" end;
def title: {
	boot100: "start, depth 100, cold", boot1: "start, depth 1, cold", first: "start, cold",
	second: "second start", clone: "start of a clone", restart: "start after a restart of chaind",
	clones1: "a clone, cold", clones10: "ten clones at once, cold",
	local: "start, near store", "far-first": "first start in the region, far store",
	"region-filled": "requests to the region's cache meanwhile",
	region: "second start in the region, far store", pull: "pull of a second version",
	index: "memory"
}[.];

if $what == "machine" then
	(.machine | select(.) | "\(.kernel), \(.cpus) processors (\(.cpu)), \(.qemu), \(.rounds) rounds",
	 "added to a request: \(.near) ms; region \(.region) ms, far \(.far) ms",
	 (.hangs | select(. > 0) | "QEMU hung and was started again: \(.) times")),
	(.images |
	 "\(.links) links, \(.files_bytes | mb) MB in files, \(.live_bytes | mb) MB live",
	 "\(.reads) reads of \(.bytes_read | mb) MB; live and different: \(.needed_4k | mb) MB in blocks of 4 KiB, \(.needed_64k | mb) MB of 64 KiB, in \(.regions_2m) regions of 2 MiB",
	 "second version: \(.v2_bytes | mb) MB, of which \(.v2_differ | mb) MB differ; \(.v2_new | mb) MB are nowhere in the first")
elif $what == "measured" then
	(["", "", "seconds", "requests", "of data", "MB"] | @tsv),
	(.measured[] | select(.requests) |
	 [(.what | title), ({walk: "no manifest"}[.who] // .who),
	  ((.seconds // (if (.what | test("^(boot|first$|local$|far-first$|region$)")) then .value else null end)) | range(1)),
	  (.requests | range(0)), (.data_requests | range(0)), (.bytes.median | mb)] | @tsv)
elif $what == "goals" then
	(["", "goal", "measured", ""] | @tsv),
	(.goals[] | [.work, .limit, (.value // "not there"),
		(if .met == null then "-" elif .met then "met" else "missed" end)] | @tsv)
else
	error("nothing is called \($what)")
end
