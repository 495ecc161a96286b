#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# check-manifest.sh [CHAINCTL] [CHAINCAT]
#
# chainctl publish: for chains of several kinds, in a folder and on a server, the
# manifest says what walking the chain says, and its digests are those of the data.
# Opening with it takes two requests at any depth.  A stale or damaged one is noticed.
set -euo pipefail

cd "$(dirname "$0")/../.."
chainctl=$(realpath "${1:-build/asan/chainctl}")
chaincat=$(realpath "${2:-build/asan/tests/tools/chaincat}")
work=$(mktemp -d "${TMPDIR:-/tmp}/manifest.XXXXXX")
nginx_pid=
finish() {
	[ -z "$nginx_pid" ] || kill "$nginx_pid" || true
	rm -rf "$work"
}
trap finish EXIT
trap 'echo "line $LINENO: failed: $BASH_COMMAND" >&2' ERR
set -o errtrace
cd "$work"
chmod 755 .

fail() {
	trap - ERR
	echo "line ${BASH_LINENO[0]}: $*" >&2
	exit 1
}

chainctl() { "$chainctl" --config /dev/null "$@"; }

# A server that takes uploads in some folders only.
mkdir -p srv/put srv/get run
[ "$(id -u)" != 0 ] || chmod 777 srv/put
cat > nginx.conf <<END
daemon off;
worker_processes 1;
pid $PWD/run/pid;
error_log $PWD/run/error.log;
$([ "$(id -u)" != 0 ] || echo "user root;")
events { }
http {
	log_format test '\$status \$request_method \$body_bytes_sent \$uri \$http_range';
	access_log $PWD/access.log test;
	client_max_body_size 0;
	client_body_temp_path $PWD/run/body;
	proxy_temp_path $PWD/run/proxy;
	fastcgi_temp_path $PWD/run/fastcgi;
	uwsgi_temp_path $PWD/run/uwsgi;
	scgi_temp_path $PWD/run/scgi;
	server {
		listen unix:$PWD/run/socket;
		listen 127.0.0.1:PORT;
		root $PWD/srv;
		location = /settled { access_log off; return 204; }
		location /put/ { dav_methods PUT; }
		location /busy/ { return 503; }
	}
}
END

# Ports are taken by others now and then.
start_nginx() {
	local tries conf
	for ((tries = 0; tries < 20; tries++)); do
		port=$((20000 + RANDOM % 10000))
		conf=$PWD/run/nginx.conf
		sed "s/PORT/$port/" nginx.conf > "$conf"
		rm -f run/socket
		nginx -c "$conf" -e "$PWD/run/error.log" &
		nginx_pid=$!
		while kill -0 "$nginx_pid" 2> /dev/null; do
			! settled || return 0
			sleep 0.05
		done
	done
	cat run/error.log >&2
	fail "nginx does not start"
}

