#!/usr/bin/env python3
"""Fails on an #include that goes upward or sideways (docs/architecture.md draws the layers).

Prints `file:line: why` for each. With --dot it prints the graph of directories instead.
"""
import os
import re
import subprocess
import sys

# What each directory may include besides itself. Transitive: written out, so that a change shows.
BASE = {"abi", "base"}
MEM = BASE | {"mem"}
VFS = MEM | {"vfs"}
ALLOWED = {
    "abi": {"abi"},
    "base": BASE,
    "wire": BASE | {"wire"},
    "mem": MEM,
    "vfs": VFS,
    "fsimpl": VFS | {"wire"},
    "platform": MEM,
    "sentry": VFS | {"wire", "fsimpl", "platform", "sentry"},
    "syscalls": VFS | {"wire", "fsimpl", "platform", "sentry", "syscalls"},
    "gofer": BASE | {"wire", "gofer"},
    # The command line shares only abi, base, wire and the control protocol with the kernel.
    "runtime": BASE | {"wire", "runtime"},
}
# Filesystems and platforms do not know one another: (directory, subdirectory) is the unit.
UNITS = ("fsimpl", "platform")
# What several filesystems, or platforms, are built from.
COMMON = {"fsimpl/anon", "fsimpl/synth", "fsimpl/remote", "platform/patch",
          "platform/common"}
# A filesystem built on another's objects says so here, with its reason.
SIBLINGS = {
    ("fsimpl/overlay", "fsimpl/memfs"),  # its upper layer, when it is private to the sandbox
}
# runtime/role_*.c is where the re-executed binary becomes a sentry or a gofer: it names their
# mains. boot.h is what the rest of the command line may ask the kernel for: which platforms work.
ROLE_HEADERS = {"sentry/boot/boot.h", "sentry/task.h", "syscalls/syscalls.h", "gofer/gofer.h",
                "gofer/virtiofs/virtiofsd.h"}
INCLUDE = re.compile(r'^\s*#\s*include\s+"([^"]+)"')


def unit_of(path):
    parts = path.split("/")
    if parts[0] in UNITS and len(parts) > 2:
        return "/".join(parts[:2])
    return parts[0]


def problem(source, target):
    src_top, dst_top = source.split("/")[0], target.split("/")[0]
    if src_top not in ALLOWED or dst_top not in ALLOWED:
        return None if src_top not in ALLOWED else f"{target}: includes start at the top level"
    if src_top == "runtime" and target == "sentry/boot/boot.h":
        return None
    if source.startswith("runtime/role_") and target in ROLE_HEADERS:
        return None
    src_unit, dst_unit = unit_of(source), unit_of(target)
    if src_unit == dst_unit or dst_unit in COMMON or (src_unit, dst_unit) in SIBLINGS:
        return None
    if dst_unit == src_top or src_top == dst_top and "/" not in dst_unit:
        return None  # platform/platform.h from platform/kvm
    if src_top == dst_top:
        return f"{src_unit} must not know {dst_unit}"
    if dst_top not in ALLOWED[src_top]:
        return f"{src_top} may not include {dst_top}"
    return None


def main():
    files = subprocess.run(["git", "ls-files", "*.c", "*.h", "*.S"], check=True, text=True,
                           capture_output=True).stdout.split()
    failed = False
    edges = set()
    for source in files:
        if source.split("/")[0] not in ALLOWED or not os.path.exists(source):
            continue
        for number, line in enumerate(open(source, encoding="utf-8"), 1):
            match = INCLUDE.match(line)
            if not match:
                continue
            edges.add((unit_of(source), unit_of(match[1])))
            why = problem(source, match[1])
            if why:
                print(f"{source}:{number}: {why}")
                failed = True
    if "--dot" in sys.argv:
        print("digraph moat {")
        for a, b in sorted(edges):
            if a != b:
                print(f'\t"{a}" -> "{b}";')
        print("}")
    return 1 if failed else 0


if __name__ == "__main__":
    sys.exit(main())
