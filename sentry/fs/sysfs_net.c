/*
 * sentry/fs/sysfs_net.c - /sys/class/net: the interfaces of the sandbox's network namespace, as the host's stack tells of them.
 */
#include <net/if.h>
#include <net/if_arp.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <linux/sockios.h>

#include "fsimpl/socket/family.h"
#include "fsimpl/socket/hostnet.h"
#include "sentry/fs/internal.h"
#include "sentry/fs/proc.h"

#define INTERFACES_MAX 1024

/* ---- what /proc/net/dev says: names and counters ---- */

/* The line of interface number `index`, or called `name`; *ret_name IFNAMSIZ bytes. The counters begin at the result. */
static const char *dev_line(const struct buf *b, int64_t index, const char *name, char *ret_name)
{
	const char *p = b->data, *end = p + b->len;
	int64_t line = -2; /* two of headings */

	for (; p < end; line++) {
		const char *nl = memchr(p, '\n', (size_t)(end - p)), *colon;
		size_t len;

		if (!nl)
			return NULL;
		colon = memchr(p, ':', (size_t)(nl - p));
		if (line >= 0 && colon) {
			while (*p == ' ')
				p++;
			len = MIN((size_t)(colon - p), (size_t)IFNAMSIZ - 1);
			memcpy(ret_name, p, len);
			ret_name[len] = '\0';
			if (name ? strcmp(name, ret_name) == 0 : line == index)
				return colon + 1;
		}
		p = nl + 1;
	}
	return NULL;
}

static int dev_read(struct buf *b)
{
	int err;

	buf_init(b, HOSTNET_FILE_MAX + 1);
	err = hostnet_read("dev", b);
	if (!err) {
		buf_putc(b, '\0');
		b->len--;
		err = buf_error(b);
	}
	return err;
}

/* ---- one interface: priv of its directory is its name, of files too ---- */

static int ask(const char *name, unsigned cmd, struct ifreq *ifr)
{
	memset(ifr, 0, sizeof(*ifr));
	snprintf(ifr->ifr_name, sizeof(ifr->ifr_name), "%s", name);
	return netdev_query(cmd, ifr);
}

static const char *interface_of(const struct synth_node *n)
{
	return n->priv; /* the directory's: static children inherit it */
}

enum attr {
	ATTR_ADDRESS,
	ATTR_FLAGS,
	ATTR_INDEX,
	ATTR_MTU,
	ATTR_QLEN,
	ATTR_TYPE,
	ATTR_OPER,
	ATTR_CARRIER,
	ATTR_ADDR_LEN
};

static int attr_show(struct synth_node *n, unused_arg struct synth_file *sf, struct buf *b)
{
	static const unsigned cmds[] = {SIOCGIFHWADDR, SIOCGIFFLAGS,  SIOCGIFINDEX,
					SIOCGIFMTU,    SIOCGIFTXQLEN, SIOCGIFHWADDR,
					SIOCGIFFLAGS,  SIOCGIFFLAGS,  SIOCGIFHWADDR};
	unsigned attr = (unsigned)(uintptr_t)n->entry->data;
	const uint8_t *mac;
	struct ifreq ifr;
	int err = ask(interface_of(n), cmds[attr], &ifr);
	unsigned flags = (uint16_t)ifr.ifr_flags;

	if (err)
		return err;
	mac = (const uint8_t *)ifr.ifr_hwaddr.sa_data;
	switch ((enum attr)attr) {
	case ATTR_ADDRESS:
		for (int i = 0; i < 6; i++)
			buf_printf(b, "%s%02x", i ? ":" : "", mac[i]);
		buf_putc(b, '\n');
		break;
	case ATTR_FLAGS:
		/* Without those that follow from the state of the line. */
		buf_printf(b, "0x%x\n", flags & ~(unsigned)(IFF_RUNNING));
		break;
	case ATTR_INDEX:
		buf_printf(b, "%d\n", ifr.ifr_ifindex);
		break;
	case ATTR_MTU:
		buf_printf(b, "%d\n", ifr.ifr_mtu);
		break;
	case ATTR_QLEN:
		buf_printf(b, "%d\n", ifr.ifr_qlen);
		break;
	case ATTR_TYPE:
		buf_printf(b, "%u\n", ifr.ifr_hwaddr.sa_family);
		break;
	case ATTR_OPER:
		buf_puts(b, flags & IFF_LOOPBACK  ? "unknown\n"
			    : flags & IFF_RUNNING ? "up\n"
						  : "down\n");
		break;
	case ATTR_CARRIER:
		if (!(flags & IFF_UP))
			return -EINVAL;
		buf_puts(b, flags & IFF_RUNNING ? "1\n" : "0\n");
		break;
	case ATTR_ADDR_LEN:
		buf_puts(b, "6\n");
		break;
	}
	return 0;
}

