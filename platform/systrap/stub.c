/*
 * platform/systrap/stub.c - stub processes: made by the pristine one, kept ready, given orders, reaped.
 *
 * Orders go through a ring in a page that the stub can only read; its order thread needs no writable memory, so what
 * it executes is what was written here. That something was *done* is believed only when the order thread has said so
 * with write() on its socket, a call that no other thread of the stub can make; the counter in the hint page is the
 * application's to forge and only saves sleeping. A slot of the ring is used again when that is proven.
 * Where an order must not fail (a translation must go), its failure ends the process.
 */
#include <poll.h>
#include <sched.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "base/log.h"
#include "platform/systrap/systrap.h"

#define ORDERS_KEPT 2u /* slots of the ring that only acknowledgements use */
#define SYNC_SPIN_NS 30000
#define REPLY_ROUND_MS 5

/* ---- orders ---- */

static bool ack_read(struct systrap_stub *stub)
{
	uint64_t seq;
	ssize_t n;

	do {
		n = recv(stub->socket, &seq, sizeof(seq), MSG_DONTWAIT);
	} while (n < 0 && errno == EINTR);
	if (n == (ssize_t)sizeof(seq)) {
		/* From the order page, by the order thread: but check what is free to check. */
		if (seq > stub->acked && seq <= stub->posted)
			stub->acked = seq;
		return true;
	}
	if (n == 0 || (n < 0 && errno != EAGAIN))
		atomic_store(&stub->dead, true);
	return false;
}

bool systrap_stub_gone(struct systrap_stub *stub)
{
	char byte;

	if (atomic_load(&stub->dead))
		return true;
	/* Only its order thread holds the other end. */
	return recv(stub->socket, &byte, sizeof(byte), MSG_DONTWAIT | MSG_PEEK) == 0;
}

/* Until `seq` is acknowledged, or the stub is dead and gone. */
static void ack_wait(struct systrap_platform *p, struct systrap_stub *stub, uint64_t seq)
{
	_Atomic uint32_t *hint = (_Atomic uint32_t *)(stub->hints + HINT_DONE);
	unsigned rounds = 0;

	if (p->cores.count > 1 && stub->cpu != (uint32_t)sched_getcpu() &&
	    !cores_short(&p->cores, cores_now())) {
		int64_t until = systrap_now_ns() + SYNC_SPIN_NS;

		while (atomic_load_explicit(hint, memory_order_acquire) != (uint32_t)seq &&
		       systrap_now_ns() < until)
			__builtin_ia32_pause();
	}
	while (stub->acked < seq && !atomic_load(&stub->dead)) {
		struct pollfd pfd = {.fd = stub->socket, .events = POLLIN};

		if (ack_read(stub))
			continue;
		if (atomic_load(&stub->dead))
			break;
		if (poll(&pfd, 1, SYSTRAP_ROUND_NS / 1000000) == 0 &&
		    ++rounds > SYSTRAP_PATIENCE * 4) {
			log_warn("systrap: stub %d does not carry out its orders", stub->pid);
			break;
		}
	}
	if (stub->acked < seq)
		systrap_stub_kill(p, stub);
	SYSTRAP_STAT_ADD(p, acks, 1);
}

static void order_write(struct systrap_stub *stub, const struct systrap_order *order)
{
	uint8_t *slot = stub->orders + ORDERS_RING + stub->posted % ORDERS_COUNT * ORDER_SIZE;

	memcpy(slot + ORDER_NR, &order->nr, sizeof(order->nr));
	memcpy(slot + ORDER_FLAGS, &order->flags, sizeof(order->flags));
	memcpy(slot + ORDER_ARGS, order->args, sizeof(order->args));
	memcpy(slot + ORDER_EXTRA, &order->extra, sizeof(order->extra));
	stub->posted++;
}

/* The order thread writes the count of what was posted, this included, to its socket. */
static void ack_post(struct systrap_stub *stub)
{
	uint64_t at = STUB_ORDERS + ORDERS_RING + stub->posted % ORDERS_COUNT * ORDER_SIZE;

	order_write(stub, &(struct systrap_order){
				  .nr = SYS_write,
				  .flags = ORDER_MUST,
				  .args = {STUB_FD_SOCKET, at + ORDER_EXTRA, 8},
				  .extra = stub->posted + 1,
			  });
}

