# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# What the two parts of tests/bench/store have in common: the proxy, curl, and noting
# what was measured.  Who sources it sets
#   T            a folder for files
#   MEASURED     file for lines of JSON
#   STORE        folder that is served, with /settled answered without content
#   CA           certificate for HTTPS
#   CURL_AT_ONCE connections that curl may have for a whole object
#   round        number of the round, from 0
# and has a function fail.  It reads $PROXY, the URL of the proxy, and $curl_s.
#
# shellcheck disable=SC2034,SC2154
PROXY_PID=
PROXY=

proxy() { build/user/tests/tools/qc2fault "$T/proxy.sock" "$@" > /dev/null; }

# start_proxy URL - of a server on this machine
start_proxy()
{
	local ready port

	exec {ready}< <(exec build/user/tests/tools/qc2fault serve "$T/proxy.sock" 0 "${1##*:}")
	PROXY_PID=$!
	read -r _ port <&$ready || fail "the proxy does not start"
	exec {ready}<&-
	PROXY=http://127.0.0.1:$port
}
stop_proxy()
{
	kill $PROXY_PID
	wait $PROXY_PID || true
	PROXY_PID=
}
set_latency()
{
	proxy clear
	proxy delay "$1"
}

# row WHAT WHO LATENCY VALUE [MEMBERS] - a line of $MEASURED
row()
{
	printf '{"what": "%s", "who": "%s", "latency_ms": %s, "round": %d, "value": %s%s}\n' \
		"$1" "$2" "$3" "$round" "$4" "${5:+, $5}" >> "$MEASURED"
	echo "# round $((round + 1)): $1, $2, $3 ms: $4"
}

# elapsed START_US - seconds since then
elapsed() { awk -v us=$((${EPOCHREALTIME/./} - $1)) 'BEGIN { printf "%.6f", us / 1e6 }'; }
divide() { awk -v a="$1" -v b="$2" 'BEGIN { printf "%.4f", a / b }'; }

# curl_all URL - the whole object in as many ranges as there are connections; how long
# that took, without the start of a process, is in $curl_s
curl_all()
{
	local bytes=$(($(stat -c %s "$STORE/${1##*/}") / CURL_AT_ONCE + 1)) i

	for ((i = 0; i < CURL_AT_ONCE; i++)); do
		[ $i = 0 ] || echo next
		printf 'url = "%s"\nrange = "%d-%d"\noutput = "/dev/null"\nsilent\nfail\n' \
			"$1" $((i * bytes)) $((i * bytes + bytes - 1))
		printf 'http1.1\ncacert = "%s"\nwrite-out = "%%{time_total}\\n"\n' "$CA"
	done > "$T/curl.conf"
	# It draws a progress meter, whatever it is told.
	curl --parallel --parallel-immediate --parallel-max $CURL_AT_ONCE \
		--config "$T/curl.conf" 2> "$T/curl.log" > "$T/curl.times" ||
		fail "$(tail "$T/curl.log")"
	curl_s=$(sort -g "$T/curl.times" | tail -n 1)
}

# curl_blocks NUMBER AT_ONCE URL - fetches blocks of 64 KiB, a MiB from each other, in
# kept connections; prints the time of each, in ms, in ascending order; how long all of
# them took is in $curl_s
curl_blocks()
{
	local number=$1 url=$3 i start

	for ((i = 0; i < number; i++)); do
		[ $i = 0 ] || echo next
		printf 'url = "%s"\nrange = "%d-%d"\noutput = "/dev/null"\nsilent\n' \
			"$url" $((i << 20)) $(((i << 20) + 65535))
		echo 'write-out = "%{time_total}\n"'
	done > "$T/curl.conf"
	if [ "$2" = 1 ]; then
		set --
	else
		set -- --parallel --parallel-immediate --parallel-max "$2"
	fi
	start=${EPOCHREALTIME/./}
	curl "$@" --config "$T/curl.conf" 2> "$T/curl.log" > "$T/curl.times" ||
		fail "$(tail "$T/curl.log")"
	curl_s=$(elapsed "$start")
	awk '{ printf "%.3f\n", $1 * 1000 }' "$T/curl.times" | sort -n
}

# round_trip - what the latency really is, in ms: an answer without content, in a kept
# connection
round_trip()
{
	local i

	for ((i = 0; i < 41; i++)); do
		printf 'url = "%s/settled"\noutput = "/dev/null"\n' "$PROXY"
	done > "$T/curl.conf"
	curl -s -w '%{time_total}\n' --config "$T/curl.conf" | tail -n +2 | sort -n |
		awk '{ t[NR] = $1 } END { printf "%.3f", t[20] * 1000 }'
}
