/*
 * platform/systrap/systrap.c - applications in host processes of their own, trapped by seccomp.
 *
 * Organised as: layout.h and pristine.h (what the sentry shares with its stubs), stub.S (the stub's handler and its
 * order thread), pristine.c (the process that makes stubs), filter.c (what stubs may ask of the host), stub.c (stubs
 * and orders, the sentry's side), as.c (address spaces), run.c (events), wait.c (who spins, and where), turn.c (when too many would), fpu.c,
 * patching.c, retire.c (the end, in the background), recycle.c (stubs used again). docs/platform-systrap.md has the picture.
 *
 * An address space is a stub process: in it the application's memory (shared mappings of the memory files) and, in a
 * range that the mm leaves out, the stub's own. Application threads may call futex() on their areas and nothing else;
 * everything else they try raises SIGSYS, faults raise SIGSEGV and so on, and one handler publishes the frame in an area
 * shared with the sentry and waits. The stub has one more thread, which maps and unmaps as the sentry orders it.
 *
 * What keeps a hostile application from mapping other processes' memory, though its order thread holds the memory
 * file: the order thread reads its orders from memory that only the sentry can write, keeps no state in memory (it has
 * no stack), makes its calls at places that no other thread may call from, and has signals blocked. Threads that run
 * the application have an empty descriptor table besides.
 *
 * Performs: a system call is a signal delivery and two hand-overs, about 2 us while both sides spin. A fault that maps
 * costs a hand-over to the order thread more. Watch: the counters of `moat debug`.
 * Cannot do: 32-bit code, debug registers, hiding CPUID; execute from host files on mounts with noexec.
 */
#include <fcntl.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/auxv.h>
#include <sys/mman.h>
#include <sys/rseq.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "platform/systrap/systrap.h"

#define HWCAP2_FSGSBASE_ 2ul
#define SCRATCH_HINT 0x100000000000ul
#define SCRATCH_STACK 0x4000u

extern const char __start_systrap_stub[], __stop_systrap_stub[];

static int systrap_probe(char *why, size_t why_size)
{
	uint32_t action = SECCOMP_RET_TRAP;

	if (!(getauxval(AT_HWCAP2) & HWCAP2_FSGSBASE_)) {
		snprintf(why, why_size,
			 "systrap: the CPU or the kernel does not let programs set %%fs and %%gs "
			 "(FSGSBASE, Linux 5.9): use --platform=kvm");
		return -EOPNOTSUPP;
	}
	if (syscall(SYS_seccomp, SECCOMP_GET_ACTION_AVAIL, 0, &action) < 0) {
		snprintf(why, why_size,
			 "systrap: seccomp filters: %s: the kernel, or the container around this "
			 "one, must allow seccomp(2)",
			 strerror(errno));
		return -EOPNOTSUPP;
	}
	cores_probe();
	return 0;
}

/* A sealed file with the stub's code and constants. */
static int blob_create(int *ret_fd)
{
	size_t size = (size_t)(__stop_systrap_stub - __start_systrap_stub);
	uint8_t *blob = calloc(1, STUB_BLOB_SIZE);
	int fd = -1, err = -ENOMEM;

	assert(size <= STUB_CODE_SIZE);
	if (!blob)
		return -ENOMEM;
	memcpy(blob, __start_systrap_stub, size);
	systrap_data_build((struct stub_data *)(blob + STUB_CODE_SIZE), __start_systrap_stub);
	fd = memfd_create("moat-stub", MFD_CLOEXEC | MFD_ALLOW_SEALING);
	if (fd >= 0 && write(fd, blob, STUB_BLOB_SIZE) == STUB_BLOB_SIZE &&
	    fcntl(fd, F_ADD_SEALS, F_SEAL_WRITE | F_SEAL_SHRINK | F_SEAL_GROW | F_SEAL_SEAL) == 0)
		err = 0;
	else
		err = -errno;
	free(blob);
	if (err && fd >= 0)
		close(fd);
	*ret_fd = fd;
	return err;
}

/* Restartable sequences would make the kernel write to memory that the child is about to unmap. */
static void child_forget_rseq(void)
{
#ifdef __NR_rseq
	if (__rseq_size)
		syscall(SYS_rseq, (char *)__builtin_thread_pointer() + __rseq_offset, 32,
			RSEQ_FLAG_UNREGISTER, RSEQ_SIG);
#endif
}

