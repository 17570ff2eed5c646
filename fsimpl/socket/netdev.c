/*
 * fsimpl/socket/netdev.c - netdevice(7): ioctls that ask for the namespace's interfaces, on a socket of any family.
 *
 * They go to one host socket of the sentry's. Each command is a row: how large its argument is, and whether it changes
 * something, for which the guest needs CAP_NET_ADMIN (and the sentry too, or the host says EPERM). Commands with
 * pointers inside (SIOCETHTOOL, SIOCGIFMAP's relatives of drivers) are not rows: EOPNOTSUPP or ENOTTY.
 */
#include <net/if.h>
#include <net/if_arp.h>
#include <net/route.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <unistd.h>
#include <linux/capability.h>
#include <linux/sockios.h>

#include "fsimpl/socket/host.h"

#define IFCONF_MAX (64u << 10)

struct netdev_cmd {
	unsigned cmd;
	uint16_t size; /* read from and written to the guest */
	bool admin;
};

static const struct netdev_cmd cmds[] = {
	{SIOCGIFNAME, sizeof(struct ifreq), false},
	{SIOCGIFFLAGS, sizeof(struct ifreq), false},
	{SIOCGIFADDR, sizeof(struct ifreq), false},
	{SIOCGIFDSTADDR, sizeof(struct ifreq), false},
	{SIOCGIFBRDADDR, sizeof(struct ifreq), false},
	{SIOCGIFNETMASK, sizeof(struct ifreq), false},
	{SIOCGIFMETRIC, sizeof(struct ifreq), false},
	{SIOCGIFMTU, sizeof(struct ifreq), false},
	{SIOCGIFHWADDR, sizeof(struct ifreq), false},
	{SIOCGIFINDEX, sizeof(struct ifreq), false},
	{SIOCGIFTXQLEN, sizeof(struct ifreq), false},
	{SIOCGIFMAP, sizeof(struct ifreq), false},
	{SIOCGIFPFLAGS, sizeof(struct ifreq), false},
	{SIOCGARP, sizeof(struct arpreq), false},
	{SIOCSIFFLAGS, sizeof(struct ifreq), true},
	{SIOCSIFADDR, sizeof(struct ifreq), true},
	{SIOCSIFDSTADDR, sizeof(struct ifreq), true},
	{SIOCSIFBRDADDR, sizeof(struct ifreq), true},
	{SIOCSIFNETMASK, sizeof(struct ifreq), true},
	{SIOCSIFMTU, sizeof(struct ifreq), true},
	{SIOCSIFHWADDR, sizeof(struct ifreq), true},
	{SIOCSIFTXQLEN, sizeof(struct ifreq), true},
	{SIOCSIFNAME, sizeof(struct ifreq), true},
};

static int netdev_fd(void)
{
	static _Atomic int shared = -1;
	int fd = atomic_load_explicit(&shared, memory_order_acquire), expected = -1;

	if (fd >= 0)
		return fd;
	if (hostnet_mode() == HOSTNET_NONE)
		return -ENODEV;
	fd = host_socket_open(AF_INET, SOCK_DGRAM, 0);
	if (fd < 0)
		return fd;
	if (atomic_compare_exchange_strong(&shared, &expected, fd))
		return fd;
	close(fd);
	return expected;
}

int netdev_query(unsigned cmd, struct ifreq *inout)
{
	int fd = netdev_fd();

	if (fd < 0)
		return fd;
	return ioctl(fd, cmd, inout) < 0 ? -errno : 0;
}

/* SIOCGIFCONF: the only one with a pointer. */
static int64_t get_ifconf(int fd, uint64_t arg)
{
	struct {
		int32_t len, pad;
		uint64_t buf;
	} guest;
	struct ifconf ifc;
	int64_t ret;

	if (vfs_user_copy_in(&guest, arg, sizeof(guest)))
		return -EFAULT;
	if (guest.buf && guest.len < 0)
		return -EINVAL;
	ifc.ifc_len = MIN(guest.len, (int32_t)IFCONF_MAX);
	ifc.ifc_buf = guest.buf ? malloc((size_t)ifc.ifc_len + 1) : NULL;
	if (guest.buf && !ifc.ifc_buf)
		return -ENOMEM;
	ret = ioctl(fd, SIOCGIFCONF, &ifc) < 0 ? -errno : 0;
	if (!ret && (ifc.ifc_len < 0 || (guest.buf && ifc.ifc_len > guest.len)))
		ret = -EIO;
	if (!ret && guest.buf && ifc.ifc_len)
		ret = vfs_user_copy_out(guest.buf, ifc.ifc_buf, (size_t)ifc.ifc_len);
	free(ifc.ifc_buf);
	guest.len = ifc.ifc_len;
	return ret ? ret : vfs_user_copy_out(arg, &guest.len, sizeof(guest.len));
}

int64_t netdev_ioctl(unsigned cmd, uint64_t arg)
{
	union {
		struct ifreq ifr;
		struct arpreq arp;
	} data;
	int fd;

	if (cmd == SIOCETHTOOL)
		return -EOPNOTSUPP;
	if (cmd == SIOCGIFCONF) {
		fd = netdev_fd();
		return fd < 0 ? fd : get_ifconf(fd, arg);
	}
	for (size_t i = 0; i < ARRAY_SIZE(cmds); i++) {
		if (cmds[i].cmd != cmd)
			continue;
		if (vfs_user_copy_in(&data, arg, cmds[i].size))
			return -EFAULT;
		if (cmds[i].admin && (!net_capable(CAP_NET_ADMIN) || hostnet_mode() != HOSTNET_OWN))
			return -EPERM;
		fd = netdev_fd();
		if (fd < 0)
			return fd;
		if (ioctl(fd, cmd, &data) < 0)
			return -errno;
		return cmds[i].admin ? 0 : vfs_user_copy_out(arg, &data, cmds[i].size);
	}
	return -ENOTTY;
}
