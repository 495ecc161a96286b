#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# QEMU boots a guest from the disk; the guest reads it and reports a checksum.
. "$(dirname "$0")/lib.sh"

CHUNKS=64	# of 32 KiB
gcc -m32 -c -DCHUNKS=$CHUNKS -o "$T/guest.o" "$(dirname "$0")/guest/checksum.S"
ld -m elf_i386 -Ttext 0x7c00 --oformat binary -o "$T/guest" "$T/guest.o"

top=$(make_chain "$T/store" 3 16 77)
truncate -s 512 "$T/guest"
# The boot sector comes from the top, what it reads from all three.
qemu-io -f qcow2 -c "write -q -s $T/guest 0 512" "$top"
flatten "$top" "$T/expected"
expected=$(head -c $((CHUNKS * 32768)) "$T/expected" | gzip -c | tail -c 8 |
	od -An -tx4 -N4 | tr -d ' ')

start_nginx "$T/store"
start_chaind
chainctl start "$HTTP/link2.qcow2" vmdisk
status=0
timeout 200 qemu-system-x86_64 -accel tcg -nodefaults -display none -no-reboot \
	-drive file=/dev/mapper/vmdisk,format=raw -serial "file:$T/serial" \
	-device isa-debug-exit,iobase=0xf4,iosize=1 < /dev/null || status=$?
[ "$status" = 1 ] || fail "QEMU ended with $status: $(cat "$T/serial")"
[ "$(tr -d '\r\n' < "$T/serial")" = "$expected" ] ||
	fail "the guest reports $(cat "$T/serial"), expected $expected"
echo "the guest reports $expected"

chainctl stop vmdisk --discard
stop_chaind
stop_nginx
