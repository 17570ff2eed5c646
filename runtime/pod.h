/*
 * runtime/pod.h - which sandbox a container belongs in: one of its own, or that of a container which is there.
 *
 *	Kubernetes' annotations (containerd's CRI plugin, CRI-O)	that of the pod's sandbox container
 *	a pid or ipc namespace by path					that of the container whose namespace it is: these are the sentry's, so only
 *									a container in the same sandbox can share them
 */
#ifndef MOAT_RUNTIME_POD_H
#define MOAT_RUNTIME_POD_H

#include "runtime/network.h"
#include "runtime/oci.h"

struct pod {
	char *sandbox; /* the id of its first container; NULL: a sandbox of its own */
	int sock; /* to that one's sentry; -1 */
};

void pod_init(struct pod *p);
/*
 * Fills c->spec.pid_of, ipc_of and uts_of too. Prints its errors: a namespace that cannot be shared, a sandbox that is paused. Return 0, -EINVAL, -errno.
 */
must_check int pod_find(struct pod *p, struct oci_config *c, const struct network_options *network);
void pod_fini(struct pod *p);
/* Are there further containers in the sandbox of container `id`? */
must_check bool pod_is_shared(const char *id);

#endif
