# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# What those have in common who make a Debian root disk and let QEMU start from it:
# tests/bench/store-boot and tests/bench/cache-images.  Who sources it has a function die,
# a variable suite, and a folder $part for files.

# make_tarball FILE [PACKAGE,...] - a Debian of minbase's and these packages, not yet
# unpacked, for debootstrap --unpack-tarball
make_tarball()
{
	local mirror

	mirror=$(apt-get indextargets --format '$(REPO_URI) $(CODENAME)' \
		'Created-By: Packages' 'Component: main' |
		awk -v suite="$suite" '$2 == suite { print $1; exit }')
	[ -n "$mirror" ] || die "apt has no index of the suite $suite; run apt-get update"
	debootstrap --variant=minbase ${2:+--include="$2"} --make-tarball="$1" "$suite" \
		"$part/work" "$mirror" > "$part/log" 2>&1 || die "$(tail -n 20 "$part/log")"
	rm -rf "$part/work"
}

# make_initramfs KVER KDIR PROGRAM - with the modules for the disk; and a service that runs
# the program, if there is one, when the others run, says "bench: done" on the console, and
# ends the machine
make_initramfs()
{
	local kver=$1 kdir=$2 work=$part/initramfs.work module

	mkdir -p "$work"/{bin,modules,dev,newroot,run/systemd/system/multi-user.target.wants}
	if [ -n "$3" ]; then
		cp "$3" "$work/run/program"
		cat > "$work/run/systemd/system/program.service" <<-'UNIT'
		[Unit]
		After=ssh.service cron.service rsyslog.service systemd-logind.service getty.target
		[Service]
		Type=idle
		ExecStart=/bin/sh -c '/run/program && echo && echo "bench: done"'
		ExecStopPost=systemctl poweroff --force --force
		StandardOutput=tty
		TTYPath=/dev/ttyS0
		UNIT
		ln -s ../program.service "$work/run/systemd/system/multi-user.target.wants/"
	fi
	cp "$(command -v busybox)" "$work/bin/busybox"
	for module in virtio_pci virtio_blk ext4; do
		modprobe -d "$kdir" -S "$kver" --show-depends "$module"
	done | awk '$1 == "insmod" && !seen[$2]++ { print $2 }' | while read -r module; do
		cp "$module" "$work/modules/"
		echo "insmod /modules/${module##*/}"
	done > "$work/load"
	cat > "$work/init" <<-'INIT'
	#!/bin/busybox sh
	set -e
	/bin/busybox --install -s /bin
	mount -t devtmpfs none /dev
	. /load
	mount -t ext4 -o ro /dev/vda /newroot
	mount --move /dev /newroot/dev
	mount -t tmpfs -o mode=755 tmpfs /newroot/run
	cp -a /run/. /newroot/run
	exec switch_root /newroot /sbin/init
	INIT
	chmod 755 "$work/init"
	(cd "$work" && find . | cpio --quiet -o -H newc) > "$part/initramfs"
	rm -r "$work"
}

# record DISK PROGRAM END EVENT... - starts a machine from a disk, which stays as it is, until
# it powers itself off; then its console has a line that begins with END.  PROGRAM may be
# empty, see above.  Leaves QEMU's trace of the events in $part/qemu.trace, lines
# PROCESS@SECONDS:EVENT ...; the caller removes it.  Kernel and program come from outside, so
# they are not in the trace.
record()
{
	local disk=$1 program=$2 end=$3 kernel kver kdir event
	local -a traces=()
	shift 3

	for event; do
		traces+=(--trace "$event")
	done
	kernel=$(tests/vm/kernel 6.1)
	kver=${kernel%% *} kdir=${kernel#* }
	make_initramfs "$kver" "$kdir" "$program"
	timeout --kill-after=10 1800 qemu-system-x86_64 -nodefaults -no-user-config -display none \
		-no-reboot -nic none -accel tcg,thread=multi -cpu max -m 1024 -smp 1 \
		-kernel "$kdir/boot/vmlinuz-$kver" -initrd "$part/initramfs" \
		-append "console=ttyS0 mitigations=off no_timer_check root=/dev/vda panic=-1 quiet" \
		-chardev "file,id=console,path=$part/console" -serial chardev:console \
		-drive "if=virtio,file=$disk,format=qcow2,snapshot=on" -msg timestamp=on \
		"${traces[@]}" -D "$part/qemu.trace" < /dev/null >&2
	grep -q "^$end" "$part/console" || die "the machine did not start: $(tail "$part/console")"
	rm "$part/initramfs"
}
