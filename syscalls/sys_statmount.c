/* syscalls/sys_statmount.c - statmount(2) and listmount(2): the mount table by 64-bit ids. */
#include <stdlib.h>

#include "abi/mount.h"
#include "sentry/nsfs.h"
#include "syscalls/syscalls.h"
#include "syscalls/util.h"
#include "vfs/mount.h"

#define CAP_SYS_ADMIN_ 21
#define LISTMOUNT_MAX (1u << 20) /* ids asked at once; Linux's own */
#define STATMOUNT_STRINGS                                                                      \
	(MOAT_STATMOUNT_FS_TYPE | MOAT_STATMOUNT_MNT_ROOT | MOAT_STATMOUNT_MNT_POINT |         \
	 MOAT_STATMOUNT_MNT_OPTS | MOAT_STATMOUNT_FS_SUBTYPE | MOAT_STATMOUNT_SB_SOURCE |      \
	 MOAT_STATMOUNT_OPT_ARRAY | MOAT_STATMOUNT_OPT_SEC_ARRAY | MOAT_STATMOUNT_MNT_UIDMAP | \
	 MOAT_STATMOUNT_MNT_GIDMAP)

/* Where a request looks: which namespace, and below which root. References. */
struct mount_view {
	struct mount_namespace *ns;
	struct vfs_path root;
	bool privileged;
};

/* copy_mnt_id_req(). */
static int get_request(struct task *t, uint64_t ureq, struct moat_mnt_id_req *ret)
{
	uint32_t size;
	int err;

	if (task_copy_in(t, &size, ureq, sizeof(size)))
		return -EFAULT;
	if (size > MOAT_PAGE_SIZE)
		return -E2BIG;
	if (size < MOAT_MNT_ID_REQ_SIZE_VER0)
		return -EINVAL;
	err = sys_copy_struct_in(t, ret, sizeof(*ret), ureq, size);
	if (err)
		return err;
	/* A descriptor and an id of a namespace exclude each other. */
	if (ret->mnt_ns_fd && ret->mnt_ns_id)
		return -EINVAL;
	return ret->mnt_id <= MOAT_MNT_UNIQUE_ID_OFFSET ? -EINVAL : 0;
}

/* grab_requested_mnt_ns(): the caller's own unless an id or a descriptor says another. */
static int get_namespace(struct task *t, const struct moat_mnt_id_req *req,
			 struct mount_namespace **ret)
{
	struct mount_namespace *ns;
	struct file *f;

	if (req->mnt_ns_id) {
		*ret = mount_namespace_find(t->mnt_ns, req->mnt_ns_id);
		return *ret ? 0 : -ENOENT;
	}
	if (!req->mnt_ns_fd) {
		mount_namespace_ref(t->mnt_ns);
		*ret = t->mnt_ns;
		return 0;
	}
	f = sys_fd(t, (int)req->mnt_ns_fd);
	if (!f)
		return -EBADF;
	ns = nsfs_mount_ns(f);
	if (ns) {
		mount_namespace_ref(ns);
		*ret = ns;
	}
	file_unref(f);
	return ns ? 0 : -EINVAL;
}

static int view_get(struct task *t, const struct moat_mnt_id_req *req, struct mount_view *ret)
{
	int err = get_namespace(t, req, &ret->ns);

	if (err)
		return err;
	ret->privileged = cred_has_cap(t->cred, CAP_SYS_ADMIN_);
	if (ret->ns != t->mnt_ns && !ret->privileged) {
		mount_namespace_unref(ret->ns);
		return -ENOENT;
	}
	if (ret->ns == t->mnt_ns)
		fs_context_get_root(t->fsctx, &ret->root);
	else
		mount_namespace_root(ret->ns, &ret->root);
	return 0;
}

static void view_put(struct mount_view *v)
{
	vfs_path_unref(&v->root);
	mount_namespace_unref(v->ns);
}

/* ---- statmount ---- */

/* Linux's STATMOUNT_STRING_REQ. */
#define STRINGS_MASK                                                                           \
	(MOAT_STATMOUNT_MNT_ROOT | MOAT_STATMOUNT_MNT_POINT | MOAT_STATMOUNT_FS_TYPE |         \
	 MOAT_STATMOUNT_MNT_OPTS | MOAT_STATMOUNT_FS_SUBTYPE | MOAT_STATMOUNT_SB_SOURCE |      \
	 MOAT_STATMOUNT_OPT_ARRAY | MOAT_STATMOUNT_OPT_SEC_ARRAY | MOAT_STATMOUNT_MNT_UIDMAP | \
	 MOAT_STATMOUNT_MNT_GIDMAP)

