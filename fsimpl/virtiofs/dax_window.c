/* fsimpl/virtiofs/dax_window.c - the window: its ranges, the back channel, reclaim. See dax.h. */
#include <fcntl.h>
#include <poll.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "base/hash.h"
#include "base/io.h"
#include "base/log.h"
#include "fsimpl/virtiofs/internal_dax.h"

/* ---- the back channel: one taker at a time, the housekeeping thread or who waits for a message (dax_window_look()) ---- */

static void drop_fds(struct dax_window *w)
{
	while (w->fd_count)
		close(w->fds[--w->fd_count]);
}

static struct dax_range *range_at(struct dax_window *w, const struct vhost_user_shmem_map *m)
{
	uint64_t i = m->shm_offset >> VIRTIOFS_DAX_SHIFT;

	return m->id == 0 && !(m->shm_offset & (VIRTIOFS_DAX_RANGE - 1)) &&
			       m->size == VIRTIOFS_DAX_RANGE && i < w->count
		       ? &w->ranges[i]
		       : NULL;
}

/* A descriptor open as SETUPMAPPING asked for. What it is of the range's owner finds out: fstat(2) may wait for a server. */
static bool fd_fits(int fd, bool writable)
{
	int flags = fcntl(fd, F_GETFL);

	return flags >= 0 && !(flags & O_PATH) &&
	       (flags & O_ACCMODE) == (writable ? O_RDWR : O_RDONLY);
}

/* Return: 0, or what the daemon is told. */
static int take_map(struct dax_window *w)
{
	const struct vhost_user_shmem_map m = w->message.shmem_map;
	struct dax_range *r = range_at(w, &m);
	bool write = m.flags & VHOST_USER_SHMEM_RW;
	struct memfile *mf;
	int err = 0;

	if (!r || !fd_fits(w->fds[0], write) ||
	    memfile_create_host(w->fds[0], MEM_READ | MEM_EXEC | (write ? MEM_WRITE : 0), &mf))
		return EINVAL;
	w->fd_count = 0; /* mf's now */
	mutex_lock(&w->lock);
	if (r->state == DAX_SETUP && !r->fresh && m.fd_offset == r->index << VIRTIOFS_DAX_SHIFT &&
	    write == r->writable) {
		r->fresh = mf;
		mf = NULL;
	} else {
		err = EINVAL;
		/* Its caller was killed, and this is what it had asked for. */
		if (r->state == DAX_LOST)
			r->state = DAX_FREE;
	}
	mutex_unlock(&w->lock);
	if (mf)
		memfile_unref(mf);
	return err;
}

static int take_unmap(struct dax_window *w)
{
	const struct vhost_user_shmem_map m = w->message.shmem_map;
	struct dax_range *r = range_at(w, &m);
	int err = EINVAL;

	mutex_lock(&w->lock);
	/* Nothing of it is mapped any more: that went before the request. */
	if (r && (r->state == DAX_LEAVING || r->state == DAX_LEFT || r->state == DAX_FREE))
		err = 0;
	mutex_unlock(&w->lock);
	return err;
}

static int serve_message(struct dax_window *w)
{
	struct vhost_user_msg reply;
	ssize_t size;
	int err = vhost_user_check_request(&w->message, w->fd_count, true);

	if (err)
		return err;
	vhost_user_reply_init(&reply, &w->message, true);
	reply.u64 = (uint64_t)(w->message.request == VHOST_USER_BACKEND_SHMEM_MAP ? take_map(w)
										  : take_unmap(w));
	drop_fds(w);
	if (!(w->message.flags & VHOST_USER_FLAG_NEED_REPLY))
		return 0;
	size = VHOST_USER_HEADER_SIZE + reply.size;
	return send(w->fd, &reply, (size_t)size, MSG_NOSIGNAL | MSG_DONTWAIT) == size ? 0 : -EIO;
}

