/* syscalls/sys_fsctx.c - where a task stands: chdir, chroot, getcwd; and mounts. */
#include <sys/mount.h>
#include <sys/stat.h>

#include "syscalls/syscalls.h"
#include "syscalls/util.h"

#define CAP_SYS_CHROOT_ 18
#define CAP_SYS_ADMIN_ 21

/* A directory that the caller may enter: references in *ret. */
static int enter_dir(struct task *t, const struct vfs_lookup *lk, struct vfs_path *ret)
{
	struct vfs_lookup at = {
		.cred = t->cred, .ns = t->mnt_ns, .path = "", .flags = LOOKUP_EMPTY};
	struct vfs_path place;
	int err;

	err = vfs_get_path(lk, &place);
	if (err)
		return err;
	at.root = lk->root;
	at.start = place;
	err = vfs_access(&at, X_OK);
	if (err)
		vfs_path_unref(&place);
	else
		*ret = place;
	return err;
}

/* The same by name, from the current directory. */
static int enter_dir_at(struct task *t, uint64_t upath, struct vfs_path *ret)
{
	struct sys_path p;
	int err = sys_path_get(t, SYS_AT_FDCWD, upath, LOOKUP_FOLLOW | LOOKUP_DIRECTORY, &p);

	if (err)
		return err;
	err = enter_dir(t, &p.lk, ret);
	sys_path_put(&p);
	return err;
}

int64_t sys_chdir(struct task *t, const struct syscall_args *a)
{
	struct vfs_path place;
	int err = enter_dir_at(t, a->a[0], &place);

	if (err)
		return err;
	fs_context_set_cwd(t->fsctx, &place);
	vfs_path_unref(&place);
	return 0;
}

int64_t sys_fchdir(struct task *t, const struct syscall_args *a)
{
	struct vfs_path place;
	struct sys_path p;
	struct file *f;
	int err;

	f = sys_fd_raw(t, ARG_INT(0));
	if (!f)
		return -EBADF;
	err = -ENOTDIR;
	if (!S_ISDIR(f->path.dentry->fs->ops->dentry_type(f->path.dentry)))
		goto out_unref;
	err = sys_path_from_fd(t, ARG_INT(0), true, &p);
	if (err)
		goto out_unref;
	err = enter_dir(t, &p.lk, &place);
	sys_path_put(&p);
	if (err)
		goto out_unref;
	fs_context_set_cwd(t->fsctx, &place);
	vfs_path_unref(&place);
out_unref:
	file_unref(f);
	return err;
}

int64_t sys_chroot(struct task *t, const struct syscall_args *a)
{
	struct vfs_path place;
	int err = enter_dir_at(t, a->a[0], &place);

	if (err)
		return err;
	if (cred_has_cap(t->cred, CAP_SYS_CHROOT_))
		fs_context_set_root(t->fsctx, &place);
	else
		err = -EPERM;
	vfs_path_unref(&place);
	return err;
}

int64_t sys_getcwd(struct task *t, const struct syscall_args *a)
{
	struct vfs_path root, cwd;
	struct buf b;
	int64_t ret;

	buf_init(&b, 2 * VFS_PATH_MAX);
	fs_context_get_root(t->fsctx, &root);
	fs_context_get_cwd(t->fsctx, &cwd);
	ret = vfs_path_to_string(&root, &cwd, false, &b);
	vfs_path_unref(&cwd);
	vfs_path_unref(&root);
	if (!ret)
		ret = buf_error(&b);
	if (ret)
		goto out_buf;
	ret = -ENAMETOOLONG;
	if (b.len >= VFS_PATH_MAX)
		goto out_buf;
	ret = -ERANGE;
	if (b.len + 1 > a->a[1])
		goto out_buf;
	ret = task_copy_out(t, a->a[0], b.data, b.len + 1) ? -EFAULT : (int64_t)b.len + 1;
out_buf:
	buf_fini(&b);
	return ret;
}

/* ---- mounts ---- */

#define MS_MGC_MASK_ 0xffff0000ul
#define MS_MGC_VAL_ 0xc0ed0000ul
#define MS_NOUSER_ (1ul << 31)
#define MOUNT_DATA_MAX 4096

struct mount_strings {
	char type[256], source[VFS_PATH_MAX], data[MOUNT_DATA_MAX];
	bool has_type, has_source;
};

/* copy_mount_string and copy_mount_options: NULL is allowed; options are at most a page, cut where memory ends. */
static int get_mount_strings(struct task *t, const struct syscall_args *a, struct mount_strings *s)
{
	ssize_t len;
	size_t n;

	if (a->a[2]) {
		len = mm_copy_in_string(t->mm, s->type, a->a[2], sizeof(s->type));
		if (len < 0)
			return len == -ENAMETOOLONG ? -EINVAL : (int)len;
		s->has_type = true;
	}
	if (a->a[0]) {
		len = mm_copy_in_string(t->mm, s->source, a->a[0], sizeof(s->source));
		if (len < 0)
			return len == -ENAMETOOLONG ? -EINVAL : (int)len;
		s->has_source = true;
	}
	s->data[0] = '\0';
	if (a->a[4]) {
		n = mm_copy_in_partial(t->mm, s->data, a->a[4], sizeof(s->data));
		if (!n)
			return -EFAULT;
		s->data[MIN(n, sizeof(s->data) - 1)] = '\0';
	}
	return 0;
}