/* The order thread of a single-threaded process runs where that thread does, which makes room for it. */
static void orders_place(struct systrap_platform *p, struct systrap_stub *stub)
{
	struct systrap_thread *t = stub->nthreads == 1 ? LIST_FIRST(&stub->threads) : NULL;
	uint32_t cpu = t ? atomic_load_explicit(&t->cpu, memory_order_relaxed) : SYSTRAP_CPU_NONE;
	cpu_set_t set;

	if (t)
		atomic_store_explicit(mb_yield(t), 1, memory_order_relaxed);
	if (cpu >= CPU_SETSIZE || !CPU_ISSET(cpu, &p->cores.allowed) ||
	    cores_short(&p->cores, cores_now()))
		cpu = SYSTRAP_CPU_NONE;
	if (likely(cpu == stub->cpu))
		return;
	CPU_ZERO(&set);
	if (cpu == SYSTRAP_CPU_NONE)
		set = p->cores.allowed;
	else
		CPU_SET(cpu, &set);
	stub->cpu = sched_setaffinity(stub->pid, sizeof(set), &set) ? SYSTRAP_CPU_NONE : cpu;
}

void systrap_orders_start(struct systrap_platform *p, struct systrap_stub *stub)
{
	_Atomic uint32_t *head = (_Atomic uint32_t *)(stub->orders + ORDERS_HEAD);

	/* First: threads that it makes may run where it may. */
	orders_place(p, stub);
	atomic_store(head, (uint32_t)stub->posted);
	systrap_futex_wake(head);
}

void systrap_orders_sync(struct systrap_platform *p, struct systrap_stub *stub)
{
	if (atomic_load(&stub->dead) || stub->acked == stub->posted)
		goto out;
	ack_post(stub);
	systrap_orders_start(p, stub);
	ack_wait(p, stub, stub->posted);
out:
	if (atomic_load(&stub->dead))
		systrap_stub_kill(p, stub);
}

void systrap_order_post(struct systrap_platform *p, struct systrap_stub *stub,
			const struct systrap_order *order)
{
	if (atomic_load(&stub->dead))
		return;
	/* What earlier batches left unacknowledged may be done by now, but only an answer says so. */
	if (stub->posted - stub->acked >= ORDERS_COUNT - ORDERS_KEPT)
		systrap_orders_sync(p, stub);
	order_write(stub, order);
	SYSTRAP_STAT_ADD(p, orders, 1);
}

/* ---- areas ---- */

static struct systrap_thread *thread_alloc_locked(struct systrap_platform *p,
						  struct systrap_stub *stub)
{
	struct systrap_thread *t;
	unsigned i;

	if (stub->nthreads == STUB_AREAS_MAX || p->areas_used == SYSTRAP_AREAS_MAX)
		return NULL;
	for (i = p->free_area; p->threads[i].in_use; i++)
		;
	p->free_area = i + 1;
	p->areas_used++;
	t = &p->threads[i];
	t->mem = p->shared + (uint64_t)SYSTRAP_STUBS_MAX * STUB_SLOT_SIZE +
		 (uint64_t)i * STUB_AREA_SIZE;
	t->in_use = true;
	t->stub = stub;
	t->ctx = NULL;
	t->reported = false;
	t->mb = NULL;
	t->mb_tried = false;
	atomic_store(&t->cpu, SYSTRAP_CPU_NONE);
	atomic_store(&t->run, RUN_NOT);
	t->failed = false;
	t->failures = 0;
	t->index = stub->nthreads++;
	atomic_store(&t->pid, stub->pid);
	atomic_store(&t->tid, 0);
	LIST_INSERT_HEAD(&stub->threads, t, link);
	return t;
}

struct systrap_thread *systrap_thread_new(struct systrap_platform *p, struct systrap_stub *stub)
{
	struct systrap_thread *t;

	mutex_lock(&p->lock);
	t = thread_alloc_locked(p, stub);
	mutex_unlock(&p->lock);
	return t;
}

