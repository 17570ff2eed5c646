# tests/lib.sh - what the `run` scripts of tests/*/ share. Sourced by bash.
#
# A script prints `ok NAME`, `not ok NAME reason` or `skip NAME reason`, a line each; scripts/test counts them.
# shellcheck shell=bash
repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
MOAT=$(realpath -m "${MOAT:-$repo/build/moat}")
work=$(mktemp -d "${TMPDIR:-/tmp}/moat-test.XXXXXX")
state=$work/state
trap 'rm -rf --one-file-system "$work"' EXIT
# $MOAT_PLATFORM: every sandbox of the script on that platform.
if [ -n "${MOAT_PLATFORM:-}" ]; then
	printf '#!/bin/sh\nexec "%s" --platform="%s" "$@"\n' "$MOAT" "$MOAT_PLATFORM" >"$work/moat"
	chmod 755 "$work" "$work/moat"
	MOAT=$work/moat
fi

# busybox_tree DIR: makes DIR, a busybox tree of the script's own; a runtime makes mount points in the root it is given.
busybox_tree() { cp -a "$("$repo/scripts/rootfs" busybox)" "$1"; }

ok() { echo "ok $1"; }
not_ok() { echo "not ok $1 $2"; }

# one_line FILE: its content on one line, cut, for reasons.
one_line() { tr '\n' ' ' <"$1" | cut -c1-300; }

# moat ARGS...: with a state directory of the test's own and a time limit.
moat() { timeout -k 5 "${LIMIT:-60}" "$MOAT" --root "$state" "$@"; }

# expect NAME WANTED-STATUS WANTED-OUTPUT-REGEX COMMAND...: stdout and stderr together.
expect() {
	local name=$1 status=$2 regex=$3 got=0
	shift 3
	"$@" >"$work/out" 2>&1 </dev/null || got=$?
	if [ "$got" != "$status" ]; then
		not_ok "$name" "status $got, wanted $status: $(one_line "$work/out")"
	elif [ -n "$regex" ] && ! grep -qE -- "$regex" "$work/out"; then
		not_ok "$name" "output lacks /$regex/: $(one_line "$work/out")"
	else
		ok "$name"
	fi
}

# bundle DIR ROOT [make_bundle options] -- COMMAND...
bundle() {
	local dir=$1 root=$2
	shift 2
	python3 "$repo/tests/make_bundle.py" --root "$root" "$dir" "$@"
}
