#!/usr/bin/env python3
"""tests/oci/verbs.py - the same command lines with runc and with moat, on the same bundles: exit status, output, words of errors.

Called by tests/oci/run. What differs on purpose stands in the tables with its reason, and in docs/runtime.md.
"""
import copy
import json
import os
import re
import shutil
import subprocess
import sys
import tempfile

REPO = os.path.dirname(os.path.dirname(os.path.dirname(os.path.abspath(__file__))))
MOAT = os.path.abspath(os.environ.get("MOAT", REPO + "/build/moat"))
RUNC = shutil.which("runc")
# By which engines and scripts tell errors from one another: docker, containerd's shim, podman with conmon, and people.
WORDS = re.compile(r"does not exist|already exists|not running|no such process|process already finished|not paused|"
                   r"is not stopped|already running|has stopped|cannot exec in a (?:paused|stopped) container|"
                   r"executable file not found|no such file or directory|permission denied|unknown signal|"
                   r"cannot use console socket|process args cannot be empty|invalid format|"
                   r"invalid environment variable|greater than 0|container id cannot be empty|invalid container id", re.I)
# Ours says which file there is not; runc's word for a bundle without configuration is another.
SAME_WORDS = {"invalid container id": "container id", "container id cannot be empty": "container id"}

VERBS = "create start run exec kill delete state list ps pause resume events update spec features".split()
WITH_ID = [v for v in VERBS if v not in ("list", "spec", "features")]

UNSAID = "what could not be written is an error of every verb"
# A step is a command line; @N is a container of this test's, W its directory. With moat's own status and the reason where it is another; None: where the words are.
STEPS = []
for verb in VERBS:
    STEPS += [f"{verb} --nosuch @9", f"{verb} -Z @9", f"{verb} --help", f"{verb} -h"]
for verb in WITH_ID:
    STEPS += [verb]
    if verb not in ("create", "run"):
        STEPS += [f"{verb} @9", f"{verb} -- @9", f"{verb} ''", f"{verb} a/b", f"{verb} ..", f"{verb} @9 x y z"]
    else:
        STEPS += [f"{verb} -b W/b {i}" for i in ("''", "a/b", "..", "@9 x", "-- ''")]
