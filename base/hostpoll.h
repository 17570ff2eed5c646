/*
 * base/hostpoll.h - the housekeeping thread: readiness of host descriptors (terminal, sockets, control) as callbacks.
 *
 * Edge-triggered epoll; the callback gets POLL* bits, runs on the housekeeping thread with no lock held, and does not sleep.
 * hostpoll_remove() returns after a running callback has ended (unless called from it).
 */
#ifndef MOAT_BASE_HOSTPOLL_H
#define MOAT_BASE_HOSTPOLL_H

#include "base/compiler.h"

struct hostpoll {
	int fd; /* borrowed; -1 when not registered */
	void (*ready)(struct hostpoll *hp, uint32_t events);
	uint64_t cookie; /* hostpoll.c's own */
	bool is_file; /* epoll refused it (regular file): always ready */
};

must_check int hostpoll_start(void); /* before confinement */
bool hostpoll_is_started(void);
/* Watches for `events` (POLLIN|POLLOUT|...). A regular file is accepted and is always ready. */
must_check int hostpoll_add(struct hostpoll *hp, int fd, uint32_t events,
			    void (*ready)(struct hostpoll *, uint32_t));
/* Other events from now on; what is ready of them is announced. -errno of epoll_ctl(2). */
must_check int hostpoll_modify(struct hostpoll *hp, uint32_t events);
void hostpoll_remove(struct hostpoll *hp);

#endif
