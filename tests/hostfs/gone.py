#!/usr/bin/env python3
"""gone.py FILE - says "watched", and "gone" when the host has given up the file: it has no name left, and nobody holds it."""
import ctypes
import os
import select
import struct
import sys

IN_DELETE_SELF = 0x400

libc = ctypes.CDLL(None, use_errno=True)
fd = libc.inotify_init1(os.O_CLOEXEC)
if libc.inotify_add_watch(fd, os.fsencode(sys.argv[1]), IN_DELETE_SELF) < 0:
    sys.exit(f"watch: {os.strerror(ctypes.get_errno())}")
print("watched", flush=True)
select.select([fd], [], [], 30)
os.set_blocking(fd, False)
try:
    mask = struct.unpack_from("<iI", os.read(fd, 4096))[1]
except BlockingIOError:
    sys.exit("still held")
print("gone" if mask & IN_DELETE_SELF else hex(mask), flush=True)
