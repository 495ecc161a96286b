#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# "make install" puts everything where it belongs, and dkms builds the module
# from the tree alone.  Both below a temporary directory.
set -euo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/../.."

T=$(mktemp -d)
trap 'rm -rf "$T"' EXIT
fail() { echo "check-install: $*" >&2; exit 1; }
version=$(sed -n 's/^PACKAGE_VERSION="\(.*\)"/\1/p' dkms.conf)
kver=$(basename "$(dirname "$(ls -d /lib/modules/*/build | sort -V | tail -n 1)")")

make -s install DESTDIR="$T/root" KVER="$kver"
for file in usr/local/sbin/chaind usr/local/sbin/chainctl etc/qcow2chain/chaind.conf \
	lib/systemd/system/chaind.service usr/local/share/man/man8/chaind.8 \
	usr/local/share/man/man8/chainctl.8 "lib/modules/$kver/updates/dm-qcow2chain.ko"; do
	[ -s "$T/root/$file" ] || fail "make install did not make $file"
done
! grep -q @SBINDIR@ "$T/root/lib/systemd/system/chaind.service" || fail "the unit has a placeholder left"
[ "$("$T/root/usr/local/sbin/chaind" --version)" = "chaind $version" ] ||
	fail "chaind is not version $version"
[ "$(modinfo -F vermagic "$T/root/lib/modules/$kver/updates/dm-qcow2chain.ko" | cut -d' ' -f1)" \
	= "$kver" ] || fail "the module is not for $kver"
# A configuration that was changed is kept.
echo '# mine' >> "$T/root/etc/qcow2chain/chaind.conf"
make -s install DESTDIR="$T/root" KVER="$kver"
grep -q '^# mine' "$T/root/etc/qcow2chain/chaind.conf" || fail "the configuration was overwritten"
make -s uninstall DESTDIR="$T/root" KVER="$kver"
left=$(find "$T/root" -type f ! -name chaind.conf)
[ -z "$left" ] || fail "make uninstall left $left"

mkdir -p "$T/src/qcow2chain-$version" "$T/dkms"
cp -r Makefile Kbuild dkms.conf kernel include "$T/src/qcow2chain-$version"
dkms=(dkms --sourcetree "$T/src" --dkmstree "$T/dkms" --installtree "$T/modules")
"${dkms[@]}" add "qcow2chain/$version" > "$T/log" 2>&1 || fail "$(cat "$T/log")"
"${dkms[@]}" build "qcow2chain/$version" -k "$kver" > "$T/log" 2>&1 ||
	fail "$(cat "$T/log" "$T"/dkms/qcow2chain/*/build/make.log)"
find "$T/dkms" -path '*/module/dm-qcow2chain.ko*' | grep -q . || fail "dkms built no module"