void systrap_thread_orders(struct systrap_platform *p, struct systrap_thread *t, bool must)
{
	uint64_t va = systrap_area_va(t), off = (uint64_t)(t->mem - p->shared);
	uint64_t at = ORDERS_STACKS + t->index % ORDERS_STACKS_COUNT * sizeof(stack_t);
	const stack_t stack = {
		.ss_sp = (void *)(va + AREA_ALTSTACK), /* NOLINT: an address of the stub's */
		.ss_size = STUB_AREA_SIZE - AREA_ALTSTACK};

	static_assert(ORDERS_STACKS + ORDERS_STACKS_COUNT * sizeof(stack_t) <= ORDERS_RING,
		      "in the first page");
	memcpy(t->stub->orders + at, &stack, sizeof(stack));
	systrap_order_post(p, t->stub,
			   &(struct systrap_order){
				   .nr = SYS_mmap,
				   .flags = ORDER_MUST,
				   .args = {va, STUB_AREA_SIZE, PROT_READ | PROT_WRITE,
					    MAP_SHARED | MAP_FIXED, STUB_FD_SHARED, off},
			   });
	/* clone's arguments, then where the new thread's stack_t is. No CLONE_FILES: it closes its copies. */
	systrap_order_post(p, t->stub,
			   &(struct systrap_order){
				   .nr = SYS_clone,
				   .flags = ORDER_CLONE | (must ? ORDER_MUST : 0),
				   .args = {CLONE_VM | CLONE_FS | CLONE_SIGHAND | CLONE_THREAD |
						    CLONE_SYSVSEM | CLONE_PARENT_SETTID,
					    va + STUB_AREA_SIZE, va + AREA_MAILBOX + AREA_TID,
					    STUB_ORDERS + at},
			   });
	SYSTRAP_STAT_ADD(p, threads_made, 1);
}

/* ---- the pristine process ---- */

static int request(struct systrap_platform *p, const struct pristine_request *req)
{
	ssize_t n;

	do {
		n = send(p->control_fd, req, sizeof(*req), MSG_NOSIGNAL);
	} while (n < 0 && errno == EINTR);
	if (n == (ssize_t)sizeof(*req))
		return 0;
	p->pristine_dead = true;
	return -EAGAIN;
}

/* Pre: nothing of it is left, and nobody else looks at it. The next stub can read what it had: addresses, and where things were. */
static void stub_wipe(struct systrap_stub *stub)
{
	struct systrap_thread *t;

	LIST_FOREACH (t, &stub->threads, link)
		if (madvise(t->mem, STUB_AREA_SIZE, MADV_REMOVE))
			memset(t->mem, 0, STUB_AREA_SIZE);
	if (madvise(stub->orders, STUB_SLOT_SIZE, MADV_REMOVE))
		memset(stub->orders, 0, STUB_SLOT_SIZE);
	if (stub->socket >= 0)
		close(stub->socket);
	stub->socket = -1;
}

/* Wiped: what it had may be given to others. */
static void stub_release_locked(struct systrap_platform *p, struct systrap_stub *stub)
{
	struct systrap_thread *t;

	while ((t = LIST_FIRST(&stub->threads))) {
		LIST_REMOVE(t, link);
		t->in_use = false;
		p->areas_used--;
		p->free_area = MIN(p->free_area, (unsigned)(t - p->threads));
	}
	stub->in_use = false;
	p->slots_used--;
	p->free_slot = MIN(p->free_slot, stub->slot);
}

/* Once nothing of it is left, and its address space has let go of it. */
static void stub_free_locked(struct systrap_platform *p, struct systrap_stub *stub)
{
	if (!stub->reaped || !stub->released)
		return;
	stub_wipe(stub);
	stub_release_locked(p, stub);
}

static void reply_made_locked(struct systrap_platform *p, struct systrap_stub *stub, pid_t pid,
			      int fd)
{
	struct systrap_thread *t;

	p->making--;
	stub->pid = pid;
	stub->socket = fd;
	if (pid <= 0 || fd < 0) {
		log_warn("systrap: no stub process: %s", pid < 0 ? strerror(-pid) : "no socket");
		stub->reaped = pid <= 0;
		stub->released = true;
		if (pid > 0)
			(void)request(p, &(struct pristine_request){.op = PRISTINE_REAP,
								    .slot = stub->slot,
								    .pid = pid});
		stub_free_locked(p, stub);
		return;
	}
	LIST_FOREACH (t, &stub->threads, link)
		atomic_store(&t->pid, pid);
	SLIST_INSERT_HEAD(&p->pool, stub, link);
	p->pool_count++;
	SYSTRAP_STAT_ADD(p, stubs_made, 1);
}

