/*
 * fsimpl/gofer/dir.c - open directories.
 *
 * Opening a directory is no request: the first getdents asks for the entries by path, attributes included, and a small directory's
 * whole listing is that one reply. What it says about the entries goes into the dentry cache, so that the stat of each which
 * usually follows costs nothing; the entries stay with the inode of a tree that nobody else changes, for the next who lists them. Cookies are the host's own (d_off): stable while entries come and go.
 */
#include <stdlib.h>
#include <string.h>
#include <dirent.h>
#include <unistd.h>

#include "fsimpl/gofer/internal.h"

static REF_TYPE(listing_type, "gofer_listing");

struct gofer_dir {
	struct file f;
	/* guarded by f.pos_lock */
	uint32_t fid; /* holds the host's stream of a large directory, or P9_NOFID */
	struct gofer_listing *listing; /* a reference: entries of one reply; NULL: none yet */
	size_t at; /* bytes of it that were parsed */
	int64_t pos; /* the cookie of what is at `at` */
	bool eof; /* nothing follows the reply */
	bool filled;
};

static struct gofer_dir *gofer_dir_of(struct file *f)
{
	return container_of(f, struct gofer_dir, f);
}

/* ---- listings ---- */

void gofer_listing_unref(struct gofer_listing *l)
{
	if (!l || !ref_put(&l->ref))
		return;
	atomic_fetch_sub(&l->fs->listing_bytes, l->size);
	ref_fini(&l->ref, &listing_type);
	free(l);
}

struct gofer_listing *gofer_listing_of(struct gofer_inode *dir)
{
	struct gofer_listing *l;

	mutex_lock(&dir->lock);
	l = dir->listing;
	if (l)
		ref_get(&l->ref);
	mutex_unlock(&dir->lock);
	return l;
}

bool gofer_listing_at(const struct gofer_listing *l, const struct gofer_inode *in,
		      struct p9_dirent *ret, size_t *ret_end)
{
	size_t off = atomic_load_explicit(&in->listed_at, memory_order_relaxed);

	/* In the middle of an entry of another listing anything may stand: it is looked at as a server's entry is. */
	if (off > l->size || p9_dirent_get(l->data, l->size, &off, true, ret) != 1 ||
	    ret->qid.path != in->qid_path)
		return false;
	*ret_end = off;
	return true;
}

void gofer_dir_changed(struct gofer_inode *in)
{
	struct gofer_listing *old;

	mutex_lock(&in->lock);
	old = in->listing;
	in->listing = NULL;
	mutex_unlock(&in->lock);
	gofer_listing_unref(old);
}

/* A copy of a reply's entries without their attributes. Return: 0, -ENOMEM, -EIO. */
static int listing_create(struct gofer_fs *fs, const struct p9_blob *data,
			  struct gofer_listing **ret)
{
	struct gofer_listing *l = malloc(sizeof(*l) + data->size), *fit;
	size_t off = 0, size = 0;
	struct p9_dirent e;
	uint32_t files = 0;
	int got;

	if (!l)
		return -ENOMEM;
	while ((got = p9_dirent_get(data->data, data->size, &off, true, &e)) == 1) {
		e.has_node = false;
		files += e.type != DT_DIR && e.type != DT_LNK;
		if (e.name.len == 0 || e.name.len > P9_NAME_MAX ||
		    p9_dirent_put(l->data, data->size, &size, &e, true)) {
			got = -EBADMSG;
			break;
		}
	}
	if (got < 0) {
		free(l);
		return -EIO;
	}
	fit = realloc(l, sizeof(*l) + size);
	l = fit ? fit : l;
	ref_init(&l->ref, &listing_type);
	l->fs = fs;
	l->size = (uint32_t)size;
	l->files = files;
	atomic_fetch_add(&fs->listing_bytes, size);
	*ret = l;
	return 0;
}

/* Keeps it for the next who reads the directory, if that is all of it. Pre: tree_lock: no change is under way. */
static void keep_listing(struct gofer_inode *in, struct gofer_listing *l)
{
	struct gofer_listing *old;

	if (in->fs->shared || atomic_load(&in->fs->listing_bytes) > GOFER_LISTINGS_MAX)
		return;
	ref_get(&l->ref);
	mutex_lock(&in->lock);
	old = in->listing;
	in->listing = l;
	mutex_unlock(&in->lock);
	gofer_listing_unref(old);
}

