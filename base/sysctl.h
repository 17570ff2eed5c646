/* base/sysctl.h - a line of linux.sysctl that is the network namespace's: "net.core.somaxconn=1". Who sets it depends on who may (docs/network.md). */
#ifndef MOAT_BASE_SYSCTL_H
#define MOAT_BASE_SYSCTL_H

#include "base/compiler.h"

/* The two that the sentry applies itself, in a namespace of the container's own (fsimpl/socket/hostnet.h). */
#define SYSCTL_PORT_START "ipv4/ip_unprivileged_port_start"
#define SYSCTL_PING_RANGE "ipv4/ping_group_range"

bool sysctl_is_network(const char *line);
/* Is it one of those two? */
bool sysctl_is_sentrys(const char *name);
/*
 * Its name below /proc/sys/net, where it stays; as sysctl(8), whichever of . and / comes first separates. *ret_value is within the line.
 * Pre: sysctl_is_network(). Return: 0, -EINVAL, -ENAMETOOLONG.
 */
must_check int sysctl_network_split(const char *line, char *ret_name, size_t size,
				    const char **ret_value);
/* Writes it for the namespace that the caller is in, as a process that may. Return: 0, or what open(2) and write(2) say. */
must_check int sysctl_network_write(const char *name, const char *value);

#endif