/* More of the message that is coming. Return: bytes, 0: the end, -EAGAIN, -EPROTO. */
static ssize_t receive_some(struct dax_window *w, size_t want)
{
	size_t count = ARRAY_SIZE(w->fds) - w->fd_count;
	bool cut;
	ssize_t n = io_recv_fds_flags(w->fd, (uint8_t *)&w->message + w->have, want, MSG_DONTWAIT,
				      w->fds + w->fd_count, &count, &cut);

	w->fd_count += (unsigned)count;
	if (n < 0)
		return n == -EAGAIN ? -EAGAIN : -EPROTO;
	return cut ? -EPROTO : n;
}

/* Return: -EAGAIN: no more for now; -EPIPE: the end; -EPROTO; 0: there may be more, it is others' turn. */
static int receive_many(struct dax_window *w, unsigned max)
{
	unsigned served = 0;

	while (served < max) {
		size_t whole = VHOST_USER_HEADER_SIZE;
		ssize_t n;
		int err;

		if (w->have >= VHOST_USER_HEADER_SIZE) {
			if (vhost_user_check_header(&w->message))
				return -EPROTO;
			whole += w->message.size;
		}
		if (w->have == whole && whole > VHOST_USER_HEADER_SIZE) {
			err = serve_message(w);
			w->have = 0;
			if (err)
				return err == -EOPNOTSUPP ? -EPROTO : err;
			served++;
			continue;
		}
		/* No request of this channel is empty. */
		if (w->have == whole)
			return -EPROTO;
		n = receive_some(w, whole - w->have);
		if (n <= 0)
			return n ? (int)n : -EPIPE;
		w->have += (size_t)n;
	}
	return 0;
}

/* The taker's. */
static void take_messages(struct dax_window *w, unsigned max)
{
	int err = atomic_load(&w->broken) ? -EPIPE : receive_many(w, max);

	/* Polling is edge-triggered: what is there already is announced anew. */
	if (!err)
		err = hostpoll_modify(&w->poll, POLLIN | POLLRDHUP) ?: -EAGAIN;
	if (err == -EAGAIN)
		return;
	drop_fds(w);
	if (atomic_exchange(&w->broken, true))
		return;
	/* Files are read and written by requests from now on. */
	(void)shutdown(w->fd, SHUT_RDWR);
	if (err != -EPIPE)
		log_error("virtio-fs device: its back channel makes no sense; no more DAX");
}

static bool taker_begin(struct dax_window *w)
{
	return !atomic_exchange(&w->taken, true);
}

static void taker_end(struct dax_window *w)
{
	/* Pairs with back_ready(): the housekeeping thread came meanwhile and went, so it is called again. By the taker, whose the registration is. */
	do {
		if (atomic_exchange(&w->missed, false))
			(void)!hostpoll_modify(&w->poll, POLLIN | POLLRDHUP);
		atomic_store(&w->taken, false);
	} while (atomic_load(&w->missed) && taker_begin(w));
}

static void back_ready(struct hostpoll *hp, uint32_t events)
{
	struct dax_window *w = container_of(hp, struct dax_window, poll);

	(void)events;
	if (!taker_begin(w)) {
		atomic_store(&w->missed, true);
		/* Whoever has it sees that, unless he ended just before. */
		if (!taker_begin(w))
			return;
	}
	take_messages(w, DAX_MESSAGES_MAX);
	taker_end(w);
}

void dax_window_look(void *arg)
{
	struct dax_window *w = arg;

	if (atomic_load(&w->broken) || !taker_begin(w))
		return;
	take_messages(w, 1);
	taker_end(w);
}

/* ---- life ---- */

int dax_window_create(struct virtiofs_device *dev, int fd, uint64_t size, struct dax_window **ret)
{
	uint64_t count = MIN(size >> VIRTIOFS_DAX_SHIFT, (uint64_t)VIRTIOFS_DAX_RANGES_MAX);
	struct dax_window *w = count ? calloc(1, sizeof(*w)) : NULL;

	if (w)
		w->ranges = calloc(count, sizeof(*w->ranges));
	if (!w || !w->ranges) {
		free(w);
		close(fd);
		return count ? -ENOMEM : -EPROTO;
	}
	w->dev = dev;
	w->fd = fd;
	w->poll.fd = -1;
	w->count = (unsigned)count;
	mutex_init(&w->lock, LOCK_DAX, "dax window");
	*ret = w;
	return 0;
}