/* Columns of /proc/net/dev. */
static int stat_show(struct synth_node *n, unused_arg struct synth_file *sf, struct buf *b)
{
	unsigned column = (unsigned)(uintptr_t)n->entry->data;
	const char *name = interface_of(n), *p;
	char found[IFNAMSIZ], *end;
	unsigned long long v = 0;
	struct buf dev;
	int err = dev_read(&dev);

	p = err ? NULL : dev_line(&dev, 0, name, found);
	for (unsigned i = 0; p && i <= column; i++, p = end)
		v = strtoull(p, &end, 10);
	buf_fini(&dev);
	if (!err && !p)
		err = -ENOENT;
	if (!err)
		buf_printf(b, "%llu\n", v);
	return err;
}

#define OPS(var, ...) \
	static const struct synth_node_ops var = {.setattr = synth_setattr_eperm, __VA_ARGS__}

OPS(attr_ops, .show = attr_show);
OPS(stat_ops, .show = stat_show);
OPS(stats_dir_ops);

/* clang-format off */
#define A(file_name, attr) { .name = file_name, .mode = S_IFREG | 0444, .ops = &attr_ops, .data = (void *)(uintptr_t)(attr) }
#define S(file_name, column) { .name = file_name, .mode = S_IFREG | 0444, .ops = &stat_ops, .data = (void *)(uintptr_t)(column) }

static const struct synth_entry statistics_entries[] = {
	S("rx_bytes", 0), S("rx_packets", 1), S("rx_errors", 2), S("rx_dropped", 3), S("multicast", 7),
	S("tx_bytes", 8), S("tx_packets", 9), S("tx_errors", 10), S("tx_dropped", 11), S("collisions", 13),
	{ 0 },
};

static const struct synth_entry interface_entries[] = {
	A("addr_len", ATTR_ADDR_LEN),
	A("address", ATTR_ADDRESS),
	A("carrier", ATTR_CARRIER),
	A("flags", ATTR_FLAGS),
	A("ifindex", ATTR_INDEX),
	A("iflink", ATTR_INDEX),
	A("mtu", ATTR_MTU),
	A("operstate", ATTR_OPER),
	A("tx_queue_len", ATTR_QLEN),
	A("type", ATTR_TYPE),
	{ .name = "statistics", .mode = S_IFDIR | 0755, .ops = &stats_dir_ops, .children = statistics_entries },
	{ 0 },
};
/* clang-format on */

static bool interface_valid(struct synth_node *n)
{
	struct ifreq ifr;

	return ask(n->priv, SIOCGIFINDEX, &ifr) == 0;
}

static void interface_destroy(struct synth_node *n)
{
	free(n->priv);
}

OPS(interface_ops, .revalidate = interface_valid, .destroy = interface_destroy);

static int net_lookup(struct synth_node *dir, const char *name, size_t len, struct synth_node **ret)
{
	struct ifreq ifr;
	char *copy;
	int err;

	if (len >= IFNAMSIZ)
		return -ENOENT;
	copy = strndup(name, len);
	if (!copy)
		return -ENOMEM;
	err = ask(copy, SIOCGIFINDEX, &ifr) ? -ENOENT : 0;
	if (!err)
		err = synth_node_create(dir, name, len, S_IFDIR | 0755, &interface_ops, copy, ret);
	if (err)
		free(copy);
	else
		(*ret)->children = interface_entries;
	return err;
}

static int net_iterate(unused_arg struct synth_node *dir, int64_t from, struct synth_iter *it)
{
	char name[IFNAMSIZ];
	struct buf dev;
	int err = dev_read(&dev);

	for (int64_t i = from; !err && i < INTERFACES_MAX; i++)
		if (!dev_line(&dev, i, NULL, name) ||
		    !synth_emit(it, name, strlen(name), S_IFDIR, 0, i))
			break;
	buf_fini(&dev);
	return err == -ENOENT ? 0 : err;
}

const struct synth_node_ops sysfs_net_ops = {
	.lookup = net_lookup, .iterate = net_iterate, .setattr = synth_setattr_eperm};
