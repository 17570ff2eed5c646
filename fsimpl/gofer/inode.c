/* fsimpl/gofer/inode.c - one file of the host: its attributes and its life. */
#include <stdlib.h>
#include <string.h>
#include <linux/stat.h>
#include <sys/stat.h>

#include "fsimpl/gofer/internal.h"

static REF_TYPE(inode_type, "gofer_inode");

static struct moat_timestamp to_timestamp(const struct p9_time *t)
{
	return (struct moat_timestamp){.sec = (int64_t)t->sec,
				       .nsec = t->nsec < 1000000000u ? t->nsec : 0};
}

static void attr_from_node(struct gofer_attr *a, const struct p9_node *node)
{
	*a = (struct gofer_attr){
		.mode = node->mode,
		.uid = node->uid,
		.gid = node->gid,
		.nlink = node->nlink,
		.blksize = node->blksize,
		.size = node->size,
		.blocks = node->blocks,
		.atime = to_timestamp(&node->atime),
		.mtime = to_timestamp(&node->mtime),
		.ctime = to_timestamp(&node->ctime),
		.btime = to_timestamp(&node->btime),
	};
}

int gofer_inode_create(struct gofer_fs *fs, const struct p9_node *node, const struct p9_str *target,
		       struct gofer_inode **ret)
{
	struct gofer_inode *in;

	switch (node->mode & S_IFMT) {
	case S_IFREG:
	case S_IFDIR:
	case S_IFCHR:
	case S_IFBLK:
	case S_IFIFO:
	case S_IFSOCK:
		break;
	case S_IFLNK:
		if (!target || target->len == 0 || target->len >= VFS_PATH_MAX ||
		    memchr(target->data, '\0', target->len))
			return -EIO;
		break;
	default:
		return -EIO;
	}
	in = calloc(1, sizeof(*in));
	if (!in)
		return -ENOMEM;
	in->base.type = node->mode & S_IFMT;
	if (in->base.type == S_IFLNK) {
		in->target = malloc(target->len + 1u);
		if (!in->target) {
			free(in);
			return -ENOMEM;
		}
		memcpy(in->target, target->data, target->len);
		in->target[target->len] = '\0';
		in->target_len = target->len;
	}
	ref_init(&in->base.ref, &inode_type);
	in->fs = fs;
	in->qid_path = node->qid.path;
	in->rdev_major = node->rdev_major;
	in->rdev_minor = node->rdev_minor;
	mutex_init(&in->lock, LOCK_FS_INODE, "gofer_inode");
	op_lock_init(&in->write_lock);
	attr_from_node(&in->attr, node);
	gofer_acl_node_locked(in, node);
	gofer_xattr_node_locked(in, node);
	in->fid = P9_NOFID;
	in->rd_fd = -1;
	in->rw_fd = -1;
	mappable_init(&in->map, &gofer_mappable_ops);
	*ret = in;
	return 0;
}

void gofer_inode_ref(struct gofer_inode *in)
{
	ref_get(&in->base.ref);
}

static void inode_free_rcu(struct rcu_cb *cb)
{
	struct gofer_inode *in = container_of(cb, struct gofer_inode, rcu);

	free(in->target);
	free(in);
}

/* What the file takes on the host: of one that is held without a name, which descriptors may have made larger since. */
static uint64_t removed_bytes(struct gofer_inode *in)
{
	uint64_t bytes;

	if (in->fid == P9_NOFID || in->base.type != S_IFREG)
		return 0;
	mutex_lock(&in->lock);
	gofer_inode_refresh_locked(in);
	bytes = MIN(in->attr.blocks, (uint64_t)P9_CLUNK_BYTES) * 512;
	mutex_unlock(&in->lock);
	return bytes;
}

void gofer_inode_unref(struct gofer_inode *in)
{
	uint64_t bytes;

	if (!ref_put(&in->base.ref))
		return;
	gofer_inode_unhash(in);
	bytes = removed_bytes(in);
	gofer_inode_close_fds(in);
	gofer_lock_owners_free(in);
	gofer_listing_unref(in->listing);
	if (in->mf)
		memfile_unref(in->mf);
	mappable_fini(&in->map);
	p9_fid_clunk_removed(in->fs->conn, in->fid, bytes);
	vfs_acl_unref(atomic_load_explicit(&in->acl, memory_order_relaxed));
	if (in->endpoint && ref_put(&in->endpoint->ref))
		in->endpoint->release(in->endpoint);
	ref_fini(&in->base.ref, &inode_type);
	rcu_call(&in->rcu, inode_free_rcu);
}

void gofer_inode_update(struct gofer_inode *in, const struct p9_node *node)
{
	mutex_lock(&in->lock);
	attr_from_node(&in->attr, node);
	gofer_acl_node_locked(in, node);
	gofer_xattr_node_locked(in, node);
	mutex_unlock(&in->lock);
}

