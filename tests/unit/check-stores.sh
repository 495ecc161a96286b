#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# check-stores.sh [BUILD [USER]]
#
# The library and real servers: Ceph's gateway, Azurite and nginx on loopback.  All that
# is done with objects, in every way to reach them and with wrong keys and certificates;
# a chain in each store, compared with what qemu-img reads from local copies; and what
# stores and networks do to signed requests.
set -euo pipefail

cd "$(dirname "$0")/../.."
build=$(realpath "${1:-build/asan}")
qc2fault=$(realpath "${2:-build/user}/tests/tools/qc2fault")
servers=$PWD/tests/servers
work=$(mktemp -d "${TMPDIR:-/tmp}/stores.XXXXXX")
proxies=()

finish() {
	[ ${#proxies[@]} = 0 ] || kill "${proxies[@]}" 2> /dev/null || true
	for server in nginx azurite ceph; do
		"$servers/$server" stop "$work/$server"
	done
	rm -rf "$work"
}
trap finish EXIT
trap 'echo "line $LINENO ($what): failed: $BASH_COMMAND" >&2' ERR
set -o errtrace
what=start
cd "$work"

fail() {
	trap - ERR
	echo "line ${BASH_LINENO[0]}, $what: $*" >&2
	[ ! -s err ] || cat err >&2
	exit 1
}

for server in nginx azurite ceph; do
	"$servers/$server" start "$work/$server" > assignments
	# shellcheck disable=SC1091
	. ./assignments
done
printf '[store]\nsites_file = %s\nallow_local_addresses = yes\n' "$work/stores.conf" > chaind.conf

# site PREFIX LINE... - the only section from now on
site() {
	install -m 600 /dev/null stores.conf
	printf '%s\n' "[$1]" "${@:2}" > stores.conf
}

# All that is said goes into a file, so that it can be searched for secrets.
obj() {
	local status=0
	"$build/tests/tools/qc2obj" -s stores.conf "$@" > out 2> err || status=$?
	cat err >> said
	grep -q '^qc2obj:' err || cat out >> said
	return "$status"
}

# status NUMBER ARGUMENT... - of qc2obj
status() {
	local status=0
	obj "${@:2}" || status=$?
	[ "$status" = "$1" ] || fail "qc2obj ${*:2}: status $status, not $1"
}

head -c 13000000 /dev/urandom > large
head -c 100000 large > small
tail -c 70000 large > other

# object URL FILE - the object has that content
object() {
	local size
	size=$(stat -c %s "$2")
	status 0 head "$1"
	[ "$(cut -d' ' -f1 out)" = "$size" ] || fail "$1: size: $(cat out)"
	status 0 get "$1" 0 "$size"
	cmp out "$2" || fail "$1: content"
}

# reading URL - it is "small"
reading() {
	local at len
	object "$1" small
	for range in "0 1" "1 1" "99999 1" "4096 65536" "31234 512"; do
		read -r at len <<< "$range"
		status 0 get "$1" "$at" "$len"
		[ "$(stat -c %s out)" = "$len" ] && cmp -n "$len" -i "$at:0" small out ||
			fail "$1: $range"
	done
	status 1 get "$1" 99999 2
	status 3 head "$1.missing"
}

# writing FOLDER_URL - whatever object stores can do
writing() {
	local odd="$1/a%20b+c&d=e'f~/%C3%A4%25x" version

	status 0 put "$1/small" small
	version=$(cat out)
	[ "$(cut -d' ' -f2 <(obj head "$1/small"; cat out))" = "$version" ] || fail "version"
	reading "$1/small"
	# On a condition.
	status 5 put "$1/small" other --if-none-match
	object "$1/small" small
	status 0 put "$1/new" other --if-none-match
	object "$1/new" other
	status 5 put "$1/new" small --if-match "$version"
	object "$1/new" other
	version=$(obj head "$1/new"; cut -d' ' -f2 out)
	status 0 put "$1/new" small --if-match "$version"
	object "$1/new" small
	# Names that have to be escaped.
	status 0 put "$odd" other
	object "$odd" other
	: > empty
	status 0 put "$1/empty" empty
	status 0 head "$1/empty"
	[ "$(cut -d' ' -f1 out)" = 0 ] || fail "not empty"
	# In parts.
	status 0 multipart "$1/large" large 5242880
	object "$1/large" large
	status 0 multipart "$1/aborted" large 5242880 --abort
	status 3 head "$1/aborted"
	# All of them, and no others.
	status 0 list "$1"
	sort out > listed
	printf '%s\n' "0 $1/empty" "13000000 $1/large" "100000 $1/new" "100000 $1/small" |
		sort > expected.list
	grep -v "^70000 " listed | cmp - expected.list || fail "$1: list: $(cat listed)"
	object "$(sed -n 's/^70000 //p' listed)" other
	status 0 delete "$(sed -n 's/^70000 //p' listed)"
	for name in small new large empty; do
		status 0 delete "$1/$name"
		status 3 head "$1/$name"
	done
	status 0 delete "$1/small"
	status 0 list "$1"
	[ ! -s out ] || fail "left: $(cat out)"
}

# refused URL [STATUS] - nothing can be read or written
refused() {
	status "${2:-4}" head "$1"
	status "${2:-4}" get "$1" 0 10
	status "${2:-4}" put "$1" other
}

mkdir chain
make_chain() {
	local i backing=()
	for i in 0 1 2 3; do
		qemu-img create -q -f qcow2 -u "${backing[@]}" "chain/link$i.qcow2" 12M
		qemu-io -f qcow2 -c "write -q -P $((i + 1)) $((i * 1234432)) 3M" \
			-c "write -q -P $((i + 100)) $((i * 65536 + 512)) 100k" -c "write -q -z 1M 64k" \
			-c "write -q -c -P $((i + 50)) $((7 + i))M 512k" "chain/link$i.qcow2"
		backing=(-b "link$i.qcow2" -F qcow2)
	done
	qemu-img convert -O raw chain/link3.qcow2 expected
}
make_chain
chainctl() { "$build/chainctl" --config chaind.conf "$@"; }
without_urls() { jq 'del(.. | .url?, .version?)' "$1"; }
site s3:// "credentials = anonymous"
chainctl map "file://$PWD/chain/link3.qcow2" --json > local.map

# chain FOLDER_URL - the chain is put there, read, published, and read again
chain() {
	local link
	for link in chain/*.qcow2; do
		status 0 put "$1/${link#*/}" "$link"
	done
	read_chain "$1/link3.qcow2"
	chainctl publish "$1/link3.qcow2" > out 2> err || fail "publish"
	chainctl info "$1/link3.qcow2" --json > info.json 2> err || fail "info"
	[ "$(jq '.from_manifest, .depth' info.json | xargs)" = "true 4" ] || fail "$(cat info.json)"
	read_chain "$1/link3.qcow2"
}

read_chain() {
	"$build/tests/tools/chaincat" --config chaind.conf "$1" read.raw 2> err || fail "chaincat $1"
	cmp read.raw expected || fail "$1: the disk differs"
	chainctl map "$1" --json > map.json 2> err || fail "map $1"
	cmp <(without_urls map.json) <(without_urls local.map) || fail "$1: the map differs"
}

# --- Ceph -----------------------------------------------------------------------

keys=("access_key = $CEPH_KEY" "secret_key = $CEPH_SECRET")
s3() { # METHOD PATH [CURL-OPTION...]
	curl -sS -f -o out --aws-sigv4 aws:amz:us-east-1:s3 -u "$CEPH_KEY:$CEPH_SECRET" -X "$1" \
		-H x-amz-content-sha256:UNSIGNED-PAYLOAD "${@:3}" "$CEPH_HTTP/$2"
}
what="making buckets"
s3 PUT bucket
s3 PUT bucket/public -H "x-amz-acl: public-read" -T small
s3 PUT bucket/private -T small

what="Ceph, path style"
site s3://bucket/ "endpoint = $CEPH_HTTP" "${keys[@]}"
writing s3://bucket/path
s3 GET "bucket?uploads="
! grep -q "<UploadId>" out || fail "uploads are left: $(cat out)"
chain s3://bucket/chain

what="Ceph, virtual-host style"
site s3://bucket/ "endpoint = $CEPH_VHOST" "${keys[@]}" "style = virtual"
writing s3://bucket/virtual
read_chain s3://bucket/chain/link3.qcow2

what="Ceph, https"
site s3://bucket/ "endpoint = $CEPH_HTTPS" "ca_file = $CEPH_CA" "${keys[@]}" "region = eu-test-7"
writing s3://bucket/tls
read_chain s3://bucket/chain/link3.qcow2

what="Ceph, https, virtual-host style"
site s3://bucket/ "endpoint = $CEPH_VHOST_S" "ca_file = $CEPH_CA" "${keys[@]}" "style = virtual"
writing s3://bucket/vtls
read_chain s3://bucket/chain/link3.qcow2

what="Ceph, another CA"
site s3://bucket/ "endpoint = $CEPH_HTTPS" "ca_file = $NGINX_CA" "${keys[@]}"
refused s3://bucket/private
grep -q "certificate" err || fail "not about the certificate"
site s3://bucket/ "endpoint = $CEPH_HTTPS" "${keys[@]}"
refused s3://bucket/private

what="Ceph, wrong keys"
site s3://bucket/ "endpoint = $CEPH_HTTP" "access_key = $CEPH_KEY" "secret_key = wr0ngSecretKey"
refused s3://bucket/private
refused s3://bucket/public
site s3://bucket/ "endpoint = $CEPH_HTTP" "access_key = UNKNOWN" "secret_key = wr0ngSecretKey"
refused s3://bucket/private

what="Ceph, anonymous"
site s3://bucket/ "endpoint = $CEPH_HTTP" "credentials = anonymous"
object s3://bucket/public small
status 4 head s3://bucket/public.missing	# whether it is there is not for everybody
refused s3://bucket/private
site s3://bucket/ "endpoint = $CEPH_HTTP" "${keys[@]}"
object s3://bucket/private small

# --- Ceph behind the proxy ----------------------------------------------------------

proxy() { # SERVER_PORT
	"$qc2fault" serve "$1.socket" 0 "$1" > "$1.ready" &
	proxies+=($!)
	until port=$(sed -n 's/^ready //p' "$1.ready") && [ -n "$port" ]; do sleep 0.02; done
	socket=$1.socket
}
fault() { "$qc2fault" "$socket" "$@" > answer || fail "qc2fault $*: $(cat answer)"; }
counter() { "$qc2fault" "$socket" count | jq ".$1 // 0"; }
# seen KIND NUMBER - so often; and all is well again
seen() {
	[ "$(counter "faults.\"$1\"")" = "$2" ] || fail "$1: seen $(counter .)"
	fault clear
	fault zero
}

what="Ceph behind the proxy"
proxy "${CEPH_HTTP##*:}"
site s3://bucket/ "endpoint = http://127.0.0.1:$port" "${keys[@]}"
object s3://bucket/private small
fault status 503 error SlowDown next 2
object s3://bucket/private small
seen status 2
fault status 503 error SlowDown retry-after 1 next 1
object s3://bucket/private small
seen status 1
# The proxy's clock is ahead; Ceph corrects that, too.
fault skewed 3600 next 1
object s3://bucket/private small
seen skewed 1
fault redirect eu-central-9 next 1
object s3://bucket/private small
seen redirect 1
fault redirect eu-central-9
status 1 head s3://bucket/private
fault clear
fault zero
fault skewed
refused s3://bucket/private
[ "$(counter requests)" -le 12 ] || fail "$(counter requests) requests"
fault clear
fault zero
# The keys are as they are: no use in trying again.
fault status 400 error ExpiredToken
refused s3://bucket/private
[ "$(counter requests)" -le 9 ] || fail "$(counter requests) requests"
fault clear
fault zero
for kind in cut reset "cut 500" "truncate 1" "flip 3000000000"; do
	# shellcheck disable=SC2086 # words
	fault $kind next 2 path /private
	object s3://bucket/private small
	fault clear
done
# This clock is wrong.
for off in -7200 7200; do
	export QC2OBJ_CLOCK=$off
	status 0 put s3://bucket/clock small
	status 0 get s3://bucket/clock 0 100000
	cmp out small
done
unset QC2OBJ_CLOCK
# An answer to what changes something is lost: done once, and well.
for kind in cut reset "status 500" "status 503 error SlowDown"; do
	what="Ceph behind the proxy, $kind"
	# shellcheck disable=SC2086 # words
	fault $kind next 1 path /lost
	status 0 put s3://bucket/lost small --if-none-match
	object s3://bucket/lost small
	status 5 put s3://bucket/lost other --if-none-match
	# shellcheck disable=SC2086
	fault $kind next 1 path /lost
	status 0 delete s3://bucket/lost
	status 3 head s3://bucket/lost
	for path in uploads partNumber=2 uploadId; do
		fault clear
		# shellcheck disable=SC2086
		fault $kind next 1 path $path
		status 0 multipart s3://bucket/lost large 5242880
		object s3://bucket/lost large
	done
	status 0 delete s3://bucket/lost
	fault clear
done
what="Ceph behind the proxy, a chain"
fault cut 3000 percent 5
fault status 503 error SlowDown percent 5
fault reset percent 3
read_chain s3://bucket/chain/link3.qcow2
[ "$(counter "faults | add")" -gt 0 ] || fail "no fault was seen"
fault clear

# --- Azurite ------------------------------------------------------------------------

base=azure://$AZURITE_ACCOUNT
endpoint="endpoint = ${AZURITE_ENDPOINT%/*}"
ca="ca_file = $AZURITE_CA"
what="Azurite, shared key"
site "$base/" "$endpoint" "$ca" "account_key = $AZURITE_KEY"
writing "$base/test/key"
chain "$base/test/chain"
status 0 put "$base/test/kept" small
what="Azurite, SAS"
site "$base/" "$endpoint" "$ca" "sas = $AZURITE_SAS"
writing "$base/test/sas"
read_chain "$base/test/chain/link3.qcow2"
what="Azurite, expired SAS"
site "$base/" "$endpoint" "$ca" "sas = $AZURITE_SAS_EXPIRED"
refused "$base/test/kept"
what="Azurite, wrong key"
site "$base/" "$endpoint" "$ca" "account_key = $(base64 <<< "not the key")"
refused "$base/test/kept"
what="Azurite, anonymous"
site "$base/" "$endpoint" "$ca" "credentials = anonymous"
refused "$base/test/kept"
what="Azurite, another CA"
site "$base/" "$endpoint" "ca_file = $CEPH_CA" "account_key = $AZURITE_KEY"
refused "$base/test/kept"
site "$base/" "$endpoint" "$ca" "account_key = $AZURITE_KEY"
object "$base/test/kept" small

# --- nginx --------------------------------------------------------------------------

what="nginx, http"
site "$NGINX_HTTP/" "http2 = yes"
status 0 put "$NGINX_HTTP/put/small" small
reading "$NGINX_HTTP/put/small"
chain "$NGINX_HTTP/put/chain"
status 0 delete "$NGINX_HTTP/put/small"
status 3 head "$NGINX_HTTP/put/small"
status 1 list "$NGINX_HTTP/put"
what="nginx, https"
# protocol TEXT - all requests of a read were made so
protocol() {
	curl -s -o /dev/null "$NGINX_HTTP/settled"
	: > "$NGINX_LOG"
	read_chain "$NGINX_HTTPS/put/tls-chain/link3.qcow2"
	curl -s -o /dev/null "$NGINX_HTTP/settled"
	! grep -v "$1\$" "$NGINX_LOG" || fail "not $1"
	grep -q "$1\$" "$NGINX_LOG" || fail "no request"
}
site "$NGINX_HTTPS/" "ca_file = $NGINX_CA"
status 0 put "$NGINX_HTTPS/put/tls" small
reading "$NGINX_HTTPS/put/tls"
# Not where the other one was: an ETag of nginx's is size and second.
chain "$NGINX_HTTPS/put/tls-chain"
protocol HTTP/2.0
site "$NGINX_HTTPS/" "ca_file = $NGINX_CA" "http2 = no"
protocol HTTP/1.1
what="nginx, another CA"
site "$NGINX_HTTPS/" "ca_file = $CEPH_CA"
refused "$NGINX_HTTPS/put/tls"
grep -q "certificate" err || fail "not about the certificate"

# --- secrets ------------------------------------------------------------------------

what=secrets
for secret in "$CEPH_SECRET" "$AZURITE_KEY" "${AZURITE_SAS##*sig=}" wr0ngSecretKey; do
	! grep -qF -- "$secret" said || fail "a secret is in what was said"
done
[ "$(wc -l < said)" -gt 50 ] || fail "nothing was said"
! grep -E "Sanitizer|runtime error" said || fail "sanitizer"
