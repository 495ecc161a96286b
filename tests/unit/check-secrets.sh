#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# check-secrets.sh [BIN]
#
# Plants secrets wherever credentials may be, lets chainctl and chaind of the folder BIN
# (build/asan) fail in many ways, and looks for the secrets in all that they print and in
# their arguments.  The server refuses everything, and repeats in its answer all that it was
# sent.  Neither program may be dumpable.
set -euo pipefail

cd "$(dirname "$0")/../.."
bin=$(realpath "${1:-build/asan}")
work=$(mktemp -d "${TMPDIR:-/tmp}/secrets.XXXXXX")
server='' chaind=''
# shellcheck disable=SC2154
trap 'for pid in $chaind $server; do kill "$pid" 2> /dev/null || true; done; rm -rf "$work"' EXIT
trap 'echo "line $LINENO: failed: $BASH_COMMAND" >&2' ERR
set -o errtrace
chmod 711 "$work"
cp "$bin/chaind" "$bin/chainctl" "$work"
cd "$work"
mkdir out

SECRET=Pl4ntedS3cret
SECRET64=UGw0bnRlZFMzY3JldA==	# the same for a base64 decoder
# A piece of it will do, and of what it is as base64, too, alone and behind "user:".
pieces=(-e Pl4nted -e UGw0bnRlZ -e QbDRudGVk)

fail() {
	trap - ERR
	echo "$*" >&2
	exit 1
}

# No variable of the caller's leads anywhere, and no profile of his is read.
for variable in $(compgen -v | grep -E '^(AWS|AZURE)_|_(proxy|PROXY)$' || true); do
	unset "$variable"
done
export HOME=$work AWS_EC2_METADATA_SERVICE_ENDPOINT=http://127.0.0.1:1

# --- the server: writes its port to "port", and all requests to "seen" -----------------