/* Of those who wait for messages one may be late: he waited for the daemon before. */
static void taker_await(struct dax_window *w)
{
	while (!taker_begin(w))
		sched_yield();
}

int dax_window_start(struct dax_window *w)
{
	int err = 0;

	taker_await(w);
	if (w->poll.fd < 0)
		err = hostpoll_add(&w->poll, w->fd, POLLIN | POLLRDHUP, back_ready);
	taker_end(w);
	return err;
}

/* The daemon that set them up is gone. */
static void ranges_old(struct dax_window *w)
{
	mutex_lock(&w->lock);
	for (unsigned i = 0; i < w->fresh; i++) {
		struct dax_range *r = &w->ranges[i];

		r->old = true;
		/* Those of callers (SETUP, LEAVING) they find old themselves. */
		if (r->state == DAX_LEFT || r->state == DAX_LOST)
			r->state = DAX_FREE;
	}
	mutex_unlock(&w->lock);
}

void dax_window_gone(struct dax_window *w)
{
	atomic_store(&w->broken, true);
	ranges_old(w);
}

void dax_window_restart(struct dax_window *w, int fd, uint64_t size)
{
	taker_await(w);
	if (w->poll.fd >= 0)
		hostpoll_remove(&w->poll);
	w->poll.fd = -1;
	drop_fds(w);
	close(w->fd);
	w->fd = fd;
	w->have = 0;
	ranges_old(w);
	atomic_store(&w->broken, size >> VIRTIOFS_DAX_SHIFT < w->count);
	taker_end(w);
}

void dax_window_destroy(struct dax_window *w)
{
	if (!w)
		return;
	if (w->poll.fd >= 0)
		hostpoll_remove(&w->poll);
	close(w->fd);
	drop_fds(w);
	for (unsigned i = 0; i < w->count; i++)
		if (w->ranges[i].fresh)
			memfile_unref(w->ranges[i].fresh);
	free(w->ranges);
	free(w);
}

/* ---- ranges: with window->lock held ---- */

static struct dax_range **bucket(struct dax_window *w, const struct virtiofs_inode *in,
				 uint64_t index)
{
	return &w->buckets[hash_u64((uintptr_t)in ^ index * 0x9e3779b97f4a7c15ull) % DAX_BUCKETS];
}

struct dax_range *dax_range_find(struct dax_window *w, const struct virtiofs_inode *in,
				 uint64_t index)
{
	struct dax_range *r = *bucket(w, in, index);

	while (r && (r->in != in || r->index != index))
		r = r->hash_next;
	return r;
}

void dax_range_enter(struct dax_window *w, struct dax_range *r)
{
	struct dax_range **b = bucket(w, r->in, r->index);

	r->state = DAX_MAPPED;
	r->recent = true;
	r->hash_next = *b;
	*b = r;
	r->inode_next = r->in->dax.ranges;
	r->in->dax.ranges = r;
}

void dax_range_remove(struct dax_window *w, struct dax_range *r, enum dax_state state)
{
	struct dax_range **p;

	for (p = bucket(w, r->in, r->index); *p != r; p = &(*p)->hash_next)
		;
	*p = r->hash_next;
	for (p = &r->in->dax.ranges; *p != r; p = &(*p)->inode_next)
		;
	*p = r->inode_next;
	r->state = state == DAX_LEFT && r->old ? DAX_FREE : state;
}

static struct dax_range *find_free(struct dax_window *w)
{
	if (w->fresh < w->count)
		return &w->ranges[w->fresh++];
	for (unsigned i = 0; i < w->count; i++)
		if (w->ranges[i].state == DAX_FREE)
			return &w->ranges[i];
	return NULL;
}

/* ---- reclaim ---- */

