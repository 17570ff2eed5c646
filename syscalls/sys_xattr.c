/* syscalls/sys_xattr.c - extended attributes, by path, by descriptor, and the sized *at forms of 6.13. */
#include <linux/capability.h>
#include <stdlib.h>
#include <string.h>
#include <sys/xattr.h>

#include "syscalls/syscalls.h"
#include "syscalls/util.h"
#include "vfs/perm.h"

#define XATTR_LIST_MAX_ 65536ul

/* strncpy_from_user of a name: empty or too long is -ERANGE. */
static int get_name(struct task *t, uint64_t uname, char *name)
{
	ssize_t len = mm_copy_in_string(t->mm, name, uname, VFS_XATTR_NAME_MAX + 1);

	if (len == 0 || len == -ENAMETOOLONG)
		return -ERANGE;
	return len < 0 ? (int)len : 0;
}

static int64_t do_set(struct task *t, const struct vfs_lookup *lk, const char *name,
		      uint64_t uvalue, uint64_t size, int flags)
{
	struct xattr_args args = {.name = name, .size = size, .flags = flags};
	int64_t ret = -EFAULT;

	if (size) {
		args.value = malloc(size);
		if (!args.value)
			return -ENOMEM;
		if (task_copy_in(t, args.value, uvalue, size))
			goto out_free;
	}
	ret = vfs_set_xattr(lk, &args);
out_free:
	free(args.value);
	return ret;
}

/*
 * cap_inode_getsecurity(): capabilities of the user namespace's own root read as revision 2, others as they are, and what is none as
 * -EINVAL.
 */
static ssize_t get_capability(const struct vfs_lookup *lk, const struct xattr_args *args)
{
	struct vfs_ns_cap_data data = {0};
	struct xattr_args whole = {.name = args->name, .value = &data, .size = sizeof(data)};
	ssize_t ret = vfs_get_xattr(lk, &whole);

	if (ret == -ERANGE || (ret >= 0 && !vfs_nscap_valid(&data, (size_t)ret)))
		return -EINVAL;
	if (ret < 0)
		return ret;
	if (ret == (ssize_t)XATTR_CAPS_SZ_3 && !data.rootid) {
		data.magic_etc = VFS_CAP_REVISION_2 | (data.magic_etc & VFS_CAP_FLAGS_EFFECTIVE);
		ret = XATTR_CAPS_SZ_2;
	}
	if (args->size && args->size < (size_t)ret)
		return -ERANGE;
	if (args->size)
		memcpy(args->value, &data, (size_t)ret);
	return ret;
}

static int64_t do_get(struct task *t, const struct vfs_lookup *lk, const char *name,
		      uint64_t uvalue, uint64_t size)
{
	struct xattr_args args = {.name = name, .size = MIN(size, (uint64_t)VFS_XATTR_SIZE_MAX)};
	ssize_t ret;

	if (args.size) {
		args.value = malloc(args.size);
		if (!args.value)
			return -ENOMEM;
	}
	ret = strcmp(name, "security.capability") ? vfs_get_xattr(lk, &args)
						  : get_capability(lk, &args);
	if (ret > 0 && args.size && task_copy_out(t, uvalue, args.value, (size_t)ret))
		ret = -EFAULT;
	else if (ret == -ERANGE && size >= VFS_XATTR_SIZE_MAX)
		ret = -E2BIG;
	free(args.value);
	return ret;
}

static int64_t do_list(struct task *t, const struct vfs_lookup *lk, uint64_t ulist, uint64_t size)
{
	size_t room = MIN(size, XATTR_LIST_MAX_);
	char *list = NULL;
	ssize_t ret;

	if (room) {
		list = malloc(room);
		if (!list)
			return -ENOMEM;
	}
	ret = vfs_list_xattr(lk, list, room);
	if (ret > 0 && room && task_copy_out(t, ulist, list, (size_t)ret))
		ret = -EFAULT;
	else if (ret == -ERANGE && size >= XATTR_LIST_MAX_)
		ret = -E2BIG;
	free(list);
	return ret;
}

/* What a call acts on: a path with LOOKUP_* flags, or (upath NULL and by_fd) a descriptor. */
struct target {
	int dirfd;
	uint64_t upath;
	unsigned lookup;
	bool by_fd;
};

static int target_get(struct task *t, const struct target *at, struct sys_path *p)
{
	if (at->by_fd)
		return sys_path_from_fd(t, at->dirfd, false, p);
	return sys_path_get(t, at->dirfd, at->upath, at->lookup, p);
}

static struct target by_path(uint64_t upath, bool follow)
{
	return (struct target){SYS_AT_FDCWD, upath, follow ? LOOKUP_FOLLOW : 0, false};
}

static struct target by_fd(int fd)
{
	return (struct target){.dirfd = fd, .by_fd = true};
}

static int64_t setxattr_(struct task *t, struct target at, uint64_t uname, uint64_t uvalue,
			 uint64_t size, int flags)
{
	char name[VFS_XATTR_NAME_MAX + 1];
	struct sys_path p;
	int64_t ret;

	if (flags & ~(XATTR_CREATE | XATTR_REPLACE))
		return -EINVAL;
	ret = get_name(t, uname, name);
	if (ret)
		return ret;
	if (size > VFS_XATTR_SIZE_MAX)
		return -E2BIG;
	ret = target_get(t, &at, &p);
	if (ret)
		return ret;
	ret = do_set(t, &p.lk, name, uvalue, size, flags);
	sys_path_put(&p);
	return ret;
}

