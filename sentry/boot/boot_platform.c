/*
 * sentry/boot/boot_platform.c - how fast a platform is on this machine: what --platform=auto compares.
 *
 * A process of its own makes the platform, runs a few system calls and faults of a two-instruction program, and answers through
 * a pipe. So nothing of it stays behind, and a platform that hangs or dies on this machine is one that lost.
 */
#include <fcntl.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/log.h"
#include "base/rcu.h"
#include "base/sleep.h"
#include "mem/guard.h"
#include "mem/memfile.h"
#include "platform/platform.h"
#include "sentry/boot/boot.h"
#include "sentry/boot/internal.h"

#define MEASURE_MEMORY (64ul << 20)
#define MEASURE_SYSCALLS 64
#define MEASURE_FAULTS 8
#define MEASURE_BUDGET_NS 3000000ll
#define MEASURE_DEAD_MS 500
#define CODE_VA 0x400000ul
#define DATA_VA 0x20000000ul

struct measure_answer {
	int err;
	struct platform_speed speed;
};

static const char *const names[] = {"kvm", "systrap"};

const char *boot_platform_name(unsigned i)
{
	unsigned seen = 0;

	for (size_t k = 0; k < ARRAY_SIZE(names); k++)
		if (boot_platform(names[k]) && seen++ == i)
			return names[k];
	return NULL;
}

static const char *chosen_why;

void boot_platform_note(const struct boot_spec *spec)
{
	chosen_why = spec->platform_why && spec->platform_why[0] ? spec->platform_why : NULL;
	log_info("boot: platform %s: %s", spec->platform,
		 chosen_why ? chosen_why : "no reason given");
}

const char *boot_platform_why(void)
{
	return chosen_why;
}

struct measure {
	const struct platform_ops *ops;
	struct platform *p;
	struct address_space *as;
	struct platform_context *ctx;
	struct arch_regs regs;
	uint64_t off; /* of a page with the code and MEASURE_FAULTS + 1 pages of data behind it */
};

static int run_to(struct measure *m, enum platform_event_kind want)
{
	struct platform_event ev;
	int err;

	/* An interruption without a reason is legal. */
	for (int i = 0; i < 8; i++) {
		err = m->ops->context_switch(m->ctx, m->as, &m->regs, &ev);
		if (err || ev.kind == want)
			return err;
		if (ev.kind == PLATFORM_FAULT && ev.addr - CODE_VA < MOAT_PAGE_SIZE)
			err = m->ops->as_map(m->as, CODE_VA, MOAT_PAGE_SIZE, mem_private(), m->off,
					     MEM_READ | MEM_EXEC, 0);
		else if (ev.kind != PLATFORM_INTERRUPTED)
			return -EPROTO;
		if (err)
			return err;
	}
	return -EPROTO;
}

/* The shortest of what was seen: the machine's own noise only adds. */
static int measure_syscalls(struct measure *m, int64_t until, int64_t *ret_ns)
{
	int64_t best = INT64_MAX;

	for (int i = 0; i < MEASURE_SYSCALLS && (i < 4 || time_monotonic_ns() < until); i++) {
		int64_t begin = time_monotonic_ns();
		int err = run_to(m, PLATFORM_SYSCALL);

		if (err)
			return err;
		best = MIN(best, time_monotonic_ns() - begin);
		m->regs.r.rax = 39;
	}
	*ret_ns = best;
	return 0;
}

static int measure_faults(struct measure *m, int64_t until, int64_t *ret_ns)
{
	int64_t best = INT64_MAX;

	m->regs.r.rip = CODE_VA + 4;
	for (int i = 0; i < MEASURE_FAULTS && (i < 2 || time_monotonic_ns() < until); i++) {
		uint64_t page = (uint64_t)i * MOAT_PAGE_SIZE;
		int64_t begin = time_monotonic_ns();
		int err;

		m->regs.r.rbx = DATA_VA + page;
		err = run_to(m, PLATFORM_FAULT);
		if (!err)
			err = m->ops->as_map(m->as, DATA_VA + page, MOAT_PAGE_SIZE, mem_private(),
					     m->off + MOAT_PAGE_SIZE + page, MEM_READ | MEM_WRITE,
					     0);
		/* The store, then the call behind it. */
		if (!err)
			err = run_to(m, PLATFORM_SYSCALL);
		if (err)
			return err;
		best = MIN(best, time_monotonic_ns() - begin);
		m->regs.r.rip = CODE_VA + 4;
	}
	*ret_ns = best;
	return 0;
}

