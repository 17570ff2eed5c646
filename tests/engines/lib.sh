# tests/engines/lib.sh - one case, two runtimes: what runc's run prints, exits with and leaves is what Moat's must. Sourced by bash.
# shellcheck shell=bash
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

# The runtime as engines call it, with a state directory of the test's own.
MOAT=$(realpath "$MOAT")
mkdir -p "$work/bin"
printf '#!/bin/sh\nexec "%s" --root "%s" "$@"\n' "$MOAT" "$state" >"$work/bin/moat"
chmod 755 "$work/bin/moat"

# need PROGRAM...: or the whole engine is skipped.
need() {
	local p
	for p in "$@"; do
		command -v "$p" >/dev/null || { echo "skip $engine $p is not installed: scripts/deps engines"; exit 0; }
	done
}

# leftovers: processes of this Moat, cgroups and state directories that are still there.
leftovers() {
	local d
	for d in /proc/[0-9]*; do
		if [ "$(readlink "$d/exe")" = "$MOAT" ] && grep -qsF "$engine_mark" "$d/environ" "$d/cmdline"; then
			tr '\0' ' ' <"$d/cmdline"
		fi
	done 2>/dev/null
	find /sys/fs/cgroup -maxdepth 4 -type d -name "*$engine_mark*" 2>/dev/null | head -3
	[ ! -d "$state" ] || find "$state" -mindepth 1 -maxdepth 1 ! -name '.*'
}

# both NAME 'SCRIPT': runs it with RT=runc, then with Moat; same output, same status. The script's output is what counts: it masks what
# differs by nature (ids, times). ONLY=regex in the environment picks cases.
both() {
	local name=$1 script=$2 rt got
	[[ $engine-$name =~ ${ONLY:-.} ]] || return 0
	for rt in runc moat; do
		got=0
		(
			set +e
			RT=$rt
			RUNTIME=$([ $rt = runc ] && command -v runc || echo "$work/bin/moat")
			eval "$script"
		) >"$work/$rt.out" 2>&1 </dev/null || got=$?
		echo "status $got" >>"$work/$rt.out"
		clean_engine >/dev/null 2>&1
	done
	if ! diff "$work/runc.out" "$work/moat.out" >"$work/diff"; then
		not_ok "$engine-$name" "differs from runc: $(one_line "$work/diff")"
	elif leftovers >"$work/left"; [ -s "$work/left" ]; then
		not_ok "$engine-$name" "left: $(one_line "$work/left")"
	else
		ok "$engine-$name"
	fi
}

# until_ok COMMAND...: tries for ten seconds.
until_ok() {
	local i
	for i in $(seq 100); do
		"$@" >/dev/null 2>&1 && return 0
		sleep 0.1
	done
	return 1
}

# image TAR: a busybox tree as a tar file.
image() {
	tar -C "$("$repo/scripts/rootfs" busybox)" -cf "$1" .
}
