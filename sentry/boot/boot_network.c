/*
 * sentry/boot/boot_network.c - what the sentry needs of its network namespace before it is confined.
 *
 * The runtime started us in the namespace (runtime/network.c). The container's rules for ports and ping are the sentry's to apply
 * (fsimpl/socket/hostnet.h), so for most containers no capability is kept. Raw sockets and changes to interfaces and
 * routes are checked by the host against our own: they work if the container has the capability, in a namespace of its own. In the
 * host's namespace only ports below 1024 can be had that way.
 */
#include <stdio.h>
#include <string.h>
#include <linux/capability.h>

#include "fsimpl/socket/hostnet.h"
#include "sentry/boot/boot_network.h"

bool boot_network_sysctl(const char *line)
{
	return strncmp(line, "net.", 4) == 0 || strncmp(line, "net/", 4) == 0;
}

/* "net.core.somaxconn=1"; as sysctl(8), whichever of . and / comes first separates. */
static int configure(const char *line)
{
	const char *value = strchr(line, '=');
	char name[128];
	size_t len;

	if (!value)
		return -EINVAL;
	len = (size_t)(value - line) - 4;
	if (len >= sizeof(name))
		return -ENAMETOOLONG;
	memcpy(name, line + 4, len);
	name[len] = '\0';
	for (char *p = name; line[3] == '.' && *p; p++)
		*p = *p == '.' ? '/' : *p == '/' ? '.' : *p;
	return hostnet_sysctl_configure(name, value + 1);
}

int boot_network_prepare(const struct boot_spec *spec, char *why, size_t why_size)
{
	hostnet_prepare(spec->network == BOOT_NETWORK_HOST ? HOSTNET_SHARED : HOSTNET_OWN);
	for (char **p = spec->sysctls; p && *p; p++) {
		int err = boot_network_sysctl(*p) ? configure(*p) : 0;

		if (!err)
			continue;
		if (err == -EPERM && spec->network == BOOT_NETWORK_HOST)
			snprintf(
				why, why_size,
				"linux.sysctl: %.200s: not allowed in the host's network namespace",
				*p);
		else
			snprintf(why, why_size, "linux.sysctl: %.200s: %s", *p, strerror(-err));
		return err;
	}
	return 0;
}

uint64_t boot_network_caps(const struct boot_spec *spec)
{
	uint64_t want = spec->network == BOOT_NETWORK_HOST
				? 1ull << CAP_NET_BIND_SERVICE
				: 1ull << CAP_NET_RAW | 1ull << CAP_NET_ADMIN;

	return want & spec->cap_bounding;
}
