#include <errno.h>
#include <stdlib.h>

#include "fsimpl/memfs/memfs.h"
#include "tests/fs/env.h"

int fs_env_process_init(void)
{
	static bool done;
	int err;

	rcu_thread_begin();
	if (done)
		return 0;
	done = true;
	err = mem_init(0);
	if (!err)
		err = vfs_init();
	if (!err) {
		struct cred *root;

		err = cred_create_root(&root);
		if (!err) {
			cred_set_current(root);
			err = memfs_register();
			cred_set_current(NULL);
			cred_unref(root);
		}
	}
	return err;
}

int fs_env_init(struct fs_env *e)
{
	struct filesystem *fs;
	struct dentry *root;
	int err;

	*e = (struct fs_env){.umask = 022};
	err = cred_create_root(&e->cred);
	if (err)
		return err;
	cred_set_current(e->cred);
	err = fs_backend.create(&fs, &root);
	if (err)
		return err;
	err = mount_namespace_create(fs, root, MNT_RELATIME_F, &e->ns);
	dentry_unref(root);
	filesystem_unref(fs);
	if (err)
		return err;
	mount_namespace_root(e->ns, &e->root);
	e->cwd = e->root;
	vfs_path_ref(&e->cwd);
	return 0;
}

void fs_env_fini(struct fs_env *e)
{
	vfs_path_unref(&e->cwd);
	vfs_path_unref(&e->root);
	mount_namespace_unref(e->ns);
	cred_set_current(NULL);
	cred_unref(e->cred);
	for (int i = 0; i < 4; i++) {
		rcu_drain();
		vfs_run_deferred();
	}
}

int fs_env_become(struct fs_env *e, uint32_t uid, uint32_t gid, const uint32_t *groups,
		  uint32_t ngroups, uint64_t caps)
{
	struct cred *c;
	int err;

	err = cred_prepare(e->cred, &c);
	if (err)
		return err;
	c->uid = c->euid = c->suid = c->fsuid = uid;
	c->gid = c->egid = c->sgid = c->fsgid = gid;
	c->cap_permitted = c->cap_effective = caps;
	err = cred_set_groups(c, groups, ngroups);
	if (err) {
		cred_unref(c);
		return err;
	}
	cred_commit(c);
	cred_unref(e->cred);
	e->cred = c;
	cred_set_current(c);
	return 0;
}

struct vfs_lookup fs_env_at(const struct fs_env *e, const char *path, unsigned flags)
{
	return (struct vfs_lookup){.cred = e->cred,
				   .ns = e->ns,
				   .root = e->root,
				   .start = e->at ? *e->at : e->cwd,
				   .path = path,
				   .flags = flags};
}

int fs_open(struct fs_env *e, const char *path, int flags, uint32_t mode, struct file **ret)
{
	unsigned lf = flags & O_NOFOLLOW ? 0 : LOOKUP_FOLLOW;
	struct vfs_lookup lk =
		fs_env_at(e, path, lf | (flags & O_DIRECTORY ? LOOKUP_DIRECTORY : 0));
	struct open_args args = {.flags = (unsigned)flags, .mode = mode, .umask = e->umask};

	return vfs_open(&lk, &args, ret);
}

int fs_close(struct file *f)
{
	file_unref(f);
	return 0;
}

int fs_creat(struct fs_env *e, const char *path, uint32_t mode)
{
	struct file *f;
	int err = fs_open(e, path, O_CREAT | O_WRONLY | O_TRUNC, mode, &f);

	return err ? err : fs_close(f);
}

int fs_mkdir(struct fs_env *e, const char *path, uint32_t mode)
{
	struct vfs_lookup lk = fs_env_at(e, path, 0);

	return vfs_mkdir(&lk, &(struct mkdir_args){.mode = mode, .umask = e->umask});
}

int fs_mknod(struct fs_env *e, const char *path, uint32_t mode, uint32_t major, uint32_t minor)
{
	struct vfs_lookup lk = fs_env_at(e, path, 0);
	struct mknod_args args = {
		.mode = mode, .umask = e->umask, .rdev_major = major, .rdev_minor = minor};

	return vfs_mknod(&lk, &args);
}

int fs_symlink(struct fs_env *e, const char *target, const char *path)
{
	struct vfs_lookup lk = fs_env_at(e, path, 0);

	return vfs_symlink(&lk, target);
}

int fs_link(struct fs_env *e, const char *old, const char *path, bool follow)
{
	struct vfs_lookup from = fs_env_at(e, old, follow ? LOOKUP_FOLLOW : 0);
	struct vfs_lookup to = fs_env_at(e, path, 0);

	return vfs_link(&from, &to);
}

int fs_unlink(struct fs_env *e, const char *path)
{
	struct vfs_lookup lk = fs_env_at(e, path, 0);

	return vfs_unlink(&lk);
}

int fs_rmdir(struct fs_env *e, const char *path)
{
	struct vfs_lookup lk = fs_env_at(e, path, 0);

	return vfs_rmdir(&lk);
}

int fs_rename(struct fs_env *e, const char *old, const char *path, unsigned flags)
{
	struct vfs_lookup from = fs_env_at(e, old, 0), to = fs_env_at(e, path, 0);

	return vfs_rename(&from, &to, &(struct rename_args){.flags = flags});
}

static int stat_flags(struct fs_env *e, const char *path, unsigned flags, struct moat_statx *ret)
{
	struct vfs_lookup lk = fs_env_at(e, path, flags);

	return vfs_stat(&lk, &(struct stat_args){.mask = STATX_BASIC_STATS}, ret);
}

int fs_stat(struct fs_env *e, const char *path, struct moat_statx *ret)
{
	return stat_flags(e, path, LOOKUP_FOLLOW, ret);
}

