#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# What cannot be started is refused with the reason, and leaves nothing behind.
. "$(dirname "$0")/lib.sh"

make_chain "$T/store" 2 8 3 > /dev/null
cd "$T/store"
qemu-img create -q -f qcow2 -u -b gone.qcow2 -F qcow2 orphan.qcow2 8M
# The header extension that names the backing format becomes an unknown one.
cp link1.qcow2 noformat.qcow2
extension=$(LC_ALL=C grep -obUaP '\xe2\x79\x2a\xca' noformat.qcow2 | head -n 1 | cut -d: -f1)
printf 'none' | dd of=noformat.qcow2 bs=1 seek="$extension" conv=notrunc status=none
qemu-img create -q -f qcow2 -u -b /etc/passwd -F raw escape.qcow2 8M
qemu-img create -q -f qcow2 -u -b loop2.qcow2 -F qcow2 loop1.qcow2 8M
qemu-img create -q -f qcow2 -u -b loop1.qcow2 -F qcow2 loop2.qcow2 8M
head -c 100000 link0.qcow2 > truncated.qcow2
head -c 50 link0.qcow2 > short.qcow2
head -c 1000000 /dev/urandom > noise.qcow2
mkdir directory.qcow2
cd - > /dev/null
start_nginx "$T/store"
start_chaind

# refused PATTERN ARGUMENT… - "chainctl start" fails for that reason
refused()
{
	must_fail "$@"
	[ -z "$(dmsetup ls --target qcow2chain | grep -v 'No devices')" ] || fail "a device was left: $*"
	[ -z "$(ls "$T/tips" 2>/dev/null)" ] || fail "a tip was left: $*"
	[ -z "$(losetup -n -l -O BACK-FILE | grep -ve "$T/cache" -e /bypass)" ] || fail "a loop device was left: $*"
}

refused "link0.qcow2.*404|404.*link0.qcow2|not found" chainctl start "$HTTP/404/link0.qcow2" vmdisk
refused "403|denied|forbidden" chainctl start "$HTTP/403/link0.qcow2" vmdisk
refused "500" chainctl start "$HTTP/500/link0.qcow2" vmdisk
refused "range" chainctl start "$HTTP/norange/link0.qcow2" vmdisk
refused "connect|refused" chainctl start http://127.0.0.1:9/link0.qcow2 vmdisk
refused "nothing.qcow2" chainctl start "file://$T/store/nothing.qcow2" vmdisk
refused "not a URL" chainctl start ftp://127.0.0.1/link0.qcow2 vmdisk
refused "url" chainctl start "link0.qcow2" vmdisk
refused "directory|regular" chainctl start "file://$T/store/directory.qcow2" vmdisk
refused "gone.qcow2" chainctl start "$HTTP/orphan.qcow2" vmdisk
refused "format" chainctl start "$HTTP/noformat.qcow2" vmdisk
refused "allow" chainctl start "file://$T/store/escape.qcow2" vmdisk
refused "127.0.0.1.*allow_local_addresses" chainctl start "http://127.1:8080/link1.qcow2" vmdisk
refused "loop|twice|cycle" chainctl start "$HTTP/loop1.qcow2" vmdisk
refused "truncated|end of" chainctl start "$HTTP/truncated.qcow2" vmdisk
refused "short.qcow2" chainctl start "$HTTP/short.qcow2" vmdisk
refused "magic|not a qcow2" chainctl start "$HTTP/noise.qcow2" vmdisk
refused "name" chainctl start "$HTTP/link1.qcow2" "a/b"
refused "usage|argument" chainctl start "$HTTP/link1.qcow2"

# Tips.
mkdir "$T/tipdir"
refused "directory" chainctl start "$HTTP/link1.qcow2" vmdisk --tip "$T/tipdir"
head -c 100000 /dev/urandom > "$T/notip"
refused "not a tip|superblock|magic" chainctl start "$HTTP/link1.qcow2" vmdisk --tip "$T/notip"
chainctl start "$HTTP/link0.qcow2" other --tip "$T/other.tip"
must_fail "in use|busy" chainctl start "$HTTP/link0.qcow2" vmdisk --tip "$T/other.tip"
must_fail "started already" chainctl start "$HTTP/link1.qcow2" other
chainctl stop other
refused "another chain|belongs" chainctl start "$HTTP/link1.qcow2" vmdisk --tip "$T/other.tip"
rm "$T/other.tip"

# A disk in use is not stopped.
chainctl start "$HTTP/link1.qcow2" vmdisk
exec 9< /dev/mapper/vmdisk
must_fail "busy|in use" chainctl stop vmdisk
exec 9<&-
chainctl stop vmdisk --discard
chainctl stop vmdisk

stop_chaind
must_fail "chaind" chainctl start "$HTTP/link1.qcow2" vmdisk
stop_nginx

# A cache that is not there, or something else, ISO 9660: its first 32 KiB are zeros.
sed -i "s,^path=.*,path=/dev/nothere\nindex=$T/cache.index," "$CONF"
must_fail "cache /dev/nothere: No such file" "${CHAIND[@]}" --config "$CONF"
[ ! -e /dev/nothere ] || fail "a file in the place of a device"
truncate -s 64M "$T/other"
printf '\1CD001\1' | dd of="$T/other" bs=1k seek=32 conv=notrunc status=none
other=$(losetup --find --show "$T/other")
sed -i "s,^path=.*,path=$other," "$CONF"
must_fail "holds something else .iso9660." "${CHAIND[@]}" --config "$CONF"
[ "$(head -c 32768 "$T/other" | tr -d '\0' | wc -c)" = 0 ] || fail "it was written to"
losetup -d "$other"
