/*
 * sentry/boot/boot_network.c - what the sentry needs of its network namespace before it is confined.
 *
 * The runtime started us in the namespace (runtime/network.c). The container's rules for ports and ping are the sentry's to apply
 * (fsimpl/socket/hostnet.h), so for most containers no capability is kept. Raw sockets and changes to interfaces and
 * routes are checked by the host against our own: they work if the container has the capability, in a namespace of its own. In the
 * host's namespace only ports below 1024 can be had that way.
 */
#include <errno.h>
#include <stdio.h>
#include <string.h>
#include <linux/capability.h>

#include "base/sysctl.h"
#include "fsimpl/socket/hostnet.h"
#include "sentry/boot/boot_network.h"

static int configure(const char *line, bool first)
{
	const char *value;
	char name[128];
	int err = sysctl_network_split(line, name, sizeof(name), &value);

	/* What a further container's configuration has besides, its monitor has set. */
	if (err || (!first && !sysctl_is_sentrys(name)))
		return err;
	return hostnet_sysctl_configure(name, value);
}

int boot_network_configure(const struct boot_spec *spec, bool first, char *why, size_t why_size)
{
	for (char **p = spec->sysctls; p && *p; p++) {
		int err = sysctl_is_network(*p) ? configure(*p, first) : 0;

		if (!err)
			continue;
		if (err == -EPERM && hostnet_mode() == HOSTNET_SHARED)
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

int boot_network_prepare(const struct boot_spec *spec, char *why, size_t why_size)
{
	hostnet_prepare(spec->network == BOOT_NETWORK_HOST ? HOSTNET_SHARED : HOSTNET_OWN);
	return boot_network_configure(spec, true, why, why_size);
}

uint64_t boot_network_caps(const struct boot_spec *spec)
{
	uint64_t want = spec->network == BOOT_NETWORK_HOST
				? 1ull << CAP_NET_BIND_SERVICE
				: 1ull << CAP_NET_RAW | 1ull << CAP_NET_ADMIN;

	return want & spec->cap_bounding;
}
