/*
 * runtime/network.c - which network a sandbox has.
 *
 * The sentry's process lives in the container's network namespace from its first instruction: engines and hooks find it by
 * the pid in the pid-file. A new namespace has lo, up, as runc makes it; one that is handed over is taken as it is.
 */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <sched.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/sysctl.h"
#include "runtime/cli.h"
#include "runtime/network.h"

int network_option_parse(const char *value, struct network_options *ret)
{
	*ret = (struct network_options){0};
	if (strcmp(value, "none") == 0)
		return 0;
	if (strcmp(value, "host") == 0) {
		ret->host = true;
		return 0;
	}
	if (strncmp(value, "ns:", 3) == 0 && value[3]) {
		ret->path = value + 3;
		return 0;
	}
	cli_error("--network: '%s' is none of none, host, ns:PATH", value);
	return -EINVAL;
}

unsigned long network_clone_flag(const struct network_options *opts)
{
	return opts->host || opts->path ? 0 : CLONE_NEWNET;
}

static int lo_up(void)
{
	struct ifreq ifr = {.ifr_name = "lo", .ifr_flags = IFF_UP};
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), err = 0;

	if (fd < 0)
		return errno == EAFNOSUPPORT
			       ? 0
			       : -errno; /* a host without IPv4 has nothing to bring up */
	if (ioctl(fd, SIOCSIFFLAGS, &ifr) < 0)
		err = -errno;
	close(fd);
	return err;
}

/* The file of a namespace: is it the one that we are in? When that cannot be told, too. */
static bool is_own(int fd)
{
	struct stat given, own;

	return fstat(fd, &given) < 0 || stat("/proc/self/ns/net", &own) < 0 ||
	       (given.st_dev == own.st_dev && given.st_ino == own.st_ino);
}

int network_enter(const struct network_options *opts, bool *ret_shared, const char **ret_what)
{
	int fd, err = 0;

	*ret_shared = opts->host;
	if (opts->host)
		return 0;
	if (!opts->path) {
		*ret_what = "bringing lo up";
		return lo_up();
	}
	*ret_what = "entering the network namespace";
	fd = open(opts->path, O_RDONLY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	/* /proc/1/ns/net: what is the host's is not opened to the guest as a namespace of its own is. */
	*ret_shared = is_own(fd);
	if (setns(fd, CLONE_NEWNET) < 0)
		err = -errno;
	close(fd);
	return err;
}

int network_configure(char **sysctls, bool shared)
{
	for (char **p = sysctls; p && *p; p++) {
		const char *value;
		char name[128];
		int err;

		if (!sysctl_is_network(*p))
			continue;
		err = sysctl_network_split(*p, name, sizeof(name), &value);
		if (!err && shared)
			err = -EPERM;
		if (!err && !sysctl_is_sentrys(name))
			err = sysctl_network_write(name, value);
		if (!err)
			continue;
		if (shared)
			cli_error("linux.sysctl: %.200s: not allowed in the host's network "
				  "namespace",
				  *p);
		else
			cli_error("linux.sysctl: %.200s: %s", *p, strerror(-err));
		return err;
	}
	return 0;
}

int uts_enter(const char *path)
{
	int fd = open(path, O_RDONLY | O_CLOEXEC), err;

	if (fd < 0)
		return -errno;
	err = setns(fd, CLONE_NEWUTS) < 0 ? -errno : 0;
	close(fd);
	return err;
}