/* The fork that becomes the pristine process. Return: its pid, -errno. */
static int pristine_fork(int control_fd, int shared_fd, int code_fd)
{
	size_t size = STUB_BLOB_SIZE + SCRATCH_STACK;
	char *scratch = mmap((void *)SCRATCH_HINT, size, PROT_READ | PROT_WRITE,
			     MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
	struct pristine_args *args;
	uint64_t boot;
	long pid;

	if (scratch == MAP_FAILED)
		return -errno;
	if (systrap_reserved((uint64_t)scratch, size) ||
	    mmap(scratch, STUB_BLOB_SIZE, PROT_READ | PROT_EXEC, MAP_SHARED | MAP_FIXED, code_fd,
		 0) == MAP_FAILED) {
		munmap(scratch, size);
		return -ENOMEM;
	}
	args = (struct pristine_args *)(scratch + size - 256);
	*args = (struct pristine_args){
		.scratch = (uint64_t)scratch,
		.scratch_size = size,
		.parent = getpid(),
		.control_fd = control_fd,
		.private_fd = memfile_fd(mem_private()),
		.shared_fd = shared_fd,
		.code_fd = code_fd,
	};
	boot = (uint64_t)scratch + (uint64_t)((const char *)pristine_boot - __start_systrap_stub);
	pid = syscall(SYS_clone, SIGCHLD, NULL, NULL, NULL, NULL);
	if (pid == 0) {
		child_forget_rseq();
		stub_call_on((char *)args - 64, (void (*)(const struct pristine_args *))boot, args);
	}
	pid = pid < 0 ? -errno : pid;
	munmap(scratch, size);
	return (int)pid;
}

int systrap_pristine_start(struct systrap_platform *p)
{
	int pair[2], code_fd, err;

	err = blob_create(&code_fd);
	if (err)
		return err;
	if (socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair) < 0) {
		err = -errno;
		close(code_fd);
		return err;
	}
	err = pristine_fork(pair[1], p->shared_fd, code_fd);
	close(code_fd);
	close(pair[1]);
	p->control_fd = pair[0];
	if (err < 0)
		return err;
	p->pristine_pid = err;
	return 0;
}

void systrap_pristine_stop(struct systrap_platform *p)
{
	/* It ends when its socket does, and its stubs with it. */
	if (p->control_fd >= 0)
		close(p->control_fd);
	p->control_fd = -1;
	if (p->pristine_pid > 0)
		while (waitpid(p->pristine_pid, NULL, 0) < 0 && errno == EINTR)
			;
	p->pristine_pid = 0;
}

static int shared_create(struct systrap_platform *p)
{
	uint64_t size = (uint64_t)SYSTRAP_STUBS_MAX * STUB_SLOT_SIZE +
			(uint64_t)SYSTRAP_AREAS_MAX * STUB_AREA_SIZE;

	p->shared_fd = memfd_create("moat-areas", MFD_CLOEXEC);
	if (p->shared_fd < 0 || ftruncate(p->shared_fd, (off_t)size) < 0)
		return -errno;
	p->shared = mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_NORESERVE,
			 p->shared_fd, 0);
	if (p->shared == MAP_FAILED) {
		p->shared = NULL;
		return -errno;
	}
	p->shared_size = size;
	return 0;
}

static void platform_free(struct systrap_platform *p)
{
	systrap_retire_fini(p);
	systrap_pristine_stop(p);
	if (p->stubs)
		for (unsigned i = 0; i < SYSTRAP_STUBS_MAX; i++)
			if (p->stubs[i].in_use && p->stubs[i].socket >= 0)
				close(p->stubs[i].socket);
	if (p->shared)
		munmap(p->shared, p->shared_size);
	if (p->shared_fd >= 0)
		close(p->shared_fd);
	systrap_turns_fini(p);
	cores_fini(&p->cores);
	free(p->stubs);
	free(p->threads);
	free(p);
}

/* One stub is made and its thread reports: what a host forbids shows here. */
static int selftest(struct systrap_platform *p)
{
	struct platform_context *ctx;
	struct systrap_stub *stub;
	int err = systrap_stub_get(p, NULL, &stub);

	if (err)
		return err;
	err = systrap_context_create(&p->base, NULL, &ctx);
	if (!err) {
		/* Bounded: an unanswered interruption ends the stub. */
		atomic_store(&ctx->interrupt, true);
		err = systrap_wait_event(ctx, LIST_FIRST(&stub->threads));
		systrap_context_destroy(ctx);
	}
	systrap_stub_put(p, stub);
	return err;
}

