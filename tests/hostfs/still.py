#!/usr/bin/env python3
"""still.py DIR - a FUSE file system on DIR with an empty directory, until it is killed; stopped (SIGSTOP) it stands still."""
import ctypes
import os
import stat
import struct
import sys

INIT, GETATTR, OPENDIR, READDIR, STATFS, RELEASEDIR, FORGET, BATCH_FORGET = 26, 3, 27, 28, 17, 29, 2, 42
ENOENT, ENOSYS, MS_NOSUID_NODEV, MNT_DETACH = 2, 38, 6, 2
LOOKUP = 1

# No more than the root: its attributes, which hold for no time, and nothing in it.
ATTR = struct.pack("<6Q10I", 1, 0, 0, 0, 0, 0, 0, 0, 0, stat.S_IFDIR | 0o755, 2, 0, 0, 0, 4096, 0)
REPLIES = {
    INIT: struct.pack("<4I2H2I2H8I", 7, 31, 65536, 0, 12, 10, 65536, 1, 0, 0, *[0] * 8)[:64],
    GETATTR: struct.pack("<Q2I", 0, 0, 0) + ATTR,
    OPENDIR: struct.pack("<Q2I", 1, 0, 0),
    READDIR: b"",
    RELEASEDIR: b"",
    STATFS: struct.pack("<5Q4I6I", *[0] * 5, 4096, 255, 4096, 0, *[0] * 6),
}

where = sys.argv[1]
fd = os.open("/dev/fuse", os.O_RDWR)
libc = ctypes.CDLL(None, use_errno=True)
options = f"fd={fd},rootmode=40000,user_id={os.getuid()},group_id={os.getgid()},allow_other"
if libc.mount(b"still", where.encode(), b"fuse.still", MS_NOSUID_NODEV, options.encode()):
    sys.exit(f"mount: {os.strerror(ctypes.get_errno())}")
print("mounted", flush=True)
while True:
    try:
        request = os.read(fd, 1 << 20)
    except OSError:
        break
    opcode, unique = struct.unpack_from("<IQ", request, 4)
    if opcode in (FORGET, BATCH_FORGET):
        continue
    error = 0 if opcode in REPLIES else -ENOENT if opcode == LOOKUP else -ENOSYS
    reply = REPLIES.get(opcode, b"")
    os.write(fd, struct.pack("<IiQ", 16 + len(reply), error, unique) + reply)
libc.umount2(where.encode(), MNT_DETACH)
