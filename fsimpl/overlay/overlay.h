/*
 * fsimpl/overlay/overlay.h - a union of directory trees: one writable upper layer over read-only lower ones.
 *
 * Semantics are those of Linux's overlayfs with redirect_dir=off, index=off, xino=off: whiteouts are 0:0 character devices, opaque
 * directories carry trusted.overlay.opaque=y, a file is copied up whole when it is first changed, rename of a directory that
 * has a lower part answers -EXDEV. Layers are reached by the VFS's own path operations through internal mounts, so
 * any filesystem can be a layer.
 */
#ifndef MOAT_FSIMPL_OVERLAY_H
#define MOAT_FSIMPL_OVERLAY_H

#include "vfs/vfs.h"

#define OVERLAY_LAYERS_MAX 64
/* Names that the overlay keeps at hand after their last user went. */
#define OVERLAY_CACHE_MAX 8192

must_check int overlay_register(void);

struct overlay_layer {
	struct filesystem *fs; /* borrowed: references are taken */
	struct dentry *root;
};

/*
 * layers[0] is the upper if `writable`; the rest, topmost first, are lowers. Returns a reference on each of *ret_fs and *ret_root.
 * Return: 0, -EINVAL (no layer, too many, a root that is no directory), -ENOMEM.
 */
must_check int overlay_create(const struct overlay_layer *layers, unsigned count, bool writable,
			      struct filesystem **ret_fs, struct dentry **ret_root);
/* Memory (a new tmpfs) over one lower tree. */
must_check int overlay_create_over(struct filesystem *lower_fs, struct dentry *lower,
				   struct filesystem **ret_fs, struct dentry **ret_root);

#endif
