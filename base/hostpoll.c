/*
 * base/hostpoll.c - the housekeeping thread.
 *
 * One epoll instance; entries are found by a cookie, never by a pointer from the kernel, so that an event
 * which was already fetched when its entry is removed finds nothing.
 *
 * Batched descriptors are in an instance of their own, nested in the first. A wake-up of this thread for each arrival at a server that is
 * busy costs more than the request; so when nobody awaited the last PARK_AFTER batches, the nested instance is masked in the first
 * ("parked"), and what comes in waits there until the guest looks (epoll_wait(2) does, before it says that there is nothing) or until somebody
 * is about to sleep. hostpoll_await() counts itself and then looks at `parked`; park() sets `parked` and then looks at the
 * count: one of them sees the other.
 */
#include <assert.h>
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>
#include <bsd/sys/queue.h>

#include "base/hostpoll.h"
#include "base/idr.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/rcu.h"

#define HOSTPOLL_BATCH 64
#define HOSTPOLL_ENTRIES_MAX (1 << 20)
#define PARK_AFTER 4
/* Batches that one look announces: peers that keep many sockets busy do not keep whoever looks. */
#define LOOK_ROUNDS_MAX 4

/* A callback that runs now. */
struct running {
	struct hostpoll *hp;
	LIST_ENTRY(running) link;
};

static int hostpoll_epfd = -1, batch_epfd = -1;
static struct idr hostpoll_entries;
static struct mutex hostpoll_lock = MUTEX_INIT(LOCK_LEAF, "hostpoll");
static LIST_HEAD(, running) running_list; /* guarded by hostpoll_lock */
static uint32_t hostpoll_generation; /* guarded by hostpoll_lock */
static pthread_t hostpoll_thread;
static _Thread_local struct running *my_running;
static _Atomic uint32_t awaiting;
static _Atomic bool parked; /* written with hostpoll_lock */
static _Atomic uint32_t batched_count;
static unsigned unawaited_batches; /* owned by the housekeeping thread */

static void hostpoll_dispatch(const struct epoll_event *ev)
{
	struct running me;

	mutex_lock(&hostpoll_lock);
	/* Entries are removed without the lock: the table's nodes are RCU's. */
	rcu_read_begin();
	me.hp = idr_find(&hostpoll_entries, (int32_t)(uint32_t)ev->data.u64);
	rcu_read_end();
	if (!me.hp || me.hp->cookie != ev->data.u64) {
		mutex_unlock(&hostpoll_lock);
		return;
	}
	LIST_INSERT_HEAD(&running_list, &me, link);
	mutex_unlock(&hostpoll_lock);
	my_running = &me;
	me.hp->ready(me.hp, ev->events); /* EPOLL* and POLL* have equal values */
	my_running = NULL;
	mutex_lock(&hostpoll_lock);
	LIST_REMOVE(&me, link);
	mutex_unlock(&hostpoll_lock);
}

/* ---- batched descriptors ---- */

/* Return: more may be left. */
static bool batch_look(void)
{
	struct epoll_event events[HOSTPOLL_BATCH];

	if (!atomic_load_explicit(&batched_count, memory_order_relaxed))
		return false;
	for (unsigned round = 0; round < LOOK_ROUNDS_MAX; round++) {
		int n = epoll_wait(batch_epfd, events, HOSTPOLL_BATCH, 0);

		for (int i = 0; i < n; i++)
			hostpoll_dispatch(&events[i]);
		if (n < HOSTPOLL_BATCH)
			return false;
	}
	return true;
}

/*
 * What is left is not lost: the housekeeping thread was told of it when it came. While that is parked, the next look finds
 * it, or the next who awaits has it announced.
 */
void hostpoll_look(void)
{
	(void)batch_look();
}

void hostpoll_look_if_parked(void)
{
	if (atomic_load_explicit(&parked, memory_order_relaxed))
		hostpoll_look();
}

/* hostpoll_lock held. An instance with something in it is announced at once. */
static void batch_watch_locked(bool on)
{
	struct epoll_event ev = {.events = on ? EPOLLIN | EPOLLET : 0};

	/* Of our own descriptors, and no memory is needed: it does not fail. */
	if (epoll_ctl(hostpoll_epfd, EPOLL_CTL_MOD, batch_epfd, &ev) < 0)
		log_error("housekeeping: epoll_ctl: %m; sockets may no longer be watched");
	atomic_store_explicit(&parked, !on, memory_order_seq_cst);
}

void hostpoll_await(void)
{
	atomic_fetch_add_explicit(&awaiting, 1, memory_order_seq_cst);
	if (likely(!atomic_load_explicit(&parked, memory_order_seq_cst)))
		return;
	mutex_lock(&hostpoll_lock);
	if (atomic_load_explicit(&parked, memory_order_relaxed))
		batch_watch_locked(true);
	mutex_unlock(&hostpoll_lock);
}

void hostpoll_await_end(void)
{
	uint32_t before = atomic_fetch_sub_explicit(&awaiting, 1, memory_order_relaxed);

	assert(before);
	(void)before;
}

static void park(void)
{
	mutex_lock(&hostpoll_lock);
	batch_watch_locked(false);
	if (atomic_load_explicit(&awaiting, memory_order_seq_cst))
		batch_watch_locked(true);
	mutex_unlock(&hostpoll_lock);
}

