#!/usr/bin/env python3
"""vmlinux.py VMLINUZ OUT - the ELF kernel inside a bzImage (it boots faster under emulation)."""
import gzip
import io
import lzma
import sys


def unpacked(image):
    """Yields what follows each compression magic, decompressed."""
    at = -1
    while (at := image.find(b"\xfd7zXZ\0", at + 1)) >= 0:
        try:
            yield lzma.LZMADecompressor().decompress(image[at:])
        except lzma.LZMAError:
            pass
    while (at := image.find(b"\x1f\x8b\x08", at + 1)) >= 0:
        try:
            yield gzip.GzipFile(fileobj=io.BytesIO(image[at:])).read()
        except (OSError, EOFError):
            pass


def main():
    with open(sys.argv[1], "rb") as f:
        image = f.read()
    for kernel in unpacked(image):
        if kernel[:4] == b"\x7fELF":
            with open(sys.argv[2], "wb") as f:
                f.write(kernel)
            return
    sys.exit(f"{sys.argv[1]}: no xz or gzip compressed ELF kernel in it")


main()
