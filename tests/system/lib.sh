# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# Helpers for system tests.  A test is a script tests/system/t-NAME.sh that
# begins with
#
#	. "$(dirname "$0")/lib.sh"
#
# and succeeds if it reaches its end.  tests/system/run gives it $T, an empty
# directory on a file system with direct I/O.  A test that succeeds leaves
# nothing behind: no disk, no mount, no chaind, no nginx.
#
# Settings and files:
#   CONF       chaind's configuration, $T/chaind.conf
#   HTTP       where start_nginx serves, http://127.0.0.1:8080
#   CHAIND     the command that start_chaind runs, an array
#   $T/chaind.log, $T/access.log, $T/nginx.log
set -euo pipefail
trap 'echo "$(where "$LINENO"): failed: $BASH_COMMAND" >&2' ERR
set -o errtrace

CONF=$T/chaind.conf
HTTP=http://127.0.0.1:8080
CHAIND=(chaind)
CHAIND_PID=
NGINX_PID=

# where [LINE] - the line of the test itself that is being run; LINE if the test
# is in none of its functions
where()
{
	local depth=${#BASH_LINENO[@]}

	[ "$depth" -le 2 ] || set -- "${BASH_LINENO[depth - 2]}"
	echo "$0:$1"
}

# fail MESSAGE… - end the test as failed
fail()
{
	trap - ERR
	echo "$(where): $*" >&2
	exit 1
}

# wait_until SECONDS COMMAND… - repeat a command until it succeeds; fails the
# test at the deadline.  A slow machine gets QC2_TIME_SCALE times the seconds.
wait_until()
{
	local end=$((SECONDS + $1 * QC2_TIME_SCALE))
	shift
	until "$@" > /dev/null 2>&1; do
		[ $SECONDS -lt $end ] || fail "waited in vain for: $*"
		sleep 0.1
	done
}

# must_fail PATTERN COMMAND… - the command must fail and its output match the
# extended regular expression, in any case of letters
must_fail()
{
	local pattern=$1 output status=0
	shift
	output=$("$@" 2>&1) || status=$?
	[ "$status" != 0 ] || fail "succeeded, but should have failed: $*"
	[ "$status" -lt 124 ] || fail "was killed or hung (status $status): $*: $output"
	grep -qiE -e "$pattern" <<< "$output" ||
		fail "error of '$*' does not match '$pattern': $output"
}

# A daemon that ended by itself explains many another failure.
chaind_fate()
{
	local status=0

	[ -n "$CHAIND_PID" ] || return 0
	! kill -0 "$CHAIND_PID" 2>/dev/null || return 0
	wait "$CHAIND_PID" || status=$?
	echo "chaind ended by itself with status $status" >&2
}
trap chaind_fate EXIT

chainctl() { command chainctl --config "$CONF" "$@"; }

# status works without chaind as well, and says so.
chaind_answers() { chainctl status --json | grep -qE '"running": ?true'; }

# start_chaind [CONFIG-LINE…] - start chaind and wait until it answers.  Lines
# are added to the test's configuration; without lines a later start uses the
# configuration as it is.  A section that occurs twice is continued.
start_chaind()
{
	local end=$((SECONDS + 60 * QC2_TIME_SCALE))

	if [ ! -e "$CONF" ] || [ $# -gt 0 ]; then
		cat > "$CONF" <<-END
		[cache]
		path=$T/cache
		size=1G
		[tip]
		dir=$T/tips
		[chain]
		index_dir=$T/index
		END
		printf '%s\n' "$@" >> "$CONF"
	fi
	"${CHAIND[@]}" --config "$CONF" >> "$T/chaind.log" 2>&1 &
	CHAIND_PID=$!
	until chaind_answers > /dev/null 2>&1; do
		kill -0 "$CHAIND_PID" 2>/dev/null || {
			cat "$T/chaind.log" >&2
			fail "chaind ended at its start"
		}
		[ $SECONDS -lt $end ] || fail "chaind does not answer"
		sleep 0.1
	done
}

# kill_chaind - end chaind as a crash would
kill_chaind()
{
	kill -KILL "$CHAIND_PID"
	wait "$CHAIND_PID" 2> /dev/null || true
	CHAIND_PID=
}

# stop_chaind - end chaind as a service manager would; it must end well
stop_chaind()
{
	local status=0

	kill -TERM "$CHAIND_PID"
	wait "$CHAIND_PID" || status=$?
	CHAIND_PID=
	[ "$status" = 0 ] || fail "chaind ended with status $status: $(tail -n 20 "$T/chaind.log")"
}

# start_nginx DIRECTORY [SERVER-DIRECTIVES] - serve a directory at $HTTP.  Also:
#   /404/… /403/… /500/…   answer with that status
#   /norange/FILE          answers 200 with the whole file to a ranged request
#   /slow/FILE             128 KiB/s for each connection
start_nginx()
{
	local dir end=$((SECONDS + 60 * QC2_TIME_SCALE))

	dir=$(realpath "$1")
	cat > "$T/nginx.conf" <<-END
	daemon off;
	user root;
	# One worker: see http_settled.
	worker_processes 1;
	pid $T/nginx.pid;
	error_log $T/nginx.log;
	events { worker_connections 4096; }
	http {
		default_type application/octet-stream;
		log_format test '\$status \$request_method \$body_bytes_sent \$uri \$http_range '
			'\$msec \$request_time';
		access_log $T/access.log test;
		server {
			listen 127.0.0.1:8080;
			root $dir;
			location = /settled { access_log off; return 204; }
			location /404/ { return 404; }
			location /403/ { return 403; }
			location /500/ { return 500; }
			location /norange/ { alias $dir/; max_ranges 0; }
			location /slow/ { alias $dir/; limit_rate 128k; }
			${2-}
		}
	}
	END
	nginx -c "$T/nginx.conf" -e "$T/nginx.log" &
	NGINX_PID=$!
	until http_settled; do
		kill -0 "$NGINX_PID" 2>/dev/null || fail "nginx ended: $(cat "$T/nginx.log")"
		[ $SECONDS -lt $end ] || fail "nginx does not answer"
		sleep 0.1
	done
}

stop_nginx()
{
	kill -TERM "$NGINX_PID"
	wait "$NGINX_PID" || true
	NGINX_PID=
}

# The one worker logs a finished request before it turns to this one.
http_settled() { curl -sf -o /dev/null "$HTTP/settled"; }

# requests_wait NUMBER - so many blocks of all disks are being waited for
requests_wait()
{
	[ "$(dmsetup status --noflush --target qcow2chain |
		awk '{ n += $10 } END { print n + 0 }')" = "$1" ]
}

# http_requests [PATTERN] - number of requests since the start or http_reset; of
# those with a log line "STATUS METHOD BYTES PATH RANGE END SECONDS" that matches
http_requests()
{
	http_settled
	grep -cE -e "${1-}" "$T/access.log" || true
}

# http_bytes [PATTERN] - bytes of all bodies of these requests
http_bytes()
{
	http_settled
	{ grep -E -e "${1-}" "$T/access.log" || true; } | awk '{ n += $3 } END { printf "%.0f\n", n }'
}

http_reset()
{
	http_settled
	: > "$T/access.log"
}

# make_chain DIRECTORY DEPTH SIZE_MB SEED [OPTIONS] - make DEPTH qcow2 images,
# link0.qcow2 (the base) and up, each over the one before, with overlapping
# writes, zeros and discards of 512 bytes to 256 KiB.  The same arguments give
# the same content.  OPTIONS are for qemu-img create -o.  Prints the name of the
# top image.
make_chain()
{
	local dir=$1 depth=$2 size=$(($3 << 20)) link op offset length name backing=
	# Emulation is slow: fewer operations for each link of a deep chain.
	local ops=$((depth > 8 ? 12 : 32))
	local -a create commands=()

	RANDOM=$4
	mkdir -p "$dir"
	for ((link = 0; link < depth; link++)); do
		name=link$link.qcow2
		create=(-q -f qcow2 ${5:+-o "$5"})
		[ -z "$backing" ] || create+=(-u -b "$backing" -F qcow2)
		qemu-img create "${create[@]}" "$dir/$name" "$size" >&2
		commands+=(-c "open -t unsafe -d unmap -o driver=qcow2 $dir/$name")
		for ((op = 0; op < ops; op++)); do
			# Mostly small, at most 256 KiB, in the base four times that.
			length=$(((RANDOM % 512 + 1) >> (RANDOM % 9)))
			[ $link -gt 0 ] || length=$((length * 4))
			length=$(((length + 1) * 512))
			offset=$(((RANDOM << 15 | RANDOM) % (size / 512) * 512))
			[ $((offset + length)) -le "$size" ] || length=$((size - offset))
			case $((RANDOM % 10)) in
			0)	commands+=(-c "write -q -z $offset $length") ;;
			1)	commands+=(-c "discard -q $offset $length") ;;
			2)	commands+=(-c "write -q -z -u $offset $length") ;;
			*)	commands+=(-c "write -q -P $((RANDOM % 255 + 1)) $offset $length") ;;
			esac
		done
		commands+=(-c close)
		backing=$name
	done
	# One process for all: starting QEMU is what takes time under emulation.
	qemu-io "${commands[@]}" >&2
	echo "$dir/$name"
}