/* The answer being made: strings follow the structure; offset 0 means "none". */
struct answer {
	struct moat_statmount sm;
	struct buf strings;
};

/* Ends the string begun at `start`; nothing of it: the bit stays off. */
static void string_end(struct answer *an, size_t start, uint64_t bit, uint32_t *offset)
{
	if (an->strings.len == start)
		return;
	buf_putc(&an->strings, '\0');
	*offset = (uint32_t)start;
	an->sm.mask |= bit;
}

/* An empty answer keeps offset 0 for "no string". */
static size_t string_begin(struct answer *an)
{
	if (!an->strings.len)
		buf_putc(&an->strings, '\0');
	return an->strings.len;
}

static unsigned sb_flags_of(const struct filesystem *fs)
{
	unsigned flags = atomic_load_explicit(&fs->sb_flags, memory_order_relaxed);

	/* MS_RDONLY, MS_SYNCHRONOUS, MS_DIRSYNC, MS_LAZYTIME */
	return (flags & FS_RDONLY ? 1u : 0) | (flags & FS_SYNC ? 16u : 0) |
	       (flags & FS_DIRSYNC ? 128u : 0) | (flags & FS_LAZYTIME ? 1u << 25 : 0);
}

static void put_numbers(struct answer *an, const struct mount_facts *f, uint64_t mask)
{
	struct moat_statmount *sm = &an->sm;

	if (mask & MOAT_STATMOUNT_SB_BASIC) {
		sm->sb_dev_minor = f->fs->dev_minor;
		sm->sb_magic = f->fs->magic;
		sm->sb_flags = sb_flags_of(f->fs);
	}
	if (mask & MOAT_STATMOUNT_MNT_BASIC) {
		sm->mnt_id = f->id;
		sm->mnt_parent_id = f->parent_id;
		sm->mnt_id_old = (uint32_t)f->old_id;
		sm->mnt_parent_id_old = (uint32_t)f->old_parent_id;
		sm->mnt_attr = vfs_mount_flags_to_attr(f->flags);
		sm->mnt_propagation = f->propagation;
		sm->mnt_peer_group = f->group;
		sm->mnt_master = f->master;
	}
	if (mask & MOAT_STATMOUNT_PROPAGATE_FROM)
		sm->propagate_from = f->from;
	if (mask & MOAT_STATMOUNT_MNT_NS_ID)
		sm->mnt_ns_id = f->ns_id;
	if (mask & MOAT_STATMOUNT_SUPPORTED_MASK)
		sm->supported_mask = MOAT_STATMOUNT_SUPPORTED;
	sm->mask |= mask & (MOAT_STATMOUNT_SB_BASIC | MOAT_STATMOUNT_MNT_BASIC |
			    MOAT_STATMOUNT_PROPAGATE_FROM | MOAT_STATMOUNT_MNT_NS_ID |
			    MOAT_STATMOUNT_SUPPORTED_MASK);
}

/* The filesystem's options, without their leading comma; as an array: each ended by NUL. */
static void put_options(struct answer *an, const struct mount_facts *f, uint64_t mask)
{
	struct buf opts;
	size_t start;
	uint32_t n = 1;

	buf_init(&opts, BUF_DEFAULT_MAX);
	f->fs->ops->show_options(f->fs, &opts);
	if (opts.len > 1 && !buf_error(&opts)) {
		if (mask & MOAT_STATMOUNT_MNT_OPTS) {
			start = string_begin(an);
			buf_append(&an->strings, opts.data + 1, opts.len - 1);
			string_end(an, start, MOAT_STATMOUNT_MNT_OPTS, &an->sm.mnt_opts);
		}
		if (mask & MOAT_STATMOUNT_OPT_ARRAY) {
			for (size_t i = 1; i < opts.len; i++)
				if (opts.data[i] == ',') {
					opts.data[i] = '\0';
					n++;
				}
			start = string_begin(an);
			buf_append(&an->strings, opts.data + 1, opts.len - 1);
			an->sm.opt_num = n;
			string_end(an, start, MOAT_STATMOUNT_OPT_ARRAY, &an->sm.opt_array);
		}
	}
	buf_fini(&opts);
}

