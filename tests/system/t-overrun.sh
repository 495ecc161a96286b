#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# As t-kernel-overrun with chaind: while it does not run, the kernel has more to
# tell it than its receive buffer holds.  It asks again, and no read is lost.
. "$(dirname "$0")/lib.sh"

NR_DISKS=10
mkdir "$T/store"
head -c 16M /dev/urandom > "$T/expected"
qemu-img convert -q -f raw -O qcow2 "$T/expected" "$T/store/disk.qcow2"
blocks=256

# Without CAP_NET_ADMIN chaind gets the buffer that the system allows.
modprobe dm-qcow2chain
rmem_max=$(cat /proc/sys/net/core/rmem_max)
echo 2304 > /proc/sys/net/core/rmem_max
CHAIND=(setpriv --bounding-set=-net_admin chaind)
start_chaind
for ((i = 0; i < NR_DISKS; i++)); do
	chainctl start "file://$T/store/disk.qcow2" "vmdisk$i"
done
owner=$(dmsetup status --target qcow2chain | awk 'NR == 1 { print $6 }')
# Messages that did not fit into the socket's buffer.
lost() { awk -v port="$owner" '$2 == 16 && $3 == port { print $9 }' /proc/net/netlink; }
[ "$(lost)" = 0 ] || fail "messages lost before there were any: $(lost)"

kill -STOP $CHAIND_PID
readers=()
for ((i = 0; i < NR_DISKS; i++)); do
	dd if="/dev/mapper/vmdisk$i" of="$T/read$i" bs=16M count=1 iflag=direct status=none &
	readers+=($!)
done
wait_until 60 requests_wait $((NR_DISKS * blocks))
[ "$(lost)" -gt 0 ] || fail "no message was lost: $(cat /proc/net/netlink)"
kill -CONT $CHAIND_PID
for reader in "${readers[@]}"; do
	wait "$reader" || fail "a read failed"
done
for ((i = 0; i < NR_DISKS; i++)); do
	cmp "$T/expected" "$T/read$i"
done
echo "# $(lost) messages lost, $((NR_DISKS * blocks)) requests"

for ((i = 0; i < NR_DISKS; i++)); do
	chainctl stop "vmdisk$i" --discard
done
stop_chaind
echo "$rmem_max" > /proc/sys/net/core/rmem_max