int fs_lstat(struct fs_env *e, const char *path, struct moat_statx *ret)
{
	return stat_flags(e, path, 0, ret);
}

static int set_attr(struct fs_env *e, const char *path, const struct setattr_args *args)
{
	struct vfs_lookup lk = fs_env_at(e, path, LOOKUP_FOLLOW);

	return vfs_set_stat(&lk, args);
}

int fs_chmod(struct fs_env *e, const char *path, uint32_t mode)
{
	return set_attr(e, path, &(struct setattr_args){.valid = SETATTR_MODE, .mode = mode});
}

int fs_chown(struct fs_env *e, const char *path, uint32_t uid, uint32_t gid)
{
	struct setattr_args args = {.uid = uid, .gid = gid};

	args.valid = (uid != UINT32_MAX ? SETATTR_UID : 0) | (gid != UINT32_MAX ? SETATTR_GID : 0) |
		     SETATTR_KILL_PRIV;
	return set_attr(e, path, &args);
}

int fs_truncate(struct fs_env *e, const char *path, uint64_t size)
{
	return set_attr(e, path, &(struct setattr_args){.valid = SETATTR_SIZE, .size = size});
}

int fs_access(struct fs_env *e, const char *path, int mask)
{
	struct vfs_lookup lk = fs_env_at(e, path, LOOKUP_FOLLOW);

	return vfs_access(&lk, mask);
}

int fs_readlink(struct fs_env *e, const char *path, char *buf, size_t size)
{
	struct vfs_lookup lk = fs_env_at(e, path, 0);
	size_t len;
	int err = vfs_readlink(&lk, buf, size - 1, &len);

	if (err)
		return err;
	buf[len] = '\0';
	return (int)len;
}

ssize_t fs_read(struct file *f, void *buf, size_t size)
{
	struct io_iter it;
	ssize_t ret;

	io_iter_init_kernel(&it, buf, size, true);
	ret = file_read_iter(f, &it, NULL, 0);
	io_iter_fini(&it);
	return ret;
}

ssize_t fs_write(struct file *f, const void *buf, size_t size)
{
	struct io_iter it;
	ssize_t ret;

	io_iter_init_kernel(&it, (void *)buf, size, false);
	ret = file_write_iter(f, &it, NULL, 0);
	io_iter_fini(&it);
	return ret;
}

ssize_t fs_pread(struct file *f, void *buf, size_t size, int64_t off)
{
	struct io_iter it;
	ssize_t ret;

	io_iter_init_kernel(&it, buf, size, true);
	ret = file_read_iter(f, &it, &off, 0);
	io_iter_fini(&it);
	return ret;
}

ssize_t fs_pwrite(struct file *f, const void *buf, size_t size, int64_t off)
{
	struct io_iter it;
	ssize_t ret;

	io_iter_init_kernel(&it, (void *)buf, size, false);
	ret = file_write_iter(f, &it, &off, 0);
	io_iter_fini(&it);
	return ret;
}

struct list_ctx {
	struct dir_emit ctx;
	char *buf;
	size_t size, len;
	int count, round;
};

static bool list_emit(struct dir_emit *ctx, const char *name, size_t len, uint64_t ino unused_arg,
		      unsigned type unused_arg, int64_t next unused_arg)
{
	struct list_ctx *l = container_of(ctx, struct list_ctx, ctx);

	/* A few at a time, so that cookies are used. */
	if (l->round == 3)
		return false;
	l->round++;
	if ((len == 1 && name[0] == '.') || (len == 2 && name[0] == '.' && name[1] == '.'))
		return true;
	if (l->len + len + 2 > l->size)
		return false;
	memcpy(l->buf + l->len, name, len);
	l->len += len;
	l->buf[l->len++] = '\n';
	l->count++;
	return true;
}

int fs_list_file(struct file *f, char *buf, size_t size)
{
	struct list_ctx l = {.ctx = {.emit = list_emit}, .buf = buf, .size = size};
	int err;

	do {
		l.round = 0;
		err = file_iterate(f, &l.ctx);
	} while (!err && l.round);
	buf[l.len] = '\0';
	return err ? err : l.count;
}

int fs_list(struct fs_env *e, const char *path, char *buf, size_t size)
{
	struct file *f;
	int ret = fs_open(e, path, O_RDONLY | O_DIRECTORY, 0, &f);

	if (ret)
		return ret;
	ret = fs_list_file(f, buf, size);
	fs_close(f);
	return ret;
}

int fs_chdir(struct fs_env *e, const char *path)
{
	struct vfs_lookup lk = fs_env_at(e, path, LOOKUP_FOLLOW | LOOKUP_DIRECTORY);
	struct vfs_path p;
	int err = vfs_get_path(&lk, &p);

	if (err)
		return err;
	vfs_path_unref(&e->cwd);
	e->cwd = p;
	return 0;
}

int fs_mount(struct fs_env *e, const char *path, const char *type, unsigned long flags,
	     const char *data)
{
	struct vfs_lookup lk = fs_env_at(e, path, LOOKUP_FOLLOW);

	return vfs_mount_new(&lk, type, type, flags, data, NULL);
}

int fs_bind(struct fs_env *e, const char *from, const char *to, bool recursive)
{
	struct vfs_lookup source = fs_env_at(e, from, LOOKUP_FOLLOW);
	struct vfs_lookup target = fs_env_at(e, to, LOOKUP_FOLLOW);

	return vfs_bind(&source, &target, recursive);
}

int fs_umount(struct fs_env *e, const char *path, int flags)
{
	struct vfs_lookup lk = fs_env_at(e, path, LOOKUP_FOLLOW);

	return vfs_umount(&lk, flags);
}
