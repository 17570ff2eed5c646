/*
 * platform/kvm/vcpu.c - vCPUs: making them, whose they are, getting them out of the guest.
 *
 * A vCPU belongs to one host thread until that thread says thread_exit(); then it is parked for the next. When
 * the VM can have no more, the last few belong to nobody: a thread without one takes turns on those, its
 * context's FPU state moving in and out. A turn ends with the event, or when a waiter asks for it.
 *
 * Leaving. A runner publishes (as, odd gen), then reads as->root; who replaces the root stores it, then
 * looks for runners: with sequentially consistent order one of the two sees the other.
 */
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <unistd.h>

#include "base/futex.h"
#include "base/log.h"
#include "base/sleep.h"
#include "platform/kvm/kvm.h"

#define MSR_STAR 0xc0000081u
#define MSR_LSTAR 0xc0000082u
#define MSR_SFMASK 0xc0000084u
#define MSR_KERNEL_GS_BASE 0xc0000102u
/* What `syscall` clears: TF IF DF IOPL NT RF AC, as on Linux. */
#define SFMASK_BITS 0x57700ul

#define LEAVE_RETRY_NS 10000000l

/* The thread's own vCPU. One platform at a time has threads, but for tests. */
static _Thread_local struct {
	struct kvm_platform *p;
	struct kvm_vcpu *v;
} own;

static void kick_handler(int sig unused_arg)
{
	/* KVM_RUN has returned; immediate_exit keeps it from being entered again. */
}

int kvm_kick_install(void)
{
	struct sigaction sa = {.sa_handler = kick_handler};

	/* No SA_RESTART, and nothing blocked meanwhile. */
	return sigaction(KVM_KICK_SIGNAL, &sa, NULL) ? -errno : 0;
}

static void kick_unblock(void)
{
	sigset_t set;

	sigemptyset(&set);
	sigaddset(&set, KVM_KICK_SIGNAL);
	pthread_sigmask(SIG_UNBLOCK, &set, NULL);
}

#define MSRS_MAX 4

/* Return: 0, -EIO if one is refused, -errno. */
static int set_msrs(struct kvm_vcpu *v, const struct kvm_msr_entry *entries, uint32_t count)
{
	_Alignas(struct kvm_msrs)
		uint8_t buf[sizeof(struct kvm_msrs) + MSRS_MAX * sizeof(struct kvm_msr_entry)] = {
			0};
	struct kvm_msrs *msrs = (struct kvm_msrs *)buf;
	int n;

	assert(count <= MSRS_MAX);
	msrs->nmsrs = count;
	memcpy(buf + sizeof(*msrs), entries, count * sizeof(*entries));
	n = kvm_ioctl(v->fd, KVM_SET_MSRS, msrs);
	return n == (int)count ? 0 : n < 0 ? n : -EIO;
}

static int set_syscall_msrs(struct kvm_vcpu *v)
{
	const struct kvm_msr_entry entries[] = {
		{.index = MSR_STAR,
		 .data = (uint64_t)(ARCH_USER_SS - 8) << 48 | (uint64_t)KVM_KERNEL_CS << 32},
		{.index = MSR_LSTAR, .data = v->p->stub_entry_va},
		{.index = MSR_SFMASK, .data = SFMASK_BITS},
		/* Last: only where the stub saves. */
		{.index = MSR_KERNEL_GS_BASE, .data = kvm_guest_tss_va(v->id) + KVM_VCPU_SAVE},
	};

	return set_msrs(v, entries, ARRAY_SIZE(entries) - !v->p->stub_saves);
}

int kvm_vcpu_set_lstar(struct kvm_vcpu *v, uint64_t va)
{
	const struct kvm_msr_entry msr = {.index = MSR_LSTAR, .data = va};

	return set_msrs(v, &msr, 1);
}

static int set_xcrs(struct kvm_vcpu *v)
{
	struct kvm_xcrs xcrs = {.nr_xcrs = 1, .xcrs = {{.xcr = 0, .value = v->p->xcr0}}};

	return v->p->has_xsave ? kvm_ioctl(v->fd, KVM_SET_XCRS, &xcrs) : 0;
}