STEPS += [
    "list x", "spec x", "features x", "help", "help run", "help nosuch", "h", "-v", "--version", "-h", "--help", "nosuch", "",
    "--frob list", "--debug=false list -q", "--debug=x list -q", "--debug=T list -q", "-- list -q", "-root W/q list -q",
    "--log-format=xml list", "--log-format text state @9", "--systemd-cgroup list -q", "--rootless=false list -q",
    "--criu list", "--log W/log --log-format json state @9", "--log= state @9", "--root= list -q", "--root",
    "create --bundle=W/b --pid-file=W/pid @1", "ps --format json @1", "pause @1", "resume @1", "exec @1 true", "start -- @1", "start @1",
    "kill @1 0 -a", "kill -a @1 0", "kill --all=true @1 CONT", "kill --all=false @1 CONT", "kill --all=frob @1 CONT",
    "kill @1 sigcont", "kill @1 Cont", "kill @1 34", "kill @1 64", "kill @1 65", "kill @1 -1", "kill @1 99999999999", "kill @1 IOT",
    "kill @1 SIGNOSUCH", "kill -s 9 @1", "kill @1 RTMIN", "kill @1 SIGRTMIN+1", "kill @1 POLL", "kill @1 sigio", "kill @1 +18", "kill @1 018", "kill @1 ' 18'", "kill @1 -9",
    "kill @1 99999999999999999999", ("kill -a @1 -1", 1, "no such signal is an error, not a warning"),
    "state @1", "list >/dev/full", "features >/dev/full", ("state @1 >/dev/full", 1, UNSAID), ("list -q >/dev/full", 1, UNSAID), ("ps @1 >/dev/full", 1, UNSAID),
    "list -f json", "list -f=table", "list --quiet=false", "list -q -f json", "list -q -f xx", "list -f xx",
    "exec @1", "exec @1 ''", ("exec @1 -- true", 0, "the dashes begin a command, as elsewhere"), "exec -- @1 true",
    "exec @1 echo -n x", "exec @1 echo --help", "exec @1 --help", "exec -u 0:0 @1 id", "exec --user=5 @1 id -u", "exec -u bin @1 id",
    "exec -e NOEQ @1 true", "exec -e A=1 -e A=2 @1 sh -c 'echo $A'", "exec -e PATH=/nowhere @1 id", "exec --cwd /nowhere @1 true",
    "exec --cwd '' @1 pwd", "exec --apparmor x @1 true", "exec --apparmor '' @1 true", "exec --process-label x @1 true",
    "exec -p W/p.json @1", "exec -p W/p.json @1 true", "exec -p W/pbad.json @1", "exec -p W/pnocwd.json @1", "exec -p W/pargs.json @1",
    "exec -g x @1 id", "exec -g 5,6 @1 id -G", "exec -g 5 -g 6 @1 id -G", "exec --cap NET_RAW @1 true",
    "exec --preserve-fds 20 @1 true", "exec --pid-file /nowhere/x @1 true", "exec -d --pid-file /nowhere/x @1 true",
    "exec -t @1 true", "exec -dt @1 true", "exec -d -t @1 true", "exec --tty=false @1 true", "exec --console-socket /nowhere @1 true",
    "exec -t --console-socket /nowhere @1 true", "exec -d -t --console-socket /nowhere @1 true", "exec --no-subreaper @1 true",
    "exec --cgroup / @1 true", "exec --no-new-privs=false @1 grep NoNew /proc/self/status",
    "exec --no-new-privs @1 grep NoNew /proc/self/status", "exec @1 sh -c 'exit 200'", "exec @1 nosuch", "exec @1 /",
    "ps -f json @1 -ef", "ps -f=json @1", "ps --format xx @1", "ps @1 -ef", ("ps @1 --frob", 0, "one layout, whatever ps(1) would say"),
    "events --stats @1", "events --stats @1 x", "events --interval x --stats @1", "events --interval 1 --stats @1",
    "events --interval 1h30m --stats @1", "events --interval 1.5s --stats @1", "events --interval=-1s @1", "events --interval 0 @1",
    "update @1 -r W/r.json", "update -r W/rbad.json @1", "update -r W/rarr.json @1", "update -r /nowhere @1", "update --pids-limit=30 @1",
    "update --pids-limit x @1", "update --pids-limit 9999999999999999999 @1", "update --cpu-idle 1 @1", "update --blkio-weight x @1",
    "update --blkio-weight 100 @1", "update --memory 0 @1", "update --memory '' @1", "update --memory 1.5g @1", "update --memory 1GiB @1",
    "update --memory 1gib @1", "update --memory 1 @1", "update --memory x @1", "update --memory 1zb @1", "update --memory -1 @1",
    "update --cpu-shares 5 @1", "update --cpu-period -5 @1", "update --cpuset-cpus x @1", "update --cpuset-cpus '' @1",
    "update --cpu-share 1e3 @1", "update --memory 100m @1 x", "update --cpu-share 512 --cpu-quota 50000 --cpu-period 100000 @1",
    "pause @1", "pause @1", "state @1", "kill @1 CONT", "exec @1 true", "exec --ignore-paused=false @1 true", "update --pids-limit 50 @1",
    "delete @1", "events --stats @1", "ps -f json @1", "resume @1", "resume @1", "delete @1", ("checkpoint @1", None, "CRIU"), ("restore @1", None, "CRIU"),
    "run -b W/b @1", "create -b W/b @1", "run -b W/b --detach @2", "run -b W/b --pidfd-socket x @3", "run --no-subreaper -d -b W/b @3",
    "create --detach -b W/b @4", "create --keep -b W/b @4", "run -d --console-socket /nowhere -b W/b @4", "run -d -b W/tty @4",
    "run --console-socket W/none -b W/tty @4",
    "run --keep --no-pivot=false --no-new-keyring -b W/true @5", "state @5", "delete @5", "run --keep=false -b W/true @5", "state @5",
    "delete -f @2 @3", "delete @2 -f", "delete -f @2", "delete --force=false @3", "delete -f @3", "delete -f ''", "delete -f a/b",
    "kill @1 ''", "kill @1 KILL", "!stopped @1", "kill @1 KILL", "kill @1 0", "kill -a @1 9", "state @1", "start @1", "exec @1 true",
    "pause @1", "resume @1", "ps -f json @1", "events --stats @1", "events @1", "update --pids-limit 5 @1", "update @1", "delete @1",
    "delete @1", "spec -b W/none",
]


