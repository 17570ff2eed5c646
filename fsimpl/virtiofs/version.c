/* fsimpl/virtiofs/version.c - see version.h. */
#include "fsimpl/virtiofs/version.h"

#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/log.h"
#include "base/sleep.h"

#define SETTLE_NS 20000000ll /* how long the daemon may take to read what has happened */
#define DISTRUST_NS 1000000000ll

/* A table that cannot shrink under us: reading it is safe whatever the daemon does. */
static const struct version_table *map_table(void *at, int fd)
{
	const int need = F_SEAL_SHRINK | F_SEAL_GROW;
	int seals = fcntl(fd, F_GET_SEALS);
	struct stat st;
	void *p;

	if (seals < 0 || (seals & need) != need || fstat(fd, &st) < 0 ||
	    st.st_size != (off_t)VERSION_TABLE_BYTES)
		return NULL;
	p = mmap(at, VERSION_TABLE_BYTES, PROT_READ, MAP_SHARED | (at ? MAP_FIXED : 0), fd, 0);
	return p == MAP_FAILED ? NULL : p;
}

static bool wire_ok(const struct vhost_user_versions *wire, unsigned count)
{
	return wire->size == VERSION_TABLE_BYTES && wire->watcher < VERSION_WATCHERS &&
	       count == 1 + !!wire->has_notify;
}

static int refuse(const int *fds, unsigned count)
{
	for (unsigned i = 0; i < count; i++)
		close(fds[i]);
	log_error("virtio-fs device: its version table is none that can be used");
	return -EPROTO;
}

int virtiofs_versions_create(const struct vhost_user_versions *wire, const int *fds, unsigned count,
			     struct virtiofs_versions **ret)
{
	struct virtiofs_versions *v = calloc(1, sizeof(*v));

	if (v && wire_ok(wire, count))
		v->table = map_table(NULL, fds[0]);
	if (v && v->table && v->table->magic == VERSION_TABLE_MAGIC) {
		close(fds[0]); /* the mapping keeps it */
		v->notify_fd = count == 2 ? fds[1] : -1;
		v->watcher = wire->watcher;
		v->retired_fd = -1;
		*ret = v;
		return 0;
	}
	if (v && v->table)
		munmap((void *)v->table, VERSION_TABLE_BYTES);
	free(v);
	return refuse(fds, count);
}

/* The table is looked at before it takes the old one's place, whose readers are not stopped. */
int virtiofs_versions_restart(struct virtiofs_versions *v, const struct vhost_user_versions *wire,
			      const int *fds, unsigned count)
{
	const struct version_table *table = wire_ok(wire, count) ? map_table(NULL, fds[0]) : NULL;
	bool good = table && table->magic == VERSION_TABLE_MAGIC;

	if (table)
		munmap((void *)table, VERSION_TABLE_BYTES);
	if (!good || !map_table((void *)v->table, fds[0]))
		return refuse(fds, count);
	close(fds[0]);
	atomic_store(&v->watcher, wire->watcher);
	/* The one of two connections before: nobody has asked it since. That of the last one may be asked just now. */
	if (v->retired_fd >= 0)
		close(v->retired_fd);
	v->retired_fd = atomic_exchange(&v->notify_fd, count == 2 ? fds[1] : -1);
	return 0;
}

void virtiofs_versions_destroy(struct virtiofs_versions *v)
{
	if (!v)
		return;
	munmap((void *)v->table, VERSION_TABLE_BYTES);
	if (v->notify_fd >= 0)
		close(v->notify_fd);
	if (v->retired_fd >= 0)
		close(v->retired_fd);
	free(v);
}

/* version_table.h: the queue first, then the watcher's word. */
static bool settled(struct virtiofs_versions *v)
{
	struct epoll_event ev;

	return epoll_wait(atomic_load(&v->notify_fd), &ev, 1, 0) == 0 &&
	       !(atomic_load_explicit(
			 &((struct version_table *)v->table)->watchers[v->watcher].busy,
			 memory_order_acquire) &
		 1);
}

bool virtiofs_versions_settled_slow(struct virtiofs_versions *v)
{
	return v->notify_fd < 0 || settled(v);
}

void virtiofs_versions_settle_slow(struct virtiofs_versions *v)
{
	int64_t end;

	if (v->notify_fd < 0 || likely(settled(v)))
		return;
	/* The daemon's delay is waited for once, not at each walk of the second that follows; that begins anew, lest it end during this one. */
	if (virtiofs_versions_distrusted(v)) {
		atomic_store(&v->distrusted_until, time_monotonic_ns() + DISTRUST_NS);
		return;
	}
	end = time_monotonic_ns() + SETTLE_NS;
	while (!settled(v)) {
		if (time_monotonic_ns() > end) {
			atomic_store(&v->distrusted_until, end + DISTRUST_NS);
			return;
		}
		sched_yield();
	}
}

bool virtiofs_versions_distrusted(struct virtiofs_versions *v)
{
	int64_t until = atomic_load(&v->distrusted_until);

	if (!until || until > time_monotonic_ns())
		return until != 0;
	/* Another thread may have begun a new second: then that stays. */
	atomic_compare_exchange_strong(&v->distrusted_until, &until, 0);
	return false;
}
