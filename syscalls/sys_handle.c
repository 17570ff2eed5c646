/* syscalls/sys_handle.c - file handles. */
#include <linux/stat.h>
#include <sys/stat.h>

#include "fsimpl/pipe/pipe.h"
#include "syscalls/syscalls.h"
#include "syscalls/util.h"
#include "vfs/handle.h"

#define HANDLE_SIZE_MAX 128 /* MAX_HANDLE_SZ */
#define AT_HANDLE_MNT_ID_UNIQUE_ 1u
#define AT_HANDLE_CONNECTABLE_ 2u
#define AT_HANDLE_FID_ 0x200u /* AT_REMOVEDIR's bit */
#define CAP_DAC_READ_SEARCH_ 2
#define FILEID_INO32_GEN_ 1 /* tmpfs's type */
#define FILEID_INO64_GEN_ 0x81 /* of filesystems that only tell, AT_HANDLE_FID */
#define FILEID_USER_FLAGS_ 0x10000 /* FILEID_IS_CONNECTABLE, FILEID_IS_DIR: bits 16, 17 */

struct handle_head {
	uint32_t bytes;
	int32_t type;
};

/* What the handle of d would say: words and type. */
static int encode(struct dentry *d, unsigned flags, const struct vfs_lookup *lk,
		  uint32_t words[VFS_HANDLE_WORDS], int32_t *ret_type)
{
	struct moat_statx st = {0};
	int err;

	/* tmpfs cannot tell a file's parent; nor can anything else here. */
	if (flags & AT_HANDLE_CONNECTABLE_)
		return -EOPNOTSUPP;
	err = vfs_handle_encode(d, words);
	if (!err)
		*ret_type = FILEID_INO32_GEN_;
	if (err != -EOPNOTSUPP || !(flags & AT_HANDLE_FID_))
		return err;
	err = vfs_stat(lk, &(struct stat_args){.mask = STATX_INO}, &st);
	words[0] = (uint32_t)st.ino;
	words[1] = (uint32_t)(st.ino >> 32);
	words[2] = 0;
	*ret_type = FILEID_INO64_GEN_;
	return err;
}

static int handle_out(struct task *t, const struct vfs_path *at, unsigned flags,
		      const struct vfs_lookup *lk, uint64_t uhandle, uint64_t umnt)
{
	uint32_t words[VFS_HANDLE_WORDS];
	struct handle_head head;
	int32_t type, id = at->mount->id;
	bool fits;
	int err;

	err = encode(at->dentry, flags, lk, words, &type);
	if (err)
		return err;
	if (task_copy_in(t, &head, uhandle, sizeof(head)))
		return -EFAULT;
	if (head.bytes > HANDLE_SIZE_MAX)
		return -EINVAL;
	fits = head.bytes >= sizeof(words);
	/* Too small a buffer is told how large it must be. */
	head = (struct handle_head){.bytes = sizeof(words), .type = type};
	err = flags & AT_HANDLE_MNT_ID_UNIQUE_
		      ? task_copy_out(t, umnt, &at->mount->unique_id, sizeof(uint64_t))
		      : task_copy_out(t, umnt, &id, sizeof(id));
	if (!err)
		err = task_copy_out(t, uhandle, &head, sizeof(head));
	if (!err && fits)
		err = task_copy_out(t, uhandle + sizeof(head), words, sizeof(words));
	return err ? err : fits ? 0 : -EOVERFLOW;
}

int64_t sys_name_to_handle_at(struct task *t, const struct syscall_args *a)
{
	const unsigned known = AT_SYMLINK_FOLLOW | AT_EMPTY_PATH | AT_HANDLE_FID_ |
			       AT_HANDLE_MNT_ID_UNIQUE_ | AT_HANDLE_CONNECTABLE_;
	unsigned flags = ARG_UINT(4);
	struct vfs_lookup at;
	struct vfs_path place;
	struct sys_path p;
	int err;

	if ((flags & ~known) || ((flags & AT_HANDLE_FID_) && (flags & AT_HANDLE_CONNECTABLE_)))
		return -EINVAL;
	err = sys_path_get(t, ARG_INT(0), a->a[1],
			   (flags & AT_SYMLINK_FOLLOW ? LOOKUP_FOLLOW : 0) |
				   (flags & AT_EMPTY_PATH ? LOOKUP_EMPTY : 0),
			   &p);
	if (err)
		return err;
	err = vfs_get_path(&p.lk, &place);
	if (!err) {
		at = p.lk;
		at.start = place;
		at.path = "";
		at.flags = LOOKUP_EMPTY;
		err = handle_out(t, &place, flags, &at, a->a[2], a->a[3]);
		vfs_path_unref(&place);
	}
	sys_path_put(&p);
	return err;
}