static int put_strings(struct answer *an, const struct mount_facts *f, const struct vfs_path *root,
		       uint64_t mask)
{
	struct moat_statmount *sm = &an->sm;
	size_t start;
	int err;

	/* Offset 0 reads as the empty string, also when no other is there. */
	if (mask & STRINGS_MASK)
		(void)string_begin(an);
	if (mask & MOAT_STATMOUNT_FS_TYPE) {
		start = string_begin(an);
		buf_puts(&an->strings, f->fs->type->name);
		string_end(an, start, MOAT_STATMOUNT_FS_TYPE, &sm->fs_type);
	}
	if (mask & MOAT_STATMOUNT_MNT_ROOT) {
		start = string_begin(an);
		mount_facts_root(f, &an->strings);
		string_end(an, start, MOAT_STATMOUNT_MNT_ROOT, &sm->mnt_root);
	}
	if (mask & MOAT_STATMOUNT_MNT_POINT) {
		start = string_begin(an);
		err = mount_facts_point(f, root, &an->strings);
		if (err)
			return err;
		string_end(an, start, MOAT_STATMOUNT_MNT_POINT, &sm->mnt_point);
	}
	put_options(an, f, mask);
	if (mask & MOAT_STATMOUNT_SB_SOURCE) {
		start = string_begin(an);
		buf_puts(&an->strings, f->fs->source);
		string_end(an, start, MOAT_STATMOUNT_SB_SOURCE, &sm->sb_source);
	}
	return buf_error(&an->strings);
}

static int answer_out(struct task *t, struct answer *an, uint64_t ubuf, uint64_t size)
{
	size_t fixed = MIN(size, sizeof(an->sm));

	if (an->strings.len && size < sizeof(an->sm) + an->strings.len)
		return -EOVERFLOW;
	an->sm.size = (uint32_t)(fixed + an->strings.len);
	if (an->strings.len &&
	    task_copy_out(t, ubuf + sizeof(an->sm), an->strings.data, an->strings.len))
		return -EFAULT;
	return task_copy_out(t, ubuf, &an->sm, fixed);
}

int64_t sys_statmount(struct task *t, const struct syscall_args *a)
{
	uint64_t size = a->a[2];
	struct moat_mnt_id_req req;
	struct answer an = {.sm = {0}};
	struct mount_facts facts;
	struct mount_view view;
	int err;

	if (ARG_UINT(3))
		return -EINVAL;
	err = get_request(t, a->a[0], &req);
	if (err)
		return err;
	err = view_get(t, &req, &view);
	if (err)
		return err;
	err = -EFAULT;
	if (!sys_range_ok(a->a[1], size))
		goto out_view;
	err = -EOVERFLOW;
	if ((req.param & STATMOUNT_STRINGS) && size == sizeof(an.sm))
		goto out_view;
	err = vfs_mount_facts(view.ns, req.mnt_id, &view.root, view.privileged, &facts);
	if (err)
		goto out_view;
	buf_init(&an.strings, BUF_DEFAULT_MAX);
	put_numbers(&an, &facts, req.param);
	err = put_strings(&an, &facts, &view.root, req.param);
	if (!err)
		err = answer_out(t, &an, a->a[1], size);
	buf_fini(&an.strings);
	mount_facts_fini(&facts);
out_view:
	view_put(&view);
	return err;
}

/* ---- listmount ---- */

int64_t sys_listmount(struct task *t, const struct syscall_args *a)
{
	uint64_t count = a->a[2], *ids;
	unsigned flags = ARG_UINT(3);
	struct moat_mnt_id_req req;
	struct mount_view view;
	int64_t n;

	if (flags & ~MOAT_LISTMOUNT_REVERSE)
		return -EINVAL;
	if (count > LISTMOUNT_MAX)
		return -EOVERFLOW;
	if (!sys_range_ok(a->a[1], count * sizeof(*ids)))
		return -EFAULT;
	n = get_request(t, a->a[0], &req);
	if (n)
		return n;
	/* The first valid id is above the offset. */
	if (req.param && req.param <= MOAT_MNT_UNIQUE_ID_OFFSET)
		return -EINVAL;
	n = view_get(t, &req, &view);
	if (n)
		return n;
	/* No more than there are mounts. */
	count = MIN(count, (uint64_t)mount_namespace_count(view.ns) + 1);
	ids = malloc((count ? count : 1) * sizeof(*ids));
	n = -ENOMEM;
	if (ids)
		n = vfs_list_mounts(view.ns, req.mnt_id == MOAT_LSMT_ROOT ? 0 : req.mnt_id,
				    req.param, flags & MOAT_LISTMOUNT_REVERSE, &view.root,
				    view.privileged, ids, count);
	if (n > 0 && task_copy_out(t, a->a[1], ids, (size_t)n * sizeof(*ids)))
		n = -EFAULT;
	free(ids);
	view_put(&view);
	return n;
}
