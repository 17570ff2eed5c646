/*
 * runtime/overlay.h - which of a container's trees have an overlay, and what takes its writes.
 *
 * --overlay and the annotation org.moat.overlay: "none", or PLACE:MEDIUM,... where PLACE is `root`, `all` (root and every bind mount of a
 * directory) or a bind mount's destination, and MEDIUM is `memory` or `dir=DIR`, a directory of the host's for one container at a time, which
 * keeps upper/ and work/ in it. The flag wins over the
 * annotation, which may name memory only: engines take annotations from users who may not name directories of the host's.
 */
#ifndef MOAT_RUNTIME_OVERLAY_H
#define MOAT_RUNTIME_OVERLAY_H

#include "runtime/oci.h"

#define OVERLAY_ANNOTATION "org.moat.overlay"

#define OVERLAY_DIRS_MAX 16

/* Descriptors that hold the directories' locks: whoever keeps one keeps others out. */
struct overlay_locks {
	int fds[OVERLAY_DIRS_MAX];
	unsigned count;
};

/* Changes c's root, mounts and attach points accordingly. Return 0, or a negative error that was said. */
must_check int overlay_plan(struct oci_config *c, struct overlay_locks *locks);

#endif
