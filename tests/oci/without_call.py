#!/usr/bin/env python3
"""without_call.py NUMBER[:ARGUMENT=VALUE] COMMAND... - runs COMMAND where the system call NUMBER (x86-64) says ENOSYS, by a seccomp filter.

With an argument's index (0 to 5): only calls whose argument has that value (32 bits of it).
"""
import ctypes
import errno
import os
import struct
import sys


def insn(code, jt, jf, k):
    return struct.pack("HBBI", code, jt, jf, k)


class Program(ctypes.Structure):
    _fields_ = [("len", ctypes.c_ushort), ("insns", ctypes.c_void_p)]


call, _, argument = sys.argv[1].partition(":")
index, _, value = argument.partition("=")
code = [(0x20, 0, 0, 0), (0x15, 0, 3 if argument else 1, int(call))]
if argument:
    code += [(0x20, 0, 0, 16 + 8 * int(index)), (0x15, 0, 1, int(value))]
code += [(0x06, 0, 0, 0x00050000 | errno.ENOSYS), (0x06, 0, 0, 0x7fff0000)]
text = ctypes.create_string_buffer(b"".join(insn(*c) for c in code))
libc = ctypes.CDLL(None, use_errno=True)
# PR_SET_NO_NEW_PRIVS; PR_SET_SECCOMP, SECCOMP_MODE_FILTER
if libc.prctl(38, 1, 0, 0, 0) or libc.prctl(22, 2, ctypes.byref(Program(len(code), ctypes.addressof(text))), 0, 0):
    sys.exit("without_call.py: " + os.strerror(ctypes.get_errno()))
os.execvp(sys.argv[2], sys.argv[2:])