/* Those that nobody used since the hand came by last; of mapped ones the inode is referenced. Pre: window->lock. */
static unsigned choose_victims(struct dax_window *w, struct dax_range **ret)
{
	unsigned n = 0;

	for (unsigned steps = 0; steps < 2 * w->count && n < DAX_RECLAIM; steps++) {
		struct dax_range *r = &w->ranges[w->hand++ % w->count];

		if (r->state == DAX_MAPPED && r->recent) {
			r->recent = false;
			continue;
		}
		if (r->state == DAX_MAPPED && ref_tryget(&r->in->base.ref))
			dax_range_remove(w, r, DAX_LEAVING);
		else if (r->state == DAX_LEFT)
			r->state = DAX_LEAVING;
		else
			continue;
		ret[n++] = r;
	}
	return n;
}

/* Takes a range away from whoever maps it; the inode's last one takes the memory file along. */
static void evict(struct dax_window *w, struct dax_range *r)
{
	struct virtiofs_inode *in = r->in;
	struct memfile *old = NULL;

	if (!in)
		return;
	rwlock_write_lock(&in->map.data_lock);
	mutex_lock(&w->lock);
	if (!in->dax.ranges) {
		old = in->dax.mf;
		in->dax.mf = NULL;
	}
	r->in = NULL;
	mutex_unlock(&w->lock);
	if (in->dax.on)
		mappable_invalidate(&in->map, r->index << VIRTIOFS_DAX_SHIFT, VIRTIOFS_DAX_RANGE,
				    false);
	rwlock_write_unlock(&in->map.data_lock);
	if (old)
		memfile_unref(old);
	virtiofs_inode_unref(in);
}

/* Return: 0: there may be free ranges now; -EAGAIN: all are being set up or taken away; -errno. */
static int reclaim(struct virtiofs_fs *fs, struct dax_window *w)
{
	struct fuse_removemapping_one ones[DAX_RECLAIM];
	struct dax_range *victims[DAX_RECLAIM];
	struct fuse_removemapping_in arg = {0};
	struct vdev_call call = {
		.req = {.opcode = FUSE_REMOVEMAPPING, .nodeid = FUSE_ROOT, .arg = &arg},
		.inline_data = ones,
	};
	unsigned count;
	ssize_t got;

	mutex_lock(&w->lock);
	count = choose_victims(w, victims);
	mutex_unlock(&w->lock);
	if (!count)
		return -EAGAIN;
	for (unsigned i = 0; i < count; i++) {
		evict(w, victims[i]);
		/* Of an old one the daemon knows nothing. */
		mutex_lock(&w->lock);
		if (!victims[i]->old)
			ones[arg.count++] = (struct fuse_removemapping_one){
				.moffset = (uint64_t)(victims[i] - w->ranges) << VIRTIOFS_DAX_SHIFT,
				.len = VIRTIOFS_DAX_RANGE,
			};
		mutex_unlock(&w->lock);
	}
	call.inline_size = arg.count * sizeof(ones[0]);
	got = arg.count ? virtiofs_call(fs, &call) : 0;
	mutex_lock(&w->lock);
	for (unsigned i = 0; i < count; i++)
		victims[i]->state = got < 0 && !victims[i]->old ? DAX_LEFT : DAX_FREE;
	mutex_unlock(&w->lock);
	return got < 0 ? (int)got : 0;
}

int dax_range_take(struct dax_window *w, struct virtiofs_inode *in, uint64_t index, bool writable,
		   struct dax_range **ret)
{
	int err = 0;

	for (unsigned tries = 0; tries < DAX_TAKE_TRIES && (!err || err == -EAGAIN); tries++) {
		mutex_lock(&w->lock);
		*ret = find_free(w);
		if (*ret)
			**ret = (struct dax_range){
				.state = DAX_SETUP, .in = in, .index = index, .writable = writable};
		mutex_unlock(&w->lock);
		if (*ret)
			return 0;
		if (err == -EAGAIN)
			sched_yield();
		err = reclaim(in->fs, w);
	}
	return err ? err : -EAGAIN;
}

int dax_range_look(struct dax_window *w, struct dax_range *r, struct stat *ret_st)
{
	struct memfile *fresh;

	mutex_lock(&w->lock);
	fresh = r->fresh; /* no other comes once there is one, and only r's owner takes it */
	mutex_unlock(&w->lock);
	return fresh && !fstat(memfile_fd(fresh), ret_st) && S_ISREG(ret_st->st_mode) ? 0 : -EIO;
}