def add(**members):
    return lambda c: c.update(members)


def process(**members):
    return lambda c: c["process"].update(members)


def linux(**members):
    return lambda c: c["linux"].update(members)


def mount(**members):
    return lambda c: c["mounts"].append(dict({"destination": "/tmp", "type": "bind", "source": "/tmp", "options": ["bind"]}, **members))


def without(kind):
    return lambda c: c["linux"].update(namespaces=[n for n in c["linux"]["namespaces"] if n["type"] != kind])


def spaces(*more):
    return lambda c: c["linux"]["namespaces"].extend(more)


def resources(**members):
    return linux(resources=members)


def seccomp(**members):
    return linux(seccomp=dict({"defaultAction": "SCMP_ACT_ALLOW"}, **members))


OWN = "the container's kernel is its own: nothing of the host's changes"
MISSING = "what the host lacks is a warning"
NEWER = "as newer runc has it"
LABEL = "engines write it wherever the host has such labels"
MAP = {"containerID": 0, "hostID": 1000, "size": 10}
# Of config.json: what create says to it. A third and fourth: moat's own status, and why.
CONFIGS = [
    ("as-it-is", lambda c: None), ("annotations", add(annotations={"a": "b"})), ("annotation-type", add(annotations={"a": 1})), ("annotations-list", add(annotations=[])),
    ("domainname", add(domainname="example.org")),
    ("no-version", lambda c: c.pop("ociVersion"), 1, "the specification requires it"),
    ("version-2", add(ociVersion="2.0.0"), 1, "the specification wants an error"), ("version-1.9", add(ociVersion="1.9.0")),
    ("host-name-long", add(hostname="x" * 70)), ("no-uts", without("uts"), 0, OWN), ("hook-relative", add(hooks={"prestart": [{"path": "x"}]})),
    *((f"hook-{name}", add(hooks={"createRuntime": [dict({"path": "/bin/true"}, **members)]})) for name, members in (
        ("timeout-0", {"timeout": 0}), ("timeout-below-0", {"timeout": -1}), ("timeout-none", {"timeout": None}), ("timeout-text", {"timeout": "1"}),
        ("timeout-half", {"timeout": 1.5}), ("timeout", {"timeout": 5}), ("path-type", {"path": 7}), ("path-empty", {"path": ""}), ("args-type", {"args": "x"}),
        ("args-of-numbers", {"args": [1]}), ("no-args", {"args": []}), ("env-type", {"env": {"a": "b"}}), ("env-of-numbers", {"env": [1]}),
        ("env-no-value", {"env": ["A"]}))),
    ("hook-of-nothing", add(hooks={"createRuntime": [None]})), ("hook-text", add(hooks={"createRuntime": ["/bin/true"]})),
    ("hook-no-list", add(hooks={"createRuntime": {"path": "/bin/true"}})), ("hooks-list", add(hooks=[])), ("hooks-none", add(hooks={"createRuntime": None})),
    ("hooks-unknown", add(hooks={"frob": [{"path": "x"}]})), ("hook-poststop-relative", add(hooks={"poststop": [{"path": "x"}]}), 1, "all are checked first"),
    ("no-process", lambda c: c.pop("process")), ("no-args", process(args=[])), ("args-type", process(args="sh")),
    ("env-no-value", process(env=["NOEQ", "A=b"])), ("cwd-relative", process(cwd="x")), ("tty-detached", process(terminal=True)),
    ("rlimit-name", process(rlimits=[{"type": "RLIMIT_FROB", "soft": 1, "hard": 1}])),
    ("rlimit-twice", process(rlimits=[{"type": "RLIMIT_CPU", "soft": 1, "hard": 1}] * 2), 1, NEWER),
    ("cap-name", lambda c: c["process"]["capabilities"].update(bounding=["CAP_FROB"])),
    ("cap-lower-case", process(capabilities={k: ["cap_kill"] for k in ("bounding", "permitted", "effective")})),
    ("cap-effective-alone", process(capabilities={"bounding": ["CAP_KILL"], "effective": ["CAP_KILL"]})),
    ("cap-effective-beyond", process(capabilities={"bounding": ["CAP_KILL"], "permitted": ["cap_kill"], "effective": ["CAP_KILL"]})),
    ("cap-permitted-beyond", process(capabilities={"bounding": ["CAP_KILL"], "permitted": ["CAP_CHOWN"], "effective": ["CAP_CHOWN"]})),
    ("cap-inheritable-alone", process(capabilities={"inheritable": ["CAP_KILL"]})), ("cap-ambient-alone", process(capabilities={"ambient": ["CAP_KILL"]})),
    ("cap-of-numbers", process(capabilities={"bounding": [1]})), ("cap-text", process(capabilities={"bounding": "CAP_KILL"})),
    *((f"rlimit-{name}", process(rlimits=[limit])) for name, limit in (
        ("lower-case", {"type": "rlimit_core", "soft": 1, "hard": 1}), ("soft-above-hard", {"type": "RLIMIT_CORE", "soft": 2, "hard": 1}), ("no-type", {"soft": 1, "hard": 1}),
        ("no-limits", {"type": "RLIMIT_CORE"}), ("no-hard", {"type": "RLIMIT_CORE", "soft": 1}), ("below-0", {"type": "RLIMIT_CORE", "soft": -1, "hard": -1}),
        ("text", {"type": "RLIMIT_CORE", "soft": "1", "hard": 1}), ("half", {"type": "RLIMIT_CORE", "soft": 0.5, "hard": 1}), ("no-object", "RLIMIT_CORE"),
        ("largest", {"type": "RLIMIT_CORE", "soft": 2**64 - 1, "hard": 2**64 - 1}))),
    ("oom-score", process(oomScoreAdj=5000)),
    ("apparmor", process(apparmorProfile="x"), 0, LABEL), ("selinux", process(selinuxLabel="x:x:x:s0"), 0, LABEL),
    ("scheduler", process(scheduler={"policy": "SCHED_BATCH", "nice": 5})), ("io-priority", process(ioPriority={"class": "IOPRIO_CLASS_IDLE"})),
    ("scheduler-name", process(scheduler={"policy": "FROB"}), 1, NEWER), ("scheduler-nice", process(scheduler={"policy": "SCHED_OTHER", "nice": 20}), 1, NEWER),
    ("scheduler-priority", process(scheduler={"policy": "SCHED_FIFO"}), 1, NEWER), ("io-priority-level", process(ioPriority={"class": "IOPRIO_CLASS_BE", "priority": 8}), 1, NEWER),
    ("exec-affinity", process(execCPUAffinity={"final": "0"})),
    ("no-root", lambda c: c["root"].update(path="nowhere")), ("mount-relative", mount(destination="rel")),
    ("mount-source", mount(source="/nowhere")), ("mount-type", mount(type="frobfs", source="x", options=[])),
    ("mount-idmap", mount(uidMappings=[MAP], gidMappings=[MAP]), 1, "not silently without"),
    ("mount-idmap-option", mount(options=["bind", "idmap"]), 1, "not silently without"), ("mount-rro", mount(options=["rbind", "rro"])),
    ("mount-copyup", mount(destination="/etc", type="tmpfs", source="tmpfs", options=["tmpcopyup"])),
    ("mount-noise", mount(type="tmpfs", source="tmpfs", options=["silent", "lazytime", "noiversion", "symfollow"])),
    ("namespace-name", linux(namespaces=[{"type": "frob"}])), ("namespace-twice", spaces({"type": "pid"})),
    ("namespace-path", spaces({"type": "cgroup", "path": "/nowhere"})), ("namespace-time", spaces({"type": "time"}), 0, OWN),
    ("time-offsets", lambda c: (spaces({"type": "time"})(c), linux(timeOffsets={"monotonic": {"secs": 1000}})(c))),
    ("masked-no-mount-ns", lambda c: (without("mount")(c), linux(maskedPaths=["/proc/kcore"])(c)), 0, OWN), ("masked-relative", linux(maskedPaths=["proc/kcore"])),
    ("propagation", linux(rootfsPropagation="frob")), ("propagation-shared", linux(rootfsPropagation="rshared")),
    ("sysctl-hostname", linux(sysctl={"kernel.hostname": "x"}), 0, OWN), ("sysctl-vm", linux(sysctl={"vm.swappiness": "1"}), 0, OWN),
    ("sysctl-net", linux(sysctl={"net.ipv4.ip_forward": "1"})), ("device-type", linux(devices=[{"path": "/dev/x", "type": "z"}])),
    ("mount-label", linux(mountLabel="x:x:x:s0"), 0, LABEL), ("intel-rdt", linux(intelRdt={"l3CacheSchema": "L3:0=f"})),
    ("personality", linux(personality={"domain": "LINUX32"})), ("personality-name", linux(personality={"domain": "FROB"}), 1, NEWER),
    ("memory-policy", linux(memoryPolicy={"mode": "MPOL_BIND", "nodes": "0"})), ("net-devices", linux(netDevices={"eth9": {}})),
    ("seccomp-listener", seccomp(listenerPath="/nowhere")), ("seccomp-action", seccomp(defaultAction="FROB")),
    ("seccomp-notify", seccomp(listenerPath="/nowhere", syscalls=[{"names": ["mkdir"], "action": "SCMP_ACT_NOTIFY"}])),
    ("seccomp-flag", seccomp(flags=["FROB"])), ("seccomp-flags", seccomp(flags=["SECCOMP_FILTER_FLAG_LOG"]), 0, NEWER),
    ("seccomp-arch", seccomp(architectures=["FROB"])), ("seccomp-archs", seccomp(architectures=["SCMP_ARCH_X86", "SCMP_ARCH_AARCH64"])),
    ("seccomp-no-names", seccomp(syscalls=[{"names": [], "action": "SCMP_ACT_ERRNO"}])),
    ("user-maps", linux(uidMappings=[MAP]), 1, NEWER), ("user-no-map", spaces({"type": "user"})),
    ("cgroups-path-up", linux(cgroupsPath="../../moat-verbs-@")), ("memory-type", resources(memory={"limit": "1"})),
    ("memory-swap", resources(memory={"limit": 67108864, "swap": 33554432})), ("swappiness", resources(memory={"swappiness": 50})),
    ("swappiness-none", resources(memory={"swappiness": 2**64 - 1})), ("swappiness-range", resources(memory={"swappiness": 101})), ("pids-type", resources(pids={"limit": 1.5})), ("blkio-weight", resources(blockIO={"weight": 100})),
    ("blkio-range", resources(blockIO={"weight": 9999})), ("blkio-leaf", resources(blockIO={"leafWeight": 100}), 0, MISSING),
    ("huge-pages", resources(hugepageLimits=[{"pageSize": "2MB", "limit": 2097152}]), 0, MISSING),
    ("huge-pages-type", resources(hugepageLimits={"pageSize": "2MB"})),
    ("network-class", resources(network={"classID": 1048577}), 0, MISSING), ("rdma", resources(rdma={"mlx5_1": {"hcaHandles": 3}}), 0, MISSING),
    ("unified", resources(unified={"memory.max": "100000000"})), ("unified-slash", resources(unified={"a/b": "1"})),
]


