/*
 * gofer/virtiofs/version.c - the version table (wire/version_table.h) from the daemon's side: the table, keys, and hearing of the host's changes.
 *
 * The table is made before the process is confined; daemons for several clients of one tree are forked from the one that made it and write
 * to the same pages. The file is sealed so that a client, which gets it, can neither write to it nor shorten it.
 *
 * Changes that we make are told by the requests (version_changed() and version_name_changed(), after the change, before the answer). Changes by others are heard
 * of from fanotify: each node that a client with versions knows has a mark, and events name files by the handles that keys are made
 * of. Events that this process caused are skipped. The client gets an epoll descriptor that is readable while events wait: it can see
 * that there are some, and neither read nor stop them.
 * Where file handles or marks cannot be had (a host's file system without them), a node has no key, and the client asks each time.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/fanotify.h>
#include <sys/mman.h>
#include <unistd.h>

#include "gofer/virtiofs/server.h"

#define HANDLE_BYTES_MAX 128
#define EVENT_BYTES 65536
#define WATCHED                                                                              \
	(FAN_ATTRIB | FAN_MODIFY | FAN_CREATE | FAN_DELETE | FAN_MOVED_FROM | FAN_MOVED_TO | \
	 FAN_DELETE_SELF | FAN_MOVE_SELF | FAN_ONDIR)

int version_create(struct daemon *d)
{
	int fd = memfd_create("moat-versions", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	struct version_table *t;
	int err;

	if (fd < 0)
		return -errno;
	if (ftruncate(fd, VERSION_TABLE_BYTES) < 0) {
		err = -errno;
		close(fd);
		return err;
	}
	t = mmap(NULL, VERSION_TABLE_BYTES, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	if (t == MAP_FAILED ||
	    fcntl(fd, F_ADD_SEALS,
		  F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_FUTURE_WRITE | F_SEAL_SEAL) < 0) {
		err = -errno;
		if (t != MAP_FAILED)
			munmap(t, VERSION_TABLE_BYTES);
		close(fd);
		return err;
	}
	t->magic = VERSION_TABLE_MAGIC;
	d->versions = t;
	d->versions_fd = fd;
	return 0;
}

/* ---- keys and marks ---- */

static int handle_key(int fd, uint64_t *ret)
{
	union {
		struct file_handle h;
		char room[sizeof(struct file_handle) + HANDLE_BYTES_MAX];
	} u;
	int mount_id;

	u.h.handle_bytes = HANDLE_BYTES_MAX;
	if (name_to_handle_at(fd, "", &u.h, &mount_id, AT_EMPTY_PATH) < 0 ||
	    u.h.handle_bytes > HANDLE_BYTES_MAX)
		return -EOPNOTSUPP;
	*ret = version_handle_key(u.h.handle_type, u.h.f_handle, u.h.handle_bytes);
	return 0;
}

/* The working directory is /proc/self/fd: the link there leads to the very file, whatever it is. */
static int mark(const struct daemon *d, int fd, unsigned how)
{
	char path[16];

	fd_path(fd, path);
	return fanotify_mark(d->notify_fd, how, WATCHED, AT_FDCWD, path) < 0 ? -errno : 0;
}

void version_watch(struct daemon *d, struct node *n)
{
	if (!d->versions_on)
		return;
	n->watched = !handle_key(n->fd, &n->key) && !mark(d, n->fd, FAN_MARK_ADD);
	if (!n->watched && !atomic_exchange(&d->unwatched, true))
		log_warn("virtiofs: the file system of the shared directory tells of no changes; "
			 "clients ask each time");
}

void version_unwatch(struct daemon *d, struct node *n)
{
	if (n->watched && d->notify_fd >= 0)
		(void)mark(d, n->fd, FAN_MARK_REMOVE);
}

uint64_t version_of(const struct daemon *d, const struct node *n)
{
	return n->watched ? version_load(d->versions, n->key) : 0;
}