/* The housekeeping thread's. Its edge is used up: what is left is announced anew, behind what else is ready. */
static void batch_ready(void)
{
	bool awaited = atomic_load_explicit(&awaiting, memory_order_relaxed);
	bool more = batch_look();

	unawaited_batches = awaited ? 0 : unawaited_batches + 1;
	if (unawaited_batches >= PARK_AFTER) {
		park();
	} else if (more) {
		mutex_lock(&hostpoll_lock);
		batch_watch_locked(true);
		mutex_unlock(&hostpoll_lock);
	}
}

static void *hostpoll_main(unused_arg void *arg)
{
	struct epoll_event events[HOSTPOLL_BATCH];
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	pthread_setname_np(pthread_self(), "moat-hostpoll");
	rcu_thread_begin();
	for (;;) {
		int n = epoll_wait(hostpoll_epfd, events, HOSTPOLL_BATCH, -1);

		for (int i = 0; i < n; i++) {
			if (events[i].data.u64)
				hostpoll_dispatch(&events[i]);
			else
				batch_ready();
		}
		if (n < 0 && errno != EINTR) {
			log_error("housekeeping: epoll_wait: %m; host descriptors are no longer "
				  "watched");
			return NULL;
		}
	}
}

int hostpoll_start(void)
{
	/* A cookie is never 0. */
	struct epoll_event ev = {.events = EPOLLIN | EPOLLET};

	if (hostpoll_epfd >= 0)
		return 0;
	hostpoll_epfd = epoll_create1(EPOLL_CLOEXEC);
	batch_epfd = epoll_create1(EPOLL_CLOEXEC);
	if (hostpoll_epfd < 0 || batch_epfd < 0 ||
	    epoll_ctl(hostpoll_epfd, EPOLL_CTL_ADD, batch_epfd, &ev) < 0)
		return -errno;
	idr_init(&hostpoll_entries, 1, HOSTPOLL_ENTRIES_MAX, "hostpoll entries");
	return -pthread_create(&hostpoll_thread, NULL, hostpoll_main, NULL);
}

bool hostpoll_is_started(void)
{
	return hostpoll_epfd >= 0;
}

static int add_to(int epfd, struct hostpoll *hp, int fd, uint32_t events,
		  void (*ready)(struct hostpoll *, uint32_t))
{
	struct epoll_event ev = {.events = events | EPOLLET};
	int32_t id;
	int err;

	*hp = (struct hostpoll){.fd = fd, .ready = ready, .epfd = epfd};
	id = idr_alloc(&hostpoll_entries, hp);
	if (id < 0)
		return id;
	mutex_lock(&hostpoll_lock);
	hp->cookie = (uint64_t)++hostpoll_generation << 32 | (uint32_t)id;
	mutex_unlock(&hostpoll_lock);
	ev.data.u64 = hp->cookie;
	if (epoll_ctl(epfd, EPOLL_CTL_ADD, fd, &ev) == 0)
		return 0;
	err = -errno;
	idr_remove(&hostpoll_entries, id);
	if (err == -EPERM) { /* a regular file or directory: always ready */
		hp->is_file = true;
		return 0;
	}
	hp->fd = -1;
	return err;
}

int hostpoll_add(struct hostpoll *hp, int fd, uint32_t events,
		 void (*ready)(struct hostpoll *, uint32_t))
{
	return add_to(hostpoll_epfd, hp, fd, events, ready);
}

int hostpoll_add_batched(struct hostpoll *hp, int fd, uint32_t events,
			 void (*ready)(struct hostpoll *, uint32_t))
{
	int err = add_to(batch_epfd, hp, fd, events, ready);

	if (!err)
		atomic_fetch_add_explicit(&batched_count, 1, memory_order_relaxed);
	return err;
}

int hostpoll_modify(struct hostpoll *hp, uint32_t events)
{
	struct epoll_event ev = {.events = events | EPOLLET, .data.u64 = hp->cookie};

	if (hp->is_file)
		return 0;
	return epoll_ctl(hp->epfd, EPOLL_CTL_MOD, hp->fd, &ev) < 0 ? -errno : 0;
}

/* hostpoll_lock held: does another thread run its callback? */
static bool runs_elsewhere(const struct hostpoll *hp)
{
	struct running *r;

	LIST_FOREACH (r, &running_list, link)
		if (r->hp == hp && r != my_running)
			return true;
	return false;
}

void hostpoll_remove(struct hostpoll *hp)
{
	if (hp->fd < 0)
		return;
	if (!hp->is_file) {
		epoll_ctl(hp->epfd, EPOLL_CTL_DEL, hp->fd, NULL);
		idr_remove(&hostpoll_entries, (int32_t)(uint32_t)hp->cookie);
	}
	if (hp->epfd == batch_epfd)
		atomic_fetch_sub_explicit(&batched_count, 1, memory_order_relaxed);
	mutex_lock(&hostpoll_lock);
	while (runs_elsewhere(hp)) {
		mutex_unlock(&hostpoll_lock);
		nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
		mutex_lock(&hostpoll_lock);
	}
	mutex_unlock(&hostpoll_lock);
	hp->fd = -1;
}
