#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# check-store-faults.sh [CHAINCAT [QC2FAULT]]
#
# A chain is read by the library through a proxy that makes trouble, one kind after
# another: the data is right, or there is a clear error, in bounded time.  The
# proxy's counters say that the trouble came, and how often it was tried again.
set -euo pipefail

cd "$(dirname "$0")/../.."
chaincat=$(realpath "${1:-build/asan/tests/tools/chaincat}")
qc2fault=$(realpath "${2:-build/user/tests/tools/qc2fault}")
servers=$PWD/tests/servers
work=$(mktemp -d "${TMPDIR:-/tmp}/store-faults.XXXXXX")
passed=0
failed=0
proxies=()

finish() {
	local status=$?
	[ ${#proxies[@]} = 0 ] || kill "${proxies[@]}" 2> /dev/null || true
	"$servers/nginx" stop "$work/nginx"
	rm -rf "$work"
	if [ $status -ne 0 ]; then
		echo "FAIL: a command failed before the end" >&2
		failed=$((failed + 1))
	fi
	echo "$passed passed, $failed failed"
	[ $failed -eq 0 ] || exit 1
}
trap finish EXIT
trap 'echo "line $LINENO: failed: $BASH_COMMAND" >&2' ERR
cd "$work"

cat > chaind.conf <<END
[store]
connect_timeout_s = 2
low_speed_time_s = 1
END

eval "$("$servers/nginx" start "$work/nginx")"
root=$NGINX_ROOT
make_chain() { # FOLDER
	local i backing=()
	mkdir -p "$1"
	for i in 0 1 2; do
		qemu-img create -q -f qcow2 -u "${backing[@]}" "$1/link$i.qcow2" 8M
		qemu-io -f qcow2 -c "write -q -P $((i + 1)) $((i * 1234432)) 3M" \
			-c "write -q -P $((i + 100)) $((i * 65536 + 512)) 100k" \
			-c "write -q -c -P $((i + 50)) $((6 + i % 2))M 512k" "$1/link$i.qcow2"
		backing=(-b "link$i.qcow2" -F qcow2)
	done
}
make_chain "$root/chain"
qemu-img convert -O raw "$root/chain/link2.qcow2" expected

# proxy NAME - start one; fault NAME COMMAND... tells it; its port is $port
proxy() {
	: > "$1.ready"
	"$qc2fault" serve "$1.socket" 0 "${NGINX_HTTP##*:}" > "$1.ready" &
	proxies+=($!)
	until port=$(sed -n 's/^ready //p' "$1.ready") && [ -n "$port" ]; do
		kill -0 "${proxies[-1]}"
		sleep 0.02
	done
}
fault() { "$qc2fault" "$1.socket" "${@:2}" > "$1.answer" || { cat "$1.answer" >&2; return 1; }; }
counter() { "$qc2fault" "$1.socket" count | jq ".$2 // 0"; }

# read_chain NAME [URL] - leaves status and error text in files, for "wait" later
read_chain() {
	local status=0
	timeout 100 "$chaincat" --config chaind.conf "${2-http://127.0.0.1:$port/chain/link2.qcow2}" \
		"$1.raw" 2> "$1.err" || status=$?
	echo "$status" > "$1.status"
}

# Cases run at the same time, each with a proxy of its own, as most of them wait.
cases=()

# start_case EXPECTED FAULT... - EXPECTED is "right", or a pattern of the error;
# "(none) PATTERN": the same, and nothing is tried again
start_case() {
	local name=case${#cases[@]} command
	cases+=("$1")
	proxy "$name"
	for command in "${@:2}"; do
		# shellcheck disable=SC2086 # words
		fault "$name" $command
	done
	printf '%s; ' "${@:2}" > "$name.what"
	read_chain "$name" &
	echo $! > "$name.pid"
}

bad() {
	failed=$((failed + 1))
	echo "FAIL: $(cat "$1.what")$2" >&2
}

end_cases() {
	local i name expected status seen
	for i in "${!cases[@]}"; do
		name=case$i expected=${cases[i]}
		wait "$(cat "$name.pid")"
		status=$(cat "$name.status")
		seen=$(counter "$name" "faults | add")
		if [ "$seen" = 0 ] || [ "$seen" = null ]; then
			bad "$name" "no fault was seen"
		elif [ "$status" -ge 124 ] || grep -q Sanitizer "$name.err"; then
			bad "$name" "hung or crashed, status $status: $(cat "$name.err")"
		elif [ "$status" = 0 ] && ! cmp -s "$name.raw" expected; then
			bad "$name" "WRONG DATA"
		elif [ "$expected" = right ]; then
			[ "$status" = 0 ] || { bad "$name" "error: $(cat "$name.err")"; continue; }
			passed=$((passed + 1))
		elif [ "$status" = 0 ]; then
			bad "$name" "right data, but should have failed"
		elif ! grep -qiE -- "${expected#(none) }" "$name.err"; then
			bad "$name" "no \"${expected#(none) }\" in: $(cat "$name.err")"
		elif ! grep -qF "http://127.0.0.1:$(sed 's/ready //' "$name.ready")/chain/link" "$name.err"
		then
			bad "$name" "the error does not name the object: $(cat "$name.err")"
		elif [[ $expected = "(none) "* ]] && [ "$seen" -gt 2 ]; then
			# One request for the manifest, one for the image.
			bad "$name" "tried again: $seen times"
		elif [[ $expected != "(none) "* ]] && { [ "$seen" -lt 3 ] || [ "$seen" -gt 20 ]; }; then
			bad "$name" "tried $seen times"
		else
			passed=$((passed + 1))
		fi
	done
	kill "${proxies[@]}"
	wait "${proxies[@]}" 2> /dev/null || true
	proxies=() cases=()
	rm -f case*
}

# What passes is not noticed.
start_case right "delay 20"
for kind in cut "cut 1000" "truncate 1" reset "reset 1000" stall "stall 1000" \
	"status 500" "status 503 error SlowDown" "status 503 retry-after 1" "status 429 retry-after 1" \
	"status 502" "status 504"; do
	start_case right "$kind next 2"
done
end_cases
start_case right "cut 3000 percent 8" "reset percent 4" "status 503 percent 4" "delay 30 percent 50"

# What does not pass is an error, after some tries.
for kind in cut "cut 1000" "truncate 1" reset "reset 1000"; do
	start_case "empty reply|closed|reset|partial|recv|remaining|transfer" "$kind"
done
for kind in stall "stall 1000"; do
	start_case "too slow|timed out|timeout" "$kind"
done
for status in 500 502 503 504 429; do
	start_case "status $status" "status $status"
done

# An answer that lies, or refuses, is not asked for again.
start_case "(none) sent bytes [0-9-]+ of [0-9]+ instead" wrong-range
start_case "(none) sent bytes 0-99 of [0-9]+ instead" "short 100"
start_case "(none) range" whole
start_case "(none) status 403|denied|forbidden" "status 403"
start_case "(none) 404|not found|no such" "status 404"
start_case "(none) 403|denied|forbidden" "status 403 error ExpiredToken"
start_case "(none) 30.|redirect" "redirect eu-west-1"
end_cases

# The server is not there, and comes.
proxy refused
fault refused refuse
read_chain refused
[ "$(cat refused.status)" = 1 ] && grep -qiE "connect|refused" refused.err ||
	{ echo "FAIL: refused: $(cat refused.err)" >&2; failed=$((failed + 1)); }
read_chain refused &
reader=$!
fault refused clear
wait $reader
if [ "$(cat refused.status)" = 0 ] && cmp refused.raw expected; then
	passed=$((passed + 1))
else
	echo "FAIL: not read after refusing: $(cat refused.err)" >&2
	failed=$((failed + 1))
fi

# An image is replaced after it was opened: its first answer is held back until that
# is done.  Never old and new data together.
make_chain "$root/replaced"
proxy replaced
fault replaced stall path /link0.qcow2 next 1
read_chain replaced "http://127.0.0.1:$port/replaced/link2.qcow2" &
reader=$!
until [ "$(counter replaced faults.stall)" = 1 ]; do sleep 0.02; done
head -c "$(stat -c %s "$root/replaced/link0.qcow2")" /dev/urandom > new
touch -d 2001-01-01 new
mv new "$root/replaced/link0.qcow2"
fault replaced clear
wait $reader
if [ "$(cat replaced.status)" = 1 ] && grep -q "link0.qcow2.*changed" replaced.err &&
		[ "$(counter replaced 'statuses."412"')" = 1 ]; then
	passed=$((passed + 1))
else
	echo "FAIL: replaced: status $(cat replaced.status), $(counter replaced .) $(cat replaced.err)" >&2
	failed=$((failed + 1))
fi

# Another server behind the same name, or a cache between: an ETag that differs once.
proxy etag
fault etag stall path /link0.qcow2 next 1
read_chain etag &
reader=$!
until [ "$(counter etag faults.stall)" = 1 ]; do sleep 0.02; done
fault etag wrong-etag path /link0.qcow2
fault etag clear stall
wait $reader
if [ "$(cat etag.status)" = 1 ] && grep -q "link0.qcow2.*changed" etag.err; then
	passed=$((passed + 1))
else
	echo "FAIL: another ETag: status $(cat etag.status) $(cat etag.err)" >&2
	failed=$((failed + 1))
fi
