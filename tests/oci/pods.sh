# tests/oci/pods.sh - what pods and pods-mounts share: $work/tree, bundles of containers in a pod, what is expected of them. Sourced by bash, after lib.sh.
# shellcheck shell=bash
busybox_tree "$work/tree"
gcc -O2 -static -o "$work/tree/bin/peer" "$repo/tests/engines/peer.c" || { not_ok pods-peer "does not compile"; exit 1; }
cp "$work/tree/bin/peer" "$work/tree/bin/onlyhere"

# container DIR NAMESPACES ANNOTATION COMMAND...: a bundle; $MEMORY: its limit in bytes; $SYSCTL: linux.sysctl; $MOUNTS, $NOTES: JSON, further mounts and annotations. NAMESPACES: "net:share ipc:own pid:/path"; share: the sandbox's. ANNOTATION: sandbox, container, none.
container() {
	local dir=$work/$1 spaces=$2 note=$3
	shift 3
	rm -rf "$dir"
	bundle "$dir" "$work/tree" --readonly -- "$@"
	python3 - "$dir/config.json" "$spaces" "$note" "$(cat "$work/pid" 2>/dev/null)" "pods-$$-${dir##*/}" "${MEMORY:-}" "${SYSCTL:-}" "${MOUNTS:-[]}" "${NOTES:-{\}}" <<'EOF'
import json, sys
path, spaces, note, pid, cgroup, memory, sysctl, mounts, notes = sys.argv[1:]
c = json.load(open(path))
c['mounts'] += json.loads(mounts)
c['annotations'] = json.loads(notes)
if sysctl:
    c['linux']['sysctl'] = json.loads(sysctl)
if memory:
    c['linux'].setdefault('resources', {})['memory'] = {'limit': int(memory)}
    c['mounts'].append({'destination': '/sys/fs/cgroup', 'type': 'cgroup', 'source': 'cgroup', 'options': ['ro']})
# Named by id alone it would be that of whoever else calls a container so.
c['linux']['cgroupsPath'] = cgroup
if note != 'none':
    c['annotations'] |= {'io.kubernetes.cri.container-type': note, 'io.kubernetes.cri.sandbox-id': 'pod'}
given = [s.split(':', 1) for s in spaces.split()]
c['linux']['namespaces'] = [n for n in c['linux']['namespaces'] if n['type'] not in [{'net': 'network'}.get(k, k) for k, _ in given]]
for kind, how in given:
    n = {'type': {'net': 'network'}.get(kind, kind)}
    if how not in ('own', 'host'):
        n['path'] = f'/proc/{pid}/ns/{kind}' if how == 'share' else how
    if how != 'host':
        c['linux']['namespaces'].append(n)
json.dump(c, open(path, 'w'))
EOF
}
POD="net:share ipc:share uts:share pid:own"
# up DIR ID: created and started; its output goes to $work/ID.out.
up() {
	moat create --bundle "$work/$1" --pid-file "$work/$2.pid" "$2" >"$work/$2.out" 2>&1 </dev/null && moat start "$2" >"$work/$2.err" 2>&1 </dev/null
}
pod_up() {
	rm -f "$work/pid"
	container b0 "net:own ipc:own uts:own pid:own" sandbox peer pause
	up b0 pod && cp "$work/pod.pid" "$work/pid"
}
# soon COMMAND...: within a minute.
soon() {
	local i
	for i in $(seq 600); do
		"$@" >/dev/null 2>&1 && return 0
		sleep 0.1
	done
	return 1
}
is() { # is NAME OUTPUT COMMAND...: exactly that, whatever the status
	local name=$1 want=$2 got
	shift 2
	got=$("$@" 2>&1 </dev/null)
	[ "$got" = "$want" ] && ok "$name" || not_ok "$name" "$(echo "$got" | tr '\n' ' ' | cut -c1-250)"
}
stopped() { moat state "$1" 2>/dev/null | grep -q '"stopped"'; }
gone() { ! pgrep -f -- "$state" >/dev/null && [ -z "$(ls "$state" 2>/dev/null)" ]; }
