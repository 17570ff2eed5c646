/*
 * gofer/virtiofs/node.c - what the client holds: nodes and handles.
 *
 * A node is one file of the tree by its device and inode number and the mount that it was reached through: where the host has bound a directory of the tree
 * into it once more, perhaps read-only, what is reached there is refused what that mount refuses. The descriptor that holds it keeps the numbers from being
 * used again. Its id is never used twice. It lives while the client has looked it up more often than forgotten it, or a request uses it.
 */
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <unistd.h>

#include "base/hash.h"
#include "gofer/virtiofs/server.h"

bool file_reserve(struct daemon *d)
{
	if (atomic_fetch_add(&d->fd_count, 1) < d->fd_max)
		return true;
	atomic_fetch_sub(&d->fd_count, 1);
	return false;
}

void file_release(struct daemon *d)
{
	atomic_fetch_sub(&d->fd_count, 1);
}

void fd_path(int fd, char out[16])
{
	snprintf(out, 16, "%d", fd);
}

int stat_fd_now(int fd, struct statx *ret)
{
	return statx(fd, "", AT_EMPTY_PATH | AT_SYMLINK_NOFOLLOW | AT_NO_AUTOMOUNT,
		     STATX_BASIC_STATS | STATX_MNT_ID, ret) < 0
		       ? -errno
		       : 0;
}

uint64_t dev_of(const struct statx *stx)
{
	return (uint64_t)stx->stx_dev_major << 32 | stx->stx_dev_minor;
}

/* 0: a host that does not tell. */
static uint64_t mount_of(const struct statx *stx)
{
	return stx->stx_mask & STATX_MNT_ID ? stx->stx_mnt_id : 0;
}

static struct node **file_bucket(struct daemon *d, uint64_t dev, uint64_t ino)
{
	return &d->by_file[hash_u64(ino ^ hash_u64(dev)) % NODE_BUCKETS];
}

static struct node **id_bucket(struct daemon *d, uint64_t id)
{
	return &d->by_id[hash_u64(id) % NODE_BUCKETS];
}

/* Pre: nodes_lock. */
static struct node *find_id(struct daemon *d, uint64_t id)
{
	struct node *n;

	for (n = *id_bucket(d, id); n && n->id != id; n = n->next_by_id)
		;
	return n;
}

/* Is the file a node of another mount, too, which tells of its changes? Pre: nodes_lock. */
static bool watched_elsewhere(struct daemon *d, const struct node *n)
{
	const struct node *o;

	for (o = *file_bucket(d, n->dev, n->ino); o; o = o->next_by_file)
		if (o != n && o->ino == n->ino && o->dev == n->dev && o->watched)
			return true;
	return false;
}

/* Out of both tables. Pre: nodes_lock. */
static void unlink_node(struct daemon *d, struct node *n)
{
	struct node **p;

	for (p = file_bucket(d, n->dev, n->ino); *p != n; p = &(*p)->next_by_file)
		;
	*p = n->next_by_file;
	for (p = id_bucket(d, n->id); *p != n; p = &(*p)->next_by_id)
		;
	*p = n->next_by_id;
	if (!watched_elsewhere(d, n))
		version_unwatch(d, n);
}

static void node_free(struct daemon *d, struct node *n)
{
	locks_drop_all(d, n);
	close(n->fd);
	file_release(d);
	free(n);
}

/* Drops uses. Pre: nodes_lock. Return: the node if it is to be freed. */
static struct node *drop_refs(struct daemon *d, struct node *n, unsigned refs)
{
	n->refs -= refs;
	if (n->refs)
		return NULL;
	unlink_node(d, n);
	return n;
}

struct node *node_get(struct daemon *d, uint64_t id)
{
	struct node *n;

	mutex_lock(&d->nodes_lock);
	n = find_id(d, id);
	if (n)
		n->refs++;
	mutex_unlock(&d->nodes_lock);
	return n;
}

void node_put(struct daemon *d, struct node *n)
{
	struct node *dead;

	mutex_lock(&d->nodes_lock);
	dead = drop_refs(d, n, 1);
	mutex_unlock(&d->nodes_lock);
	if (dead)
		node_free(d, dead);
}

static void fill_entry(const struct daemon *d, const struct node *n, struct fuse_entry_out *ret)
{
	ret->nodeid = n->id;
	ret->generation = n->watched ? n->key : 0;
	ret->attr_valid = version_of(d, n);
}

/* The known node of a file, one lookup more. Pre: nodes_lock. */
static bool find_file(struct daemon *d, const struct statx *stx, struct fuse_entry_out *ret)
{
	struct node *n;

	for (n = *file_bucket(d, dev_of(stx), stx->stx_ino); n; n = n->next_by_file)
		if (n->ino == stx->stx_ino && n->dev == dev_of(stx) && n->mount == mount_of(stx)) {
			/* Its lookups count as one use. */
			if (!n->nlookup++)
				n->refs++;
			fill_entry(d, n, ret);
			return true;
		}
	return false;
}

