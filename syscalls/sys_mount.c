/* syscalls/sys_mount.c - the mount API by descriptors: open_tree, move_mount, fsopen, fsconfig, fsmount, fspick, mount_setattr. */
#include <linux/mount.h>

#include "abi/mount.h"
#include "fsimpl/anon/fscontext.h"
#include "sentry/nsfs.h"
#include "syscalls/syscalls.h"
#include "syscalls/util.h"
#include "vfs/mount.h"

/* Newer than some headers. */
#ifndef OPEN_TREE_CLONE
#define OPEN_TREE_CLONE 1
#endif
#define MOVE_MOUNT_BENEATH_ 0x200u
#define MOVE_MOUNT_SET_GROUP_ 0x100u
#define MOVE_MOUNT_ALL                                                               \
	(MOVE_MOUNT_F_SYMLINKS | MOVE_MOUNT_F_AUTOMOUNTS | MOVE_MOUNT_F_EMPTY_PATH | \
	 MOVE_MOUNT_T_SYMLINKS | MOVE_MOUNT_T_AUTOMOUNTS | MOVE_MOUNT_T_EMPTY_PATH | \
	 MOVE_MOUNT_SET_GROUP_ | MOVE_MOUNT_BENEATH_)
#define MOUNT_ATTR_NOSYMFOLLOW_ 0x200000u
#define FSMOUNT_ATTRS                                                                   \
	(MOUNT_ATTR_RDONLY | MOUNT_ATTR_NOSUID | MOUNT_ATTR_NODEV | MOUNT_ATTR_NOEXEC | \
	 MOUNT_ATTR__ATIME | MOUNT_ATTR_NODIRATIME | MOUNT_ATTR_NOSYMFOLLOW_)
#define FSCONFIG_CMD_CREATE_EXCL_ 8
#define AT_RECURSIVE_ 0x8000u

#ifndef CLONE_NEWUSER
#define CLONE_NEWUSER 0x10000000
#endif
#define CAP_SYS_ADMIN_ 21

static bool may_mount(struct task *t)
{
	return cred_has_cap(t->cred, CAP_SYS_ADMIN_);
}

/* The place of (dirfd, path): references. An empty path with `empty` is the descriptor's own place. */
static int get_place(struct task *t, int dirfd, uint64_t upath, unsigned lookup, struct sys_path *p,
		     struct vfs_path *ret)
{
	int err;

	/* A NULL path is an empty one where that is allowed. */
	if ((lookup & LOOKUP_EMPTY) && !upath) {
		p->path[0] = '\0';
		err = sys_path_init(t, dirfd, lookup, p);
	} else {
		err = sys_path_get(t, dirfd, upath, lookup, p);
	}
	if (err)
		return err;
	err = vfs_get_path(&p->lk, ret);
	if (err)
		sys_path_put(p);
	return err;
}

/* ---- open_tree ---- */

static int open_tree_file(struct task *t, const struct syscall_args *a, struct file **ret)
{
	const unsigned known = AT_EMPTY_PATH | AT_NO_AUTOMOUNT | AT_RECURSIVE_ |
			       AT_SYMLINK_NOFOLLOW | OPEN_TREE_CLONE | O_CLOEXEC;
	unsigned flags = ARG_UINT(2), lookup = LOOKUP_FOLLOW;
	struct vfs_path at;
	struct sys_path p;
	int err;

	if ((flags & ~known) || (flags & (AT_RECURSIVE_ | OPEN_TREE_CLONE)) == AT_RECURSIVE_)
		return -EINVAL;
	if (flags & AT_SYMLINK_NOFOLLOW)
		lookup = 0;
	if (flags & AT_EMPTY_PATH)
		lookup |= LOOKUP_EMPTY;
	if ((flags & OPEN_TREE_CLONE) && !may_mount(t))
		return -EPERM;
	err = get_place(t, ARG_INT(0), a->a[1], lookup, &p, &at);
	if (err)
		return err;
	err = vfs_open_tree_at(&at, &p.lk, flags & OPEN_TREE_CLONE, flags & AT_RECURSIVE_, ret);
	vfs_path_unref(&at);
	sys_path_put(&p);
	return err;
}

int64_t sys_open_tree(struct task *t, const struct syscall_args *a)
{
	struct file *f;
	int err = open_tree_file(t, a, &f);

	return err ? err : sys_fd_install(t, f, ARG_UINT(2) & O_CLOEXEC);
}

/* ---- move_mount ---- */

