/*
 * base/hostpoll.h - the housekeeping thread: readiness of host descriptors (terminal, sockets, control) as callbacks.
 *
 * Edge-triggered epoll; the callback gets POLL* bits, runs on the housekeeping thread with no lock held, and does not sleep.
 * hostpoll_remove() returns after a running callback has ended (unless called from it).
 *
 * Sockets come many at a time, and a busy server looks for them anyway: a *batched* descriptor's callback may be late while nobody
 * has said hostpoll_await(), and is run by whoever calls hostpoll_look() as well.
 */
#ifndef MOAT_BASE_HOSTPOLL_H
#define MOAT_BASE_HOSTPOLL_H

#include "base/compiler.h"

struct hostpoll {
	int fd; /* borrowed; -1 when not registered */
	void (*ready)(struct hostpoll *hp, uint32_t events);
	uint64_t cookie; /* hostpoll.c's own */
	int epfd; /* which instance has it */
	bool is_file; /* epoll refused it (regular file): always ready */
};

must_check int hostpoll_start(void); /* before confinement */
bool hostpoll_is_started(void);
/* Watches for `events` (POLLIN|POLLOUT|...). A regular file is accepted and is always ready. */
must_check int hostpoll_add(struct hostpoll *hp, int fd, uint32_t events,
			    void (*ready)(struct hostpoll *, uint32_t));
/* The same for a batched one, which is not a regular file. */
must_check int hostpoll_add_batched(struct hostpoll *hp, int fd, uint32_t events,
				    void (*ready)(struct hostpoll *, uint32_t));
/* Announces, on this thread, which batched descriptors became ready. No lock held; cheap only beside a sleep. */
void hostpoll_look(void);
/* hostpoll_look(), if nobody else does it at present. */
void hostpoll_look_if_parked(void);
/* From here to hostpoll_await_end() somebody waits for a batched descriptor. Call it, look once more, sleep. */
void hostpoll_await(void);
void hostpoll_await_end(void);
/* Other events from now on; what is ready of them is announced. -errno of epoll_ctl(2). */
must_check int hostpoll_modify(struct hostpoll *hp, uint32_t events);
void hostpoll_remove(struct hostpoll *hp);

#endif