static int measure_setup(struct measure *m, char *why, size_t why_size)
{
	static const uint8_t code[] = {
		0x0f, 0x05, /* 0: syscall */
		0xeb, 0xfc, /* 2: jmp 0 */
		0x88, 0x03, /* 4: mov %al, (%rbx) */
		0x0f, 0x05, /* 6: syscall */
	};
	int err = mem_init(MEASURE_MEMORY);

	if (!err)
		err = guard_install();
	if (!err)
		err = m->ops->probe(why, why_size);
	if (!err)
		err = m->ops->create(&m->p);
	if (err)
		return err;
	rcu_thread_begin();
	err = memfile_alloc(mem_private(), (MEASURE_FAULTS + 2) * MOAT_PAGE_SIZE, 0, 0, &m->off);
	if (err)
		return err;
	memcpy(memfile_ptr(mem_private(), m->off), code, sizeof(code));
	err = m->ops->as_create(m->p, &m->as);
	if (!err)
		err = m->ops->context_create(m->p, NULL, &m->ctx);
	if (!err)
		err = m->ops->as_map(m->as, CODE_VA, MOAT_PAGE_SIZE, mem_private(), m->off,
				     MEM_READ | MEM_EXEC, 0);
	m->regs.r = (struct user_regs_struct){.rip = CODE_VA,
					      .rax = 39,
					      .cs = ARCH_USER_CS,
					      .ss = ARCH_USER_SS,
					      .eflags = ARCH_EFLAGS_FIXED};
	return err;
}

static int measure_all(const struct platform_ops *ops, struct platform_speed *ret)
{
	struct measure m = {.ops = ops};
	char why[256];
	int err = measure_setup(&m, why, sizeof(why));
	int64_t begin = time_monotonic_ns();

	if (!err)
		err = measure_syscalls(&m, begin + MEASURE_BUDGET_NS / 2, &ret->syscall_ns);
	if (!err)
		err = measure_faults(&m, begin + MEASURE_BUDGET_NS, &ret->fault_ns);
	return err;
}

static void measure_child(const struct platform_ops *ops, int fd, pid_t parent)
{
	struct measure_answer a = {0};

	prctl(PR_SET_PDEATHSIG, SIGKILL);
	if (getppid() != parent)
		_exit(1);
	a.err = measure_all(ops, &a.speed);
	_exit(write(fd, &a, sizeof(a)) != sizeof(a));
}

int boot_platform_measure(const char *name, struct platform_speed *ret)
{
	const struct platform_ops *ops = boot_platform(name);
	struct measure_answer a = {.err = -EPROTO};
	pid_t pid, parent = getpid();
	struct pollfd pfd;
	int p[2];

	if (!ops)
		return -EINVAL;
	if (pipe2(p, O_CLOEXEC))
		return -errno;
	pid = fork();
	if (pid == 0)
		measure_child(ops, p[1], parent);
	close(p[1]);
	if (pid < 0) {
		close(p[0]);
		return -EAGAIN;
	}
	pfd = (struct pollfd){.fd = p[0], .events = POLLIN};
	if (poll(&pfd, 1, MEASURE_DEAD_MS) != 1)
		a.err = -ETIMEDOUT;
	else if (read(p[0], &a, sizeof(a)) != sizeof(a))
		a.err = -EPROTO;
	close(p[0]);
	/* It has answered, or will never: what it made goes with it. */
	kill(pid, SIGKILL);
	while (waitpid(pid, NULL, 0) < 0 && errno == EINTR)
		;
	if (!a.err)
		*ret = a.speed;
	return a.err;
}
