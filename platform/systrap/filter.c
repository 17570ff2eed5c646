/*
 * platform/systrap/filter.c - the two seccomp filters of stubs.
 *
 * The stub's filter is on every process and thread: calls from the stub's code only, and of those that it makes.
 * The application's filter is on every thread that runs the application, besides: futex() on the areas, at the two
 * places where the handler makes it; at a third, what lets a new thread's signals in; and nothing else (no
 * sched_yield(): a guest that yields without end starves the machine on some kernels). Whatever is refused raises
 * SIGSYS, whose handler publishes it: that is how system calls arrive. Neither filter kills, because a thread of the
 * application may jump anywhere and what it does then is a system call of its own as well.
 */
#include <linux/audit.h>
#include <linux/futex.h>
#include <linux/seccomp.h>
#include <signal.h>
#include <stddef.h>
#include <string.h>
#include <sys/syscall.h>

#include "platform/systrap/systrap.h"

struct program {
	struct sock_filter *insns;
	unsigned short len;
};

static void emit(struct program *pr, uint16_t code, uint32_t k, uint8_t jt, uint8_t jf)
{
	assert(pr->len < STUB_FILTER_MAX);
	pr->insns[pr->len++] = (struct sock_filter){code, jt, jf, k};
}

static void load(struct program *pr, size_t offset)
{
	emit(pr, BPF_LD | BPF_W | BPF_ABS, (uint32_t)offset, 0, 0);
}

static void ret(struct program *pr, uint32_t action)
{
	emit(pr, BPF_RET | BPF_K, action, 0, 0);
}

/* Equal: go on; else trap. */
static void must_equal(struct program *pr, uint32_t val)
{
	emit(pr, BPF_JMP | BPF_JEQ | BPF_K, val, 1, 0);
	ret(pr, SECCOMP_RET_TRAP);
}

#define IP offsetof(struct seccomp_data, instruction_pointer)
#define ARG(n) (offsetof(struct seccomp_data, args) + 8u * (n))
#define HIGH(v) ((uint32_t)((uint64_t)(v) >> 32))
#define LOW(v) ((uint32_t)(v))

/* Addresses of the stub's code: all have one upper half. */
static void from_stub(struct program *pr)
{
	load(pr, offsetof(struct seccomp_data, arch));
	must_equal(pr, AUDIT_ARCH_X86_64);
	load(pr, IP + 4);
	must_equal(pr, HIGH(STUB_CODE));
}

static void build_app_filter(struct program *pr, const char *blob)
{
	const char *const sites[] = {stub_ip_wake, stub_ip_wait};
	unsigned short mask;

	from_stub(pr);
	load(pr, IP);
	mask = pr->len;
	emit(pr, BPF_JMP | BPF_JEQ | BPF_K, LOW(STUB_CODE + (uint64_t)(stub_ip_mask - blob)), 0, 0);
	for (size_t i = 0; i < ARRAY_SIZE(sites); i++)
		emit(pr, BPF_JMP | BPF_JEQ | BPF_K, LOW(STUB_CODE + (uint64_t)(sites[i] - blob)),
		     (uint8_t)(ARRAY_SIZE(sites) - i), 0);
	ret(pr, SECCOMP_RET_TRAP);
	load(pr, offsetof(struct seccomp_data, nr));
	must_equal(pr, SYS_futex);
	load(pr, ARG(0) + 4);
	must_equal(pr, HIGH(STUB_AREAS));
	load(pr, ARG(0));
	emit(pr, BPF_JMP | BPF_JGE | BPF_K, LOW(STUB_AREAS), 1, 0);
	ret(pr, SECCOMP_RET_TRAP);
	emit(pr, BPF_JMP | BPF_JGE | BPF_K,
	     LOW(STUB_AREAS + (uint64_t)STUB_AREAS_MAX * STUB_AREA_SIZE), 0, 1);
	ret(pr, SECCOMP_RET_TRAP);
	load(pr, ARG(1));
	emit(pr, BPF_JMP | BPF_JEQ | BPF_K, FUTEX_WAIT, 2, 0);
	emit(pr, BPF_JMP | BPF_JEQ | BPF_K, FUTEX_WAKE, 1, 0);
	ret(pr, SECCOMP_RET_TRAP);
	ret(pr, SECCOMP_RET_ALLOW);
	/* The one mask that such threads have, from the constants: whoever sets it again changes nothing. */
	pr->insns[mask].jt = (uint8_t)(pr->len - mask - 1);
	load(pr, offsetof(struct seccomp_data, nr));
	must_equal(pr, SYS_rt_sigprocmask);
	load(pr, ARG(0));
	must_equal(pr, SIG_SETMASK);
	load(pr, ARG(1) + 4);
	must_equal(pr, HIGH(STUB_DATA + STUB_DATA_SIGMASK));
	load(pr, ARG(1));
	must_equal(pr, LOW(STUB_DATA + STUB_DATA_SIGMASK));
	load(pr, ARG(2) + 4);
	must_equal(pr, 0);
	load(pr, ARG(2));
	must_equal(pr, 0);
	ret(pr, SECCOMP_RET_ALLOW);
}

