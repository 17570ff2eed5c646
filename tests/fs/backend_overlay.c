/* An overlay: memory over a memfs, empty but with OVERLAY_FILLED in the environment. */
#include <stdio.h>
#include <stdlib.h>

#include "fsimpl/memfs/memfs.h"
#include "fsimpl/overlay/overlay.h"
#include "tests/fs/env.h"

/* /a ... /e, three deep; at the bottom files. */
static int fill(struct mount *m, struct dentry *root, const char *dir, int depth)
{
	char path[32];
	int err = 0;

	for (int i = 0; i < 5 && !err; i++) {
		struct vfs_lookup lk = {.cred = cred_current(),
					.root = {m, root},
					.start = {m, root},
					.path = path};
		struct file *f;

		snprintf(path, sizeof(path), "%s%c", dir, "abcde"[i]);
		if (depth == 2 || i == 4) {
			err = vfs_open(
				&lk, &(struct open_args){.flags = O_CREAT | O_WRONLY, .mode = 0644},
				&f);
			if (err)
				break;
			if (fs_write(f, path, strlen(path)) < 0)
				err = -EIO;
			fs_close(f);
			continue;
		}
		err = vfs_mkdir(&lk, &(struct mkdir_args){.mode = 0755});
		strcat(path, "/");
		if (!err)
			err = fill(m, root, path, depth + 1);
	}
	return err;
}

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
	if (getenv("OVERLAY_FILLED")) {
		struct mount *m;

		err = mount_create_internal(lower, root, &m);
		if (!err) {
			err = fill(m, root, "", 0);
			mount_unref(m);
		}
		if (err)
			return err;
	}
	err = overlay_create_over(lower, root, &(struct overlay_top){0}, ret_fs, ret_root);
	dentry_unref(root);
	filesystem_unref(lower);
	return err;
}

const struct fs_backend fs_backend = {
	.name = "overlay", .create = create, .merged_root = true, .lacks_whiteout = true};
