/*
 * sentry/boot/boot_network.c - what the sentry needs of its network namespace before it is confined.
 *
 * The runtime started us in the namespace (runtime/network.c). The container's rules for ports and ping are the sentry's to apply
 * (fsimpl/socket/hostnet.h), so for most containers no capability is kept. Raw sockets and changes to interfaces and
 * routes are checked by the host against our own: they work if the container has the capability, in a namespace of its own. In the
 * host's namespace only ports below 1024 can be had that way.
 */
#include <linux/capability.h>

#include "fsimpl/socket/hostnet.h"
#include "sentry/boot/boot_network.h"

void boot_network_prepare(const struct boot_spec *spec)
{
	hostnet_prepare(spec->network == BOOT_NETWORK_HOST ? HOSTNET_SHARED : HOSTNET_OWN);
}

uint64_t boot_network_caps(const struct boot_spec *spec)
{
	uint64_t want = spec->network == BOOT_NETWORK_HOST
				? 1ull << CAP_NET_BIND_SERVICE
				: 1ull << CAP_NET_RAW | 1ull << CAP_NET_ADMIN;

	return want & spec->cap_bounding;
}
