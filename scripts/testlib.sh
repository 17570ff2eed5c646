# scripts/testlib.sh - counting results and running tiers. Sourced after lib.sh by test and soak.
# shellcheck shell=bash

results=$(mktemp -d "${TMPDIR:-/tmp}/moat-test.XXXXXX")
trap 'rm -rf "$results"' EXIT
: >"$results/all"
: >"$results/times"
jobs=$(nproc)

# result ok|not-ok|skip NAME [REASON]: counted, and shown unless it is good.
result() {
	printf '%s %s %s\n' "$1" "$2" "${3:-}" >>"$results/all"
	case $1 in
	not-ok) printf 'not ok %s %s\n' "$2" "${3:-}" ;;
	skip) printf 'skip %s %s\n' "$2" "${3:-}" ;;
	esac
}

# idle: what the CPUs have had no work for, in hundredths of a second of all of them together.
idle() {
	awk '/^cpu / { print $5 + $6 }' /proc/stat
}

# stage NAME: what runs from here on; summary shows what took longest, and how busy the machine was with it.
stage_name=
stage_start=0
stage_idle=0
stage() {
	local took=$((SECONDS - stage_start)) unused
	unused=$(idle)
	[ -z "$stage_name" ] || [ "$took" = 0 ] ||
		printf '%s %s %s\n' "$took" "$stage_name" $((100 - (unused - stage_idle) / took / jobs)) >>"$results/times"
	stage_name=$1
	stage_start=$SECONDS
	stage_idle=$unused
	[ -z "$1" ] || progress "$1"
}

count() {
	grep -c "^$1 " "$results/all" || true
}

# The last line of a run, and its status.
summary() {
	local failed
	stage ''
	printf 'took %s s, most of it:\n' "$SECONDS"
	sort -rn "$results/times" | head -n 12 | awk '{ printf "    %5d s %3d%% busy %s\n", $1, $3, $2 }'
	failed=$(count not-ok)
	printf '%s passed, %s failed, %s skipped\n' "$(count ok)" "$failed" "$(count skip)"
	[ "$failed" -eq 0 ]
}

# check NAME COMMAND...: one result; the output only when it fails.
check() {
	local name=$1 log=$results/check.log
	shift
	stage "$name"
	if "$@" >"$log" 2>&1 </dev/null; then
		result ok "$name"
	else
		result not-ok "$name" "(status $?)"
		sed 's/^/    /' "$log" | tail -n 60
		return 1
	fi
}

# build_preset PRESET [TARGET]
build_preset() {
	cd "$repo" && cmake --preset "$1" && cmake --build --preset "$1" -j "$jobs" ${2:+--target "$2"}
}

# unit_tests PRESET: everything ctest knows in that build. Address-space randomisation is off,
# because ThreadSanitizer does not bear as much of it as newer kernels give. $leave_out: those that it names are not run.
# Two more at once than there are CPUs: many wait most of the time for a daemon, a timer or each other.
unit_tests() {
	local preset=$1 dir=$repo/build-$1 junit=$results/junit.xml
	[ "$preset" != release ] || dir=$repo/build
	stage "unit/$preset"
	rm -f "$junit"
	TSAN_OPTIONS="halt_on_error=1 second_deadlock_stack=1 die_after_fork=0" \
	ASAN_OPTIONS="detect_leaks=1 abort_on_error=0" \
	UBSAN_OPTIONS="print_stacktrace=1" \
		setarch -R ctest --test-dir "$dir" -j $((jobs + 2)) --timeout 300 --output-on-failure \
		${leave_out:+-E "$leave_out"} \
		--output-junit "$junit" >"$results/ctest.log" 2>&1 </dev/null || true
	if [ ! -s "$junit" ]; then
		result not-ok "unit/$preset" "ctest wrote no result"
		tail -n 20 "$results/ctest.log" | sed 's/^/    /'
		return
	fi
	python3 "$repo/tests/junit_results.py" "$junit" "unit/$preset" >"$results/unit.txt"
	report_lines <"$results/unit.txt"
}

# report_lines: `ok NAME`, `not ok NAME REASON`, `skip NAME REASON`; other lines are shown as they are.
report_lines() {
	local line
	while IFS= read -r line; do
		case $line in
		"ok "*) set -- ${line#ok }; result ok "$1" ;;
		"not ok "*) line=${line#not ok }; result not-ok "${line%% *}" "${line#* }" ;;
		"skip "*) line=${line#skip }; result skip "${line%% *}" "${line#* }" ;;
		*) printf '    %s\n' "$line" ;;
		esac
	done
}

