/* tests/unit/memfs_env.h - a namespace whose root is a memfs, for the tests of memfs and of the VFS on it. */
#ifndef MOAT_TESTS_UNIT_MEMFS_ENV_H
#define MOAT_TESTS_UNIT_MEMFS_ENV_H

#include "base/rcu.h"
#include "fsimpl/memfs/memfs.h"
#include "mem/memfile.h"
#include "vfs/vfs.h"

static struct mount_namespace *ns;
static struct vfs_path root;
static struct cred *cred;

static inline struct vfs_lookup at(const char *path)
{
	return (struct vfs_lookup){
		.cred = cred, .ns = ns, .root = root, .start = root, .path = path};
}

/* Return: 0, or that something failed. */
static inline int memfs_env_init(void)
{
	struct memfs_options opts = {.mode = 0755};
	struct filesystem *fs;
	struct dentry *d;

	rcu_thread_begin();
	if (mem_init(0) || vfs_init() || cred_create_root(&cred))
		return 1;
	cred_set_current(cred);
	if (memfs_register() || memfs_create_fs("tmpfs", &opts, &fs, &d) ||
	    mount_namespace_create(fs, d, 0, &ns))
		return 1;
	dentry_unref(d);
	filesystem_unref(fs);
	mount_namespace_root(ns, &root);
	return 0;
}

#endif