static int64_t getxattr_(struct task *t, struct target at, uint64_t uname, uint64_t uvalue,
			 uint64_t size)
{
	char name[VFS_XATTR_NAME_MAX + 1];
	struct sys_path p;
	int64_t ret = get_name(t, uname, name);

	if (ret)
		return ret;
	ret = target_get(t, &at, &p);
	if (ret)
		return ret;
	ret = do_get(t, &p.lk, name, uvalue, size);
	sys_path_put(&p);
	return ret;
}

static int64_t listxattr_(struct task *t, struct target at, uint64_t ulist, uint64_t size)
{
	struct sys_path p;
	int64_t ret = target_get(t, &at, &p);

	if (ret)
		return ret;
	ret = do_list(t, &p.lk, ulist, size);
	sys_path_put(&p);
	return ret;
}

static int64_t removexattr_(struct task *t, struct target at, uint64_t uname)
{
	char name[VFS_XATTR_NAME_MAX + 1];
	struct sys_path p;
	int64_t ret = get_name(t, uname, name);

	if (ret)
		return ret;
	ret = target_get(t, &at, &p);
	if (ret)
		return ret;
	ret = vfs_remove_xattr(&p.lk, name);
	sys_path_put(&p);
	return ret;
}

int64_t sys_setxattr(struct task *t, const struct syscall_args *a)
{
	return setxattr_(t, by_path(a->a[0], true), a->a[1], a->a[2], a->a[3], ARG_INT(4));
}

int64_t sys_lsetxattr(struct task *t, const struct syscall_args *a)
{
	return setxattr_(t, by_path(a->a[0], false), a->a[1], a->a[2], a->a[3], ARG_INT(4));
}

int64_t sys_fsetxattr(struct task *t, const struct syscall_args *a)
{
	return setxattr_(t, by_fd(ARG_INT(0)), a->a[1], a->a[2], a->a[3], ARG_INT(4));
}

int64_t sys_getxattr(struct task *t, const struct syscall_args *a)
{
	return getxattr_(t, by_path(a->a[0], true), a->a[1], a->a[2], a->a[3]);
}

int64_t sys_lgetxattr(struct task *t, const struct syscall_args *a)
{
	return getxattr_(t, by_path(a->a[0], false), a->a[1], a->a[2], a->a[3]);
}

int64_t sys_fgetxattr(struct task *t, const struct syscall_args *a)
{
	return getxattr_(t, by_fd(ARG_INT(0)), a->a[1], a->a[2], a->a[3]);
}

int64_t sys_listxattr(struct task *t, const struct syscall_args *a)
{
	return listxattr_(t, by_path(a->a[0], true), a->a[1], a->a[2]);
}

int64_t sys_llistxattr(struct task *t, const struct syscall_args *a)
{
	return listxattr_(t, by_path(a->a[0], false), a->a[1], a->a[2]);
}

int64_t sys_flistxattr(struct task *t, const struct syscall_args *a)
{
	return listxattr_(t, by_fd(ARG_INT(0)), a->a[1], a->a[2]);
}

int64_t sys_removexattr(struct task *t, const struct syscall_args *a)
{
	return removexattr_(t, by_path(a->a[0], true), a->a[1]);
}

int64_t sys_lremovexattr(struct task *t, const struct syscall_args *a)
{
	return removexattr_(t, by_path(a->a[0], false), a->a[1]);
}

int64_t sys_fremovexattr(struct task *t, const struct syscall_args *a)
{
	return removexattr_(t, by_fd(ARG_INT(0)), a->a[1]);
}

/* ---- setxattrat(2) and kin ---- */

/* struct xattr_args of uapi/linux/xattr.h */
struct xattr_at_args {
	uint64_t value;
	uint32_t size, flags;
};

static int at_target(const struct syscall_args *a, struct target *ret)
{
	unsigned flags = ARG_UINT(2);

	if (flags & ~(unsigned)(AT_SYMLINK_NOFOLLOW | AT_EMPTY_PATH))
		return -EINVAL;
	*ret = (struct target){
		.dirfd = ARG_INT(0),
		.upath = a->a[1],
		.lookup = (flags & AT_SYMLINK_NOFOLLOW ? 0 : LOOKUP_FOLLOW) |
			  (flags & AT_EMPTY_PATH ? LOOKUP_EMPTY : 0),
		/* A NULL path with AT_EMPTY_PATH is the descriptor. */
		.by_fd = (flags & AT_EMPTY_PATH) && !a->a[1],
	};
	return 0;
}

static int get_at_args(struct task *t, const struct syscall_args *a, struct xattr_at_args *ret)
{
	if (a->a[5] < sizeof(*ret))
		return -EINVAL;
	if (a->a[5] > MOAT_PAGE_SIZE)
		return -E2BIG;
	return sys_copy_struct_in(t, ret, sizeof(*ret), a->a[4], a->a[5]);
}

int64_t sys_setxattrat(struct task *t, const struct syscall_args *a)
{
	struct xattr_at_args args;
	struct target at;
	int err = get_at_args(t, a, &args);

	if (!err)
		err = at_target(a, &at);
	return err ? err : setxattr_(t, at, a->a[3], args.value, args.size, (int)args.flags);
}

int64_t sys_getxattrat(struct task *t, const struct syscall_args *a)
{
	struct xattr_at_args args;
	struct target at;
	int err = get_at_args(t, a, &args);

	if (!err && args.flags)
		err = -EINVAL;
	if (!err)
		err = at_target(a, &at);
	return err ? err : getxattr_(t, at, a->a[3], args.value, args.size);
}

int64_t sys_listxattrat(struct task *t, const struct syscall_args *a)
{
	struct target at;
	int err = at_target(a, &at);

	return err ? err : listxattr_(t, at, a->a[3], a->a[4]);
}

int64_t sys_removexattrat(struct task *t, const struct syscall_args *a)
{
	struct target at;
	int err = at_target(a, &at);

	return err ? err : removexattr_(t, at, a->a[3]);
}