/* One reply, if there is one. Return: there was. */
static bool reply_read_locked(struct systrap_platform *p)
{
	struct pristine_reply r;
	union {
		struct cmsghdr hdr;
		char space[CMSG_SPACE(sizeof(int))];
	} control;
	struct iovec iov = {.iov_base = &r, .iov_len = sizeof(r)};
	struct msghdr msg = {.msg_iov = &iov,
			     .msg_iovlen = 1,
			     .msg_control = &control,
			     .msg_controllen = sizeof(control)};
	struct systrap_stub *stub;
	struct cmsghdr *c;
	int fd = -1;
	ssize_t n;

	if (p->pristine_dead)
		return false;
	n = recvmsg(p->control_fd, &msg, MSG_DONTWAIT | MSG_CMSG_CLOEXEC);
	if (n < 0 && (errno == EAGAIN || errno == EINTR))
		return false;
	if (n != (ssize_t)sizeof(r)) {
		log_error("systrap: the pristine process has gone");
		p->pristine_dead = true;
		return false;
	}
	c = CMSG_FIRSTHDR(&msg);
	if (c && c->cmsg_type == SCM_RIGHTS && c->cmsg_len == CMSG_LEN(sizeof(int)))
		memcpy(&fd, CMSG_DATA(c), sizeof(int));
	assert(r.slot < SYSTRAP_STUBS_MAX);
	stub = &p->stubs[r.slot];
	if (r.op == PRISTINE_MAKE) {
		reply_made_locked(p, stub, r.pid, fd);
	} else {
		stub->reaped = true;
		stub_free_locked(p, stub);
	}
	return true;
}

/*
 * A moment, or until there is a reply; who gives up the lock for it finds that others have read his. Rounds that lasted are
 * counted, not time: clocks go on while all of us are frozen or suspended, the pristine process with its answer under way.
 * Return: false: it has had its chance, or is dead.
 */
static bool reply_await(struct systrap_platform *p, unsigned *inout_rounds)
{
	struct pollfd pfd = {.fd = p->control_fd, .events = POLLIN};

	if (*inout_rounds >= p->reply_rounds)
		return false;
	if (poll(&pfd, 1, REPLY_ROUND_MS) == 0)
		++*inout_rounds;
	return true;
}

/* Orders one more stub; its ring holds the orders for its first thread before it exists. */
static int make_locked(struct systrap_platform *p)
{
	struct systrap_stub *stub;
	struct systrap_thread *t;
	unsigned i;
	int err;

	if (p->slots_used == SYSTRAP_STUBS_MAX || p->pristine_dead)
		return -EAGAIN;
	for (i = p->free_slot; p->stubs[i].in_use; i++)
		;
	p->free_slot = i + 1;
	stub = &p->stubs[i];
	*stub = (struct systrap_stub){
		.slot = i,
		.socket = -1,
		.cpu = SYSTRAP_CPU_NONE,
		.orders = p->shared + (uint64_t)i * STUB_SLOT_SIZE,
		.in_use = true,
	};
	stub->hints = stub->orders + STUB_ORDERS_SIZE;
	memset(stub->orders, 0, 64);
	memset(stub->hints, 0, STUB_HINTS_SIZE);
	LIST_INIT(&stub->threads);
	p->slots_used++;
	t = thread_alloc_locked(p, stub);
	err = -EAGAIN;
	if (t) {
		systrap_thread_orders(p, t, true);
		atomic_store((_Atomic uint32_t *)(stub->orders + ORDERS_HEAD),
			     (uint32_t)stub->posted);
		err = request(p, &(struct pristine_request){
					 .op = PRISTINE_MAKE,
					 .slot = i,
					 .offset = (uint64_t)i * STUB_SLOT_SIZE,
				 });
	}
	if (err) {
		stub->reaped = stub->released = true;
		stub_free_locked(p, stub);
		return err;
	}
	p->making++;
	return 0;
}

/* Those that wait, and those that will. */
static unsigned pool_coming_locked(const struct systrap_platform *p)
{
	return p->pool_count + p->making + p->recycling;
}

static void pool_fill_locked(struct systrap_platform *p)
{
	while (pool_coming_locked(p) < SYSTRAP_POOL)
		if (make_locked(p))
			return;
}

bool systrap_pool_reserve(struct systrap_platform *p)
{
	bool room;

	mutex_lock(&p->lock);
	room = pool_coming_locked(p) < SYSTRAP_POOL;
	p->recycling += room;
	mutex_unlock(&p->lock);
	return room;
}

void systrap_pool_cancel(struct systrap_platform *p)
{
	mutex_lock(&p->lock);
	p->recycling--;
	mutex_unlock(&p->lock);
}

void systrap_pool_return(struct systrap_platform *p, struct systrap_stub *stub)
{
	mutex_lock(&p->lock);
	p->recycling--;
	SLIST_INSERT_HEAD(&p->pool, stub, link);
	p->pool_count++;
	mutex_unlock(&p->lock);
	SYSTRAP_STAT_ADD(p, stubs_recycled, 1);
}

