/* gofer/fid.c - the fid table: a hash under one lock. */
#include <stdlib.h>
#include <unistd.h>

#include "gofer/server.h"

static REF_TYPE(fid_type, "gofer_fid");

static unsigned fid_bucket(uint32_t id)
{
	return (id * 2654435761u) % SERVER_FID_BUCKETS;
}

static struct fid *fid_find_locked(struct server *srv, uint32_t id)
{
	struct fid *f;

	LIST_FOREACH (f, &srv->fids[fid_bucket(id)], link)
		if (f->id == id)
			return f;
	return NULL;
}

struct fid *fid_get(struct server *srv, uint32_t id)
{
	struct fid *f;

	mutex_lock(&srv->fid_lock);
	f = fid_find_locked(srv, id);
	if (f)
		ref_get(&f->ref);
	mutex_unlock(&srv->fid_lock);
	return f;
}

const struct attach *fid_attach(struct server *srv, uint32_t id)
{
	const struct attach *at;
	struct fid *f;

	mutex_lock(&srv->fid_lock);
	f = fid_find_locked(srv, id);
	at = f ? f->attach : NULL;
	mutex_unlock(&srv->fid_lock);
	return at;
}

void fid_put(struct fid *f)
{
	if (!ref_put(&f->ref))
		return;
	if (f->path_fd >= 0)
		close(f->path_fd);
	if (f->io_fd >= 0)
		close(f->io_fd);
	if (f->xattr_data)
		atomic_fetch_sub(&f->srv->xattr_bytes, f->xattr_size);
	free(f->xattr_data);
	if (f->watch)
		watch_put(f->srv, f->watch);
	ref_fini(&f->ref, &fid_type);
	free(f);
}

static struct fid *fid_create(struct server *srv, uint32_t id, const struct attach *attach,
			      uint32_t uid)
{
	struct fid *f = calloc(1, sizeof(*f));

	if (!f)
		return NULL;
	ref_init(&f->ref, &fid_type);
	mutex_init(&f->lock, LOCK_FILE_POS, "fid");
	f->srv = srv;
	f->id = id;
	f->attach = attach;
	f->uid = uid;
	f->path_fd = -1;
	f->io_fd = -1;
	return f;
}

/* Takes f. */
static int fid_enter(struct server *srv, struct fid *f)
{
	int err;

	mutex_lock(&srv->fid_lock);
	if (f->id == P9_NOFID || fid_find_locked(srv, f->id))
		err = -EBADF;
	else if (srv->fid_count >= SERVER_FIDS_MAX)
		err = -EMFILE;
	else
		err = 0;
	if (!err) {
		LIST_INSERT_HEAD(&srv->fids[fid_bucket(f->id)], f, link);
		srv->fid_count++;
	}
	mutex_unlock(&srv->fid_lock);
	if (err)
		fid_put(f);
	return err;
}

int fid_add(struct server *srv, uint32_t id, const struct attach *attach, uint32_t uid, int path_fd,
	    int io_fd, uint32_t open_flags, bool is_dir)
{
	struct fid *f = fid_create(srv, id, attach, uid);

	if (!f) {
		if (path_fd >= 0)
			close(path_fd);
		if (io_fd >= 0)
			close(io_fd);
		return -ENOMEM;
	}
	f->path_fd = path_fd;
	f->io_fd = io_fd;
	f->open_flags = open_flags;
	f->is_dir = is_dir;
	return fid_enter(srv, f);
}

int fid_add_watch(struct server *srv, uint32_t id, const struct fid *like, int wd)
{
	struct fid *f = fid_create(srv, id, like->attach, like->uid);

	if (!f) {
		watch_put(srv, wd);
		return -ENOMEM;
	}
	f->watch = wd;
	return fid_enter(srv, f);
}

int fid_value_alloc(struct fid *f, size_t size)
{
	/* One that was set already, while its clunk is under way. */
	if (f->xattr_data)
		return -EBUSY;
	if (atomic_fetch_add(&f->srv->xattr_bytes, size) + size <= SERVER_XATTRS_MAX)
		f->xattr_data = malloc(size + 1);
	if (!f->xattr_data) {
		atomic_fetch_sub(&f->srv->xattr_bytes, size);
		return -ENOMEM;
	}
	f->xattr_size = size;
	return 0;
}

int fid_remove(struct server *srv, uint32_t id)
{
	struct fid *f;

	mutex_lock(&srv->fid_lock);
	f = fid_find_locked(srv, id);
	if (f) {
		LIST_REMOVE(f, link);
		srv->fid_count--;
	}
	mutex_unlock(&srv->fid_lock);
	if (!f)
		return -EBADF;
	if (f->io_fd >= 0)
		locks_fid_gone(srv, f);
	fid_put(f);
	return 0;
}

void fid_remove_all(struct server *srv)
{
	for (unsigned i = 0; i < SERVER_FID_BUCKETS; i++) {
		struct fid *f;

		for (;;) {
			mutex_lock(&srv->fid_lock);
			f = LIST_FIRST(&srv->fids[i]);
			if (f) {
				LIST_REMOVE(f, link);
				srv->fid_count--;
			}
			mutex_unlock(&srv->fid_lock);
			if (!f)
				break;
			fid_put(f);
		}
	}
}