# fuzz SECONDS: every fuzzer of the fuzz build, as many at once as there are CPUs. What a stranger's files and
# servers reach first, ELF, 9P and config.json, has all of SECONDS, the rest a twelfth.
fuzz() {
	local seconds fuzzer name pids=() running=0
	stage fuzz
	# A fuzzer does not make the directory that its finding goes to.
	mkdir -p "$results/fuzz" "$cache"
	for fuzzer in "$repo"/build-fuzz/tests/fuzz/fuzz_*; do
		[ -x "$fuzzer" ] && [ -f "$fuzzer" ] || continue
		name=${fuzzer##*/}
		case $name in
		fuzz_elf | fuzz_oci | fuzz_p9) seconds=$1 ;;
		*) seconds=$((($1 + 11) / 12)) ;;
		esac
		progress "$name for $seconds s"
		fuzz_one "$fuzzer" "$name" "$seconds" &
		pids+=($!)
		running=$((running + 1))
		if [ "$running" -ge "$jobs" ]; then
			wait -n 2>/dev/null || true
			running=$((running - 1))
		fi
	done
	wait "${pids[@]}" 2>/dev/null || true
	for name in "$results"/fuzz/*.status; do
		[ -f "$name" ] || continue
		local status fuzzed=${name##*/}
		status=$(cat "$name")
		fuzzed=${fuzzed%.status}
		if [ "$status" = 0 ]; then
			result ok "fuzz/$fuzzed"
		else
			result not-ok "fuzz/$fuzzed" "(status $status)"
			tail -n 40 "$results/fuzz/$fuzzed.log" | sed 's/^/    /'
		fi
	done
}

fuzz_one() {
	local fuzzer=$1 name=$2 seconds=$3 status=0
	local found=$results/fuzz/$name.corpus seeds=$repo/tests/fuzz/corpus/$name
	mkdir -p "$found"
	[ -d "$seeds" ] || seeds=
	# shellcheck disable=SC2086
	(cd "$results/fuzz" && timeout $((seconds + 120)) "$fuzzer" -max_total_time="$seconds" -timeout=20 \
		-rss_limit_mb=4096 -artifact_prefix="$cache/crash-$name-" "$found" $seeds) \
		>"$results/fuzz/$name.log" 2>&1 </dev/null || status=$?
	echo "$status" >"$results/fuzz/$name.status"
	rm -rf "$found"
}

# directory_run FILE SECONDS PREFIX: a tests/*/run (or soak) script; its lines are results.
directory_run() {
	local script=$1 seconds=$2 prefix=$3 out=$results/run.out status=0 before
	stage "$prefix"
	timeout --kill-after=20 "$seconds" "$script" >"$out" 2>"$results/run.err" </dev/null ||
		status=$?
	before=$(wc -l <"$results/all")
	grep -E '^(ok|not ok|skip) ' "$out" | sed -E "s#^(ok|not ok|skip) #\1 $prefix/#" \
		>"$results/run.lines" || true
	report_lines <"$results/run.lines"
	if [ "$status" = 124 ] || [ "$status" = 137 ]; then
		result not-ok "$prefix" "did not end within $seconds s"
	elif [ "$(wc -l <"$results/all")" = "$before" ]; then
		result not-ok "$prefix" "printed no result (status $status)"
		tail -n 20 "$results/run.err" | sed 's/^/    /'
	elif [ "$status" -ne 0 ] && ! grep -q '^not ok ' "$results/run.lines"; then
		result not-ok "$prefix" "status $status"
		tail -n 20 "$results/run.err" | sed 's/^/    /'
	elif grep -q '^not ok ' "$results/run.lines"; then
		tail -n 40 "$results/run.err" | sed 's/^/    /'
	fi
}

# on_platforms FILE SECONDS NAME: directory_run with $MOAT_PLATFORM, as PLATFORM/NAME, on each platform that works here.
on_platforms() {
	local script=$1 seconds=$2 name=$3 platform out=$results/platform.out
	for platform in kvm systrap; do
		if timeout -k 5 30 "$MOAT" --root "$results/state" --platform="$platform" do -- /bin/true \
			>"$out" 2>&1 </dev/null; then
			MOAT_PLATFORM=$platform directory_run "$script" "$seconds" "$platform/$name"
		else
			result skip "$platform/$name" "$(tr '\n' ' ' <"$out" | cut -c1-200)"
		fi
	done
}
