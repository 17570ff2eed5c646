/*
 * fsimpl/memfs/inode.c - inodes: attributes, accounting, life.
 *
 * What stat shows is read lock-free between two looks at `seq`; writers hold the inode's lock. Only the parts that a file's type needs
 * are allocated: an empty file is its inode and its dentry, below 320 bytes together.
 */
#include <stdlib.h>
#include <string.h>
#include <linux/fs.h>
#include <linux/stat.h>

#include "base/pool.h"
#include "fsimpl/memfs/internal.h"

static REF_TYPE(inode_type, "memfs inode");
static struct pool reg_pool = POOL_INIT(sizeof(struct memfs_reg), "memfs files");

int64_t memfs_now(void)
{
	return vfs_hooks.realtime_ns ? vfs_hooks.realtime_ns() : time_realtime_ns();
}

void memfs_get_totals(struct memfs_totals *ret)
{
	ret->inodes = (uint64_t)MAX(ref_live(&inode_type), 0);
	ret->pages = memfs_total_pages();
}

/* ---- life ---- */

/* Symlinks that Linux keeps in a page of their own. */
static bool link_has_page(uint32_t len)
{
	return len + 1 > 128;
}

static size_t inode_size(const struct memfs_new *how)
{
	switch (how->mode & S_IFMT) {
	case S_IFREG:
		return sizeof(struct memfs_reg);
	case S_IFDIR:
		return sizeof(struct memfs_dir);
	case S_IFLNK:
		return sizeof(struct memfs_link) + strlen(how->target) + 1;
	default:
		return sizeof(struct memfs_special);
	}
}

static struct memfs_inode *inode_alloc(const struct memfs_new *how)
{
	size_t size = inode_size(how);
	struct memfs_inode *i;

	if (S_ISREG(how->mode))
		i = pool_alloc(&reg_pool);
	else if (S_ISDIR(how->mode))
		i = aligned_alloc(64, round_up_u64(size, 64));
	else
		i = malloc(size);
	if (i)
		memset(i, 0, size);
	return i;
}

static void inode_free(struct memfs_inode *i, uint32_t mode)
{
	if (S_ISREG(mode))
		pool_free(&reg_pool, i);
	else
		free(i);
}

static void init_by_type(struct memfs_inode *i, const struct memfs_new *how)
{
	switch (how->mode & S_IFMT) {
	case S_IFREG:
		break;
	case S_IFDIR: {
		struct memfs_dir *dir = (struct memfs_dir *)i;

		mutex_init(&dir->lock, LOCK_FS_DIR, "memfs directory");
		RB_INIT(&dir->order);
		dir->next_cookie = MEMFS_COOKIE_FIRST;
		atomic_init(&i->nlink, 2);
		break;
	}
	case S_IFLNK:
		memfs_link_of(i)->len = (uint32_t)strlen(how->target);
		memcpy(memfs_link_of(i)->target, how->target, memfs_link_of(i)->len);
		break;
	default:
		memfs_special_of(i)->rdev_major = how->rdev_major;
		memfs_special_of(i)->rdev_minor = how->rdev_minor;
		memfs_special_of(i)->endpoint = how->endpoint;
		if (how->endpoint)
			ref_get(&how->endpoint->ref);
	}
}

/* Mode, owner and ACLs as the parent directory and the umask decide. */
static int init_owner(struct memfs_inode *i, const struct memfs_new *how)
{
	struct vfs_acl *inherited = NULL, *access = NULL;
	uint32_t mode = how->mode, uid = how->cred->fsuid, gid = how->cred->fsgid;
	int err;

	if (how->dir) {
		struct memfs_inode *dir = how->dir->inode;
		struct perm_inode pi = {
			.mode = memfs_mode(dir),
			.uid = atomic_load_explicit(&dir->uid, memory_order_relaxed),
			.gid = atomic_load_explicit(&dir->gid, memory_order_relaxed)};

		vfs_init_owner(how->cred, &pi, &mode, &uid, &gid);
		mutex_lock(&dir->lock);
		inherited = atomic_load_explicit(&memfs_dir_of(how->dir)->default_acl,
						 memory_order_relaxed);
		if (inherited)
			vfs_acl_ref(inherited);
		mutex_unlock(&dir->lock);
	}
	if (S_ISLNK(mode)) {
		vfs_acl_unref(inherited);
		inherited = NULL;
		mode = S_IFLNK | 0777;
	} else {
		err = vfs_acl_create(inherited, how->umask, &mode, &access);
		if (err) {
			vfs_acl_unref(inherited);
			return err;
		}
	}
	atomic_init(&i->mode, mode);
	atomic_init(&i->uid, uid);
	atomic_init(&i->gid, gid);
	atomic_init(&i->acl, access);
	if (S_ISDIR(mode))
		atomic_init(&((struct memfs_dir *)i)->default_acl, inherited);
	else
		vfs_acl_unref(inherited);
	return 0;
}