perl -MIO::Socket::INET -e '
	$SIG{PIPE} = "IGNORE";
	my $listener = IO::Socket::INET->new(Listen => 16, LocalAddr => "127.0.0.1") or die;
	open my $seen, ">", "seen" or die;
	$seen->autoflush(1);
	open my $port, ">", "port.new" or die;
	print $port $listener->sockport;
	close $port;
	rename "port.new", "port" or die;
	while (my $client = $listener->accept) {
		my $request = "";
		while (my $line = <$client>) {
			$request .= $line;
			last if $line eq "\r\n";
		}
		my ($path) = $request =~ m{^\S+ /(\S*)};
		my ($length) = $request =~ /^Content-Length: (\d+)/mi;
		read $client, my $body, $length if $length;
		$request .= $body // "";
		print $seen $request;
		# In one line, what is interesting first, as texts are cut.
		my @lines = split /\r\n/, $request;
		my @secret = map { s/^\S+ \S*\?|^\S+: //r } grep { /Pl4nted|^Proxy-A/ } @lines;
		$request = join " ", @secret, @lines;
		my $status = ($path // "") =~ /busy/ ? "500 $request" : "403 $request";
		$request =~ s/&/&amp;/g;
		my $xml = "<?xml version=\"1.0\"?><Error><Code>$request</Code><Message>$request</Message></Error>";
		print $client "HTTP/1.1 $status\r\nETag: \"x\"\r\nContent-Length: " .
			length($xml) . "\r\nConnection: close\r\n\r\n$xml";
		close $client;
	}' &
server=$!
until [ -e port ]; do
	kill -0 "$server" || fail "the server did not start"
	read -r -t 0.05 <> <(:) || true
done
url=http://127.0.0.1:$(< port)

# --- stores files ------------------------------------------------------------------------

# stores: standard input becomes the stores file
stores() {
	cat > stores.conf
	chmod 600 stores.conf
}

cat > chaind.conf <<END
[daemon]
socket = $work/run/sock
run_dir = $work/run
[cache]
path = $work/cache
size = 64M
[tip]
dir = $work/tips
[chain]
index_dir = $work/index
[store]
sites_file = $work/stores.conf
END

runs=0
# run COMMAND...: must fail by itself, and print something
run() {
	local status=0

	runs=$((runs + 1))
	timeout 60 "$@" > "out/$runs" 2>&1 < /dev/null || status=$?
	[ "$status" != 0 ] || fail "this succeeded: $*"
	[ "$status" -lt 124 ] || fail "status $status: $*: $(cat "out/$runs")"
	[ -s "out/$runs" ] || fail "nothing was printed: $*"
	! grep -q Sanitizer "out/$runs" || fail "it crashed: $*: $(cat "out/$runs")"
}

ctl() { run ./chainctl --config chaind.conf "$@"; }

# Mistakes next to a secret, or in it
mistakes=0
while IFS= read -r text; do
	# shellcheck disable=SC2059
	printf "$text" | stores
	run ./chainctl --config chaind.conf info "$url/image"
	run ./chaind --config chaind.conf
	mistakes=$((mistakes + 1))
done <<END
[s3://bucket/]\n$SECRET\n
[s3://bucket/]\n$SECRET=\n
[s3://bucket/]\nsecret_key = $SECRET\n
[s3://bucket/]\nsecret_key = a $SECRET\n
[s3://bucket/]\nsecret_key = $SECRET\nsecret_key = $SECRET\n
[s3://bucket/]\nsecret key = $SECRET\n
[s3://bucket/]\nacces_key = x\nsecret_key = $SECRET\n
[s3://bucket/]\nsession_token = $SECRET\n
[s3://bucket/]\nproxy = user:$SECRET@host\n
[s3://bucket/]\nendpoint = https://user:$SECRET@host\n
[s3://bucket/]\nendpoint = https://user:x/$SECRET@host\n
[azure://account/]\naccount_key = $SECRET%%\n
[azure://account/]\nsas = $SECRET\n
[azure://]\nsas = sig=$SECRET\n
[https://user:$SECRET@host/]\n
[https://user:x/$SECRET@host/]\n
[http://host/]\nheader_file = $SECRET\n
END
[ "$mistakes" = 17 ] || fail "$mistakes mistakes were tried"
echo "[s3://bucket/]" | stores
chmod 644 stores.conf
ctl info "$url/image"
run ./chaind --config chaind.conf

# Servers that refuse, and sources that fail
printf 'X-Key: %s\n' "$SECRET" > header
chmod 600 header
printf '#!/bin/sh\necho %s\necho %s >&2\nexit 1\n' "$SECRET" "$SECRET" > program
chmod 755 program
mkdir .aws
cat > .aws/credentials <<END
[default]
aws_access_key_id = AKID
aws_secret_access_key = $SECRET
aws_session_token = $SECRET
END
echo "$SECRET" > .aws/broken
stores <<END
[$url/]
header_file = $work/header
[s3://keys/]
endpoint = $url
access_key = AKID
secret_key = $SECRET
session_token = $SECRET
[s3://profile/]
endpoint = $url
credentials = profile
[s3://process/]
endpoint = $url
process = $work/program
[s3://proxy/]
endpoint = http://host.invalid
proxy = http://user:$SECRET@127.0.0.1:${url##*:}
credentials = anonymous
[azure://account/]
endpoint = $url
account_key = $SECRET64
[azure://shared/]
endpoint = $url
sas = ?sv=1&sig=$SECRET
END
for image in "$url/image" s3://keys/image s3://profile/image s3://process/image \
	s3://proxy/image azure://account/c/image azure://shared/c/image; do
	ctl info "$image"
	ctl --json info "$image"
done
for image in "$url/image" s3://keys/image azure://shared/c/image; do
	ctl map "$image"
	ctl publish "$image"
done
AWS_CONFIG_FILE=$work/.aws/broken ctl info s3://profile/image
ctl info s3://keys/busy
ctl status

# The same by the daemon.  Where it may not have a loop device it says so and ends.
./chaind --debug --config chaind.conf > out/chaind 2>&1 &
chaind=$!
until [ -S run/sock ] || ! kill -0 "$chaind" 2> /dev/null; do
	read -r -t 0.05 <> <(:) || true
done

# ask JSON: one command to the daemon, whatever it says
ask() {
	perl -MIO::Socket::UNIX -e '
		my $socket = IO::Socket::UNIX->new("run/sock") or exit;
		print $socket "$ARGV[0]\n";
		print <$socket>;' "$1" >> out/answers
}
for image in "$url/image" s3://keys/image s3://profile/image s3://process/image \
	s3://proxy/image azure://account/c/image azure://shared/c/image; do
	ask "{\"cmd\": \"open\", \"name\": \"disk\", \"url\": \"$image\"}"
done
ask '{"cmd": "status"}'
tr '\0' ' ' < "/proc/$chaind/cmdline" > out/cmdline || true
kill "$chaind" || true
wait "$chaind" || true
chaind=
# Without this nothing could have come out.
grep -q "^X-Key: $SECRET" seen || fail "no secret was ever sent"

# --- while they run ------------------------------------------------------------------------

# Of whom nobody else may see the memory is root's in /proc, whoever runs it.
as=()
if [ "$(id -u)" = 0 ]; then
	as=(setpriv --reuid=65534 --regid=65534 --clear-groups)
fi

watches=0
# watch WANTED-OWNER COMMAND...: starts it; it waits for its configuration
watch() {
	local owner=$1 pid

	shift
	rm -f fifo
	mkfifo -m 666 fifo
	watches=$((watches + 1))
	"${as[@]}" "$@" > "out/watch-$watches" 2>&1 &
	pid=$!
	# The other end is opened when the program has got that far.
	exec 3> fifo
	echo "$owner $(stat -c %u "/proc/$pid/mem")" > owner
	tr '\0' ' ' < "/proc/$pid/cmdline" > "out/cmdline-$watches"
	exec 3>&-
	wait "$pid" || true
	read -r wanted found < owner
	[ "$wanted" = "$found" ] || fail "$1: its memory belongs to user $found, not $wanted"
}

watch "$(if [ "$(id -u)" = 0 ]; then echo 65534; else id -u; fi)" cat fifo
watch 0 ./chainctl --config fifo info "$url/image"
watch 0 ./chaind --config fifo

# --- the result ------------------------------------------------------------------------------

! grep -r -l "${pieces[@]}" out || {
	grep -r -h "${pieces[@]}" out >&2
	fail "a secret was printed"
}
