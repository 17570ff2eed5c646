/* An overlay: memory over an empty memfs. */
#include "fsimpl/memfs/memfs.h"
#include "fsimpl/overlay/overlay.h"
#include "tests/fs/env.h"

static int create(struct filesystem **ret_fs, struct dentry **ret_root)
{
	struct memfs_options opts = {.mode = 0755};
	struct filesystem *lower;
	struct dentry *root;
	static bool registered;
	int err;

	if (!registered && overlay_register())
		return -ENOMEM;
	registered = true;
	err = memfs_create_fs("lower", &opts, &lower, &root);
	if (err)
		return err;
	err = overlay_create_over(lower, root, ret_fs, ret_root);
	dentry_unref(root);
	filesystem_unref(lower);
	return err;
}

const struct fs_backend fs_backend = {
	.name = "overlay", .create = create, .merged_root = true, .lacks_whiteout = true};