int64_t sys_move_mount(struct task *t, const struct syscall_args *a)
{
	const unsigned both = MOVE_MOUNT_BENEATH_ | MOVE_MOUNT_SET_GROUP_;
	unsigned flags = ARG_UINT(4);
	struct sys_path from, to;
	struct vfs_path from_at, to_at;
	int err;

	if (!may_mount(t))
		return -EPERM;
	if ((flags & ~(unsigned)MOVE_MOUNT_ALL) || (flags & both) == both)
		return -EINVAL;
	err = get_place(t, ARG_INT(2), a->a[3],
			(flags & MOVE_MOUNT_T_SYMLINKS ? LOOKUP_FOLLOW : 0) |
				(flags & MOVE_MOUNT_T_EMPTY_PATH ? LOOKUP_EMPTY : 0),
			&to, &to_at);
	if (err)
		return err;
	err = get_place(t, ARG_INT(0), a->a[1],
			(flags & MOVE_MOUNT_F_SYMLINKS ? LOOKUP_FOLLOW : 0) |
				(flags & MOVE_MOUNT_F_EMPTY_PATH ? LOOKUP_EMPTY : 0),
			&from, &from_at);
	if (err)
		goto out_to;
	if (flags & MOVE_MOUNT_SET_GROUP_)
		err = vfs_set_group(&from_at, &to_at, &to.lk);
	else
		err = vfs_move_mount_at(&from_at, &to_at, &to.lk,
					flags & MOVE_MOUNT_BENEATH_ ? MOVE_BENEATH : 0);
	vfs_path_unref(&from_at);
	sys_path_put(&from);
out_to:
	vfs_path_unref(&to_at);
	sys_path_put(&to);
	return err;
}

/* ---- fsopen, fspick ---- */

static int64_t install_config(struct task *t, struct fs_config *c, bool cloexec)
{
	struct file *f;
	int err = fscontext_create(c, &f);

	if (err) {
		fs_config_destroy(c);
		return err;
	}
	return sys_fd_install(t, f, cloexec);
}

int64_t sys_fsopen(struct task *t, const struct syscall_args *a)
{
	unsigned flags = ARG_UINT(1);
	const struct filesystem_type *type;
	char name[MOAT_PAGE_SIZE];
	struct fs_config *c;
	ssize_t len;
	int err;

	if (!may_mount(t))
		return -EPERM;
	if (flags & ~(unsigned)FSOPEN_CLOEXEC)
		return -EINVAL;
	len = mm_copy_in_string(t->mm, name, a->a[0], sizeof(name));
	if (len < 0)
		return len == -ENAMETOOLONG ? -EINVAL : len;
	type = vfs_find_type(name, (size_t)len);
	if (!type || (type->flags & FS_NO_MOUNT))
		return -ENODEV;
	err = fs_config_create(type, NULL, NULL, &c);
	return err ? err : install_config(t, c, flags & FSOPEN_CLOEXEC);
}

int64_t sys_fspick(struct task *t, const struct syscall_args *a)
{
	const unsigned known =
		FSPICK_CLOEXEC | FSPICK_SYMLINK_NOFOLLOW | FSPICK_NO_AUTOMOUNT | FSPICK_EMPTY_PATH;
	unsigned flags = ARG_UINT(2);
	struct fs_config *c;
	struct vfs_path at;
	struct sys_path p;
	int err;

	if (!may_mount(t))
		return -EPERM;
	if (flags & ~known)
		return -EINVAL;
	err = get_place(t, ARG_INT(0), a->a[1],
			(flags & FSPICK_SYMLINK_NOFOLLOW ? 0 : LOOKUP_FOLLOW) |
				(flags & FSPICK_EMPTY_PATH ? LOOKUP_EMPTY : 0),
			&p, &at);
	if (err)
		return err;
	err = -EINVAL;
	if (at.mount->root == at.dentry)
		err = fs_config_create(at.mount->fs->type, at.mount->fs, at.dentry, &c);
	vfs_path_unref(&at);
	sys_path_put(&p);
	return err ? err : install_config(t, c, flags & FSPICK_CLOEXEC);
}

/* ---- fsconfig ---- */

