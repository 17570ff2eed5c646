/*
 * sentry/aio.h - contexts of asynchronous I/O (io_setup(2)).
 *
 * As in Linux for buffered files, a read or write is done by io_submit(2) itself, and only its result is asynchronous; IOCB_CMD_POLL really waits.
 * A context belongs to an address space and is known by the address of a page mapped there, which C libraries look into: it has
 * no magic number, so that they make the system calls.
 *
 * Locks: aio_list.lock (LOCK_LEAF): contexts of an address space; aio_context.lock (LOCK_LEAF): the ring. Not both at once.
 */
#ifndef MOAT_SENTRY_AIO_H
#define MOAT_SENTRY_AIO_H

#include "sentry/task.h"

/* fs.aio-max-nr: of all contexts, as they were asked for. Root may change it. */
extern _Atomic int64_t aio_max_nr;
#define AIO_REQUESTS_MAX (1 << 20) /* of one context */
#define AIO_CONTEXTS_MAX 1024 /* of one address space */

struct aio_context;

struct aio_event {
	uint64_t data, obj;
	int64_t res, res2;
};

/* Return: 0 and the context's id, -EAGAIN (too many), -EINVAL, -ENOMEM. */
must_check int aio_context_create(struct task *t, unsigned count, uint64_t *ret_id);
/* A reference, or NULL. */
struct aio_context *aio_context_find(struct task *t, uint64_t id);
void aio_context_unref(struct aio_context *c);
/* What waits is cancelled, and told so. -EINVAL: no such context. */
must_check int aio_context_destroy(struct task *t, uint64_t id);

/* Room for one more event, or -EAGAIN. Ended by aio_complete() or aio_release(). */
must_check int aio_reserve(struct aio_context *c);
void aio_release(struct aio_context *c);
/* The event of a reserved request; resfd (NULL) is signalled. */
void aio_complete(struct aio_context *c, const struct aio_event *ev, struct file *resfd);
/* Completes once f has one of the events (POLL*). Takes the reservation on success; borrows f and resfd. */
must_check int aio_poll(struct aio_context *c, struct file *f, uint32_t events, uint64_t data,
			uint64_t obj, struct file *resfd);
/* io_cancel(2): -EINPROGRESS (its event comes), -EINVAL (nothing like that waits). */
must_check int aio_cancel(struct aio_context *c, uint64_t obj);
/*
 * Up to max events into guest memory, waiting for min. Return: the count, -EINTR (nothing yet), -EFAULT, -EINVAL (destroyed meanwhile).
 */
must_check int64_t aio_events(struct task *t, struct aio_context *c, int64_t min, int64_t max,
			      uint64_t uevents, int64_t deadline_ns);
unsigned aio_total(void); /* fs.aio-nr */

#endif