int memfs_inode_create(struct memfs_fs *fs, const struct memfs_new *how, struct memfs_inode **ret)
{
	struct memfs_inode *i;
	int64_t now;
	int err;

	err = memfs_charge(fs, MEMFS_INODES, 1);
	if (err)
		return err;
	if (S_ISLNK(how->mode) && link_has_page((uint32_t)strlen(how->target))) {
		err = memfs_charge_pages(fs, 1);
		if (err)
			goto out_inode;
	}
	i = inode_alloc(how);
	if (!i) {
		err = -ENOMEM;
		goto out_page;
	}
	i->fs = fs;
	err = init_owner(i, how);
	if (err) {
		inode_free(i, how->mode);
		goto out_page;
	}
	ref_init(&i->ref, &inode_type);
	mutex_init(&i->lock, LOCK_FS_INODE, "memfs inode");
	if (how->dir)
		atomic_init(&i->flags, memfs_flags_inherited(how->dir->inode));
	i->ino = memfs_next_ino(fs);
	now = memfs_now();
	atomic_init(&i->atime, now);
	atomic_init(&i->mtime, now);
	atomic_init(&i->ctime, now);
	atomic_init(&i->btime, now);
	atomic_init(&i->nlink, 1);
	init_by_type(i, how);
	*ret = i;
	return 0;
out_page:
	if (S_ISLNK(how->mode) && link_has_page((uint32_t)strlen(how->target)))
		memfs_uncharge_pages(fs, 1);
out_inode:
	memfs_uncharge(fs, MEMFS_INODES, 1);
	return err;
}

void memfs_inode_ref(struct memfs_inode *i)
{
	ref_get(&i->ref);
}

static void inode_free_cb(struct rcu_cb *cb)
{
	struct memfs_inode *i = container_of(cb, struct memfs_inode, rcu);

	inode_free(i, memfs_mode(i));
}

static void table_free_cb(struct rcu_cb *cb)
{
	free(container_of(cb, struct memfs_table, rcu));
}

static void fini_by_type(struct memfs_inode *i)
{
	uint32_t mode = memfs_mode(i);

	if (S_ISREG(mode)) {
		struct memfs_data *data = atomic_load_explicit(&i->data, memory_order_relaxed);

		if (data)
			memfs_data_destroy(data);
	} else if (S_ISDIR(mode)) {
		struct memfs_dir *dir = (struct memfs_dir *)i;
		struct memfs_table *t = atomic_load_explicit(&i->table, memory_order_relaxed);

		vfs_acl_unref(atomic_load_explicit(&dir->default_acl, memory_order_relaxed));
		if (t)
			rcu_call(&t->rcu, table_free_cb);
	} else if (S_ISLNK(mode)) {
		if (link_has_page(memfs_link_of(i)->len))
			memfs_uncharge_pages(i->fs, 1);
	} else if (memfs_special_of(i)->endpoint) {
		struct vfs_endpoint *e = memfs_special_of(i)->endpoint;

		if (ref_put(&e->ref))
			e->release(e);
	}
}

void memfs_inode_unref(struct memfs_inode *i)
{
	if (!ref_put(&i->ref))
		return;
	fini_by_type(i);
	vfs_acl_unref(atomic_load_explicit(&i->acl, memory_order_relaxed));
	memfs_xattrs_free(i);
	memfs_uncharge(i->fs, MEMFS_INODES, 1);
	ref_fini(&i->ref, &inode_type);
	rcu_call_local(&i->rcu, inode_free_cb);
}

/* ---- times and links ---- */

