/*
 * sentry/boot/boot_stacks.c - where the sentry's threads are: `moat debug ID stacks` and `locks`.
 *
 * A thread is asked by a signal of its own, one thread at a time, and its handler walks its stack; host calls that the signal ends are
 * restarted, or see EINTR, which sentry code bears anyway (platform/kvm/confine.h). A thread that does not answer in time is reported as such.
 * Addresses are offsets in the binary: `addr2line -fe moat 0x...` names them.
 */
#include <dlfcn.h>
#include <execinfo.h>
#include <signal.h>
#include <string.h>
#include <sys/syscall.h>
#include <time.h>
#include <unistd.h>

#include "base/futex.h"
#include "sentry/boot/internal.h"
#include "sentry/stack_signal.h"

#define STACK_FRAMES 40
#define STACK_OWN_FRAMES 2 /* the handler, and the kernel's return from it */
#define STACK_WAIT_NS 200000000l

enum { STACK_IDLE, STACK_ASKED, STACK_TAKING, STACK_TAKEN };

static struct {
	_Atomic uint32_t state; /* the futex word */
	_Atomic int tid; /* who is asked */
	int count; /* guarded by state, as frames */
	void *frames[STACK_FRAMES];
} asked;
static pid_t own_pid;

static void on_signal(int signo)
{
	uint32_t want = STACK_ASKED;
	int saved = errno;

	(void)signo;
	/* Too late for the question, or for another thread's. */
	if (atomic_load(&asked.tid) == (int)syscall(SYS_gettid) &&
	    atomic_compare_exchange_strong(&asked.state, &want, STACK_TAKING)) {
		asked.count = backtrace(asked.frames, STACK_FRAMES);
		atomic_store(&asked.state, STACK_TAKEN);
		futex_wake(&asked.state, 1);
	}
	errno = saved;
}

void boot_stacks_init(void)
{
	struct sigaction sa = {.sa_handler = on_signal, .sa_flags = SA_RESTART};
	void *frames[2];

	/* The first call loads the unwinder, which a confined process cannot. */
	(void)backtrace(frames, 2);
	own_pid = getpid();
	sigaction(TASK_STACK_SIGNAL, &sa, NULL);
}

void boot_show_address(struct buf *out, const void *addr)
{
	const char *slash;
	Dl_info info;

	if (!dladdr(addr, &info) || !info.dli_fname) {
		buf_printf(out, "%p", addr);
		return;
	}
	slash = strrchr(info.dli_fname, '/');
	buf_printf(out, "%.60s+0x%zx", slash ? slash + 1 : info.dli_fname,
		   (size_t)((const char *)addr - (const char *)info.dli_fbase));
}

/* Its frames are in `asked`. */
static bool ask(int host_tid)
{
	int64_t end = time_monotonic_ns() + STACK_WAIT_NS;
	uint32_t state = STACK_ASKED;

	atomic_store(&asked.tid, host_tid);
	atomic_store(&asked.state, STACK_ASKED);
	if (syscall(SYS_tgkill, own_pid, host_tid, TASK_STACK_SIGNAL) < 0)
		end = 0;
	while ((state = atomic_load(&asked.state)) != STACK_TAKEN && time_monotonic_ns() < end) {
		struct timespec ts = {end / 1000000000, end % 1000000000};

		(void)futex_wait(&asked.state, state, &ts);
	}
	state = STACK_ASKED;
	/* One that has begun is soon done. */
	while (!atomic_compare_exchange_strong(&asked.state, &state, STACK_IDLE) &&
	       state == STACK_TAKING) {
		(void)futex_wait(&asked.state, STACK_TAKING, NULL);
		state = STACK_ASKED;
	}
	return state == STACK_TAKEN;
}

void boot_show_stack(struct buf *out, int host_tid)
{
	if (!ask(host_tid)) {
		buf_puts(out, "    (no answer)\n");
		return;
	}
	for (int i = STACK_OWN_FRAMES; i < asked.count; i++) {
		buf_puts(out, "    ");
		boot_show_address(out, asked.frames[i]);
		buf_putc(out, '\n');
	}
	atomic_store(&asked.state, STACK_IDLE);
}