static int get_handle(struct task *t, uint64_t uhandle, uint32_t words[VFS_HANDLE_WORDS],
		      bool *ret_ours)
{
	struct handle_head head;

	if (task_copy_in(t, &head, uhandle, sizeof(head)))
		return -EFAULT;
	if (head.bytes > HANDLE_SIZE_MAX || !head.bytes)
		return -EINVAL;
	if (head.type < 0 || (head.type & ~0xff & ~(3 * FILEID_USER_FLAGS_)))
		return -EINVAL;
	*ret_ours =
		head.type == FILEID_INO32_GEN_ && head.bytes >= sizeof(uint32_t) * VFS_HANDLE_WORDS;
	return task_copy_in(t, words, uhandle + sizeof(head),
			    MIN(head.bytes, sizeof(uint32_t) * VFS_HANDLE_WORDS));
}

/* The place that a handle names on the mount where the descriptor stands. */
static int handle_place(struct task *t, struct sys_path *anchor, uint64_t uhandle,
			struct vfs_path *ret)
{
	uint32_t words[VFS_HANDLE_WORDS] = {0};
	struct mount *m = anchor->start.mount;
	struct dentry *d;
	bool ours;
	int err;

	if (!cred_has_cap(t->cred, CAP_DAC_READ_SEARCH_))
		return -EPERM;
	err = get_handle(t, uhandle, words, &ours);
	if (err)
		return err;
	if (!ours || !(m->fs->type->flags & FS_HANDLES))
		return -ESTALE;
	err = vfs_handle_decode(m->fs, words, &d);
	if (err)
		return err;
	mount_ref(m);
	*ret = (struct vfs_path){.mount = m, .dentry = d};
	return 0;
}

/* openat() of the place itself: a symlink there is not followed. */
static int open_place(struct task *t, struct sys_path *anchor, const struct vfs_path *place,
		      unsigned flags, struct file **ret)
{
	struct vfs_lookup lk = anchor->lk;
	struct open_args args = {.flags = flags & ~(unsigned)(O_CLOEXEC | O_CREAT | O_EXCL),
				 .umask = fs_context_umask(t->fsctx)};
	int err;

	lk.start = *place;
	lk.path = "";
	lk.flags = LOOKUP_EMPTY | (flags & O_DIRECTORY ? LOOKUP_DIRECTORY : 0);
	if (!(flags & O_PATH) && S_ISLNK(place->dentry->fs->ops->dentry_type(place->dentry)))
		return -ELOOP;
	if (!(flags & O_PATH))
		args.flags |= SYS_O_LARGEFILE;
	err = vfs_open(&lk, &args, ret);
	if (!err && !(flags & O_PATH)) {
		err = pipe_open_wait(*ret);
		if (err)
			file_unref(*ret);
	}
	return err;
}

int64_t sys_open_by_handle_at(struct task *t, const struct syscall_args *a)
{
	struct handle_head head;
	struct vfs_path place;
	struct sys_path p;
	struct file *f;
	int64_t ret;

	/* The header is looked at first, then the descriptor, then who asks. */
	if (task_copy_in(t, &head, a->a[1], sizeof(head)))
		return -EFAULT;
	if (head.bytes > HANDLE_SIZE_MAX || !head.bytes)
		return -EINVAL;
	p.path[0] = '\0';
	ret = sys_path_init(t, ARG_INT(0), LOOKUP_EMPTY, &p);
	if (ret)
		return ret;
	ret = handle_place(t, &p, a->a[1], &place);
	if (ret)
		goto out_put;
	ret = open_place(t, &p, &place, ARG_UINT(2), &f);
	vfs_path_unref(&place);
	if (!ret)
		ret = sys_fd_install(t, f, ARG_UINT(2) & O_CLOEXEC);
out_put:
	sys_path_put(&p);
	return sys_restart(ret);
}