/* The guest's TSC is the host's. Kernels before 5.16 cannot say it exactly: then it is off by a little. */
static void set_tsc(struct kvm_vcpu *v)
{
	uint64_t offset = 0;
	struct kvm_device_attr attr = {
		.group = KVM_VCPU_TSC_CTRL,
		.attr = KVM_VCPU_TSC_OFFSET,
		.addr = (uintptr_t)&offset,
	};
	struct kvm_msr_entry msr = {.index = 0x10 /* IA32_TSC */};

	if (kvm_ioctl(v->fd, KVM_SET_DEVICE_ATTR, &attr) == 0)
		return;
	msr.data = __builtin_ia32_rdtsc();
	if (set_msrs(v, &msr, 1))
		log_warn("kvm: vCPU %u's time stamp counter is not the host's", v->id);
}

/* State that only the application's own doing can have changed. Also after a shutdown, which resets the vCPU. */
int kvm_vcpu_init_state(struct kvm_vcpu *v)
{
	struct kvm_sregs sregs;
	int err = kvm_ioctl(v->fd, KVM_GET_SREGS, &sregs);

	if (err)
		return err;
	kvm_guest_vcpu_page(v->p, v->id, &v->stack_page);
	kvm_guest_sregs(v->p, v->id, &sregs);
	v->sregs = sregs;
	/* XCR0 wants CR4.OSXSAVE, so the segments come first; CR3 is set by each entry. */
	sregs.cr3 = 0;
	err = kvm_ioctl(v->fd, KVM_SET_SREGS, &sregs);
	if (!err)
		err = set_xcrs(v);
	if (!err)
		err = set_syscall_msrs(v);
	if (err)
		return err;
	set_tsc(v);
	v->run->kvm_valid_regs = KVM_SYNC_X86_REGS | (v->p->stub_saves ? 0 : KVM_SYNC_X86_SREGS);
	v->broken = v->in_stub = v->posts = false;
	return 0;
}

/* Platform lock is not held: it takes 0.2 ms. `id` is reserved by the caller. */
static int vcpu_create(struct kvm_platform *p, unsigned id, struct kvm_vcpu **ret_v)
{
	struct kvm_vcpu *v = calloc(1, sizeof(*v));
	int err;

	if (!v)
		return -ENOMEM;
	v->p = p;
	v->id = id;
	do {
		v->fd = ioctl(p->vm_fd, KVM_CREATE_VCPU, (unsigned long)id);
	} while (v->fd < 0 && errno == EINTR);
	if (v->fd < 0) {
		err = -errno;
		goto out_free;
	}
	v->run = mmap(NULL, p->run_size, PROT_READ | PROT_WRITE, MAP_SHARED, v->fd, 0);
	if (v->run == MAP_FAILED) {
		err = -errno;
		goto out_close;
	}
	err = kvm_ioctl(v->fd, KVM_SET_CPUID2, p->cpuid);
	if (!err)
		err = kvm_vcpu_init_state(v);
	if (err)
		goto out_unmap;
	*ret_v = v;
	return 0;
out_unmap:
	munmap(v->run, p->run_size);
out_close:
	close(v->fd);
out_free:
	free(v);
	return err;
}

/* Another vCPU, if the limits allow. Return: 0, -EAGAIN. Takes and drops the platform lock. */
static int vcpu_new(struct kvm_platform *p, bool shared, struct kvm_vcpu **ret_v)
{
	unsigned *count = shared ? &p->vcpus_shared : &p->vcpus_owned;
	unsigned max = shared ? p->shared_max : p->vcpus_limit - p->shared_max;
	struct kvm_vcpu *v = NULL;
	unsigned id;
	int err;

	mutex_lock(&p->lock);
	id = atomic_load(&p->nvcpus);
	if (*count >= max || id >= p->vcpus_limit) {
		mutex_unlock(&p->lock);
		return -EAGAIN;
	}
	(*count)++;
	atomic_store(&p->nvcpus, id + 1);
	mutex_unlock(&p->lock);
	err = vcpu_create(p, id, &v);
	if (err) {
		log_warn("kvm: vCPU %u: %s", id, strerror(-err));
		mutex_lock(&p->lock);
		(*count)--;
		/* A number that KVM has seen cannot be used again; the last one may not have been. */
		if (atomic_load(&p->nvcpus) == id + 1)
			atomic_store(&p->nvcpus, id);
		mutex_unlock(&p->lock);
		return -EAGAIN;
	}
	atomic_store(&v->turn_ns, INT64_MAX);
	v->shared = shared;
	v->busy = shared;
	atomic_store(&p->vcpus[id], v);
	*ret_v = v;
	return 0;
}