/* do_loopback's and do_move_mount's source, which is a path, not a string. */
static int mount_from_path(struct task *t, const struct mount_strings *s, const struct sys_path *to,
			   unsigned long flags)
{
	struct sys_path from;
	int err;

	if (!s->has_source || !s->source[0])
		return -EINVAL;
	memcpy(from.path, s->source, sizeof(from.path));
	err = sys_path_init(t, SYS_AT_FDCWD, LOOKUP_FOLLOW, &from);
	if (err)
		return err;
	if (flags & MS_BIND)
		err = vfs_bind(&from.lk, &to->lk, flags & MS_REC);
	else
		err = vfs_move_mount(&from.lk, &to->lk);
	sys_path_put(&from);
	return err;
}

static int change_propagation(const struct sys_path *to, unsigned long flags)
{
	unsigned long type = flags & ~(unsigned long)(MS_REC | MS_SILENT);
	enum mount_propagation prop;

	switch (type) {
	case MS_SHARED:
		prop = PROP_SHARED;
		break;
	case MS_PRIVATE:
		prop = PROP_PRIVATE;
		break;
	case MS_SLAVE:
		prop = PROP_SLAVE;
		break;
	case MS_UNBINDABLE:
		prop = PROP_UNBINDABLE;
		break;
	default:
		return -EINVAL;
	}
	return vfs_set_propagation(&to->lk, prop, flags & MS_REC);
}

/* What is wrong with the path is said before what is wrong with the caller or the flags. */
static int look_before_eperm(const struct sys_path *p, int err)
{
	struct vfs_path at;
	int lookup_err = vfs_get_path(&p->lk, &at);

	if (lookup_err)
		return lookup_err;
	vfs_path_unref(&at);
	return err;
}

int64_t sys_mount(struct task *t, const struct syscall_args *a)
{
	unsigned long flags = a->a[3];
	struct mount_strings *s = calloc(1, sizeof(*s));
	struct sys_path to;
	int err;

	if (!s)
		return -ENOMEM;
	err = get_mount_strings(t, a, s);
	if (err)
		goto out_free;
	err = sys_path_get(t, SYS_AT_FDCWD, a->a[1], LOOKUP_FOLLOW, &to);
	if (err)
		goto out_free;
	if ((flags & MS_MGC_MASK_) == MS_MGC_VAL_)
		flags &= ~MS_MGC_MASK_;
	if (!cred_has_cap(t->cred, CAP_SYS_ADMIN_))
		err = look_before_eperm(&to, flags & MS_NOUSER_ ? -EINVAL : -EPERM);
	else if (flags & MS_NOUSER_)
		err = look_before_eperm(&to, -EINVAL);
	else if (flags & MS_REMOUNT)
		err = vfs_remount(&to.lk, flags, s->data, flags & MS_BIND);
	else if (flags & MS_BIND)
		err = mount_from_path(t, s, &to, flags);
	else if (flags & (MS_SHARED | MS_PRIVATE | MS_SLAVE | MS_UNBINDABLE))
		err = change_propagation(&to, flags);
	else if (flags & MS_MOVE)
		err = mount_from_path(t, s, &to, flags);
	else if (!s->has_type)
		err = -EINVAL;
	else
		err = vfs_mount_new(&to.lk, s->type, s->has_source ? s->source : "none", flags,
				    s->data, NULL);
	sys_path_put(&to);
out_free:
	free(s);
	return err;
}

int64_t sys_umount2(struct task *t, const struct syscall_args *a)
{
	const int known = MNT_FORCE | MNT_DETACH | MNT_EXPIRE | UMOUNT_NOFOLLOW;
	struct sys_path p;
	int flags = ARG_INT(1), err;

	if (flags & ~known)
		return -EINVAL;
	err = sys_path_get(t, SYS_AT_FDCWD, a->a[0], flags & UMOUNT_NOFOLLOW ? 0 : LOOKUP_FOLLOW,
			   &p);
	if (err)
		return err;
	if (!cred_has_cap(t->cred, CAP_SYS_ADMIN_))
		err = look_before_eperm(&p, -EPERM);
	else
		err = vfs_umount(&p.lk, flags);
	sys_path_put(&p);
	return err;
}

int64_t sys_pivot_root(struct task *t, const struct syscall_args *a)
{
	struct sys_path now, put;
	int err;

	if (!cred_has_cap(t->cred, CAP_SYS_ADMIN_))
		return -EPERM;
	err = sys_path_get(t, SYS_AT_FDCWD, a->a[0], LOOKUP_FOLLOW | LOOKUP_DIRECTORY, &now);
	if (err)
		return err;
	err = sys_path_get(t, SYS_AT_FDCWD, a->a[1], LOOKUP_FOLLOW | LOOKUP_DIRECTORY, &put);
	if (err)
		goto out_now;
	/* Every task that stands at the old root is moved by vfs_hooks.replace_root. */
	err = vfs_pivot_root(&now.lk, &put.lk);
	sys_path_put(&put);
out_now:
	sys_path_put(&now);
	return err;
}
