# tests/stress/lib.sh - what run and soak share. Sourced after tests/lib.sh.
# shellcheck shell=bash
bin=${MOAT_BUILD:-$repo/build}/tests/stress/bin
sys_bin=${MOAT_BUILD:-$repo/build}/tests/syscalls/bin
root=$work/root

# Which platforms: $MOAT_PLATFORM, or all that this binary has and that work here.
platforms() {
	local p
	if [ -n "${MOAT_PLATFORM:-}" ]; then
		echo "$MOAT_PLATFORM"
		return
	fi
	for p in $("$MOAT" --platform=none do -- true 2>&1 | sed -n 's/.*one of //p' | tr -d ','); do
		if moat --platform="$p" do -- /bin/true >"$work/probe" 2>&1 </dev/null; then
			echo "$p"
		else
			echo "skip $p $(one_line "$work/probe")" >&2
		fi
	done
}

make_root() {
	busybox_tree "$root" && mkdir "$root/t" &&
		cp "$bin"/* "$sys_bin"/hostile* "$root/t/"
}

inside() { # inside PLATFORM NAME COMMAND...
	local p=$1 name=$2
	shift 2
	bundle "$work/b-$name" "$root" --readonly -- "$@"
	moat --platform="$p" run --bundle "$work/b-$name" "$name-$$" </dev/null
}

# interrupts_once PLATFORM COUNT [COMMAND...]: sets host and got, the 99.9th percentiles; COMMAND goes before both programs.
interrupts_once() {
	local p=$1 count=$2
	shift 2
	host=$("$@" "$bin/interrupt" "$count" </dev/null | sed -n 's/.*p99.9 \([0-9]*\) .*/\1/p')
	# `do`: a bundle's cgroup would refuse real-time threads.
	"$@" timeout -k 5 "${LIMIT:-60}" "$MOAT" --root "$state" --platform="$p" do --no-tty --rootfs "$root" -- \
		/t/interrupt "$count" </dev/null >"$work/interrupt" 2>&1
	got=$(sed -n "s/^delivered $count of $count .*p99.9 \([0-9]*\) .*/\1/p" "$work/interrupt")
}

# Each of COUNT signals arrives; the 99.9th percentile is at most the host's own and 200 us. The machine's noise gets eight tries,
# three of them with real-time priority, which what else runs does not disturb (but who takes the processor from the whole machine does).
interrupts() { # interrupts PLATFORM COUNT
	local p=$1 count=$2 how host got
	for how in "" "" "" "chrt -f 10" "" "" "chrt -f 10" "chrt -f 10"; do
		if [ -n "$how" ] && ! $how true 2>/dev/null; then
			continue
		fi
		# shellcheck disable=SC2086
		interrupts_once "$p" "$count" $how
		if [ -z "$got" ]; then
			not_ok "interrupts-$p" "$(one_line "$work/interrupt")"
			return
		fi
		[ "$got" -le $((host + 200000)) ] && break
	done
	ok "interrupts-$p"
	if [ "$got" -le $((host + 200000)) ]; then
		ok "interrupt-latency-$p"
	elif [ "$(awk '{print int($1)}' /proc/loadavg)" -gt "$(nproc)" ]; then
		# Where other work shares the processors a percentile is theirs: said, not judged.
		echo "skip interrupt-latency-$p the machine is busy: p99.9 $got ns, the host's $host ns"
	else
		not_ok "interrupt-latency-$p" "p99.9 $got ns, the host's $host ns"
	fi
}

wakeups() { # wakeups PLATFORM SECONDS
	LIMIT=$(($2 + 60)) inside "$1" "pingpong-$1" /t/pingpong "$2" >"$work/pingpong" 2>&1 &&
		ok "wakeups-$1" || not_ok "wakeups-$1" "$(one_line "$work/pingpong")"
}

# A hostile program in one sandbox; another sandbox computes on; the first one's objects are what they were.
hostile() { # hostile PLATFORM
	local p=$1 name=hostile-$1 neighbour n cli
	bundle "$work/b-$name" "$root" --readonly -- /bin/sh -c \
		'while read -r line; do eval "$line"; echo did; done'
	rm -f "$work/ctl" && mkfifo "$work/ctl"
	LIMIT=200 moat --platform="$p" run --bundle "$work/b-$name" "$name" <"$work/ctl" >"$work/said" 2>&1 &
	cli=$!
	exec 9>"$work/ctl"
	(LIMIT=150 inside "$p" "neighbour-$p" /t/pingpong 20) >"$work/neighbour" 2>&1 &
	neighbour=$!
	n=0
	# Its counts, once they have been the same for two seconds: what is freed late is freed.
	settled() {
		local same=0
		for _ in $(seq 240); do
			moat debug "$name" objects >"$work/objects" 2>&1 || return 1
			cmp -s "$work/start" "$work/objects" && same=$((same + 1)) || same=0
			[ $same -lt 4 ] || return 0
			cp "$work/objects" "$work/start"
			sleep 0.5
		done
		return 0
	}
	attack() {
		echo 'for h in /t/hostile*; do "$h"; done' >&9
		n=$((n + 1))
		for _ in $(seq 1500); do
			[ "$(grep -c '^did' "$work/said")" -ge $n ] && return 0
			kill -0 $cli 2>/dev/null || return 1
			sleep 0.1
		done
		return 1
	}
	if ! attack || ! settled || ! attack; then
		not_ok "hostile-$p" "the sandbox ended or hung: $(one_line "$work/said")"
	elif grep -q '^not ok' "$work/said"; then
		not_ok "hostile-$p" "$(grep '^not ok' "$work/said" | tr '\n' ';')"
	else
		ok "hostile-$p"
	fi
	for _ in $(seq 600); do
		moat debug "$name" objects >"$work/objects" 2>&1 && cmp -s "$work/start" "$work/objects" && break
		sleep 0.1
	done
	cmp -s "$work/start" "$work/objects" && ok "hostile-objects-$p" ||
		not_ok "hostile-objects-$p" "$(diff "$work/start" "$work/objects" | tr '\n' ' ')"
	exec 9>&-
	wait $neighbour && ok "hostile-neighbour-$p" || not_ok "hostile-neighbour-$p" "$(one_line "$work/neighbour")"
	wait $cli
}