def say(name, bad):
    print(f"not ok {name} {bad}" if bad else f"ok {name}", flush=True)


class Runtime:
    def __init__(self, path, name, work):
        self.path, self.name, self.work = path, name, work
        self.root = f"{work}/{name}.root"

    def fill(self, line):
        return re.sub(r"\bW/", self.work + "/", line).replace("@", f"{self.name[0]}{os.getpid()}-")

    def run(self, line):
        """Status, output, errors. A container keeps its standard output, so these are files."""
        out, err = f"{self.work}/o", f"{self.work}/e"
        with open(out, "wb") as o, open(err, "wb") as e:
            status = subprocess.run(["bash", "-c", f"exec timeout -k 5 30 {self.path} --root {self.root} " + self.fill(line)],
                                    stdin=subprocess.DEVNULL, stdout=o, stderr=e, cwd=self.work).returncode
        return (status,) + tuple(open(f, errors="replace").read() for f in (out, err))

    def stopped(self, name):
        for _ in range(600):
            if '"stopped"' in self.run(f"state {name}")[1]:
                break
            subprocess.run(["sleep", "0.1"])


def words(text):
    return sorted({SAME_WORDS.get(w.lower(), w.lower()) for w in WORDS.findall(text)})


def shape(value, key=""):
    """JSON without what differs by nature: numbers and times stay as their type."""
    if isinstance(value, dict):
        return {k: shape(v, k) for k, v in value.items()}
    if isinstance(value, list):
        return [shape(value[0])] if value else []
    return value if key in ("status", "bundle", "rootfs", "owner", "type") else type(value).__name__


