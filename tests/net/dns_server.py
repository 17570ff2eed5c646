"""A name server on 127.0.0.1:PORT that knows one name: moat.test is 192.0.2.77."""
import socket
import sys

sock = socket.socket(socket.AF_INET, socket.SOCK_DGRAM)
sock.bind(("127.0.0.1", int(sys.argv[1])))
print("ready", flush=True)
while True:
    query, peer = sock.recvfrom(512)
    end = query.index(0, 12) + 1
    name, kind = query[12:end], query[end:end + 2]
    known = name == b"\x04moat\x04test\0"
    answer = known and kind == b"\0\1"
    reply = query[:2] + (b"\x81\x80" if known else b"\x81\x83") + b"\0\1" + \
        (b"\0\1" if answer else b"\0\0") + b"\0\0\0\0" + query[12:end + 4]
    if answer:
        reply += b"\xc0\x0c\0\1\0\1\0\0\0\x3c\0\4" + bytes((192, 0, 2, 77))
    sock.sendto(reply, peer)
