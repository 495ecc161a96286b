#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# A disk in a bucket of Ceph's gateway, with keys that a program gives, as short-lived as
# a cloud's: it starts from its chain and from its manifest, is read as QEMU reads the
# images, waits while there are no keys and goes on when there are, and asks for new ones
# when the store rejects the old.  Nobody gets to see the secret.
# Time limit: 900
. "$(dirname "$0")/lib.sh"

ip link set lo up
servers=$PWD/tests/servers
trap '"$servers/ceph" stop "$T/ceph"; chaind_fate' EXIT
"$servers/ceph" start "$T/ceph" > "$T/assignments" || fail "Ceph does not start"
# shellcheck disable=SC1091
. "$T/assignments"
qc2obj=build/user/tests/tools/qc2obj

# keys SECONDS [SECRET] - what the program says from now on
keys()
{
	cat > "$T/answer" <<-END
	{ "Version": 1, "AccessKeyId": "$CEPH_KEY", "SecretAccessKey": "${2:-$CEPH_SECRET}",
	  "Expiration": "$(date -u -d "+$1 seconds" +%FT%TZ)" }
	END
	mv "$T/answer" "$T/keys"
}
cat > "$T/program" <<END
#!/bin/sh
echo asked >> $T/asked
cat $T/keys
END
chmod 755 "$T/program"
cat > "$T/stores.conf" <<END
[s3://qc2-images/]
endpoint = $CEPH_HTTP
credentials = process
process = $T/program
END
chmod 600 "$T/stores.conf"
keys 3600

make_chain "$T/images" 3 24 71 > /dev/null
flatten "$T/images/link2.qcow2" "$T/expected"
curl -sf -o "$T/answer" -X PUT --aws-sigv4 aws:amz:us-east-1:s3 --user "$CEPH_KEY:$CEPH_SECRET" \
	-H "x-amz-content-sha256: UNSIGNED-PAYLOAD" "$CEPH_HTTP/qc2-images" || fail "no bucket"
for link in link0 link1 link2; do
	"$qc2obj" -s "$T/stores.conf" put "s3://qc2-images/vm/$link.qcow2" "$T/images/$link.qcow2" \
		> "$T/answer" || fail "putting $link"
done

start_chaind "[store]" "sites_file=$T/stores.conf" "allow_local_addresses=yes"
for manifest in no yes; do
	[ $manifest = no ] || chainctl publish s3://qc2-images/vm/link2.qcow2 > "$T/answer"
	chainctl start s3://qc2-images/vm/link2.qcow2 vmdisk
	[ "$(chainctl status vmdisk --json | jq ".disks[0].from_manifest")" = \
		"$([ $manifest = no ] && echo false || echo true)" ] || fail "manifest: $manifest"
	cmp "$T/expected" /dev/mapper/vmdisk || fail "the disk differs, manifest: $manifest"
	chainctl stop vmdisk --discard
	stop_chaind
	rm -r "$T/cache" "$T/index"
	start_chaind
done

# The program fails: no keys.
stop_chaind
rm -r "$T/cache"
start_chaind
chainctl start s3://qc2-images/vm/link2.qcow2 vmdisk
stop_chaind
mv "$T/keys" "$T/keys.away"
start_chaind
dd if=/dev/mapper/vmdisk of="$T/read" bs=64k iflag=direct status=none &
reader=$!
wait_until 120 eval "chainctl status vmdisk | grep -qi 'program\|credentials'"
kill -0 $reader || fail "the reader did not wait for keys"
mv "$T/keys.away" "$T/keys"
wait $reader || fail "the reader got an error"
cmp "$T/expected" "$T/read" || fail "the disk differs after there were no keys"
chainctl stop vmdisk --discard
chainctl status > "$T/status"
chainctl status --json >> "$T/status"

# Nothing of it anywhere.
! grep -qF "$CEPH_SECRET" "$T/status" "$T/chaind.log" || fail "the secret was printed"
! grep -qF "$CEPH_SECRET" "/proc/$CHAIND_PID/cmdline" || fail "the secret is in the arguments"
stop_chaind
"$servers/ceph" stop "$T/ceph"
trap chaind_fate EXIT