int node_enter(struct daemon *d, int fd, const struct statx *stx, struct fuse_entry_out *ret)
{
	struct node *fresh;
	bool known;

	mutex_lock(&d->nodes_lock);
	known = find_file(d, stx, ret);
	mutex_unlock(&d->nodes_lock);
	if (known) {
		close(fd);
		return 0;
	}
	fresh = calloc(1, sizeof(*fresh));
	if (!fresh || !file_reserve(d)) {
		close(fd);
		if (!fresh)
			return -ENOMEM;
		free(fresh);
		return -ENFILE;
	}
	*fresh = (struct node){
		.nlookup = 1,
		.refs = 1,
		.dev = dev_of(stx),
		.ino = stx->stx_ino,
		.mount = mount_of(stx),
		.fd = fd,
		.type = stx->stx_mode & S_IFMT,
	};
	mutex_lock(&d->nodes_lock);
	if (!find_file(d, stx, ret)) {
		struct node **b = file_bucket(d, fresh->dev, fresh->ino);

		fresh->id = d->next_id++;
		fresh->next_by_file = *b;
		*b = fresh;
		b = id_bucket(d, fresh->id);
		fresh->next_by_id = *b;
		*b = fresh;
		/* Under the lock: a mark is the file's, and its last node's end takes it away. */
		version_watch(d, fresh);
		fill_entry(d, fresh, ret);
		fresh = NULL;
	}
	mutex_unlock(&d->nodes_lock);
	if (fresh)
		node_free(d, fresh);
	return 0;
}

void node_forget(struct daemon *d, uint64_t id, uint64_t nlookup)
{
	struct node *n, *dead = NULL;

	mutex_lock(&d->nodes_lock);
	n = find_id(d, id);
	if (n && n != d->root && n->nlookup) {
		n->nlookup -= MIN(nlookup, n->nlookup);
		if (!n->nlookup)
			dead = drop_refs(d, n, 1);
	}
	mutex_unlock(&d->nodes_lock);
	if (dead)
		node_free(d, dead);
}

int node_open(struct daemon *d, const struct node *n, int flags)
{
	char path[16];
	int fd;

	/* Nothing else is ever opened here: a fifo would block, a device would act. */
	if (n->type != S_IFREG && n->type != S_IFDIR)
		return n->type == S_IFLNK ? -ELOOP : -ENXIO;
	fd_path(n->fd, path);
	fd = openat(d->proc_fd, path, (flags & ~(O_NOFOLLOW | O_CREAT | O_EXCL)) | O_CLOEXEC);
	return fd < 0 ? -errno : fd;
}

/* ---- handles ---- */

int64_t handle_add(struct daemon *d, int fd, bool is_dir)
{
	struct handle *h = calloc(1, sizeof(*h));
	int64_t ret = -ENFILE;

	if (!h || !file_reserve(d)) {
		close(fd);
		if (!h)
			return -ENOMEM;
		free(h);
		return -ENFILE;
	}
	h->fd = fd;
	h->is_dir = is_dir;
	h->refs = 1;
	mutex_init(&h->lock, LOCK_FS_DIR, "handle");
	mutex_lock(&d->handles_lock);
	for (unsigned i = 0; i < HANDLES_MAX; i++) {
		unsigned at = (d->handle_hint + i) % HANDLES_MAX;

		if (d->handles[at])
			continue;
		d->handles[at] = h;
		d->handle_hint = at + 1;
		ret = at;
		break;
	}
	mutex_unlock(&d->handles_lock);
	if (ret < 0) {
		close(fd);
		file_release(d);
		free(h);
	}
	return ret;
}

struct handle *handle_get(struct daemon *d, uint64_t fh, bool is_dir)
{
	struct handle *h = NULL;

	if (fh >= HANDLES_MAX)
		return NULL;
	mutex_lock(&d->handles_lock);
	h = d->handles[fh];
	if (h && h->is_dir == is_dir)
		h->refs++;
	else
		h = NULL;
	mutex_unlock(&d->handles_lock);
	return h;
}

void handle_put(struct daemon *d, struct handle *h)
{
	bool last;

	mutex_lock(&d->handles_lock);
	last = --h->refs == 0;
	mutex_unlock(&d->handles_lock);
	if (!last)
		return;
	close(h->fd);
	file_release(d);
	free(h);
}

void handle_remove(struct daemon *d, uint64_t fh)
{
	struct handle *h;

	if (fh >= HANDLES_MAX)
		return;
	mutex_lock(&d->handles_lock);
	h = d->handles[fh];
	d->handles[fh] = NULL;
	mutex_unlock(&d->handles_lock);
	if (h)
		handle_put(d, h);
}

/* ---- sessions ---- */

int session_start(struct daemon *d)
{
	struct fuse_entry_out entry = {0};
	struct statx stx;
	int fd, err;

	fd = openat(AT_FDCWD, d->config.no_namespaces ? d->config.shared_dir : "/",
		    O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return -errno;
	err = stat_fd_now(fd, &stx);
	if (err) {
		close(fd);
		return err;
	}
	d->next_id = FUSE_ROOT;
	err = node_enter(d, fd, &stx, &entry);
	/* Nobody serves requests yet, and the root is never forgotten: the use goes at once. */
	if (!err) {
		d->root = node_get(d, entry.nodeid);
		node_put(d, d->root);
	}
	return err;
}

void session_end(struct daemon *d)
{
	d->root = NULL;
	for (unsigned i = 0; i < NODE_BUCKETS; i++)
		while (d->by_id[i]) {
			struct node *n = d->by_id[i];

			unlink_node(d, n);
			node_free(d, n);
		}
	for (unsigned i = 0; i < HANDLES_MAX; i++)
		handle_remove(d, i);
	atomic_store(&d->initialised, false);
}
