/*
 * platform/systrap/pristine.c - the pristine process: stubs are made by its forking.
 *
 * Compiled without any run-time support (no libc, no thread-local storage, no stack protector, no sanitizer), linked
 * into the stub's section and copied to STUB_CODE. The sentry forks once, before it is confined; the child drops
 * every mapping it inherited and serves two requests on a socket: make a stub, reap one. It reads nothing that an
 * application can write.
 *
 * A stub begins as a copy of it: the code, this stack (which goes first) and nothing else. Stubs are children of this
 * process and die with it, and it dies with the sentry's thread that made it.
 */
#include <asm/unistd_64.h>
#include <sys/mman.h>
#include <linux/prctl.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/socket.h>
#include <sys/uio.h>

#include "platform/systrap/pristine.h"

#define STUB_FN __attribute__((section("systrap_stub"), used, noinline))
#define STUB_INLINE static inline __attribute__((always_inline))

STUB_INLINE long call6(long nr, long a, long b, long c, long d, long e, long f)
{
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;
	long ret;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}

STUB_INLINE long call3(long nr, long a, long b, long c)
{
	return call6(nr, a, b, c, 0, 0, 0);
}

STUB_INLINE _Noreturn void die(int status)
{
	for (;;)
		call3(__NR_exit_group, status, 0, 0);
}

#define CHECK(expr)                                                 \
	do {                                                        \
		if ((unsigned long)(expr) >= (unsigned long)-4095l) \
			die(3);                                     \
	} while (0)

/* The kernel's, not libc's. */
struct kernel_sigaction {
	const void *handler;
	unsigned long flags;
	const void *restorer;
	uint64_t mask;
};