/* What each command demands of key, value and aux. */
static int fsconfig_check(unsigned cmd, bool key, bool value, int aux)
{
	bool ok;

	switch (cmd) {
	case FSCONFIG_SET_FLAG:
		ok = key && !value && !aux;
		break;
	case FSCONFIG_SET_STRING:
		ok = key && value && !aux;
		break;
	case FSCONFIG_SET_BINARY:
		ok = key && value && aux > 0 && (unsigned)aux <= FS_PARAM_BLOB_MAX;
		break;
	case FSCONFIG_SET_PATH:
	case FSCONFIG_SET_PATH_EMPTY:
		ok = key && value && (aux == SYS_AT_FDCWD || aux >= 0);
		break;
	case FSCONFIG_SET_FD:
		ok = key && !value && aux >= 0;
		break;
	case FSCONFIG_CMD_CREATE:
	case FSCONFIG_CMD_CREATE_EXCL_:
	case FSCONFIG_CMD_RECONFIGURE:
		ok = !key && !value && !aux;
		break;
	default:
		return -EOPNOTSUPP;
	}
	return ok ? 0 : -EINVAL;
}

/* A parameter out of guest memory. `held` is what keeps it: param_put(). */
struct param_copy {
	struct fs_param p;
	char key[FS_PARAM_KEY_MAX];
	char *text;
	struct file *file;
};

static int param_get_text(struct task *t, struct param_copy *c, uint64_t uvalue, size_t max)
{
	ssize_t len;

	c->text = malloc(max);
	if (!c->text)
		return -ENOMEM;
	len = mm_copy_in_string(t->mm, c->text, uvalue, max);
	if (len < 0)
		return (int)len;
	c->p.string = c->text;
	c->p.size = (size_t)len;
	return 0;
}

static int param_get_value(struct task *t, struct param_copy *c, unsigned cmd, uint64_t uvalue,
			   int aux)
{
	int err;

	switch (cmd) {
	case FSCONFIG_SET_STRING:
		c->p.kind = FS_PARAM_STRING;
		err = param_get_text(t, c, uvalue, FS_PARAM_STRING_MAX);
		return err == -ENAMETOOLONG ? -EINVAL : err;
	case FSCONFIG_SET_BINARY:
		c->p.kind = FS_PARAM_BLOB;
		c->p.size = (size_t)aux;
		c->text = malloc(c->p.size + 1);
		if (!c->text)
			return -ENOMEM;
		c->text[c->p.size] = '\0';
		c->p.string = c->text;
		return task_copy_in(t, c->text, uvalue, c->p.size);
	case FSCONFIG_SET_PATH:
	case FSCONFIG_SET_PATH_EMPTY:
		c->p.kind = FS_PARAM_PATH;
		err = param_get_text(t, c, uvalue, VFS_PATH_MAX);
		return !err && !c->p.size && cmd == FSCONFIG_SET_PATH ? -ENOENT : err;
	case FSCONFIG_SET_FD:
		c->p.kind = FS_PARAM_FILE;
		c->file = sys_fd_raw(t, aux);
		if (!c->file)
			return -EBADF;
		c->p.place = c->file->path;
		return 0;
	default:
		c->p.kind = FS_PARAM_FLAG;
		return 0;
	}
}

static void param_put(struct param_copy *c)
{
	free(c->text);
	if (c->file)
		file_unref(c->file);
	free(c);
}

static int param_get(struct task *t, const struct syscall_args *a, struct param_copy **ret)
{
	struct param_copy *c = calloc(1, sizeof(*c));
	ssize_t len;
	int err = 0;

	if (!c)
		return -ENOMEM;
	if (a->a[2]) {
		len = mm_copy_in_string(t->mm, c->key, a->a[2], sizeof(c->key));
		if (len < 0)
			err = len == -ENAMETOOLONG ? -EINVAL : (int)len;
		c->p.key = c->key;
	}
	if (!err)
		err = param_get_value(t, c, ARG_UINT(1), a->a[3], ARG_INT(4));
	if (err)
		param_put(c);
	else
		*ret = c;
	return err;
}

/* What a filesystem that looks for paths needs: the caller's root, namespace and working directory. */
static int caller_lookup(struct task *t, struct sys_path *p)
{
	p->path[0] = '.';
	p->path[1] = '\0';
	return sys_path_init(t, SYS_AT_FDCWD, LOOKUP_FOLLOW, p);
}

static int fsconfig_run(struct task *t, struct fs_config *c, unsigned cmd, const struct fs_param *p)
{
	struct sys_path who;
	int err = caller_lookup(t, &who);

	if (err)
		return err;
	if (cmd == FSCONFIG_CMD_CREATE || cmd == FSCONFIG_CMD_CREATE_EXCL_)
		err = c->phase != FS_CONFIG_CREATE_PARAMS ? -EBUSY
		      : may_mount(t)			  ? fs_config_get_tree(c, &who.lk)
							  : -EPERM;
	else if (cmd == FSCONFIG_CMD_RECONFIGURE)
		err = fs_config_reconfigure(c, &who.lk);
	else
		err = fs_config_param(c, &who.lk, p);
	sys_path_put(&who);
	return err;
}

