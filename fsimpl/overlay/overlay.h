/*
 * fsimpl/overlay/overlay.h - a union of directory trees: one writable upper layer over read-only lower ones.
 *
 * Semantics are those of Linux's overlayfs: see docs/overlay.md for what differs. Layers are reached by the VFS's own path operations
 * through internal mounts, so any filesystem can be a layer.
 */
#ifndef MOAT_FSIMPL_OVERLAY_H
#define MOAT_FSIMPL_OVERLAY_H

#include "vfs/vfs.h"

#define OVERLAY_LAYERS_MAX 500
/* Overlays whose layers are overlays. */
#define OVERLAY_DEPTH_MAX 2
/* Names that the overlay keeps at hand after their last user went. */
#define OVERLAY_CACHE_MAX 8192

must_check int overlay_register(void);

struct overlay_top {
	/* Its directories upper and work, which are made if they are not there; NULL: memory (a new tmpfs). */
	struct filesystem *fs;
	struct dentry *dir;
	bool userxattr; /* marks are user.overlay.*: where trusted.* cannot be set */
};

/* `top` over one lower tree. Returns a reference on each of *ret_fs and *ret_root. */
must_check int overlay_create_over(struct filesystem *lower_fs, struct dentry *lower,
				   const struct overlay_top *top, struct filesystem **ret_fs,
				   struct dentry **ret_root);

#endif
