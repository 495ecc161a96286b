#!/bin/bash
# SPDX-License-Identifier: GPL-2.0
#
# Nothing that the tests before this one allocated in the module was lost, and
# the kernel still watches locks: it stops to after some problems.  By its name
# this is the last test.
. "$(dirname "$0")/../lib.sh"

modprobe dm-qcow2chain
tests/debug/leaks
grep -qE '^ *debug_locks: +1$' /proc/lockdep_stats || fail "the lock checks are off"
# The kernel reports objects that a module leaves in a slab cache.
rmmod dm-qcow2chain
