/*
 * sentry/fs/proc_net.c - /proc/PID/net: the host's tables of the sandbox's network namespace, read anew each time, and the
 * sentry's own AF_UNIX sockets.
 *
 * The tables name the host's user of each socket, which is the sentry; the user inside who made it is put in its place.
 */
#include <inttypes.h>
#include <stdio.h>
#include <string.h>

#include "fsimpl/socket/host.h"
#include "sentry/fs/proc.h"

/* Columns of the socket tables, from 0. */
#define COLUMN_UID 7
#define COLUMN_INODE 9

static int host_show(struct synth_node *n, unused_arg struct synth_file *sf, struct buf *b)
{
	return hostnet_read(n->entry->data, b);
}

/* Start and end of a column; false if the line has fewer. */
static bool column(const char *line, size_t len, unsigned index, size_t *ret_start, size_t *ret_end)
{
	size_t pos = 0;

	for (unsigned i = 0;; i++) {
		while (pos < len && line[pos] == ' ')
			pos++;
		if (pos == len)
			return false;
		*ret_start = pos;
		while (pos < len && line[pos] != ' ')
			pos++;
		*ret_end = pos;
		if (i == index)
			return true;
	}
}

static void show_socket_line(const char *line, size_t len, struct buf *b)
{
	size_t uid_start, uid_end, ino_start, ino_end, width, field;
	char text[24] = {0};
	uint32_t uid;
	uint64_t ino;

	if (!column(line, len, COLUMN_UID, &uid_start, &uid_end) ||
	    !column(line, len, COLUMN_INODE, &ino_start, &ino_end) ||
	    ino_end - ino_start >= sizeof(text)) {
		buf_append(b, line, len);
		return;
	}
	memcpy(text, line + ino_start, ino_end - ino_start);
	if (sscanf(text, "%" SCNu64, &ino) != 1 || !ino || !host_socket_find(ino, &uid)) {
		buf_append(b, line, len);
		return;
	}
	/* Right-aligned in five columns, as the kernel prints it. */
	width = uid_end - uid_start;
	field = width < 5 ? 5 - width : 0;
	buf_append(b, line, uid_start - MIN(field, uid_start));
	buf_printf(b, "%5u", uid);
	buf_append(b, line + uid_end, len - uid_end);
}

static int sockets_show(struct synth_node *n, unused_arg struct synth_file *sf, struct buf *b)
{
	struct buf host;
	const char *p, *end;
	int err;

	buf_init(&host, HOSTNET_FILE_MAX + 4096);
	err = hostnet_read(n->entry->data, &host);
	if (!err)
		err = buf_error(&host);
	p = host.data;
	end = err ? p : p + host.len;
	while (p < end) {
		const char *nl = memchr(p, '\n', (size_t)(end - p));
		size_t len = nl ? (size_t)(nl - p) : (size_t)(end - p);

		show_socket_line(p, len, b);
		if (nl)
			buf_putc(b, '\n');
		p += len + 1;
	}
	buf_fini(&host);
	return err;
}

static int unix_show(unused_arg struct synth_node *n, unused_arg struct synth_file *sf,
		     struct buf *b)
{
	socket_show_unix(b);
	return 0;
}

static const struct synth_node_ops host_ops = {.show = host_show, .setattr = synth_setattr_eperm};
/* In /proc/PID, where otherwise nothing is spliced. */
static const struct synth_node_ops spliced_ops = {
	.show = host_show, .setattr = synth_setattr_eperm, .splice = SYNTH_SPLICE_YES};
static const struct synth_node_ops sockets_ops = {.show = sockets_show,
						  .setattr = synth_setattr_eperm};
static const struct synth_node_ops unix_ops = {.show = unix_show, .setattr = synth_setattr_eperm};

/* clang-format off */
#define H(file_name) { .name = file_name, .mode = S_IFREG | 0444, .ops = &host_ops, .data = (file_name) }
#define P(file_name) { .name = file_name, .mode = S_IFREG | 0444, .ops = &spliced_ops, .data = (file_name) }
#define S(file_name) { .name = file_name, .mode = S_IFREG | 0444, .ops = &sockets_ops, .data = (file_name) }

const struct synth_entry proc_net_entries[] = {
	H("anycast6"),
	H("arp"),
	H("dev"),
	H("dev_mcast"),
	H("fib_trie"),
	H("fib_triestat"),
	S("icmp"),
	S("icmp6"),
	H("if_inet6"),
	H("igmp"),
	H("igmp6"),
	H("ip6_flowlabel"),
	H("ipv6_route"),
	H("mcfilter"),
	H("mcfilter6"),
	H("netlink"),
	H("netstat"),
	H("packet"),
	H("protocols"),
	P("psched"),
	H("ptype"),
	S("raw"),
	S("raw6"),
	H("route"),
	H("rt6_stats"),
	P("rt_cache"),
	H("snmp"),
	H("snmp6"),
	H("sockstat"),
	H("sockstat6"),
	P("softnet_stat"),
	S("tcp"),
	S("tcp6"),
	S("udp"),
	S("udp6"),
	S("udplite"),
	S("udplite6"),
	{ .name = "unix", .mode = S_IFREG | 0444, .ops = &unix_ops },
	{ 0 },
};
/* clang-format on */