def lacks(runc, ours, at=""):
    """What runc's shape has and ours has not. Figures that are 0 are left out, by either, and whether there was any I/O is chance."""
    if isinstance(runc, dict) and isinstance(ours, dict):
        optional = {"cache", "failcnt", "max", "usage", "periods", "throttledPeriods", "throttledTime", "raw", "minor", "value", "ioServiceBytesRecursive",
                    "ioServicedRecursive"}
        return [b for k, v in runc.items() if k in ours or k not in optional
                for b in (lacks(v, ours[k], f"{at}.{k}") if k in ours else [f"{at}.{k}"])]
    if isinstance(runc, list) and isinstance(ours, list):
        return lacks(runc[0], ours[0], at + "[]") if runc and ours else []
    return [] if runc == ours else [f"{at}: {runc} {ours}"]


def compare_output(line, runc, ours):
    if re.search(r"^(NAME|Incorrect Usage|No help topic)|^\w+ version", runc) or re.match(r"help\b|h$|$", line):
        return [] if ours.strip() or "Incorrect" in runc else ["no help"]
    if re.match(r"ps @1 ", line):
        return []
    try:
        return lacks(shape(json.loads(runc)), shape(json.loads(ours)))
    except ValueError:
        pass
    tidy = [re.sub(r"\b[rm]\d+-|\d+(?!\S*Z)", "N", re.sub(r"\d{4}-\S+Z|/\S+|exec-?\w*", "", re.sub(r" +", " ", t))).strip() for t in (runc, ours)]
    return [] if tidy[0] == tidy[1] else [f"output {tidy[0][:80]!r}, ours {tidy[1][:80]!r}"]