uint64_t version_of_name(const struct daemon *d, const struct node *dir, const char *name)
{
	return dir->watched
		       ? version_load(d->versions, version_name_key(dir->key, name, strlen(name)))
		       : 0;
}

/*
 * Does anybody use the table? Who begins to counts itself before it looks at anything, and who changes something asks after the change: either
 * the one sees the change, or the other the count.
 */
static bool in_use(const struct daemon *d)
{
	return d->versions && atomic_load(&d->versions->users);
}

/*
 * Whether or not the client of this connection uses versions: others on the same tree may. A node without a key (its client does not)
 * gets it for the occasion.
 */
static bool key_of(const struct daemon *d, const struct node *n, uint64_t *ret)
{
	if (!in_use(d))
		return false;
	*ret = n->key;
	return n->watched || !handle_key(n->fd, ret);
}

void version_changed(struct daemon *d, const struct node *n)
{
	uint64_t key;

	if (key_of(d, n, &key))
		version_bump(d->versions, key);
}

void version_fd_changed(struct daemon *d, int fd)
{
	uint64_t key;

	if (in_use(d) && !handle_key(fd, &key))
		version_bump(d->versions, key);
}

void version_name_changed(struct daemon *d, const struct node *dir, const char *name)
{
	uint64_t key;

	if (!key_of(d, dir, &key))
		return;
	version_bump(d->versions, version_name_key(key, name, strlen(name)));
	version_bump(d->versions, key);
}

int version_hold(const struct daemon *d, const struct node *dir, const char *name)
{
	return in_use(d) ? openat(dir->fd, name, O_PATH | O_NOFOLLOW | O_CLOEXEC) : -1;
}

void version_drop_held(struct daemon *d, int fd)
{
	if (fd < 0)
		return;
	version_fd_changed(d, fd);
	close(fd);
}

/* ---- the host's changes ---- */

/* Events and what they carry follow each other without padding: each is copied out before it is looked at. at: an info record of `size` bytes. */
static void apply_info(struct daemon *d, const char *at, size_t size, bool dirent)
{
	const size_t head = sizeof(struct fanotify_event_info_fid) + sizeof(struct file_handle);
	struct fanotify_event_info_fid fid;
	struct file_handle h;
	uint64_t key;

	if (size < head)
		return;
	memcpy(&fid, at, sizeof(fid));
	memcpy(&h, at + sizeof(fid), sizeof(h));
	if (h.handle_bytes > size - head)
		return;
	key = version_handle_key(h.handle_type, at + head, h.handle_bytes);
	if (fid.hdr.info_type == FAN_EVENT_INFO_TYPE_FID) {
		version_bump(d->versions, key);
	} else if (fid.hdr.info_type == FAN_EVENT_INFO_TYPE_DFID_NAME && dirent) {
		const char *name = at + head + h.handle_bytes;

		version_bump(d->versions,
			     version_name_key(key, name,
					      strnlen(name, size - head - h.handle_bytes)));
		version_bump(d->versions, key);
	} else if (fid.hdr.info_type == FAN_EVENT_INFO_TYPE_DFID && dirent) {
		version_bump(d->versions, key);
	}
}

/* One event of `size` bytes. */
static void apply(struct daemon *d, const struct fanotify_event_metadata *e, const char *at)
{
	const uint64_t dirents = FAN_CREATE | FAN_DELETE | FAN_MOVED_FROM | FAN_MOVED_TO;
	const char *end = at + e->event_len;
	struct fanotify_event_info_header info;

	if (e->mask & FAN_Q_OVERFLOW) {
		version_bump_all(d->versions);
		return;
	}
	/* Ours: the request has told. */
	if (e->pid == getpid())
		return;
	for (at += e->metadata_len; end - at >= (ptrdiff_t)sizeof(info); at += info.len) {
		memcpy(&info, at, sizeof(info));
		if (info.len < sizeof(info) || info.len > end - at)
			break;
		apply_info(d, at, info.len, e->mask & dirents);
	}
}

