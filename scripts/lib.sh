# scripts/lib.sh - what the scripts share. Sourced by bash.
# shellcheck shell=bash

repo=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd)
cache=${MOAT_CACHE:-/var/cache/moat}

# One line that says what is going on, only where somebody watches.
progress() {
	[ -t 2 ] && printf '\033[K== %s\n' "$*" >&2
	return 0
}

die() {
	printf '%s: %s\n' "${0##*/}" "$*" >&2
	exit 1
}

# quietly NAME COMMAND...: output to a log. A terminal sees the last line change; a failure
# prints the log's end. Returns the command's status.
quietly() {
	local name=$1 log status=0
	shift
	log=$(mktemp "${TMPDIR:-/tmp}/moat-log.XXXXXX")
	if [ -t 2 ]; then
		progress "$name"
		"$@" > >(tee "$log" | while IFS= read -r line; do
			printf '\r\033[K   %.90s' "$line" >&2
		done) 2>&1 || status=$?
		wait $! 2>/dev/null || true
		printf '\r\033[K' >&2
	else
		"$@" >"$log" 2>&1 || status=$?
	fi
	if [ "$status" -ne 0 ]; then
		echo "$name failed (status $status); the end of its output:" >&2
		tail -n "${QUIETLY_LINES:-40}" "$log" >&2
	fi
	rm -f "$log"
	return "$status"
}

# Commands that only root can run go through sudo where there is one.
as_root() {
	if [ "$(id -u)" = 0 ]; then
		"$@"
	elif command -v sudo >/dev/null; then
		sudo "$@"
	else
		die "'$*' needs root, and there is no sudo"
	fi
}