def compare(name, step, both):
    line, *own = step if isinstance(step, tuple) else (step,)
    runc, ours = (rt.run(line) for rt in both)
    if own and own[0] is None:
        return say(name, f"[{line}] status {ours[0]}, runc's {runc[0]}" if ours[0] != runc[0] else "")
    if own:
        # A reason that no longer holds is to be noticed as well.
        return say(name, f"[{line}] status {ours[0]}, wanted {own[0]}" if ours[0] != own[0] else
                   f"[{line}] runc's status is {runc[0]} too: no difference" if runc[0] == own[0] else "")
    bad = [f"status {ours[0]}, runc's {runc[0]}"] if runc[0] != ours[0] else []
    if runc[0] or ours[0]:
        if words(runc[2]) != words(ours[2]) and "Incorrect Usage" not in runc[1]:
            bad.append(f"words {words(ours[2])}, runc's {words(runc[2])}")
    else:
        bad += compare_output(line, runc[1], ours[1])
    text = " ".join(f"{what}={' '.join(t.split())[:150]!r}" for what, t in (("runc", runc[2]), ("moat", ours[2])))
    return say(name, f"[{line}] {'; '.join(bad)} {text}" if bad else "")


def bundle(where, root, *command):
    subprocess.check_call([sys.executable, REPO + "/tests/make_bundle.py", "--root", root, "--readonly", where, "--", *command])
    with open(where + "/config.json") as f:
        return json.load(f)