static void apply_all(struct daemon *d, const char *at, size_t size)
{
	struct fanotify_event_metadata e;

	for (; size >= sizeof(e); at += e.event_len, size -= e.event_len) {
		memcpy(&e, at, sizeof(e));
		if (e.event_len < sizeof(e) || e.event_len > size || e.metadata_len < sizeof(e) ||
		    e.metadata_len > e.event_len)
			break;
		apply(d, &e, at);
	}
}

static void *watch_main(void *arg)
{
	static char buf[EVENT_BYTES];
	struct daemon *d = arg;
	_Atomic uint64_t *busy = &d->versions->watchers[d->watcher].busy;
	struct pollfd p = {.fd = d->notify_fd, .events = POLLIN};

	while (!atomic_load(&d->watch_stop)) {
		ssize_t got;

		if (poll(&p, 1, -1) <= 0)
			continue;
		/* Odd from before they leave the queue until the slots tell: version_table.h. */
		atomic_fetch_add(busy, 1);
		got = read(d->notify_fd, buf, sizeof(buf));
		if (got > 0)
			apply_all(d, buf, (size_t)got);
		atomic_fetch_add(busy, 1);
	}
	return NULL;
}

/* Return: 0; -errno: no versions on this connection. */
int version_watch_start(struct daemon *d)
{
	struct epoll_event ev = {.events = EPOLLIN};
	uint64_t key;
	int err;

	if (d->notify_fd >= 0)
		return 0;
	if (!d->versions)
		return -EOPNOTSUPP;
	d->notify_fd = fanotify_init(FAN_CLASS_NOTIF | FAN_CLOEXEC | FAN_NONBLOCK | FAN_REPORT_FID |
					     FAN_REPORT_DFID_NAME,
				     0);
	if (d->notify_fd < 0)
		return -errno;
	d->notify_epoll = epoll_create1(EPOLL_CLOEXEC);
	if (d->notify_epoll < 0 || epoll_ctl(d->notify_epoll, EPOLL_CTL_ADD, d->notify_fd, &ev) < 0)
		goto out_errno;
	if (handle_key(d->root->fd, &key)) {
		errno = EOPNOTSUPP;
		goto out_errno;
	}
	/* The same for every connection of the tree. */
	__atomic_store_n(&d->versions->root_key, key, __ATOMIC_RELAXED);
	atomic_store(&d->watch_stop, false);
	if (pthread_create(&d->watch_thread, NULL, watch_main, d)) {
		errno = EAGAIN;
		goto out_errno;
	}
	atomic_store(&d->versions->watchers[d->watcher].active, 1);
	atomic_fetch_add(&d->versions->users, 1);
	d->versions_on = true;
	version_watch(d, d->root);
	return 0;
out_errno:
	err = -errno;
	if (d->notify_epoll >= 0)
		close(d->notify_epoll);
	close(d->notify_fd);
	d->notify_fd = d->notify_epoll = -1;
	return err;
}

void version_watcher_gone(struct version_table *t, unsigned watcher)
{
	if (!t || !atomic_exchange(&t->watchers[watcher].active, 0))
		return;
	/* It may have been killed anywhere. */
	if (atomic_load(&t->watchers[watcher].busy) & 1)
		atomic_fetch_add(&t->watchers[watcher].busy, 1);
	atomic_fetch_sub(&t->users, 1);
}

void version_watch_stop(struct daemon *d)
{
	if (d->notify_fd < 0)
		return;
	atomic_store(&d->watch_stop, true);
	thread_stop(d->watch_thread);
	close(d->notify_epoll);
	close(d->notify_fd);
	d->notify_fd = d->notify_epoll = -1;
	d->versions_on = false;
	version_watcher_gone(d->versions, d->watcher);
}