/* A label of the stub's section, wherever this copy of it runs. */
#define LABEL(name)                                              \
	({                                                       \
		const char *at_;                                 \
		__asm__("lea " #name "(%%rip), %0" : "=r"(at_)); \
		at_;                                             \
	})

STUB_INLINE void set_handlers(void)
{
	static const uint64_t signals = 1ull << 31 | 1ull << 11 | 1ull << 7 | 1ull << 8 |
					1ull << 4 | 1ull << 5 | 1ull << STUB_KICK_SIGNAL |
					1ull << STUB_RESET_SIGNAL;
	struct kernel_sigaction sa = {
		.handler = LABEL(stub_handler),
		.flags = 0x4 /* SA_SIGINFO */ | 0x04000000 /* SA_RESTORER */ |
			 0x08000000 /* SA_ONSTACK */ | 0x40000000 /* SA_NODEFER */,
		.restorer = LABEL(stub_restorer),
		.mask = 0,
	};

	for (int signo = 1; signo < 32; signo++)
		if (signals >> signo & 1)
			CHECK(call6(__NR_rt_sigaction, signo, (long)&sa, 0, 8, 0, 0));
}

STUB_INLINE void move_fd(int from, int to)
{
	CHECK(call3(__NR_dup3, from, to, 0x80000 /* O_CLOEXEC */));
}

STUB_INLINE void map_shared(uint64_t va, uint64_t size, int prot, int fd, uint64_t off)
{
	CHECK(call6(__NR_mmap, (long)va, (long)size, prot, MAP_SHARED | MAP_FIXED, fd, (long)off));
}

/* The child of PRISTINE_MAKE. Does not return: this stack goes. */
STUB_INLINE _Noreturn void stub_begin(int socket_fd, uint64_t offset, int parent)
{
	CHECK(call3(__NR_prctl, PR_SET_PDEATHSIG, 9, 0));
	if (call3(__NR_getppid, 0, 0, 0) != parent)
		die(4);
	CHECK(call3(__NR_dup3, socket_fd, STUB_FD_SOCKET, 0x80000));
	/* The control socket, and both ends of the new one. */
	CHECK(call3(__NR_close_range, 0, STUB_FD_CONTROL, 0));
	CHECK(call3(__NR_close_range, STUB_FD_SOCKET + 1, -1, 0));
	map_shared(STUB_ORDERS, STUB_ORDERS_SIZE, PROT_READ, STUB_FD_SHARED, offset);
	map_shared(STUB_HINTS, STUB_HINTS_SIZE, PROT_READ | PROT_WRITE, STUB_FD_SHARED,
		   offset + STUB_ORDERS_SIZE);
	__asm__ volatile("jmp stub_orders");
	__builtin_unreachable();
}

STUB_INLINE void reply(const struct pristine_reply *r, int fd)
{
	struct { /* struct cmsghdr, and its data */
		size_t len;
		int level, type;
		int fd;
		int pad;
	} control;
	struct iovec iov = {(void *)r, sizeof(*r)};
	struct msghdr msg;

	msg.msg_name = NULL;
	msg.msg_namelen = 0;
	msg.msg_iov = &iov;
	msg.msg_iovlen = 1;
	msg.msg_control = NULL;
	msg.msg_controllen = 0;
	msg.msg_flags = 0;
	if (fd >= 0) {
		control.len = CMSG_LEN(sizeof(int));
		control.level = SOL_SOCKET;
		control.type = SCM_RIGHTS;
		control.fd = fd;
		control.pad = 0;
		msg.msg_control = &control;
		msg.msg_controllen = sizeof(control);
	}
	/* The sentry has gone: nothing is left to do. */
	if (call3(__NR_sendmsg, STUB_FD_CONTROL, (long)&msg, MSG_NOSIGNAL) < 0)
		die(0);
}

STUB_INLINE void make(const struct pristine_request *req, int self)
{
	struct pristine_reply r = {PRISTINE_MAKE, req->slot, 0};
	int fds[2] = {-1, -1};
	long pid;

	pid = call6(__NR_socketpair, AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, (long)fds, 0, 0);
	if (pid == 0)
		pid = call6(__NR_clone, 17 /* SIGCHLD */, 0, 0, 0, 0, 0);
	else
		fds[0] = fds[1] = -1;
	if (pid == 0)
		stub_begin(fds[1], req->offset, self);
	r.pid = (int32_t)pid;
	reply(&r, pid > 0 ? fds[0] : -1);
	if (fds[0] >= 0) {
		call3(__NR_close, fds[0], 0, 0);
		call3(__NR_close, fds[1], 0, 0);
	}
}

STUB_INLINE void reap(const struct pristine_request *req)
{
	struct pristine_reply r = {PRISTINE_REAP, req->slot, req->pid};

	call3(__NR_kill, req->pid, 9, 0);
	while (call6(__NR_wait4, req->pid, 0, 0x40000000 /* __WALL */, 0, 0, 0) == -4 /* EINTR */)
		;
	reply(&r, -1);
}

/* At STUB_CODE, on STUB_STACK. */
STUB_FN _Noreturn static void pristine_main(const struct pristine_args *args)
{
	const struct stub_data *data = (const void *)STUB_DATA;
	uint64_t scratch = args->scratch, scratch_size = args->scratch_size, all = ~0ull;
	struct pristine_request req;
	int self;

	/* First out of the way of one another, then where they belong. */
	int control = (int)call3(__NR_fcntl, args->control_fd, 0 /* F_DUPFD */, 64);
	int private_fd = (int)call3(__NR_fcntl, args->private_fd, 0, 64);
	int shared_fd = (int)call3(__NR_fcntl, args->shared_fd, 0, 64);

	CHECK(control);
	CHECK(private_fd);
	CHECK(shared_fd);
	move_fd(control, STUB_FD_CONTROL);
	move_fd(private_fd, STUB_FD_PRIVATE);
	move_fd(shared_fd, STUB_FD_SHARED);
	CHECK(call3(__NR_close_range, 0, STUB_FD_CONTROL - 1, 0));
	CHECK(call3(__NR_close_range, STUB_FD_SHARED + 1, -1, 0));
	CHECK(call3(__NR_munmap, (long)scratch, (long)scratch_size, 0));
	CHECK(call6(__NR_rt_sigprocmask, 2 /* SIG_SETMASK */, (long)&all, 0, 8, 0, 0));
	set_handlers();
	CHECK(call3(__NR_prctl, PR_SET_DUMPABLE, 0, 0));
	CHECK(call6(__NR_prctl, PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0, 0));
	CHECK(call3(__NR_seccomp, SECCOMP_SET_MODE_FILTER, 0, (long)&data->stub_filter));
	self = (int)call3(__NR_getpid, 0, 0, 0);
	for (;;) {
		long n = call3(__NR_read, STUB_FD_CONTROL, (long)&req, sizeof(req));

		if (n == -4)
			continue;
		if (n != sizeof(req))
			die(0);
		if (req.op == PRISTINE_MAKE)
			make(&req, self);
		else
			reap(&req);
	}
}

/* In the sentry's fork, in the scratch mapping: its code and stack are all that stays for now. */
STUB_FN void pristine_boot(const struct pristine_args *args)
{
	uint64_t end = args->scratch + args->scratch_size;
	char *stack = (char *)STUB_STACK + STUB_STACK_SIZE;
	struct pristine_args *copy;
	uint64_t fn;

	CHECK(call3(__NR_prctl, PR_SET_PDEATHSIG, 9, 0));
	if (call3(__NR_getppid, 0, 0, 0) != args->parent)
		die(0);
	CHECK(call3(__NR_munmap, 0, (long)args->scratch, 0));
	CHECK(call3(__NR_munmap, (long)end, (long)(0x7ffffffff000ul - end), 0));
	map_shared(STUB_CODE, STUB_BLOB_SIZE, PROT_READ | PROT_EXEC, args->code_fd, 0);
	CHECK(call6(__NR_mmap, STUB_STACK, STUB_STACK_SIZE, PROT_READ | PROT_WRITE,
		    MAP_PRIVATE | MAP_ANONYMOUS | MAP_FIXED, -1, 0));
	copy = (struct pristine_args *)(stack - 256);
	*copy = *args;
	/* The same function in the copy at STUB_CODE: the scratch mapping begins with the same bytes. */
	__asm__("lea %c1(%%rip), %0" : "=r"(fn) : "i"(pristine_main));
	fn = fn - args->scratch + STUB_CODE;
	stub_call_on((char *)copy - 64, (void (*)(const struct pristine_args *))fn, copy);
}
