#!/usr/bin/env python3
"""proc_net.py - makes a socket of every kind, and prints /proc/net's files with what differs from run to run masked.

tests/net/run compares what it prints on the host and in a sandbox in the same network namespace. Masked are kernel
addresses, inode numbers, timers, and counters of packets; names, columns, spaces and states are not.
"""
import re
import socket

FILES = """anycast6 arp dev dev_mcast fib_trie fib_triestat icmp icmp6 if_inet6 igmp igmp6 ip6_flowlabel ipv6_route mcfilter mcfilter6
netlink netstat packet protocols psched ptype raw raw6 route rt6_stats rt_cache snmp snmp6 sockstat sockstat6 softnet_stat
tcp tcp6 udp udp6 udplite udplite6 unix""".split()


def sockets():
    made = []

    def make(family, kind, address=None, protocol=0, then=None):
        s = socket.socket(family, kind, protocol)
        if family in (socket.AF_INET, socket.AF_INET6):
            s.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        if address:
            s.bind(address)
        if then:
            then(s)
        made.append(s)
        return s

    listener = make(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 7301), then=lambda s: s.listen(5))
    make(socket.AF_INET6, socket.SOCK_STREAM, ("::1", 7302), then=lambda s: s.listen(5))
    client = make(socket.AF_INET, socket.SOCK_STREAM, ("127.0.0.1", 7303), then=lambda s: s.connect(("127.0.0.1", 7301)))
    made.append(listener.accept()[0])
    client.send(b"unread")
    udp = make(socket.AF_INET, socket.SOCK_DGRAM, ("127.0.0.1", 7304))
    make(socket.AF_INET, socket.SOCK_DGRAM, ("0.0.0.0", 7305), then=lambda s: s.connect(("127.0.0.1", 7304))).send(b"unread")
    make(socket.AF_INET6, socket.SOCK_DGRAM, ("::", 7306))
    make(socket.AF_INET, socket.SOCK_RAW, protocol=socket.IPPROTO_ICMP)
    make(socket.AF_INET6, socket.SOCK_RAW, protocol=socket.IPPROTO_ICMPV6)
    udp.setsockopt(socket.IPPROTO_IP, socket.IP_ADD_MEMBERSHIP, socket.inet_aton("224.0.0.251") + socket.inet_aton("127.0.0.1"))
    make(socket.AF_UNIX, socket.SOCK_STREAM, "\0moat-test", then=lambda s: s.listen(3))
    make(socket.AF_UNIX, socket.SOCK_STREAM, then=lambda s: s.connect("\0moat-test"))
    make(socket.AF_UNIX, socket.SOCK_DGRAM, "\0moat-dgram")
    made.extend(socket.socketpair(socket.AF_UNIX, socket.SOCK_SEQPACKET))
    return made


def masked(name, text):
    lines = text.split("\n")
    if name in ("tcp", "tcp6"):
        # Local, remote, state, queues; not timer, retransmits; user, timeout; not inode and what follows. Not what an earlier run left waiting.
        kept = [re.sub(r"^ *\d+:( \S+ \S+ (\S+) \S+) \S+ \S+( +\d+ +\d+) .*", r"\1 T\3", line) for line in lines]
        return "\n".join(sorted(line for line in kept if not re.search(r" 0[46] [0-9A-F]{8}:", line)))
    if name in ("udp", "udp6", "udplite", "udplite6", "raw", "raw6", "icmp", "icmp6"):
        return "\n".join(sorted(re.sub(r"^ *\d+:|(?<= )\d+ \d+ [0-9a-fx]{6,} \d+ *$", "", line) for line in lines))
    if name == "unix":
        return "\n".join(sorted(re.sub(r"^[0-9a-f]+: ((?:\S+ ){5}) *\d+", r"P: \1I", line) for line in lines))
    if name == "netlink":
        return lines[0]
    if name == "rt6_stats":
        return re.sub(r"\b[0-9a-f]{4,}\b", "N", text)  # all in hexadecimal
    if name in ("netstat", "snmp", "snmp6", "dev", "sockstat", "sockstat6", "protocols", "softnet_stat", "rt_cache", "ip6_flowlabel", "fib_triestat"):
        # How many words, and which: numbers follow the machine. Widths count in dev and protocols.
        words = text if name in ("dev", "protocols") else re.sub(r" +", " ", text)
        return "\n".join(dict.fromkeys(re.sub(r" *\b(-?\d+|[0-9a-f]{8})(?= |\n|$)", " N", words).split("\n")))
    if name == "igmp6":
        text = re.sub(r"( [0-9A-F]{8}) +\d+(?=\n|$)", r"\1 T", text)
    if name == "ptype":
        # Not somebody's tcpdump.
        text = "\n".join(line for line in lines if "packet_rcv" not in line)
    if name in ("igmp", "igmp6", "ipv6_route", "ptype"):
        return re.sub(r"\b[0-9a-f]{8} +[0-9a-f]{8}(?= )|\d:[0-9A-F]{8}|[0-9a-f]{8}(?= [0-9a-f]{8} [0-9a-f]{8} +lo)", "M", text)
    return text


def main():
    made = sockets()
    for name in FILES:
        try:
            with open(f"/proc/net/{name}", encoding="ascii") as f:
                text = f.read()
        except OSError as e:
            print(f"{name}: {e.strerror}")
            continue
        for line in masked(name, text).split("\n"):
            print(f"{name}: {line}")
    del made


main()