/* The pool is empty. Return: 0; -EAGAIN: it stays so. */
static int pool_await_locked(struct systrap_platform *p, uint32_t ended_before)
{
	unsigned rounds = 0;
	bool again;

	SYSTRAP_STAT_ADD(p, pool_empty, 1);
	pool_fill_locked(p);
	/* Those that are being emptied may all be killed in the end, and nobody tells us. */
	if (!p->making)
		(void)make_locked(p);
	while (SLIST_EMPTY(&p->pool)) {
		if (reply_read_locked(p))
			continue;
		if (p->pristine_dead)
			return -EAGAIN;
		if (p->making) {
			if (!reply_await(p, &rounds))
				return -EAGAIN;
			continue;
		}
		/* The host has no process for us. What the guest has ended counts for its limits until it is reaped. */
		mutex_unlock(&p->lock);
		again = systrap_retire_await(p, ended_before);
		mutex_lock(&p->lock);
		if (!again)
			return -EAGAIN;
		/* One, if what ended is not there again: others would take the processes and threads that it needs. */
		if (SLIST_EMPTY(&p->pool))
			(void)make_locked(p);
	}
	return 0;
}

int systrap_stub_get(struct systrap_platform *p, struct address_space *as,
		     struct systrap_stub **ret_stub)
{
	uint32_t ended_before = atomic_load(&p->retire.queued);
	struct systrap_stub *stub;
	int err = 0;

	mutex_lock(&p->lock);
	if (p->pool_count <= SYSTRAP_POOL_LOW)
		while (reply_read_locked(p))
			;
	if (SLIST_EMPTY(&p->pool))
		err = pool_await_locked(p, ended_before);
	if (err) {
		mutex_unlock(&p->lock);
		return err;
	}
	stub = SLIST_FIRST(&p->pool);
	SLIST_REMOVE_HEAD(&p->pool, link);
	p->pool_count--;
	/* Above that, who ends one makes others. */
	if (pool_coming_locked(p) <= SYSTRAP_POOL_LOW)
		pool_fill_locked(p);
	mutex_unlock(&p->lock);
	stub->as = as;
	*ret_stub = stub;
	return 0;
}

static void reap_locked(struct systrap_platform *p, struct systrap_stub *stub)
{
	(void)request(p, &(struct pristine_request){
				 .op = PRISTINE_REAP,
				 .slot = stub->slot,
				 .pid = stub->pid,
			 });
}

void systrap_stub_put(struct systrap_platform *p, struct systrap_stub *stub)
{
	mutex_lock(&p->lock);
	stub->released = true;
	if (stub->reaped) {
		stub_free_locked(p, stub);
	} else {
		atomic_store(&stub->dead, true);
		reap_locked(p, stub);
	}
	while (reply_read_locked(p))
		;
	mutex_unlock(&p->lock);
}

/* Without the pristine process nobody can tell: stop before a page is given to somebody else. */
static _Noreturn void cannot_reap(const struct systrap_stub *stub)
{
	log_error("systrap: stub %d cannot be reaped", stub->pid);
	_exit(1);
}

void systrap_stub_end(struct systrap_platform *p, struct systrap_stub *stub)
{
	unsigned rounds = 0;
	bool patient = true;

	mutex_lock(&p->lock);
	atomic_store(&stub->dead, true);
	if (!stub->reaped)
		reap_locked(p, stub);
	for (;;) {
		while (reply_read_locked(p))
			;
		if (stub->reaped)
			break;
		if (p->pristine_dead || !patient)
			cannot_reap(stub);
		mutex_unlock(&p->lock);
		patient = reply_await(p, &rounds);
		mutex_lock(&p->lock);
	}
	mutex_unlock(&p->lock);
	stub_wipe(stub);
	mutex_lock(&p->lock);
	stub_release_locked(p, stub);
	pool_fill_locked(p);
	mutex_unlock(&p->lock);
}

void systrap_stub_kill(struct systrap_platform *p, struct systrap_stub *stub)
{
	struct systrap_thread *t;
	unsigned rounds = 0;

	mutex_lock(&p->lock);
	if (!stub->reaped) {
		log_debug("systrap: stub %d is killed; its last failed order: %ld", stub->pid,
			  (long)atomic_load((_Atomic int64_t *)(stub->hints + HINT_RESULT)));
		atomic_store(&stub->dead, true);
		SYSTRAP_STAT_ADD(p, stubs_died, 1);
		reap_locked(p, stub);
		while (!stub->reaped) {
			if (reply_read_locked(p))
				continue;
			if (p->pristine_dead || !reply_await(p, &rounds))
				cannot_reap(stub);
		}
	}
	/* New ones join the list under this lock, too. */
	LIST_FOREACH (t, &stub->threads, link)
		systrap_futex_wake(mb_state(t));
	mutex_unlock(&p->lock);
}