# flatten IMAGE FILE - what QEMU reads from a chain, as a raw file
flatten() { qemu-img convert -q -f qcow2 -O raw "$1" "$2"; }

# lower NAME DEVICE TARGET [FEATURES [SECTORS]] - what the device-mapper device NAME
# is from now on: all of DEVICE if the target is linear, a failing one if it is
# flakey or error.  With a number of sectors, only these fail.
lower()
{
	local name=$1 device=$2 sectors bad target table

	sectors=$(blockdev --getsz "$device")
	bad=${5:-$sectors}
	case $3 in
	linear)	target="linear $device 0" ;;
	flakey)	target="flakey $device 0 0 86400 ${4-}" ;;
	error)	target=error ;;
	esac
	table="0 $bad $target"
	[ "$bad" = "$sectors" ] || table+=$'\n'"$bad $((sectors - bad)) linear $device $bad"
	if dmsetup info "$name" > /dev/null 2>&1; then
		dmsetup load "$name" <<< "$table" && dmsetup resume --noudevsync "$name"
	else
		dmsetup create "$name" --noudevsync <<< "$table" && dmsetup mknodes "$name"
	fi
}

# lower_reads_fail NAME DEVICE - all reads, and before Linux 6.5, where dm-flakey has
# no error_reads, all writes, too
lower_reads_fail()
{
	lower "$1" "$2" flakey "1 error_reads" 2> /dev/null || lower "$1" "$2" flakey
}
