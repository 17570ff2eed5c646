#include "fsimpl/memfs/memfs.h"
#include "tests/fs/env.h"

static int create(struct filesystem **ret_fs, struct dentry **ret_root)
{
	struct memfs_options opts = {.mode = 0755};

	return memfs_create_fs("tmpfs", &opts, ret_fs, ret_root);
}

const struct fs_backend fs_backend = {.name = "memfs", .create = create};
