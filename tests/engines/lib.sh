# tests/engines/lib.sh - one case, two runtimes: what runc's run prints, exits with and leaves is what Moat's must. Sourced by bash.
# shellcheck shell=bash
unset MOAT_PLATFORM
. "$(dirname "${BASH_SOURCE[0]}")/../lib.sh"

# The runtime as engines call it, with a state directory of the test's own: moat-kvm, moat-systrap.
MOAT=$(realpath "$MOAT")
mkdir -p "$work/bin"
platforms=${PLATFORMS:-kvm systrap}
# How many times as long as usual everything may take: an emulated machine's ten.
export MOAT_TEST_PATIENCE=${MOAT_TEST_PATIENCE:-1}
patience=$MOAT_TEST_PATIENCE
for platform in $platforms; do
	printf '#!/bin/sh\nexec "%s" --root "%s" --platform=%s "$@"\n' "$MOAT" "$state" "$platform" >"$work/bin/moat-$platform"
done
chmod 755 "$work" "$work/bin/"*

# need PROGRAM...: or the whole engine has failed: the packages are in Debian.
need() {
	local p
	for p in "$@"; do
		command -v "$p" >/dev/null || { not_ok "$engine" "$p is not installed: scripts/deps engines"; exit 1; }
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

# noted COMMAND...: an engine's client, whose status 125 is its own, before any runtime: that goes into $work/refused.
noted() {
	local got=0
	"$@" || got=$?
	[ "$got" != 125 ] || echo "status 125: $*" >>"$work/refused"
	return "$got"
}
client() { noted timeout -k 5 $((60 * patience)) "$@"; }

# one_runtime RUNTIME SCRIPT: its output and status in $work/RUNTIME.out.
one_runtime() {
	local got=0
	(
		set +e
		cd "$work" # conmon leaves a file "oom" where podman is called
		RT=$1
		RUNTIME=$([ "$RT" = runc ] && command -v runc || echo "$work/bin/$RT")
		eval "$2"
	) >"$work/$1.out" 2>&1 </dev/null || got=$?
	echo "status $got" >>"$work/$1.out"
	clean_engine >/dev/null 2>&1
}

# both NAME 'SCRIPT': runs it with RT=runc, then with Moat on each platform; same output, same status. The script's output is what counts: it
# masks what differs by nature (ids, times). Where the engine itself refuses what the case asks for, with runc, there is nothing to compare: such a
# case has failed, unless $may_refuse names it. ONLY=regex in the environment picks cases; without it and without
# MOAT_TEST_ENGINES only those of the engine's $smoke are run, and on systrap those of $smoke_systrap.
both() {
	local name=$1 script=$2 platform rt all=${ONLY:-}${MOAT_TEST_ENGINES:-} wanted=
	[[ $engine-$name =~ ${ONLY:-.} ]] || return 0
	for platform in $platforms; do
		case $platform in
		kvm) [ -n "$all" ] || [[ " $smoke " == *" $name "* ]] || continue ;;
		*) [ -n "$all" ] || [[ " $smoke_systrap " == *" $name "* ]] || continue ;;
		esac
		wanted+=" $platform"
	done
	[ -n "$wanted" ] || return 0
	rm -f "$work/refused"
	one_runtime runc "$script"
	[ -z "${engine_refuses:-}" ] || grep -E "$engine_refuses" "$work/runc.out" >>"$work/refused"
	if [ -s "$work/refused" ] && [[ " ${may_refuse:-} " != *" $name "* ]]; then
		not_ok "$engine-$name" "the engine refuses it with runc, too: $(one_line "$work/refused")"
		return 0
	fi
	for platform in $wanted; do
		rt=moat-$platform
		one_runtime "$rt" "$script"
		sed -i "s/$rt/runc/g" "$work/$rt.out"
		# What ends after the engine's answer may do so for a while.
		for _ in $(seq $((600 * patience))); do
			leftovers >"$work/left"
			[ -s "$work/left" ] || break
			sleep 0.1
		done
		if ! diff "$work/runc.out" "$work/$rt.out" >"$work/diff"; then
			not_ok "$platform/$engine-$name" "differs from runc: $(one_line "$work/diff")"
		elif [ -s "$work/left" ]; then
			not_ok "$platform/$engine-$name" "left: $(one_line "$work/left")"
		else
			ok "$platform/$engine-$name"
		fi
	done
}

# until_ok COMMAND...: tries for a minute, patiently.
until_ok() {
	local i
	for i in $(seq $((600 * patience))); do
		"$@" >/dev/null 2>&1 && return 0
		sleep 0.1
	done
	return 1
}

# free_port: one of 127.0.0.1 that nobody has, nor is likely to be given meanwhile. What an earlier run of a test left behind, a server or an address
# translation, stands in nobody's way.
free_port() {
	python3 -c 'import random, socket
while True:
    port = random.randrange(20000, 32000)
    with socket.socket() as s:
        try:
            s.bind(("127.0.0.1", port))
        except OSError:
            continue
        print(port)
        break'
}

# grows COMMAND...: it prints more lines some time; rests: as many for half a second, some time.
grows() {
	local before
	before=$("$@" 2>&1 | wc -l)
	until_ok more_lines "$before" "$@"
}
more_lines() { [ "$("${@:2}" 2>&1 | wc -l)" -gt "$1" ]; }
rests() { until_ok same_lines "$@"; }
same_lines() {
	local before
	before=$("$@" 2>&1 | wc -l)
	sleep 0.5
	[ "$("$@" 2>&1 | wc -l)" = "$before" ]
}

# daemon_up COMMAND...: until_ok for the start of $daemon: sixty seconds (patiently), but no longer than it lives.
daemon_up() {
	local end=$((SECONDS + 60 * patience))
	until "$@" >/dev/null 2>&1; do
		kill -0 "$daemon" 2>/dev/null && [ "$SECONDS" -lt "$end" ] || return 1
		sleep 0.1
	done
}

# Has this machine's root every capability that its kernel knows?
all_capabilities() {
	local bounding
	bounding=$(sed -n 's/^CapBnd:\t*//p' /proc/self/status)
	[ "$((16#$bounding))" = "$(((2 << $(</proc/sys/kernel/cap_last_cap)) - 1))" ]
}

# image TAR: a busybox tree as a tar file.
image() {
	tar -C "$("$repo/scripts/rootfs" busybox)" -cf "$1" .
}

# typed INPUT COMMAND...: on a terminal, as a user; of what comes back only lines of letters and digits, which are the programs' own.
typed() { "$repo/tests/engines/on_tty" "$@" | grep -aE '^[a-z0-9 /-]+$'; return "${PIPESTATUS[0]}"; }