static void build_stub_filter(struct program *pr)
{
	/* The first ones are the frequent ones. */
	static const int calls[] = {
		SYS_futex,
		SYS_mmap,
		SYS_munmap,
		SYS_mprotect,
		SYS_write, /* acknowledgements */
		SYS_recvmsg, /* host files' descriptors */
		SYS_close,
		SYS_clone, /* a thread; the pristine process: a stub */
		SYS_exit_group,
		SYS_close_range,
		SYS_sigaltstack,
		SYS_rt_sigprocmask,
		SYS_seccomp,
		/* The pristine process, and a stub's first steps. */
		SYS_read,
		SYS_sendmsg,
		SYS_socketpair,
		SYS_wait4,
		SYS_kill,
		SYS_prctl,
		SYS_getppid,
		SYS_getpid,
		SYS_dup3,
	};

	from_stub(pr);
	load(pr, IP);
	emit(pr, BPF_JMP | BPF_JGE | BPF_K, LOW(STUB_CODE), 1, 0);
	ret(pr, SECCOMP_RET_TRAP);
	emit(pr, BPF_JMP | BPF_JGE | BPF_K, LOW(STUB_CODE + STUB_CODE_SIZE), 0, 1);
	ret(pr, SECCOMP_RET_TRAP);
	load(pr, offsetof(struct seccomp_data, nr));
	for (size_t i = 0; i < ARRAY_SIZE(calls); i++)
		emit(pr, BPF_JMP | BPF_JEQ | BPF_K, (uint32_t)calls[i],
		     (uint8_t)(ARRAY_SIZE(calls) - i), 0);
	ret(pr, SECCOMP_RET_TRAP);
	ret(pr, SECCOMP_RET_ALLOW);
}

void systrap_data_build(struct stub_data *data, const char *blob)
{
	/* All but what the CPU raises, the filter, and the sentry's two. */
	static const uint64_t open = 1ull << (31 - 1) | 1ull << (11 - 1) | 1ull << (7 - 1) |
				     1ull << (8 - 1) | 1ull << (4 - 1) | 1ull << (5 - 1) |
				     1ull << (STUB_KICK_SIGNAL - 1) |
				     1ull << (STUB_RESET_SIGNAL - 1);
	struct program app = {.insns = data->app_insns}, stub = {.insns = data->stub_insns};

	static_assert(sizeof(struct stub_data) <= STUB_BLOB_SIZE - STUB_CODE_SIZE, "constants");
	static_assert(offsetof(struct stub_data, app_filter) == STUB_DATA_APP_FILTER, "stub.S");
	data->sigmask = ~open;
	build_app_filter(&app, blob);
	build_stub_filter(&stub);
	data->app_filter = (struct sock_fprog){
		.len = app.len,
		.filter = (void *)(STUB_DATA + offsetof(struct stub_data, app_insns)),
	};
	data->stub_filter = (struct sock_fprog){
		.len = stub.len,
		.filter = (void *)(STUB_DATA + offsetof(struct stub_data, stub_insns)),
	};
}