/* Takes the listing's reference. */
static void fill(struct gofer_dir *dir, struct gofer_listing *l, int64_t pos, bool eof)
{
	gofer_listing_unref(dir->listing);
	dir->listing = l;
	dir->at = 0;
	dir->pos = pos;
	dir->eof = eof;
	dir->filled = true;
}

static bool fill_from_kept(struct gofer_dir *dir, struct gofer_inode *in)
{
	struct gofer_listing *l;

	if (gofer_light_misses(in))
		return false;
	l = gofer_listing_of(in);
	if (l)
		fill(dir, l, 0, true);
	return l;
}

void gofer_dir_enter(struct gofer_fs *fs, struct remote_dentry *d, const struct p9_blob *data,
		     uint32_t want)
{
	struct p9_dirent e;
	size_t off = 0, at = 0;
	unsigned count = 0;

	while (p9_dirent_get(data->data, data->size, &off, true, &e) == 1) {
		struct remote_dentry *child;
		size_t here = at;

		/* As listing_create() puts it. */
		at += P9_DIRENT_SIZE + e.name.len;

		/* A symlink is known with its target only. What was not wanted is no answer. */
		if (!e.has_node || S_ISLNK(e.node.mode) != (e.target.len != 0) ||
		    !p9_name_ok(e.name.data, e.name.len) ||
		    ((want & P9_WANT_DIR_NODES) && !S_ISDIR(e.node.mode)) ||
		    (!(want & P9_WANT_TARGETS) && S_ISLNK(e.node.mode)))
			continue;
		if (gofer_cache_enter(fs, d, e.name.data, e.name.len, &e.node,
				      e.target.len ? &e.target : NULL, &child))
			return;
		count++;
		atomic_store_explicit(&gofer_inode_of(child)->listed_at, (uint32_t)here,
				      memory_order_relaxed);
		if (!remote_is_dir(child))
			atomic_store_explicit(&gofer_inode_of(child)->listed, true,
					      memory_order_relaxed);
		remote_dentry_unref(child);
	}
	if (want & P9_WANT_XATTRS)
		gofer_xattr_told(gofer_inode_of(d), count);
}

/* Takes a reply in. Pre: tree_lock. */
static int take_reply(struct gofer_dir *dir, struct remote_dentry *d, int64_t pos, uint32_t want,
		      const struct p9_Rmreaddir *r)
{
	struct gofer_fs *fs = gofer_fs_of(d->d.fs);
	bool eof = r->eof || !r->data.size;
	struct gofer_listing *l;
	int err = listing_create(fs, &r->data, &l);

	if (err)
		return err;
	if (want & P9_WANT_NODES) {
		gofer_dir_enter(fs, d, &r->data, want);
		gofer_light_entered(fs, d, &r->data, want, pos == 0);
	}
	if (pos == 0 && eof)
		keep_listing(gofer_inode_of(d), l);
	fill(dir, l, pos, eof);
	return 0;
}

static int fetch(struct gofer_dir *dir, struct remote_dentry *d, int64_t pos)
{
	struct gofer_fs *fs = gofer_fs_of(d->d.fs);
	struct p9_msg t = {.type = P9_Tmreaddir};
	struct gofer_where where;
	struct p9_call call;
	int err;

	t.Tmreaddir.newfid = P9_NOFID;
	t.Tmreaddir.offset = (uint64_t)pos;
	t.Tmreaddir.count = fs->conn->msize - P9_IO_OVERHEAD;
	err = rwlock_read_lock_killable(&fs->tree_lock);
	if (err)
		return err;
	if (pos == 0 && fill_from_kept(dir, gofer_inode_of(d))) {
		if (atomic_load_explicit(&gofer_inode_of(d)->ahead, memory_order_relaxed)) {
			gofer_light_program_listed(fs, dir->listing);
			gofer_ahead_listed(fs, d);
		}
		goto out_unlock;
	}
	if (dir->fid != P9_NOFID) {
		t.Tmreaddir.fid = dir->fid;
	} else {
		err = gofer_where(d, &where);
		if (err)
			goto out_unlock;
		t.Tmreaddir.fid = where.fid;
		t.Tmreaddir.path = gofer_where_path(&where);
		t.Tmreaddir.newfid = p9_fid_alloc(fs->conn);
	}
	t.Tmreaddir.want = gofer_light_want(fs);
	err = p9_rpc(fs->conn, &call, &t);
	if (err)
		goto out_unlock;
	if (call.r.Rmreaddir.bound)
		dir->fid = t.Tmreaddir.newfid;
	err = take_reply(dir, d, pos, t.Tmreaddir.want, &call.r.Rmreaddir);
	p9_call_fini(&call);
	if (!err && pos == 0) {
		gofer_light_program_listed(fs, dir->listing);
		gofer_ahead_listed(fs, d);
	}
out_unlock:
	rwlock_read_unlock(&fs->tree_lock);
	return err;
}

