# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# For those who write images of a root disk in a virtual machine, with qemu-nbd.  Who
# sources it has sourced ../system/lib.sh, too.

ROOT=$T/root

image() { echo "$QC2_VM_OUT/$1.qcow2"; }

# new_image NAME [NAME OF THE BACKING IMAGE] - of 8 GiB
new_image() { qemu-img create -q -f qcow2 ${2:+-u -b "$2.qcow2" -F qcow2} "$(image "$1")" 8G; }

attach()
{
	qemu-nbd --connect=/dev/nbd0 --format=qcow2 --cache=unsafe "$(image "$1")"
	wait_until 60 grep -qvx 0 /sys/block/nbd0/size
}

detach()
{
	qemu-nbd --disconnect /dev/nbd0 > /dev/null
	wait_until 60 grep -qx 0 /sys/block/nbd0/size
	# qemu-nbd has closed the image when it is gone.
	wait_until 60 eval '! pgrep -x qemu-nbd'
}

mount_root() { mount -o noinit_itable /dev/nbd0 "$ROOT"; }

# unpack_package FILE - by the disk's own dpkg, as it looks up users and groups
unpack_package()
{
	local deb=/var/cache/apt/archives/${1##*/}

	cp "$1" "$ROOT$deb"
	# What it depends on need not be there, so it is not configured.
	chroot "$ROOT" dpkg --force-depends --unpack "$deb" > "$T/dpkg.log" 2>&1 ||
		fail "$(cat "$T/dpkg.log")"
	rm "$ROOT$deb"
}

modprobe nbd max_part=0
mkdir "$ROOT"