static void touch_locked(struct memfs_inode *i, unsigned which, int64_t now)
{
	if (which & MEMFS_ATIME)
		atomic_store_explicit(&i->atime, now, memory_order_release);
	if (which & MEMFS_MTIME)
		atomic_store_explicit(&i->mtime, now, memory_order_release);
	if (which & MEMFS_CTIME)
		atomic_store_explicit(&i->ctime, now, memory_order_release);
}

void memfs_touch(struct memfs_inode *i, unsigned which, int64_t now)
{
	mutex_lock(&i->lock);
	seqcount_write_begin(&i->seq);
	touch_locked(i, which, now);
	seqcount_write_end(&i->seq);
	mutex_unlock(&i->lock);
}

void memfs_add_links(struct memfs_inode *i, int delta, int64_t now)
{
	mutex_lock(&i->lock);
	seqcount_write_begin(&i->seq);
	atomic_fetch_add_explicit(&i->nlink, (uint32_t)delta, memory_order_release);
	touch_locked(i, MEMFS_CTIME, now);
	seqcount_write_end(&i->seq);
	mutex_unlock(&i->lock);
}

static struct moat_timestamp timestamp(int64_t ns)
{
	int64_t sec = ns / 1000000000, rest = ns % 1000000000;

	if (rest < 0) {
		sec--;
		rest += 1000000000;
	}
	return (struct moat_timestamp){.sec = sec, .nsec = (uint32_t)rest};
}

static int64_t nanoseconds(const struct moat_timestamp *t)
{
	int64_t ns;

	/* Times are kept in 64 bits of nanoseconds: the years 1677 to 2262; others are clamped, as Linux clamps to a filesystem's range. */
	if (__builtin_mul_overflow(t->sec, 1000000000ll, &ns) ||
	    __builtin_add_overflow(ns, (int64_t)t->nsec, &ns))
		return t->sec < 0 ? INT64_MIN : INT64_MAX;
	return ns;
}

void memfs_update_atime(struct memfs_inode *i, struct mount *m, unsigned file_flags)
{
	struct moat_timestamp at = timestamp(atomic_load_explicit(&i->atime, memory_order_relaxed));
	struct moat_timestamp mt = timestamp(atomic_load_explicit(&i->mtime, memory_order_relaxed));
	struct moat_timestamp ct = timestamp(atomic_load_explicit(&i->ctime, memory_order_relaxed));
	int64_t now;

	/* The cheap answer first: relatime with an atime after the last change needs the clock only once a day. */
	if ((m && (atomic_load_explicit(&m->flags, memory_order_relaxed) & MNT_NOATIME_F)) ||
	    (atomic_load_explicit(&i->flags, memory_order_relaxed) & FS_NOATIME_FL))
		return;
	now = memfs_now();
	if (vfs_atime_due(m, file_flags, S_ISDIR(memfs_mode(i)), &at, &mt, &ct, timestamp(now)))
		memfs_touch(i, MEMFS_ATIME, now);
}

/* ---- attributes ---- */

static void stat_by_type(struct memfs_inode *i, uint32_t mode, struct moat_statx *ret)
{
	switch (mode & S_IFMT) {
	case S_IFREG:
		ret->size = atomic_load_explicit(&memfs_reg_of(i)->size, memory_order_acquire);
		if (atomic_load_explicit(&i->data, memory_order_relaxed))
			ret->blocks = memfs_data_pages(memfs_reg_of(i)) * (MOAT_PAGE_SIZE / 512);
		break;
	case S_IFDIR:
		ret->size = MEMFS_DIRENT_SIZE *
			    (2 + (uint64_t)atomic_load_explicit(&((struct memfs_dir *)i)->count,
								memory_order_relaxed));
		break;
	case S_IFLNK:
		ret->size = memfs_link_of(i)->len;
		ret->blocks = link_has_page(memfs_link_of(i)->len) ? MOAT_PAGE_SIZE / 512 : 0;
		break;
	default:
		ret->rdev_major = memfs_special_of(i)->rdev_major;
		ret->rdev_minor = memfs_special_of(i)->rdev_minor;
	}
}

