/*
 * sentry/fs/proc_net.c - /proc/PID/net: AF_UNIX sockets, and the empty tables of a machine with no network but loopback.
 */
#include "fsimpl/socket/socket.h"
#include "sentry/fs/proc.h"

static int text_show(struct synth_node *n, unused_arg struct synth_file *sf, struct buf *b)
{
	buf_puts(b, n->entry->data);
	return 0;
}

static int unix_show(unused_arg struct synth_node *n, unused_arg struct synth_file *sf,
		     struct buf *b)
{
	socket_show_unix(b);
	return 0;
}

static const struct synth_node_ops text_ops = {.show = text_show, .setattr = synth_setattr_eperm};
static const struct synth_node_ops unix_ops = {.show = unix_show, .setattr = synth_setattr_eperm};

#define TCP_HEADER                                                                     \
	"  sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt " \
	"  uid  timeout inode                                                     \n"
#define TCP6_HEADER                                                                             \
	"  sl  local_address                         remote_address                        st " \
	"tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode\n"
#define UDP_HEADER                                                                            \
	"   sl  local_address rem_address   st tx_queue rx_queue tr tm->when retrnsmt   uid " \
	" timeout inode ref pointer drops             \n"
#define UDP6_HEADER                                                                             \
	"  sl  local_address                         remote_address                        st " \
	"tx_queue rx_queue tr tm->when retrnsmt   uid  timeout inode ref pointer drops\n"

#define T(file_name, text)                                                                  \
	{                                                                                   \
		.name = file_name, .mode = S_IFREG | 0444, .ops = &text_ops, .data = (text) \
	}

const struct synth_entry proc_net_entries[] = {
	T("arp",
	  "IP address       HW type     Flags       HW address            Mask     Device\n"),
	T("dev",
	  "Inter-|   Receive                                                |  Transmit\n"
	  " face |bytes    packets errs drop fifo frame compressed multicast|bytes    packets errs "
	  "drop fifo colls carrier compressed\n"
	  "    lo:       0       0    0    0    0     0          0         0        0       0    0 "
	  "   0    0     0       0          0\n"),
	T("if_inet6", ""),
	T("ipv6_route", ""),
	T("netlink", "sk               Eth Pid        Groups   Rmem     Wmem     Dump  Locks    "
		     "Drops    Inode\n"),
	T("packet", "sk               RefCnt Type Proto  Iface R Rmem   User   Inode\n"),
	T("protocols", "protocol  size sockets  memory press maxhdr  slab module     cl co di ac "
		       "io in de sh ss gs se re bi br ha uh gp em\n"),
	T("psched", "000003e8 00000040 000f4240 3b9aca00\n"),
	T("ptype", "Type Device      Function\n"),
	T("raw", TCP_HEADER),
	T("raw6", TCP6_HEADER),
	T("route", "Iface\tDestination\tGateway \tFlags\tRefCnt\tUse\tMetric\tMask\t\tMTU\tWindow\t"
		   "IRTT                                                       \n"),
	T("sockstat", "sockets: used 0\nTCP: inuse 0 orphan 0 tw 0 alloc 0 mem 0\n"
		      "UDP: inuse 0 mem 0\nUDPLITE: inuse 0\nRAW: inuse 0\n"
		      "FRAG: inuse 0 memory 0\n"),
	T("sockstat6", "TCP6: inuse 0\nUDP6: inuse 0\nUDPLITE6: inuse 0\nRAW6: inuse 0\n"
		       "FRAG6: inuse 0 memory 0\n"),
	T("tcp", TCP_HEADER),
	T("tcp6", TCP6_HEADER),
	T("udp", UDP_HEADER),
	T("udp6", UDP6_HEADER),
	{.name = "unix", .mode = S_IFREG | 0444, .ops = &unix_ops},
	{0},
};
