/*
 * fsimpl/virtiofs/virtiofs.h - a directory tree served by a virtio-fs daemon, as a filesystem.
 *
 * The type is "virtiofs". A device (fsimpl/virtiofs/device.h) carries one filesystem at a time. mount(2) names it by its tag, which
 * virtiofs_add_tag() gave.
 */
#ifndef MOAT_FSIMPL_VIRTIOFS_VIRTIOFS_H
#define MOAT_FSIMPL_VIRTIOFS_VIRTIOFS_H

#include "fsimpl/virtiofs/device.h"
#include "vfs/vfs.h"

void virtiofs_register(void);
/* mount(2)'s source, in `container` (vfs_hooks.container). Takes a reference. Return: 0, -EEXIST, -EINVAL (name), -ENOMEM. */
must_check int virtiofs_add_tag(const void *container, const char *tag,
				struct virtiofs_device *dev);
/* All of the container's go. */
void virtiofs_drop_tags(const void *container);

enum virtiofs_cache {
	VIRTIOFS_CACHE_AUTO, /* names and attributes for a second; data from open to close */
	VIRTIOFS_CACHE_NONE, /* ask every time, push every change */
	VIRTIOFS_CACHE_ALWAYS, /* nobody else changes the tree */
};

enum virtiofs_dax {
	VIRTIOFS_DAX_NEVER,
	VIRTIOFS_DAX_ALWAYS, /* every regular file */
	VIRTIOFS_DAX_INODE, /* those that the daemon says */
};

enum virtiofs_coherence {
	VIRTIOFS_COHERENCE_TIME, /* as the cache mode says */
	VIRTIOFS_COHERENCE_VERSIONS, /* the version table: changes are seen at once, the host's own within milliseconds */
	VIRTIOFS_COHERENCE_STRICT, /* the host's own at once, too */
};

struct virtiofs_options {
	enum virtiofs_cache cache;
	int64_t timeout_ns; /* auto: of names and attributes; -1: the server's */
	enum virtiofs_dax dax;
	enum virtiofs_coherence coherence;
	bool writeback; /* changes of data wait for close or fsync */
	bool readonly;
	unsigned max_dentries; /* 0: VIRTIOFS_DENTRIES_MAX */
};
/* Each cached inode holds a descriptor of the daemon's, of which it has perhaps 20,000. */
#define VIRTIOFS_DENTRIES_MAX 8192

/* "cache=none,timeout=5,writeback,dax=inode,coherence=strict". Return: 0, -EINVAL. */
must_check int virtiofs_parse_options(const char *text, struct virtiofs_options *ret);
/*
 * virtiofs_create - FUSE_INIT and the root. *ret_fs and *ret_root have a reference each.
 * Return: 0, -EBUSY (the device carries another filesystem), -EPROTO (too old), -EIO, -ENOMEM.
 */
must_check int virtiofs_create(struct virtiofs_device *dev, const struct virtiofs_options *options,
			       const char *source, struct filesystem **ret_fs,
			       struct dentry **ret_root);
/* Drops every dentry and inode that nothing uses. */
void virtiofs_shrink(struct filesystem *fs);

#endif