/* What has no field of its own. memset() of the whole becomes "rep stos", whose start alone costs more than the rest of stat. */
static inline void statx_clear_tail(struct moat_statx *st)
{
	typedef uint64_t line __attribute__((vector_size(16), aligned(8), may_alias));
	const line zero = {0, 0};
	line *p = (line *)((char *)st + 144);

	_Static_assert(offsetof(struct moat_statx, mnt_id) == 144, "the tail of struct moat_statx");
	p[0] = p[1] = p[2] = p[3] = zero;
	p[4] = p[5] = p[6] = zero;
}

/* In registers: a whole structure copied from halves just stored waits for them. */
struct split_time {
	int64_t sec;
	uint64_t nsec;
};

static inline struct split_time split(int64_t ns)
{
	int64_t sec = ns / 1000000000, rest = ns % 1000000000;

	if (unlikely(rest < 0)) {
		sec--;
		rest += 1000000000;
	}
	return (struct split_time){sec, (uint64_t)rest};
}

static inline void store_time(struct moat_timestamp *t, struct split_time s)
{
	t->sec = s.sec;
	t->nsec = (uint32_t)s.nsec;
	t->pad = 0;
}

void memfs_inode_stat(struct memfs_inode *i, struct moat_statx *ret)
{
	int64_t atime, mtime, ctime, btime;
	struct split_time t;
	uint32_t seq, mode;

	statx_clear_tail(ret);
	do {
		seq = seqcount_read_begin(&i->seq);
		mode = memfs_mode(i);
		ret->uid = atomic_load_explicit(&i->uid, memory_order_acquire);
		ret->gid = atomic_load_explicit(&i->gid, memory_order_acquire);
		ret->nlink = atomic_load_explicit(&i->nlink, memory_order_acquire);
		atime = atomic_load_explicit(&i->atime, memory_order_acquire);
		mtime = atomic_load_explicit(&i->mtime, memory_order_acquire);
		ctime = atomic_load_explicit(&i->ctime, memory_order_acquire);
		btime = atomic_load_explicit(&i->btime, memory_order_acquire);
	} while (unlikely(seqcount_read_retry_acquired(&i->seq, seq)));
	ret->mask = STATX_BASIC_STATS | STATX_BTIME;
	ret->mode = (uint16_t)mode;
	ret->pad0 = 0;
	ret->ino = i->ino;
	ret->blksize = MOAT_PAGE_SIZE;
	/* The flags have the same bits there. */
	ret->attributes = atomic_load_explicit(&i->flags, memory_order_acquire) &
			  (STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND | STATX_ATTR_NODUMP);
	ret->attributes_mask = STATX_ATTR_IMMUTABLE | STATX_ATTR_APPEND | STATX_ATTR_NODUMP;
	ret->size = 0;
	ret->blocks = 0;
	ret->rdev_major = 0;
	ret->rdev_minor = 0;
	ret->dev_major = 0;
	/* Divisions are dear, and times of one moment common. */
	t = split(atime);
	store_time(&ret->atime, t);
	if (mtime != atime)
		t = split(mtime);
	store_time(&ret->mtime, t);
	if (ctime != mtime)
		t = split(ctime);
	store_time(&ret->ctime, t);
	if (btime != ctime)
		t = split(btime);
	store_time(&ret->btime, t);
	ret->dev_minor = i->fs->fs.dev_minor;
	stat_by_type(i, mode, ret);
}

static uint32_t killed_mode(const struct memfs_inode *i, const struct cred *cred)
{
	return vfs_kill_priv_mode_gid(cred, memfs_mode(i),
				      atomic_load_explicit(&i->gid, memory_order_relaxed));
}

void memfs_kill_priv(struct memfs_inode *i, const struct cred *cred)
{
	uint32_t mode = memfs_mode(i);

	if (likely(!(mode & (S_ISUID | S_ISGID))) || killed_mode(i, cred) == mode)
		return;
	mutex_lock(&i->lock);
	mode = killed_mode(i, cred);
	if (mode != memfs_mode(i)) {
		seqcount_write_begin(&i->seq);
		atomic_store_explicit(&i->mode, mode, memory_order_release);
		touch_locked(i, MEMFS_CTIME, memfs_now());
		seqcount_write_end(&i->seq);
	}
	mutex_unlock(&i->lock);
}

/* The access ACL follows a chmod. *ret: what replaces it, NULL when there is none. inode lock held. */
static int acl_for_chmod_locked(struct memfs_inode *i, uint32_t mode, struct vfs_acl **ret)
{
	struct vfs_acl *acl = atomic_load_explicit(&i->acl, memory_order_relaxed);

	*ret = NULL;
	return acl ? vfs_acl_chmod(acl, mode, ret) : 0;
}

