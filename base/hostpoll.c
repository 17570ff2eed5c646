/*
 * base/hostpoll.c - the housekeeping thread.
 *
 * One epoll instance; entries are found by a cookie, never by a pointer from the kernel, so that an event
 * which was already fetched when its entry is removed finds nothing.
 */
#include <pthread.h>
#include <signal.h>
#include <sys/epoll.h>
#include <time.h>
#include <unistd.h>

#include "base/hostpoll.h"
#include "base/idr.h"
#include "base/lock.h"
#include "base/log.h"
#include "base/rcu.h"

#define HOSTPOLL_BATCH 64
#define HOSTPOLL_ENTRIES_MAX (1 << 20)

static int hostpoll_epfd = -1;
static struct idr hostpoll_entries;
static struct mutex hostpoll_lock = MUTEX_INIT(LOCK_LEAF, "hostpoll");
static struct hostpoll *hostpoll_running; /* guarded by hostpoll_lock */
static uint32_t hostpoll_generation; /* guarded by hostpoll_lock */
static pthread_t hostpoll_thread;
static _Thread_local bool on_hostpoll_thread;

static void hostpoll_dispatch(const struct epoll_event *ev)
{
	struct hostpoll *hp;

	mutex_lock(&hostpoll_lock);
	/* Entries are removed without the lock: the table's nodes are RCU's. */
	rcu_read_begin();
	hp = idr_find(&hostpoll_entries, (int32_t)(uint32_t)ev->data.u64);
	rcu_read_end();
	if (hp && hp->cookie != ev->data.u64)
		hp = NULL;
	hostpoll_running = hp;
	mutex_unlock(&hostpoll_lock);
	if (!hp)
		return;
	hp->ready(hp, ev->events); /* EPOLL* and POLL* have equal values */
	mutex_lock(&hostpoll_lock);
	hostpoll_running = NULL;
	mutex_unlock(&hostpoll_lock);
}

static void *hostpoll_main(unused_arg void *arg)
{
	struct epoll_event events[HOSTPOLL_BATCH];
	sigset_t all;

	sigfillset(&all);
	pthread_sigmask(SIG_SETMASK, &all, NULL);
	pthread_setname_np(pthread_self(), "moat-hostpoll");
	rcu_thread_begin();
	on_hostpoll_thread = true;
	for (;;) {
		int n = epoll_wait(hostpoll_epfd, events, HOSTPOLL_BATCH, -1);

		for (int i = 0; i < n; i++)
			hostpoll_dispatch(&events[i]);
		if (n < 0 && errno != EINTR) {
			log_error("housekeeping: epoll_wait: %m; host descriptors are no longer "
				  "watched");
			return NULL;
		}
	}
}

int hostpoll_start(void)
{
	if (hostpoll_epfd >= 0)
		return 0;
	hostpoll_epfd = epoll_create1(EPOLL_CLOEXEC);
	if (hostpoll_epfd < 0)
		return -errno;
	idr_init(&hostpoll_entries, 1, HOSTPOLL_ENTRIES_MAX, "hostpoll entries");
	return -pthread_create(&hostpoll_thread, NULL, hostpoll_main, NULL);
}

bool hostpoll_is_started(void)
{
	return hostpoll_epfd >= 0;
}

int hostpoll_add(struct hostpoll *hp, int fd, uint32_t events,
		 void (*ready)(struct hostpoll *, uint32_t))
{
	struct epoll_event ev = {.events = events | EPOLLET};
	int32_t id;
	int err;

	*hp = (struct hostpoll){.fd = fd, .ready = ready};
	id = idr_alloc(&hostpoll_entries, hp);
	if (id < 0)
		return id;
	mutex_lock(&hostpoll_lock);
	hp->cookie = (uint64_t)++hostpoll_generation << 32 | (uint32_t)id;
	mutex_unlock(&hostpoll_lock);
	ev.data.u64 = hp->cookie;
	if (epoll_ctl(hostpoll_epfd, EPOLL_CTL_ADD, fd, &ev) == 0)
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

int hostpoll_modify(struct hostpoll *hp, uint32_t events)
{
	struct epoll_event ev = {.events = events | EPOLLET, .data.u64 = hp->cookie};

	if (hp->is_file)
		return 0;
	return epoll_ctl(hostpoll_epfd, EPOLL_CTL_MOD, hp->fd, &ev) < 0 ? -errno : 0;
}

void hostpoll_remove(struct hostpoll *hp)
{
	if (hp->fd < 0)
		return;
	if (!hp->is_file) {
		epoll_ctl(hostpoll_epfd, EPOLL_CTL_DEL, hp->fd, NULL);
		idr_remove(&hostpoll_entries, (int32_t)(uint32_t)hp->cookie);
	}
	mutex_lock(&hostpoll_lock);
	while (hostpoll_running == hp && !on_hostpoll_thread) {
		mutex_unlock(&hostpoll_lock);
		nanosleep(&(struct timespec){.tv_nsec = 20000}, NULL);
		mutex_lock(&hostpoll_lock);
	}
	mutex_unlock(&hostpoll_lock);
	hp->fd = -1;
}
