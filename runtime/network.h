/* runtime/network.h - the network and UTS namespaces that a sandbox's sentry is started in. */
#ifndef MOAT_RUNTIME_NETWORK_H
#define MOAT_RUNTIME_NETWORK_H

#include "base/compiler.h"

struct network_options {
	bool host; /* the caller's namespace */
	const char *
		path; /* an existing one: /run/netns/X, /proc/PID/ns/net; NULL: a new one with lo only (unless host) */
};

/* "none", "host" or "ns:PATH", of --network. -EINVAL after saying so. */
must_check int network_option_parse(const char *value, struct network_options *ret);
/* clone3(2)'s flag: CLONE_NEWNET, or 0. */
must_check unsigned long network_clone_flag(const struct network_options *opts);
/*
 * In the sentry's process, before it is executed: enters the namespace of `path`, or brings lo up in a new one. *ret_shared: the
 * namespace is the caller's own, by whichever name. Return: 0, or -errno with what failed in *ret_what.
 */
must_check int network_enter(const struct network_options *opts, bool *ret_shared,
			     const char **ret_what);
/*
 * In the namespace of a pod's: those net.* of the lines (NULL-terminated, or NULL) that are set on the host, where its sentry can write no more. shared: it is the
 * caller's own namespace, which nobody may change so. Return: 0, or -errno after saying so.
 */
must_check int network_configure(char **sysctls, bool shared);
/* Enters the UTS namespace of `path`. Return: 0 or -errno. */
must_check int uts_enter(const char *path);

#endif