int64_t sys_fsconfig(struct task *t, const struct syscall_args *a)
{
	unsigned cmd = ARG_UINT(1);
	struct param_copy *param;
	struct fs_config *c;
	struct file *f;
	int err;

	if (ARG_INT(0) < 0)
		return -EINVAL;
	err = fsconfig_check(cmd, a->a[2] != 0, a->a[3] != 0, ARG_INT(4));
	if (err)
		return err;
	f = sys_fd(t, ARG_INT(0));
	if (!f)
		return -EBADF;
	/* Is it one at all? Before the parameters are looked at. */
	err = fscontext_is(f) ? param_get(t, a, &param) : -EINVAL;
	if (err)
		goto out_file;
	err = fscontext_lock(f, &c);
	if (!err) {
		err = fsconfig_run(t, c, cmd, &param->p);
		fscontext_unlock(f);
	}
	param_put(param);
out_file:
	file_unref(f);
	return sys_restart(err);
}

/* ---- fsmount ---- */

/* The atime values are no bits but an enumeration. -EINVAL for what it has not. */
static int atime_to_flags(uint64_t attr, unsigned *inout_flags)
{
	switch (attr & MOUNT_ATTR__ATIME) {
	case MOUNT_ATTR_RELATIME:
		*inout_flags |= MNT_RELATIME_F;
		return 0;
	case MOUNT_ATTR_NOATIME:
		*inout_flags |= MNT_NOATIME_F;
		return 0;
	case MOUNT_ATTR_STRICTATIME:
		return 0;
	default:
		return -EINVAL;
	}
}

static int fsmount_file(struct file *fd, unsigned flags, struct file **ret)
{
	struct fs_config *c;
	int err = fscontext_lock(fd, &c);

	if (err)
		return err;
	if (!c->root)
		err = -EINVAL;
	else if (c->phase != FS_CONFIG_AWAITING_MOUNT)
		err = -EBUSY;
	else
		err = vfs_fsmount(c->fs, c->root, flags, ret);
	if (!err)
		fs_config_mounted(c);
	fscontext_unlock(fd);
	return err;
}

int64_t sys_fsmount(struct task *t, const struct syscall_args *a)
{
	unsigned attr = ARG_UINT(2), flags;
	struct file *fd, *f;
	int err;

	if (!may_mount(t))
		return -EPERM;
	if ((ARG_UINT(1) & ~(unsigned)FSMOUNT_CLOEXEC) || (attr & ~(unsigned)FSMOUNT_ATTRS))
		return -EINVAL;
	flags = vfs_mount_attr_to_flags(attr);
	err = atime_to_flags(attr, &flags);
	if (err)
		return err;
	fd = sys_fd(t, ARG_INT(0));
	if (!fd)
		return -EBADF;
	err = fsmount_file(fd, flags, &f);
	file_unref(fd);
	return err ? sys_restart(err) : sys_fd_install(t, f, ARG_UINT(1) & FSMOUNT_CLOEXEC);
}

/* ---- mount_setattr, open_tree_attr ---- */

#define PROPAGATION_FLAGS (MS_SHARED_ | MS_PRIVATE_ | MS_SLAVE_ | MS_UNBINDABLE_)
#define MS_UNBINDABLE_ (1ull << 17)
#define MS_PRIVATE_ (1ull << 18)
#define MS_SLAVE_ (1ull << 19)
#define MS_SHARED_ (1ull << 20)

/* build_mount_idmapped(): there are no mappings, so that it always ends in an errno; in which is Linux's order. */
static int check_idmap(struct task *t, const struct moat_mount_attr *attr, bool may_clear)
{
	struct file *f;
	int err;

	if (!((attr->attr_set | attr->attr_clr) & MOUNT_ATTR_IDMAP))
		return 0;
	if ((attr->attr_clr & MOUNT_ATTR_IDMAP) && !may_clear)
		return -EINVAL;
	if (attr->userns_fd > INT32_MAX)
		return -EINVAL;
	f = sys_fd(t, (int)attr->userns_fd);
	if (!f)
		return -EBADF;
	/* Only the initial user namespace exists, which is no mapping. */
	err = nsfs_type(f) == CLONE_NEWUSER ? -EPERM : -EINVAL;
	file_unref(f);
	return err;
}