void kvm_vcpu_adopt(struct kvm_vcpu *v)
{
	static _Thread_local pid_t tid;

	if (!tid) {
		tid = (pid_t)syscall(SYS_gettid);
		kick_unblock();
	}
	atomic_store(&v->tid, tid);
}

/* A vCPU of one's own. Return: 0, -EAGAIN. */
static int vcpu_own(struct kvm_platform *p, struct kvm_vcpu **ret_v)
{
	struct kvm_vcpu *v;
	int err;

	mutex_lock(&p->lock);
	v = SLIST_FIRST(&p->parked);
	if (v)
		SLIST_REMOVE_HEAD(&p->parked, link);
	mutex_unlock(&p->lock);
	if (!v) {
		err = vcpu_new(p, false, &v);
		if (err)
			return err;
	}
	kvm_vcpu_adopt(v);
	own.p = p;
	own.v = v;
	*ret_v = v;
	return 0;
}

static void deadline_after(struct timespec *ts, long ns)
{
	int64_t at = time_monotonic_ns() + ns;

	ts->tv_sec = at / 1000000000;
	ts->tv_nsec = at % 1000000000;
}

/* Asks one of the shared ones whose turn has lasted a slice, each in its turn, to let go. */
static void shared_ask_locked(struct kvm_platform *p)
{
	unsigned n = atomic_load(&p->nvcpus);
	int64_t before = time_monotonic_ns() - p->share_slice_ns;

	for (unsigned i = 0; i < n; i++) {
		unsigned id = (p->next_victim + i) % n;
		struct kvm_vcpu *v = atomic_load(&p->vcpus[id]);

		/* A turn begins when its thread gets a CPU: one that has not begun is let alone. */
		if (!v || !v->shared || !v->busy || atomic_load(&v->turn_ns) > before)
			continue;
		atomic_store(&v->yield, true);
		p->next_victim = id + 1;
		kvm_vcpu_kick(v);
		return;
	}
}

/* An idle shared vCPU, or NULL with `w` queued. */
static struct kvm_vcpu *shared_take_or_queue(struct kvm_platform *p, struct kvm_turn *w)
{
	struct kvm_vcpu *v = NULL;

	mutex_lock(&p->lock);
	for (unsigned id = 0; id < atomic_load(&p->nvcpus) && !v; id++) {
		v = atomic_load(&p->vcpus[id]);
		if (v && (!v->shared || v->busy))
			v = NULL;
	}
	if (v)
		v->busy = true;
	else if (p->vcpus_shared)
		TAILQ_INSERT_TAIL(&p->turns, w, link);
	mutex_unlock(&p->lock);
	return v;
}

/* First come, first served: kvm_vcpu_put() hands over. Return: the vCPU, or NULL: interrupted. */
static struct kvm_vcpu *shared_wait(struct kvm_platform *p, struct platform_context *ctx,
				    struct kvm_turn *w)
{
	KVM_STAT_ADD(p, shared_waits, 1);
	while (!atomic_load(&w->given)) {
		struct timespec deadline;
		bool interrupted;
		int err;

		deadline_after(&deadline, p->share_slice_ns);
		err = futex_wait(&w->given, 0, &deadline);
		interrupted = atomic_load(&ctx->interrupt);
		if (err != -ETIMEDOUT && !interrupted)
			continue;
		mutex_lock(&p->lock);
		if (!atomic_load(&w->given)) {
			if (interrupted)
				TAILQ_REMOVE(&p->turns, w, link);
			else
				shared_ask_locked(p);
		}
		mutex_unlock(&p->lock);
		if (interrupted)
			break;
	}
	return w->v;
}

/* A turn on a shared vCPU. Return: 0, -EINTR (the context was interrupted), -EAGAIN (there is none at all). */
static int vcpu_share(struct kvm_platform *p, struct platform_context *ctx, struct kvm_vcpu **ret_v)
{
	struct kvm_turn w = {0};
	struct kvm_vcpu *v;

	if (vcpu_new(p, true, &v)) {
		v = shared_take_or_queue(p, &w);
		if (!v && !p->vcpus_shared)
			return -EAGAIN;
		if (!v)
			v = shared_wait(p, ctx, &w);
		if (!v)
			return -EINTR;
	}
	kvm_vcpu_adopt(v);
	/* KVM_RUN's grace period for a new thread, where it needs one, is not part of the turn. */
	__atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	if (kvm_ioctl(v->fd, KVM_RUN, NULL) != -EINTR)
		v->broken = true;
	atomic_store(&v->yield, false);
	atomic_store(&v->turn_ns, time_monotonic_ns());
	*ret_v = v;
	return 0;
}