void gofer_dir_told(struct remote_dentry *d, const struct p9_blob *data, uint32_t want, bool eof)
{
	struct gofer_fs *fs = gofer_fs_of(d->d.fs);
	struct gofer_listing *l;

	/* listing_create() looks at all of it. */
	if (listing_create(fs, data, &l))
		return;
	gofer_dir_enter(fs, d, data, want);
	/* With all attributes, but not of all entries, it says nothing of what a listing left out. */
	if (eof || (want & P9_WANT_DIR_NODES))
		gofer_light_entered(fs, d, data, want, true);
	if (eof)
		keep_listing(gofer_inode_of(d), l);
	gofer_listing_unref(l);
}

static int gofer_iterate(struct file *f, struct dir_emit *ctx)
{
	struct remote_dentry *d = remote_dentry_of(f->path.dentry);
	struct gofer_dir *dir = gofer_dir_of(f);
	int err;

	if (atomic_load_explicit(&d->d.flags, memory_order_acquire) & DENTRY_DEAD)
		return -ENOENT;
	/* A seek, or another look from the start, must see what is there now. */
	if (!dir->filled || dir->pos != f->pos) {
		err = fetch(dir, d, f->pos);
		if (err)
			return err;
	}
	for (;;) {
		size_t next = dir->at;
		struct p9_dirent e;
		int got = p9_dirent_get(dir->listing->data, dir->listing->size, &next, true, &e);

		if (got < 0)
			return -EIO;
		if (!got) {
			if (dir->eof)
				return 0;
			err = fetch(dir, d, dir->pos);
			if (err)
				return err;
			continue;
		}
		if (!ctx->emit(ctx, e.name.data, e.name.len, e.qid.path, e.type, (int64_t)e.offset))
			return 0;
		dir->at = next;
		dir->pos = (int64_t)e.offset;
		f->pos = dir->pos;
	}
}

static int64_t gofer_dir_seek(struct file *f, int64_t off, int whence)
{
	/* rewinddir(3) shows what came since. */
	gofer_dir_of(f)->filled = false;
	return file_seek_cookie(f, off, whence);
}

static int gofer_dir_fsync(struct file *f, bool data_only, uint64_t start, uint64_t end)
{
	struct remote_dentry *d = remote_dentry_of(f->path.dentry);
	struct gofer_fs *fs = gofer_fs_of(d->d.fs);
	struct p9_msg t = {.type = P9_Tfsync};
	struct p9_call call;
	int err;

	(void)start;
	(void)end;
	if (fs->conn->plain)
		return gofer_plain_fsync_dir(d, data_only);
	/* By the root's fid: the server syncs the whole directory's filesystem journal with it. */
	t.Tfsync.fid = fs->root_fid;
	t.Tfsync.datasync = data_only;
	err = p9_rpc(fs->conn, &call, &t);
	if (!err)
		p9_call_fini(&call);
	return err;
}

static void dir_free_rcu(struct rcu_cb *cb)
{
	free(container_of(cb, struct gofer_dir, f.rcu));
}

static void gofer_dir_release(struct file *f)
{
	struct gofer_fs *fs = gofer_fs_of(f->path.dentry->fs);
	struct gofer_dir *dir = gofer_dir_of(f);

	p9_fid_clunk(fs->conn, dir->fid);
	gofer_listing_unref(dir->listing);
	file_fini(f);
	rcu_call(&dir->f.rcu, dir_free_rcu);
}

static const struct file_ops gofer_dir_ops = {
	.release = gofer_dir_release,
	.iterate = gofer_iterate,
	.seek = gofer_dir_seek,
	.fsync = gofer_dir_fsync,
	.remote_lock = gofer_remote_lock,
	.remote_lock_test = gofer_remote_lock_test,
	.remote_lock_drop = gofer_remote_lock_drop,
};

int gofer_dir_create(struct resolving_path *rp, struct remote_dentry *d, unsigned flags,
		     struct file **ret)
{
	struct gofer_dir *dir = calloc(1, sizeof(*dir));
	struct vfs_path place;

	if (!dir)
		return -ENOMEM;
	rp_place(rp, &d->d, &place);
	file_init(&dir->f, &gofer_dir_ops, &place, flags, 0);
	dir->fid = P9_NOFID;
	*ret = &dir->f;
	return 0;
}
