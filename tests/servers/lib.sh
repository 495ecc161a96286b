# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# What the scripts tests/servers/NAME have in common.  Each of them starts a real
# object store on loopback, without systemd:
#
#	tests/servers/NAME start DIRECTORY [OPTION…]	as root; the directory is empty or
#					does not exist; returns when the store answers and
#					prints what a test needs as shell assignments
#	tests/servers/NAME stop DIRECTORY	ends it and deletes the directory
#
#	eval "$(tests/servers/ceph start "$work/ceph")"
#
# Ports are chosen among those that are free.  A script sets $name, defines start,
# which runs in the directory $dir, and ends with "server "$@"".
set -euo pipefail

usage()
{
	echo "usage: tests/servers/$name start|stop DIRECTORY" >&2
	exit 2
}

# free_ports NUMBER - ports that nobody uses, below those of outgoing connections,
# so that they are free still when the server gets to them
free_ports()
{
	perl -MIO::Socket::INET -e '
		while (@open < $ARGV[0]) {
			my $s = IO::Socket::INET->new(Listen => 1, LocalAddr => "127.0.0.1",
				LocalPort => 20000 + int(rand 10000)) or next;
			push @open, $s;
		}
		print join(" ", map { $_->sockport } @open), "\n"' "$1"
}

# spawn LOG COMMAND… - run it in the background, to be ended by stop.  It does not
# keep the pipe open in which the assignments are printed.
spawn()
{
	setsid "${@:2}" > "$1" 2>&1 < /dev/null &
	pid=$!
	echo "$pid" >> pids
}

alive() { [ -e "/proc/$1" ] && ! grep -q '^State:[[:space:]]*Z' "/proc/$1/status" 2> /dev/null; }

# until_ready COMMAND… - repeat it until it succeeds; fails when the server $pid is
# gone or after a minute
until_ready()
{
	local end=$((SECONDS + 60 * ${QC2_TIME_SCALE:-1}))
	until "$@" > /dev/null 2>&1; do
		alive "$pid" && [ $SECONDS -lt $end ] || return 1
		sleep 0.05
	done
}

# certificates NAME… - ca.pem, and server.pem with server.key for these names
certificates()
{
	local names=IP:127.0.0.1 host

	for host; do names+=,DNS:$host; done
	{
		openssl req -x509 -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes -days 30 \
			-subj "/CN=qcow2chain test CA" -keyout ca.key -out ca.pem
		openssl req -newkey ec -pkeyopt ec_paramgen_curve:P-256 -nodes \
			-subj "/CN=qcow2chain test server" -keyout server.key -out server.csr
		openssl x509 -req -in server.csr -CA ca.pem -CAkey ca.key -CAcreateserial -days 30 \
			-extfile <(echo "subjectAltName=$names") -out server.pem
	} > openssl.log 2>&1 || { cat openssl.log >&2; return 1; }
}

# A process of another one that got the same number is left alone.
stop_all()
{
	local pids=() p i

	[ ! -s "$dir/pids" ] || mapfile -t pids < "$dir/pids"
	for ((i = ${#pids[@]} - 1; i >= 0; i--)); do
		p=${pids[i]}
		alive "$p" && [ "$(readlink "/proc/$p/cwd")" = "$dir" ] || continue
		kill "$p" 2> /dev/null || continue
		for _ in {1..100}; do
			alive "$p" || continue 2
			sleep 0.05
		done
		kill -KILL "$p" 2> /dev/null || true
		while alive "$p"; do sleep 0.05; done
	done
	: > "$dir/pids"
}

server()
{
	local tries

	[ $# -ge 2 ] || usage
	[ "$1" = start ] || [ -d "$2" ] || exit 0
	mkdir -p "$2"
	dir=$(realpath "$2")
	case $1 in
	start)
		[ "$(id -u)" = 0 ] || { echo "tests/servers/$name: run this as root" >&2; exit 1; }
		[ -z "$(ls -A "$dir")" ] || { echo "$dir is not empty" >&2; exit 1; }
		cd "$dir"
		chmod 755 .
		trap stop_all EXIT
		# Another process may have taken a port in the meantime.
		for tries in 1 2 3; do
			: > pids
			! start "${@:3}" || { trap - EXIT; exit 0; }
			stop_all
		done
		tail -v -n 20 ./*.log >&2
		echo "tests/servers/$name: does not start" >&2
		exit 1
		;;
	stop)
		[ -e "$dir/pids" ] || { echo "$dir: no server was started here" >&2; exit 1; }
		stop_all
		rm -rf "$dir"
		;;
	*)	usage ;;
	esac
}