void gofer_inode_perm(struct gofer_inode *in, struct perm_inode *ret)
{
	mutex_lock(&in->lock);
	ret->flags = 0;
	ret->mode = in->attr.mode;
	ret->uid = in->attr.uid;
	ret->gid = in->attr.gid;
	ret->acl = atomic_load_explicit(&in->acl, memory_order_acquire);
	mutex_unlock(&in->lock);
}

void gofer_inode_perm_fresh(struct gofer_inode *in, struct perm_inode *ret)
{
	gofer_inode_perm(in, ret);
	if (likely(!(ret->mode & (S_ISUID | S_ISGID))))
		return;
	mutex_lock(&in->lock);
	gofer_inode_refresh_locked(in);
	mutex_unlock(&in->lock);
	gofer_inode_perm(in, ret);
}

static void stamp(struct moat_timestamp *t, const struct timespec *ts)
{
	t->sec = ts->tv_sec;
	t->nsec = (uint32_t)ts->tv_nsec;
}

/*
 * Descriptors of ours change these without a word to the server. Pre: in->lock. Mode, owner and link count are
 * changed by requests alone, but a write of ours may have taken setuid away.
 */
void gofer_inode_refresh_locked(struct gofer_inode *in)
{
	int fd = in->rw_fd >= 0 ? in->rw_fd : in->rd_fd;
	struct stat st;

	if (fd < 0 || gofer_is_plain(in) || fstat(fd, &st) < 0)
		return;
	in->attr.mode = st.st_mode;
	in->attr.size = (uint64_t)st.st_size;
	in->attr.blocks = (uint64_t)st.st_blocks;
	stamp(&in->attr.atime, &st.st_atim);
	stamp(&in->attr.mtime, &st.st_mtim);
	stamp(&in->attr.ctime, &st.st_ctim);
}

uint64_t gofer_inode_size(struct gofer_inode *in)
{
	uint64_t size;

	mutex_lock(&in->lock);
	gofer_inode_refresh_locked(in);
	size = in->attr.size;
	mutex_unlock(&in->lock);
	return size;
}

static void fill_stat(const struct gofer_inode *in, const struct gofer_attr *a,
		      struct moat_statx *ret)
{
	*ret = (struct moat_statx){
		.mask = STATX_BASIC_STATS | (a->btime.sec || a->btime.nsec ? STATX_BTIME : 0),
		.blksize = a->blksize ? a->blksize : 4096,
		.nlink = a->nlink,
		.uid = a->uid,
		.gid = a->gid,
		.mode = (uint16_t)a->mode,
		.ino = in->qid_path,
		.size = a->size,
		.blocks = a->blocks,
		.atime = a->atime,
		.btime = a->btime,
		.ctime = a->ctime,
		.mtime = a->mtime,
		.rdev_major = in->rdev_major,
		.rdev_minor = in->rdev_minor,
		.dev_minor = in->fs->fs.dev_minor,
	};
}

void gofer_inode_stat(struct gofer_inode *in, struct moat_statx *ret)
{
	struct gofer_attr a;

	gofer_attr_asked(in);
	mutex_lock(&in->lock);
	gofer_inode_refresh_locked(in);
	a = in->attr;
	mutex_unlock(&in->lock);
	fill_stat(in, &a, ret);
}

/* ---- filesystem_ops.peek_*: what the cache knows, where it is the truth and nobody is changing it ---- */

static struct gofer_inode *peek(struct dentry *d)
{
	struct gofer_inode *in = gofer_inode_of(remote_dentry_of(d));

	return !in->fs->shared && mutex_trylock(&in->lock) ? in : NULL;
}

bool gofer_peek_perm(struct dentry *d, struct perm_inode *ret)
{
	struct gofer_inode *in = peek(d);
	bool known;

	if (!in)
		return false;
	known = gofer_acl_is_known_locked(in);
	*ret = (struct perm_inode){
		.mode = in->attr.mode,
		.uid = in->attr.uid,
		.gid = in->attr.gid,
		.acl = atomic_load_explicit(&in->acl, memory_order_acquire),
	};
	mutex_unlock(&in->lock);
	return known;
}

bool gofer_peek_stat(struct dentry *d, struct moat_statx *ret)
{
	struct gofer_inode *in = peek(d);
	struct gofer_attr a;
	bool known;

	if (!in)
		return false;
	/* Through descriptors that are in use the file changes without a word to the server. */
	known = in->rw_fd < 0 && !atomic_load(&in->io_dirty) &&
		!atomic_load_explicit(&in->pins, memory_order_acquire);
	a = in->attr;
	mutex_unlock(&in->lock);
	if (known) {
		gofer_attr_asked(in);
		fill_stat(in, &a, ret);
	}
	return known;
}

const char *gofer_peek_link(struct dentry *d, size_t *ret_len)
{
	const struct gofer_inode *in = gofer_inode_of(remote_dentry_of(d));

	if (in->fs->shared || !in->target)
		return NULL;
	*ret_len = in->target_len;
	return in->target;
}