def write(path, value):
    os.makedirs(os.path.dirname(path), exist_ok=True)
    with open(path, "w") as f:
        json.dump(value, f)


def configs(base, both, work):
    for name, change, *own in CONFIGS:
        got = []
        for rt in both:
            c = copy.deepcopy(base)
            change(c)
            path = c.get("linux", {}).get("cgroupsPath", "")
            if "@" in path:
                c["linux"]["cgroupsPath"] = rt.fill(path)
            write(f"{work}/c/config.json", c)
            got.append(rt.run("create -b W/c @7"))
            rt.run("delete --force @7")
        wanted = own[0] if own else got[0][0]
        bad = f"status {got[1][0]}, wanted {wanted}" if got[1][0] != wanted else ""
        if own and got[0][0] == own[0]:
            bad = f"runc's status is {own[0]} too: no difference"
        say(f"verbs-config-{name}", bad and f"{bad} runc={got[0][2][:150]!r} moat={got[1][2][:150]!r}")


def help_texts(both):
    """Every flag of runc's is in our help, and is taken: what is unknown is refused before anything else."""
    for verb in [""] + VERBS:
        runc, ours = (rt.run(f"{verb} --help")[1] for rt in both)
        flags = set(re.findall(r"--?[a-z][a-z0-9-]*", runc.split("OPTIONS:")[1])) if "OPTIONS:" in runc else set()
        known = set(re.findall(r"--?[a-z][a-z0-9-]*", ours))
        # Found in sentences.
        say(f"verbs-help-{verb or 'global'}", " ".join(sorted(f for f in flags - known if re.search(rf"^\s+(--\S+ (value)?, )?{f}\b", runc, re.M))))


def main():
    if not RUNC:
        print("skip verbs runc is not installed: scripts/deps peers")
        return
    work = tempfile.mkdtemp(prefix="moat-verbs.")
    both = Runtime(RUNC, "runc", work), Runtime(MOAT, "moat", work)
    try:
        # A copy: runc makes mount points in it.
        root = f"{work}/busybox"
        shutil.copytree(subprocess.check_output([REPO + "/scripts/rootfs", "busybox"], text=True).strip(), root, symlinks=True)
        base = bundle(f"{work}/b", root, "/bin/sleep", "300")
        bundle(f"{work}/true", root, "/bin/true")
        write(f"{work}/tty/config.json", dict(base, process=dict(base["process"], terminal=True)))
        write(f"{work}/r.json", {"pids": {"limit": 40}})
        write(f"{work}/rbad.json", {"pids": {"limit": "x"}})
        write(f"{work}/rarr.json", [])
        write(f"{work}/p.json", {"args": ["id", "-u"], "cwd": "/", "user": {"uid": 7}, "env": ["PATH=/bin"]})
        write(f"{work}/pbad.json", {"args": ["id"], "cwd": "rel"})
        write(f"{work}/pnocwd.json", {"args": ["id"]})
        write(f"{work}/pargs.json", {"args": [], "cwd": "/"})
        for i, step in enumerate(STEPS):
            line = step[0] if isinstance(step, tuple) else step
            if line.startswith("!stopped"):
                for rt in both:
                    rt.stopped(line.split()[1])
                continue
            compare(f"verbs-{i:03}-" + re.sub(r"[^\w]+", "-", line)[:40], step, both)
        help_texts(both)
        configs(base, both, work)
    finally:
        for rt in both:
            for n in range(1, 10):
                rt.run(f"delete --force @{n}")
        shutil.rmtree(work)


main()
