#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Chains of depth 1, 3 and 30, from a directory and over HTTP, are read byte for
# byte as QEMU reads them; a second reading asks the store for nothing.
. "$(dirname "$0")/lib.sh"

make_chain "$T/d1" 1 24 11 > /dev/null
make_chain "$T/d3" 3 24 33 cluster_size=4k > /dev/null
make_chain "$T/d30" 30 24 30 > /dev/null
start_nginx "$T"
start_chaind

for chain in d1/link0 d3/link2 d30/link29; do
	flatten "$T/$chain.qcow2" "$T/expected"
	for base in "$HTTP" "file://$T"; do
		chainctl start "$base/$chain.qcow2" vmdisk
		cmp "$T/expected" /dev/mapper/vmdisk || fail "$base/$chain differs"

		http_reset
		dmsetup message vmdisk 0 map_drop
		blockdev --flushbufs /dev/mapper/vmdisk
		cmp "$T/expected" /dev/mapper/vmdisk || fail "$base/$chain differs the second time"
		[ "$(http_requests)" = 0 ] || fail "the second reading made requests"
		chainctl stop vmdisk --discard
	done
done

stop_chaind
stop_nginx