static int systrap_create(struct platform **ret_p)
{
	struct systrap_platform *p = calloc(1, sizeof(*p));
	int err = -ENOMEM;

	if (!p)
		return -ENOMEM;
	p->base.ops = &systrap_platform_ops;
	p->control_fd = p->shared_fd = -1;
	p->reply_rounds = SYSTRAP_REPLY_ROUNDS;
	mutex_init(&p->lock, LOCK_PLATFORM, "systrap");
	mutex_init(&p->bind_lock, LOCK_PLATFORM, "systrap contexts");
	SLIST_INIT(&p->pool);
	cores_init(&p->cores);
	p->spin_ticks = SYSTRAP_SPIN_US * p->cores.ticks_per_us;
	p->stolen_ticks = SYSTRAP_STOLEN_US * p->cores.ticks_per_us;
	p->soon_ticks = SYSTRAP_SOON_US * p->cores.ticks_per_us;
	p->reply_ticks = SYSTRAP_REPLY_US * p->cores.ticks_per_us;
	p->quick_ticks = SYSTRAP_QUICK_US * p->cores.ticks_per_us;
	p->turn_ticks = SYSTRAP_TURN_US * p->cores.ticks_per_us;
	systrap_turns_init(p);
	systrap_retire_init(p);
	p->stubs = calloc(SYSTRAP_STUBS_MAX, sizeof(*p->stubs));
	p->threads = calloc(SYSTRAP_AREAS_MAX, sizeof(*p->threads));
	if (p->stubs && p->threads)
		err = systrap_fpu_init(p);
	if (!err)
		err = shared_create(p);
	if (!err)
		err = systrap_pristine_start(p);
	if (!err)
		err = selftest(p);
	if (err) {
		platform_free(p);
		return err;
	}
	p->base.reserved_start = STUB_BASE;
	p->base.reserved_size = STUB_SIZE;
	p->base.app_elsewhere = true;
	*ret_p = &p->base;
	return 0;
}

static void systrap_destroy(struct platform *base)
{
	platform_free(systrap_of(base));
}

static void systrap_emit_stats(struct platform *base,
			       void (*emit)(void *arg, const char *name, uint64_t value), void *arg)
{
	struct systrap_platform *p = systrap_of(base);
	uint64_t syscalls = 0, posted = 0, hits = 0;

#define EMIT(field) emit(arg, "systrap/" #field, atomic_load(&p->stats.field))
	EMIT(faults);
	EMIT(exceptions);
	EMIT(interrupts);
	EMIT(not_run);
	EMIT(kicks);
	EMIT(spins_missed);
	EMIT(spins_stolen);
	EMIT(moves);
	EMIT(gathers);
	EMIT(orders);
	EMIT(acks);
	EMIT(batches);
	EMIT(drops);
	EMIT(stubs_made);
	EMIT(stubs_recycled);
	EMIT(stubs_died);
	EMIT(threads_made);
	EMIT(spaces);
	EMIT(pool_empty);
	EMIT(patches);
	EMIT(left);
	EMIT(turns_waited);
	EMIT(turns_taken);
#undef EMIT
	for (unsigned i = 0; i < SYSTRAP_AREAS_MAX; i++) {
		const struct systrap_thread *t = &p->threads[i];

		syscalls += atomic_load_explicit(&t->counts.syscalls, memory_order_relaxed);
		posted += atomic_load_explicit(&t->counts.posted, memory_order_relaxed);
		hits += atomic_load_explicit(&t->counts.spins_hit, memory_order_relaxed);
	}
	emit(arg, "systrap/syscalls", syscalls);
	emit(arg, "systrap/posted", posted);
	emit(arg, "systrap/spins_hit", hits);
	mutex_lock(&p->lock);
	emit(arg, "systrap/stubs", p->slots_used);
	emit(arg, "systrap/areas", p->areas_used);
	mutex_unlock(&p->lock);
}

const struct platform_ops systrap_platform_ops = {
	.name = "systrap",
	.probe = systrap_probe,
	.unprobe = cores_unprobe,
	.create = systrap_create,
	.destroy = systrap_destroy,
	.as_create = systrap_as_create,
	.as_destroy = systrap_as_destroy,
	.as_retire = systrap_as_retire,
	.settle = systrap_settle,
	.as_map = systrap_as_map,
	.as_unmap = systrap_as_unmap,
	.as_protect = systrap_as_protect,
	.as_fork = systrap_as_fork,
	.as_clear = systrap_as_clear,
	.as_claim = systrap_as_claim,
	.as_set_traced = systrap_as_set_traced,
	.context_create = systrap_context_create,
	.context_destroy = systrap_context_destroy,
	.context_prepare = systrap_context_prepare,
	.context_switch = systrap_context_switch,
	.context_interrupt = systrap_context_interrupt,
	.thread_exit = systrap_thread_exit,
	.fpu_size = systrap_fpu_size,
	.fpu_get = systrap_fpu_get,
	.fpu_set = systrap_fpu_set,
	.fpu_reset = systrap_fpu_reset,
	.stats = systrap_emit_stats,
};
