# shellcheck shell=bash
# SPDX-License-Identifier: GPL-2.0
#
# What tests/check and its relatives have in common.  One of them sets $log, a
# directory for logs, sources this file from the project's top directory, runs
# its checks, and ends with "finish", which prints "N passed, N failed".

passed=0 failed=0
rm -rf "$log"
mkdir -p "$log"

pass() { passed=$((passed + 1)); echo "ok $1"; }
fail() { failed=$((failed + 1)); echo "not ok $1"; }

# step NAME COMMAND… - one check; its output is shown if it fails
step()
{
	local name=$1
	shift
	if "$@" > "$log/out" 2>&1; then
		pass "$name"
	else
		fail "$name"
		sed 's/^/    /' "$log/out"
	fi
}

# module SERIES - from nothing, with the kernel's extra warnings as errors
module()
{
	local kernel kver

	kernel=$(tests/vm/kernel "$1") || return 1
	kver=${kernel%% *}
	make -s module KVER="$kver" KDIR="${kernel#* }/usr/src/linux-headers-$kver" \
		MODDIR="$log/module-$1" KCFLAGS=-Werror
}

# selftest [OPTION…] - tests/vm/selftest; its cases count one each
selftest()
{
	tests/vm/selftest "$@" | tee "$log/selftest"
	if [[ $(tail -n 1 "$log/selftest") =~ ^([0-9]+)\ passed,\ ([0-9]+)\ failed$ ]]; then
		passed=$((passed + BASH_REMATCH[1]))
		failed=$((failed + BASH_REMATCH[2]))
	else
		fail "tests/vm/selftest did not end"
	fi
}

# in_machine NAME PLANNED STATUS OPTION… -- COMMAND… - so many tests, in a machine
# that ends with that status, and leaves "passed N failed N" in "results".  One
# that dies takes the tests that it did not get to with it.
in_machine()
{
	local name=$1 planned=$2 wanted=$3 status=0
	shift 3

	tests/vm/run --out "$log/$name" "$@" || status=$?
	count_machine "$name" "$planned" "$wanted" $status
}

# count_machine NAME PLANNED STATUS ENDED - such a machine that ended with status ENDED
count_machine()
{
	local name=$1 planned=$2 wanted=$3 status=$4 out=$log/$1 good=0 bad=0

	[ ! -e "$out/results" ] || read -r _ good _ bad < "$out/results"
	passed=$((passed + good))
	failed=$((failed + planned - good))
	[ $((good + bad)) = "$planned" ] ||
		echo "not ok: $((planned - good - bad)) tests of $name did not run, status $status"
	if [ "$status" != "$wanted" ] && [ "$good" = "$planned" ]; then
		fail "$name: the machine ended with status $status"
	fi
}

# system_tests SERIES [OPTION…] - all of them on that kernel
system_tests()
{
	local series=$1 tests=(tests/system/t-*.sh)
	shift

	[ "$series" != debug ] || tests+=(tests/system/debug/t-*.sh)
	in_machine "$series" ${#tests[@]} 0 --kernel "$series" --mem 3072 --timeout 5400 "$@" \
		-- tests/system/run
}

# system_tests_in_two SERIES - the same on two machines at once, which go slower, but have
# both processors to do
system_tests_in_two()
{
	local series=$1 tests=(tests/system/t-*.sh) halves=("" "") nr=(0 0) pids=() i status

	for i in "${!tests[@]}"; do
		halves[i % 2]+=" $(basename "${tests[i]}" .sh)"
		nr[i % 2]=$((nr[i % 2] + 1))
	done
	for i in 0 1; do
		# shellcheck disable=SC2086
		QC2_TIME_SCALE=2 tests/vm/run --out "$log/$series-$i" --kernel "$series" \
			--mem 3072 --timeout 5400 -- tests/system/run ${halves[i]} &
		pids+=($!)
	done
	for i in 0 1; do
		status=0
		wait "${pids[i]}" || status=$?
		count_machine "$series-$i" "${nr[i]}" 0 $status
	done
}

finish()
{
	echo "$passed passed, $failed failed"
	[ "$failed" = 0 ]
	exit
}
