#!/usr/bin/env python3
"""make_bundle.py [options] DIR -- COMMAND... - writes DIR/config.json for an OCI runtime.

The same bundle runs under moat, runc, crun and runsc.
"""
import argparse
import json
import os

CAPS = ("CHOWN DAC_OVERRIDE FSETID FOWNER MKNOD NET_RAW SETGID SETUID SETFCAP SETPCAP "
        "NET_BIND_SERVICE SYS_CHROOT KILL AUDIT_WRITE").split()


def mount(kind, where, *options, source=None):
    return {"destination": where, "type": kind, "source": source or kind,
            "options": list(options)}


def main():
    parser = argparse.ArgumentParser()
    parser.add_argument("--root", required=True, help="the root filesystem")
    parser.add_argument("--readonly", action="store_true", help="root read-only; /tmp is a tmpfs")
    parser.add_argument("--terminal", action="store_true")
    parser.add_argument("--cwd", default="/")
    parser.add_argument("--user", default="0:0", metavar="UID:GID")
    parser.add_argument("--env", action="append", default=[], metavar="NAME=VALUE")
    parser.add_argument("--bind", action="append", default=[], metavar="HOST:GUEST[:ro]")
    parser.add_argument("--mount", action="append", default=[], metavar="TYPE:SOURCE:GUEST:OPTIONS")
    parser.add_argument("--all-caps", action="store_true")
    parser.add_argument("dir")
    parser.add_argument("command", nargs="+")
    args = parser.parse_args()

    uid, gid = map(int, args.user.split(":"))
    caps = CAPS + (["SYS_ADMIN", "SYS_PTRACE", "SYS_RESOURCE", "SYS_NICE", "SYSLOG",
                    "DAC_READ_SEARCH", "LINUX_IMMUTABLE", "IPC_LOCK", "IPC_OWNER", "SYS_TIME",
                    "NET_ADMIN", "LEASE"] if args.all_caps else [])
    caps = ["CAP_" + c for c in caps]
    mounts = [
        mount("proc", "/proc"),
        mount("tmpfs", "/dev", "nosuid", "strictatime", "mode=755", "size=65536k"),
        mount("devpts", "/dev/pts", "nosuid", "noexec", "newinstance", "ptmxmode=0666", "mode=0620"),
        mount("tmpfs", "/dev/shm", "nosuid", "noexec", "nodev", "mode=1777", "size=65536k",
              source="shm"),
        mount("mqueue", "/dev/mqueue", "nosuid", "noexec", "nodev"),
        mount("sysfs", "/sys", "nosuid", "noexec", "nodev", "ro"),
    ]
    if args.readonly:
        mounts.append(mount("tmpfs", "/tmp", "nodev", "mode=1777"))
    for spec in args.bind:
        host, guest, *flags = spec.split(":")
        mounts.append(mount("bind", guest, "rbind", *(flags or ["rw"]), source=os.path.abspath(host)))
    for spec in args.mount:
        kind, source, guest, options = spec.split(":", 3)
        mounts.append(mount(kind, guest, *options.split(","), source=source))
    config = {
        "ociVersion": "1.0.2",
        "process": {
            "terminal": args.terminal,
            "user": {"uid": uid, "gid": gid},
            "args": args.command,
            "env": ["PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin",
                    "TERM=xterm", "HOME=/tmp" if args.readonly else "HOME=/root", "LC_ALL=C.UTF-8"] + args.env,
            "cwd": args.cwd,
            "capabilities": {s: caps for s in ("bounding", "effective", "permitted")},
            "rlimits": [{"type": "RLIMIT_NOFILE", "soft": 1024, "hard": 4096}],
            "noNewPrivileges": False,
        },
        "root": {"path": os.path.abspath(args.root), "readonly": args.readonly},
        "hostname": "moat",
        "mounts": mounts,
        "linux": {"namespaces": [{"type": t} for t in ("pid", "ipc", "uts", "mount", "network")]},
    }
    os.makedirs(args.dir, exist_ok=True)
    with open(os.path.join(args.dir, "config.json"), "w", encoding="utf-8") as out:
        json.dump(config, out, indent=1)


if __name__ == "__main__":
    main()