settled() { curl -sf -o /dev/null --unix-socket run/socket http://localhost/settled; }

# requests [PATTERN] - those since the last "reset"
requests() {
	settled
	grep -cE -e "${1-}" access.log || true
}
reset() {
	settled
	: > access.log
}

start_nginx
http=http://127.0.0.1:$port

create() { # FILE SIZE OPTIONS [BASE FORMAT]
	local args=(-q -f qcow2)
	[ -z "$3" ] || args+=(-o "$3")
	[ $# -lt 4 ] || args+=(-u -b "$4" -F "$5")
	qemu-img create "${args[@]}" "$1" "$2"
}

io() { # FILE COMMAND...
	local args=() c
	for c in "${@:2}"; do args+=(-c "$c"); done
	qemu-io -f qcow2 "${args[@]}" "$1" > io.log 2>&1 || { cat io.log >&2; return 1; }
}

# deep FOLDER DEPTH - small overlays, l0 is the base and tDEPTH the top
deep() {
	local i args=()
	mkdir -p "$1"
	for ((i = 0; i < $2; i++)); do
		if [ "$i" = 0 ]; then
			create "$1/l0" 64M ""
		else
			create "$1/l$i" 64M "" "l$((i - 1))" qcow2
		fi
		args+=(-c "open -t unsafe -o driver=qcow2 $1/l$i"
			-c "write -q -P $((i % 255 + 1)) $((i * 7919 % 1000 * 65536)) 100k"
			-c "write -q -P $((i % 255 + 1)) $((i * 104729 % 16000 * 4096)) 4k" -c close)
	done
	qemu-io "${args[@]}" > io.log 2>&1 || { cat io.log >&2; return 1; }
}

# chain FOLDER - links of all kinds, the top is "top"
kinds() {
	mkdir -p "$1/base"
	head -c 5000003 /dev/urandom > "$1/base/raw"
	create "$1/zlib a:b%20c" 9M cluster_size=16k base/raw raw
	io "$1/zlib a:b%20c" "write -c -P 7 0 160k" "write -c -P 8 1M 16k" "write -c -P 9 6M 512k"
	mv "$1/zlib a:b%20c" "$1/zlib"
	create "$1/zstd" 9M cluster_size=2M,compression_type=zstd zlib qcow2
	io "$1/zstd" "write -c -P 7 2M 2M" "write -c -P 10 8M 1M"
	create "$1/ext" 9M extended_l2=on,cluster_size=64k zstd qcow2
	io "$1/ext" "write -P 11 3M 6k" "write -z 3500k 64k"
	create "$1/short" 8500736 cluster_size=512 ext qcow2
	io "$1/short" "write -P 12 512 5k" "write -P 13 8500224 512"
	create "$1/top" 10M "" short qcow2
	io "$1/top" "write -P 14 9500k 100k" "write -z 4M 64k"
}

# published URL - the manifest, once written, gives the same map as the walk
published() {
	chainctl map "$1" --json > walk.json
	chainctl publish "$1" --json > publish.json
	chainctl info "$1" --json > info.json
	[ "$(jq '.from_manifest, .manifest_trouble' info.json | xargs)" = "true null" ] ||
		fail "$1: manifest not used: $(cat info.json)"
	chainctl map "$1" --json | cmp walk.json - || fail "$1: another map"
	[ "$(jq .depth publish.json)" = "$(jq .depth info.json)" ] || fail "$1: depth"
	[ "$(jq .bytes publish.json)" -ge "$(jq .open_bytes publish.json)" ] || fail "$1: sizes"
}

# --- what it says is what the walk says ----------------------------------------

deep srv/put/d1 1
deep srv/put/d50 50
kinds srv/put/kinds
cp srv/put/kinds/base/raw srv/put/raw
for chain in d1/l0 d50/l49 kinds/top "raw#format=raw"; do
	published "file://$PWD/srv/put/$chain"
	rm "srv/put/${chain%#*}.manifest"
	published "$http/put/$chain"
done

# A user sees the same disk.
qemu-img convert -f qcow2 -O raw srv/put/kinds/top expected
chainctl publish "file://$PWD/srv/put/kinds/top" > /dev/null
"$chaincat" "file://$PWD/srv/put/kinds/top" out
cmp out expected || fail "another content"

# --- digests --------------------------------------------------------------------

# digests TOP - its manifest ends with the digests of all blocks with live data, by
# object and block.  Compressed clusters are taken from files alone.DEPTH.
digests() {
	local object block depth file nr=0
	local -a files
	chainctl map "file://$PWD/$1" --json > map.json 2> err
	mapfile -t files < <(chainctl info "file://$PWD/$1" --json |
		jq -r '.links[].url | ltrimstr("file://")')
	jq -r '.extents[] | select(.data) | (2 * .depth + if .compressed then 1 else 0 end) as $o |
		(if .compressed then .start else .offset end) as $at |
		range(($at / 65536 | floor); (($at + .length - 1) / 65536 | floor) + 1) |
		"\($o) \(.)"' map.json | sort -k1n -k2n -u > blocks
	while read -r object block; do
		depth=$((object / 2)) nr=$((nr + 1))
		file=${files[depth]}
		[ $((object % 2)) = 0 ] || file=alone.$depth
		dd if="$file" of=block bs=64k skip="$block" count=1 status=none
		truncate -s 64k block
		sha256sum block | cut -c1-32
	done < blocks > expected.digests
	[ "$nr" -gt "$2" ] || fail "$1: $nr blocks only"
	tail -c $((16 * nr)) "$1.manifest" | od -An -v -tx1 -w16 | tr -d ' ' |
		cmp - expected.digests || fail "$1: other digests"
}

digests srv/put/d50/l49 50
# Of compressed clusters: an image alone, unpacked, without what lies below it.
for depth in 3 4; do
	file=$(jq -r ".links[$depth].url" <(chainctl info "file://$PWD/srv/put/kinds/top" --json))
	cp "${file#file://}" alone
	qemu-img rebase -u -f qcow2 -b "" alone
	qemu-img convert -f qcow2 -O raw alone "alone.$depth"
done
digests srv/put/kinds/top 50
rm -r srv/put/kinds

# --- requests -------------------------------------------------------------------

for chain in d1/l0 d50/l49; do
	reset
	chainctl info "$http/put/$chain" > /dev/null
	[ "$(requests)" = 2 ] || fail "$chain: $(requests) requests: $(cat access.log)"
	[ "$(requests "^206 GET .* bytes=0-262143$")" = 1 ] || fail "$chain: no GET of the first 256 KiB"
done
# Without one there is one request more than the walk needs.
mv srv/put/d50/l49.manifest kept
reset
chainctl info "$http/put/d50/l49" --json > info.json
[ "$(requests "^404 ")" = 1 ] || fail "not asked for the manifest once"
[ "$(jq '.from_manifest, .manifest_trouble' info.json | xargs)" = "false null" ] || fail "not silent"

# --- what cannot be used --------------------------------------------------------

# unused REASON - the chain is walked, and the reason said
unused() {
	chainctl info "$http/put/d50/l49" --json > info.json 2> err
	[ "$(jq .from_manifest info.json)" = false ] || fail "used in spite of: $1"
	jq -r .manifest_trouble info.json | grep -qF -- "$1" || fail "no \"$1\" in: $(cat err)"
	grep -qF "$1" err || fail "no warning: $(cat err)"
	[ "$(jq .depth info.json)" = 50 ] || fail "not walked"
}

head -c 1000 kept > srv/put/d50/l49.manifest
unused "truncated"
: > srv/put/d50/l49.manifest
unused "status 200"
cp srv/put/d50/l48 srv/put/d50/l49.manifest
unused "is no manifest"
cp srv/put/d1/l0.manifest srv/put/d50/l49.manifest
unused "stale"
cp kept srv/put/d50/l49.manifest
chainctl info "$http/put/d50/l49" --json | jq -e .from_manifest > /dev/null || fail "not used"
io srv/put/d50/l49 "write -P 99 1M 64k"
unused "stale"
chainctl publish "$http/put/d50/l49" > /dev/null
chainctl info "$http/put/d50/l49" --json | jq -e .from_manifest > /dev/null || fail "not used"

# --- where it is written to -------------------------------------------------------

# refused STATUS TEXT ARGUMENT...
refused() {
	local status=0
	chainctl publish "${@:3}" > out 2> err || status=$?
	[ "$status" = "$1" ] || fail "publish ${*:3}: status $status, not $1: $(cat err)"
	grep -qF -- "$2" err || fail "publish ${*:3}: no \"$2\" in: $(cat err)"
}

cp -r srv/put/d1 srv/get/
rm srv/get/d1/*.manifest
refused 1 "takes no uploads by PUT (status 405)" "$http/get/d1/l0"
chainctl publish "$http/get/d1/l0" --output srv/get/d1/l0.manifest > /dev/null
chainctl info "$http/get/d1/l0" --json | jq -e .from_manifest > /dev/null || fail "not used"
[ "$(stat -c %a srv/get/d1/l0.manifest)" = "$(printf %o $((0666 & ~$(umask))))" ] || fail "mode"
[ -z "$(find srv -name '*.manifest.*')" ] || fail "a temporary file is left"
refused 3 "No such file" "$http/get/d1/l0" --output nowhere/l0.manifest
# Without digests nothing but the headers and tables is read.
reset
chainctl publish "$http/put/d50/l49" --no-digests --json > publish.json
[ "$(jq .digests publish.json)" = 0 ] || fail "digests"
# A damaged compressed cluster has no digest.
create srv/put/damaged 1M ""
io srv/put/damaged "write -c -P 5 0 64k"
perl -e 'open my $f, "+<", $ARGV[0]; seek $f, 5 * 65536, 0; print $f "\xff" x 100' srv/put/damaged
refused 7 "compressed cluster at offset 327680 is damaged" "$http/put/damaged"
qemu-img snapshot -c s srv/put/d1/l0
refused 2 "not for an internal snapshot" "file://$PWD/srv/put/d1/l0#snapshot=s"