static void apply_locked(struct memfs_inode *i, const struct setattr_args *args, int64_t now)
{
	if (args->valid & SETATTR_MODE)
		atomic_store_explicit(&i->mode, (memfs_mode(i) & S_IFMT) | (args->mode & 07777),
				      memory_order_release);
	if (args->valid & SETATTR_UID)
		atomic_store_explicit(&i->uid, args->uid, memory_order_release);
	if (args->valid & SETATTR_GID)
		atomic_store_explicit(&i->gid, args->gid, memory_order_release);
	if (args->valid & SETATTR_ATIME_NOW)
		atomic_store_explicit(&i->atime, now, memory_order_release);
	else if (args->valid & SETATTR_ATIME)
		atomic_store_explicit(&i->atime, nanoseconds(&args->atime), memory_order_release);
	if (args->valid & SETATTR_MTIME_NOW)
		atomic_store_explicit(&i->mtime, now, memory_order_release);
	else if (args->valid & SETATTR_MTIME)
		atomic_store_explicit(&i->mtime, nanoseconds(&args->mtime), memory_order_release);
	atomic_store_explicit(&i->ctime, now, memory_order_release);
}

/* security.capability goes with a chown or a write. inode lock held. */
static void drop_capability_locked(struct memfs_inode *i)
{
	struct memfs_xattr **link = &i->xattrs, *x;

	for (; (x = *link); link = &x->next) {
		if (strcmp(x->name, "security.capability"))
			continue;
		*link = x->next;
		free(x);
		return;
	}
}

static int setattr_size(struct memfs_inode *i, const struct cred *cred,
			const struct setattr_args *args)
{
	uint32_t mode = memfs_mode(i);
	int err;

	if (S_ISDIR(mode))
		return -EISDIR;
	if (!S_ISREG(mode))
		return -EINVAL;
	err = memfs_truncate(memfs_reg_of(i), args->size);
	if (err)
		return err;
	memfs_kill_priv(i, cred);
	memfs_touch(i, MEMFS_MTIME | MEMFS_CTIME, memfs_now());
	return 0;
}

int memfs_inode_setattr(struct memfs_dentry *d, const struct cred *cred,
			const struct setattr_args *in)
{
	const unsigned others =
		~(unsigned)(SETATTR_SIZE | SETATTR_OPEN | SETATTR_FILE | SETATTR_KILL_PRIV);
	struct memfs_inode *i = d->inode;
	struct setattr_args args = *in;
	struct vfs_acl *acl = NULL, *old = NULL;
	struct perm_inode pi;
	/* Who may search it decides about paths through a directory. */
	bool paths = false;
	int err;

	/* truncate(2) looks at the type before permission. */
	if ((args.valid & SETATTR_SIZE) && !S_ISREG(memfs_mode(i)))
		return setattr_size(i, cred, &args);
	mutex_lock(&i->lock);
	pi = memfs_perm(i);
	err = vfs_may_setattr(cred, &pi, &args);
	if (err || !(args.valid & (args.valid & SETATTR_SIZE ? others : ~0u)))
		goto out_unlock;
	paths = S_ISDIR(pi.mode) && (args.valid & (SETATTR_MODE | SETATTR_UID | SETATTR_GID));
	if (paths) {
		path_change_begin(d->d.fs);
		memfs_paths_forget(d);
	}
	if (args.valid & SETATTR_MODE) {
		err = acl_for_chmod_locked(i, args.mode, &acl);
		if (err)
			goto out_unlock;
		if (acl)
			old = atomic_exchange_explicit(&i->acl, acl, memory_order_acq_rel);
	}
	if (args.valid & SETATTR_KILL_PRIV)
		drop_capability_locked(i);
	seqcount_write_begin(&i->seq);
	apply_locked(i, &args, memfs_now());
	seqcount_write_end(&i->seq);
out_unlock:
	mutex_unlock(&i->lock);
	vfs_acl_unref(old);
	if (paths)
		path_change_end(d->d.fs);
	if (!err && (args.valid & SETATTR_SIZE))
		err = setattr_size(i, cred, &args);
	return err;
}