int kvm_vcpu_get(struct kvm_platform *p, struct platform_context *ctx, struct kvm_vcpu **ret_v)
{
	if (likely(own.v && own.p == p)) {
		*ret_v = own.v;
		return 0;
	}
	if (own.v)
		kvm_vcpu_thread_exit(&own.p->base);
	if (vcpu_own(p, ret_v) == 0)
		return 0;
	return vcpu_share(p, ctx, ret_v);
}

void kvm_vcpu_put(struct kvm_vcpu *v)
{
	struct kvm_platform *p = v->p;
	struct kvm_turn *w;

	if (likely(!v->shared))
		return;
	mutex_lock(&p->lock);
	atomic_store(&v->turn_ns, INT64_MAX);
	w = TAILQ_FIRST(&p->turns);
	if (w) {
		TAILQ_REMOVE(&p->turns, w, link);
		w->v = v;
		/* Under the lock: the waiter's frame is there until it has seen this. */
		atomic_store(&w->given, 1);
		futex_wake(&w->given, 1);
	} else {
		v->busy = false;
	}
	mutex_unlock(&p->lock);
}

void kvm_vcpu_thread_exit(struct platform *base)
{
	struct kvm_platform *p = kvm_platform_of(base);
	struct kvm_vcpu *v = own.v;

	if (!v || own.p != p)
		return;
	kvm_hand_reclaim(v);
	own.v = NULL;
	own.p = NULL;
	mutex_lock(&p->lock);
	SLIST_INSERT_HEAD(&p->parked, v, link);
	mutex_unlock(&p->lock);
}

void kvm_vcpus_fini(struct kvm_platform *p)
{
	if (own.p == p) {
		own.v = NULL;
		own.p = NULL;
	}
	for (unsigned id = 0; id < KVM_VCPUS_MAX; id++) {
		struct kvm_vcpu *v = atomic_load(&p->vcpus[id]);

		if (!v)
			continue;
		kvm_hand_destroy(v);
		munmap(v->run, p->run_size);
		close(v->fd);
		free(v);
	}
}

void kvm_vcpu_kick(struct kvm_vcpu *v)
{
	__atomic_store_n(&v->run->immediate_exit, 1, __ATOMIC_SEQ_CST);
	KVM_STAT_ADD(v->p, kicks, 1);
	/* Gone, or another's by now: the signal means nothing then. */
	(void)syscall(SYS_tgkill, v->p->pid, atomic_load(&v->tid), KVM_KICK_SIGNAL);
}

void kvm_vcpu_enter(struct kvm_vcpu *v, struct address_space *as)
{
	atomic_store_explicit(&v->as, as, memory_order_relaxed);
	atomic_fetch_add(&v->gen, 1);
}

void kvm_vcpu_exit(struct kvm_vcpu *v)
{
	atomic_fetch_add(&v->gen, 1);
	if (unlikely(atomic_load(&v->waiters)))
		futex_wake(&v->gen, INT32_MAX);
}

static void vcpu_leave(struct kvm_vcpu *v, struct address_space *as)
{
	uint32_t gen = atomic_load(&v->gen);

	if (!(gen & 1) || atomic_load(&v->as) != as)
		return;
	atomic_fetch_add(&v->waiters, 1);
	while (atomic_load(&v->gen) == gen) {
		struct timespec deadline;

		kvm_vcpu_kick(v);
		deadline_after(&deadline, LEAVE_RETRY_NS);
		(void)futex_wait(&v->gen, gen, &deadline);
	}
	atomic_fetch_sub(&v->waiters, 1);
}

void kvm_vcpus_leave(struct address_space *as)
{
	struct kvm_platform *p = as->p;

	/* A vCPU that is not seen here reads the root after this. */
	for (unsigned id = 0; id < atomic_load(&p->nvcpus); id++) {
		struct kvm_vcpu *v = atomic_load(&p->vcpus[id]);

		if (v)
			vcpu_leave(v, as);
	}
}

void kvm_test_limit_vcpus(struct platform *base, unsigned limit, unsigned shared)
{
	struct kvm_platform *p = kvm_platform_of(base);

	p->vcpus_limit = limit;
	p->shared_max = shared;
}