/* build_mount_kattr(). */
static int parse_attr(struct task *t, const struct moat_mount_attr *attr, bool may_clear_idmap,
		      struct mount_attr_change *c)
{
	uint64_t both = attr->attr_set | attr->attr_clr;
	int err;

	if ((attr->propagation & ~(uint64_t)PROPAGATION_FLAGS) ||
	    __builtin_popcountll(attr->propagation) > 1)
		return -EINVAL;
	if (both & ~(uint64_t)(FSMOUNT_ATTRS | MOUNT_ATTR_IDMAP))
		return -EINVAL;
	c->set = vfs_mount_attr_to_flags(attr->attr_set);
	c->clear = vfs_mount_attr_to_flags(attr->attr_clr);
	if (attr->attr_clr & MOUNT_ATTR__ATIME) {
		if ((attr->attr_clr & MOUNT_ATTR__ATIME) != MOUNT_ATTR__ATIME)
			return -EINVAL;
		c->clear |= MNT_RELATIME_F | MNT_NOATIME_F;
		err = atime_to_flags(attr->attr_set, &c->set);
		if (err)
			return err;
	} else if (attr->attr_set & MOUNT_ATTR__ATIME) {
		return -EINVAL;
	}
	c->has_propagation = attr->propagation != 0;
	c->propagation = attr->propagation == MS_SHARED_    ? PROP_SHARED
			 : attr->propagation == MS_SLAVE_   ? PROP_SLAVE
			 : attr->propagation == MS_PRIVATE_ ? PROP_PRIVATE
							    : PROP_UNBINDABLE;
	return check_idmap(t, attr, may_clear_idmap);
}

/* wants_mount_setattr(): 1 if there is something to do. */
static int get_attr(struct task *t, uint64_t uattr, uint64_t usize, bool may_clear_idmap,
		    struct mount_attr_change *c)
{
	struct moat_mount_attr attr;
	int err;

	if (usize > MOAT_PAGE_SIZE)
		return -E2BIG;
	if (usize < MOAT_MOUNT_ATTR_SIZE_VER0)
		return -EINVAL;
	if (!may_mount(t))
		return -EPERM;
	err = sys_copy_struct_in(t, &attr, sizeof(attr), uattr, usize);
	if (err)
		return err;
	if (!attr.attr_set && !attr.attr_clr && !attr.propagation)
		return 0;
	err = parse_attr(t, &attr, may_clear_idmap, c);
	return err ? err : 1;
}

int64_t sys_mount_setattr(struct task *t, const struct syscall_args *a)
{
	const unsigned known =
		AT_EMPTY_PATH | AT_RECURSIVE_ | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT;
	unsigned flags = ARG_UINT(2);
	struct mount_attr_change c = {.recursive = flags & AT_RECURSIVE_};
	struct vfs_path at;
	struct sys_path p;
	int err;

	if (flags & ~known)
		return -EINVAL;
	err = get_attr(t, a->a[3], a->a[4], false, &c);
	if (err <= 0)
		return err;
	err = get_place(t, ARG_INT(0), a->a[1],
			(flags & AT_SYMLINK_NOFOLLOW ? 0 : LOOKUP_FOLLOW) |
				(flags & AT_EMPTY_PATH ? LOOKUP_EMPTY : 0),
			&p, &at);
	if (err)
		return err;
	err = vfs_mount_setattr(&at, &p.lk, &c);
	vfs_path_unref(&at);
	sys_path_put(&p);
	return err;
}

int64_t sys_open_tree_attr(struct task *t, const struct syscall_args *a)
{
	struct mount_attr_change c = {.recursive = ARG_UINT(2) & AT_RECURSIVE_};
	struct sys_path who;
	struct file *f;
	int err;

	if (!a->a[3] && a->a[4])
		return -EINVAL;
	err = open_tree_file(t, a, &f);
	if (err || !a->a[3])
		return err ? err : sys_fd_install(t, f, ARG_UINT(2) & O_CLOEXEC);
	err = get_attr(t, a->a[3], a->a[4], ARG_UINT(2) & OPEN_TREE_CLONE, &c);
	if (err > 0) {
		err = caller_lookup(t, &who);
		if (!err) {
			err = vfs_mount_setattr(&f->path, &who.lk, &c);
			sys_path_put(&who);
		}
	}
	if (err) {
		file_unref(f);
		return err;
	}
	return sys_fd_install(t, f, ARG_UINT(2) & O_CLOEXEC);
}
