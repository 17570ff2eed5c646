/*
 * sentry/boot/confine.c - namespaces, capabilities, seccomp of the sentry.
 *
 * The command line started us in new pid, mount, ipc, uts, cgroup and (usually) network namespaces. Here the root becomes an empty
 * read-only tmpfs, capabilities go, the uid becomes nobody's, and a user namespace of our own takes away what is left.
 *
 * Seccomp: one table below. What is not in it kills the sentry (SIGSYS, logged with the call's number): a host call that nobody foresaw is
 * a bug or an attack. There is no open, no path-taking *at call, no socket but of the internet families and of two netlink
 * protocols, no execve, no process creation, and no PROT_EXEC mapping. clone3 answers ENOSYS because its flags lie in memory where a filter cannot see them: libc then uses
 * clone, which is allowed with a thread's flags only.
 */
#include <linux/netlink.h>
#include <linux/sockios.h>
#include <malloc.h>
#include <netinet/in.h>
#include <sched.h>
#include <seccomp.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <linux/capability.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <termios.h>
#include <unistd.h>

#include "base/log.h"
#include "platform/kvm/confine.h"
#include "platform/systrap/layout.h"
#include "sentry/boot/confine.h"

static int fail(char *why, size_t why_size, const char *what)
{
	int err = -errno;

	snprintf(why, why_size, "confinement: %s: %s", what, strerror(-err));
	return err;
}

static int empty_root(char *why, size_t why_size)
{
	/* Any directory that surely exists can be covered: nothing below it is used any more. */
	if (mount(NULL, "/", NULL, MS_REC | MS_PRIVATE, NULL) < 0)
		return fail(why, why_size, "making mounts private");
	if (mount("moat", "/proc", "tmpfs", MS_NOSUID | MS_NODEV | MS_NOEXEC,
		  "size=4k,nr_inodes=2,mode=555") < 0)
		return fail(why, why_size, "mounting the empty root");
	if (chdir("/proc") < 0 || syscall(SYS_pivot_root, ".", ".") < 0)
		return fail(why, why_size, "pivot_root");
	if (umount2(".", MNT_DETACH) < 0 || chdir("/") < 0)
		return fail(why, why_size, "leaving the old root");
	if (mount(NULL, "/", NULL,
		  MS_REMOUNT | MS_BIND | MS_RDONLY | MS_NOSUID | MS_NODEV | MS_NOEXEC, NULL) < 0)
		return fail(why, why_size, "making the empty root read-only");
	return 0;
}

static int drop_bounding_set(char *why, size_t why_size)
{
	for (int cap = 0; cap <= 63; cap++)
		if (prctl(PR_CAPBSET_DROP, cap, 0, 0, 0) < 0 && errno == EPERM)
			return fail(why, why_size, "dropping the capability bounding set");
	return 0;
}

/* All but `keep`, which has capabilities below 32 only. */
static int drop_capabilities(uint64_t keep, char *why, size_t why_size)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {{0}};

	data[0].permitted = data[0].effective = (uint32_t)keep;
	if (syscall(SYS_capset, &header, data) < 0)
		return fail(why, why_size, "dropping capabilities");
	return 0;
}

/* Which of `want` are ours to keep. */
static uint64_t capabilities_held(uint64_t want)
{
	struct __user_cap_header_struct header = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {{0}};

	return syscall(SYS_capget, &header, data) < 0 ? 0 : want & data[0].permitted;
}

static int become(unsigned id)
{
	return setresgid(id, id, id) < 0 || setresuid(id, id, id) < 0 ? -errno : 0;
}

/*
 * Whoever may change ids becomes nobody. In a container's user namespace that id may have no mapping: then root there, which is no
 * root of the host's, or (mapped to an unprivileged user, who is here already) the same as before.
 */
static int become_nobody(char *why, size_t why_size)
{
	int err;

	if (!capabilities_held(1ull << CAP_SETUID)) {
		if (geteuid() != 0)
			return 0;
		/* Never as root: the uid alone opens much of the host. */
		errno = EPERM;
		return fail(why, why_size,
			    "becoming nobody (root without CAP_SETUID: give moat that, or the "
			    "container a user namespace)");
	}
	err = drop_bounding_set(why, why_size);
	if (err)
		return err;
	/* EPERM: denied for good with an unprivileged user's mappings. */
	if (syscall(SYS_setgroups, 0, NULL) < 0 && errno != EPERM)
		return fail(why, why_size, "dropping groups");
	err = become(CONFINE_UID);
	if (err == -EINVAL)
		err = become(0);
	errno = -err;
	return err ? fail(why, why_size, "becoming nobody") : 0;
}

int sentry_confine_namespaces(uint64_t keep_caps, char *why, size_t why_size)
{
	struct rlimit nofile;
	int err;

	keep_caps = capabilities_held(keep_caps & UINT32_MAX);
	if (keep_caps && prctl(PR_SET_KEEPCAPS, 1, 0, 0, 0) < 0)
		return fail(why, why_size, "keeping the container's network capabilities");
	if (getrlimit(RLIMIT_NOFILE, &nofile) == 0) {
		nofile.rlim_cur = nofile.rlim_max;
		setrlimit(RLIMIT_NOFILE, &nofile);
	}
	err = empty_root(why, why_size);
	if (err)
		return err;
	err = become_nobody(why, why_size);
	if (err)
		return err;
	/*
	 * Unmapped ids: nothing outside belongs to us. A new user namespace begins with every capability in it, and they
	 * go next. A host that forbids it is still covered by the rest. A capability over the network namespace is worth
	 * something only in the user namespace that owns that: who keeps one stays.
	 */
	err = 0;
	if (keep_caps)
		;
	else if (unshare(CLONE_NEWUSER) == 0)
		err = drop_bounding_set(why, why_size);
	else
		log_warn("no user namespace for the sentry: %s", strerror(errno));
	if (err)
		return err;
	err = drop_capabilities(keep_caps, why, why_size);
	if (err)
		return err;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0)
		return fail(why, why_size, "no_new_privs");
	/* Changing ids cleared it. */
	if (prctl(PR_SET_PDEATHSIG, SIGKILL, 0, 0, 0) < 0)
		return fail(why, why_size, "parent-death signal");
	return 0;
}

#define ANY 0
#define ALLOW(name)                  \
	{                            \
		SCMP_SYS(name), ANY, \
		{                    \
			{            \
				0    \
			}            \
		}                    \
	}

struct rule {
	int nr;
	unsigned nargs;
	struct scmp_arg_cmp args[3];
};

/* A thread's flags, and those that may be there besides. */
#define THREAD_FLAGS \
	(CLONE_VM | CLONE_FS | CLONE_FILES | CLONE_SIGHAND | CLONE_THREAD | CLONE_SYSVSEM)
#define THREAD_TELLS \
	(uint64_t)(CLONE_SETTLS | CLONE_PARENT_SETTID | CLONE_CHILD_CLEARTID | CLONE_CHILD_SETTID)

static const struct rule rules[] = {
	/* Files that the gofer donated, the container's stdio, memory files. Positional: donated descriptors share no offset. */
	ALLOW(read),
	ALLOW(write),
	ALLOW(readv),
	ALLOW(writev),
	ALLOW(pread64),
	ALLOW(pwrite64),
	ALLOW(preadv),
	ALLOW(pwritev),
	ALLOW(preadv2),
	ALLOW(pwritev2),
	/* Which pages of copy-on-write and shared memory are there. */
	ALLOW(mincore),
	ALLOW(lseek),
	ALLOW(fstat),
	ALLOW(fsync),
	ALLOW(fdatasync),
	ALLOW(ftruncate),
	ALLOW(fallocate),
	ALLOW(fstatfs),
	ALLOW(copy_file_range),
	ALLOW(sync_file_range),
	ALLOW(fadvise64),
	ALLOW(close),
	/* fstat() of newer libcs: only with AT_EMPTY_PATH, and the root is empty anyway. */
	{SCMP_SYS(newfstatat), 1, {{3, SCMP_CMP_MASKED_EQ, 0x1000, 0x1000}}},
	{SCMP_SYS(fcntl), 1, {{1, SCMP_CMP_EQ, 1 /* F_GETFD */, 0}}},
	{SCMP_SYS(fcntl), 1, {{1, SCMP_CMP_EQ, 2 /* F_SETFD */, 0}}},
	{SCMP_SYS(fcntl), 1, {{1, SCMP_CMP_EQ, 3 /* F_GETFL */, 0}}},
	{SCMP_SYS(fcntl), 1, {{1, SCMP_CMP_EQ, 4 /* F_SETFL */, 0}}},
	{SCMP_SYS(fcntl), 1, {{1, SCMP_CMP_EQ, 1030 /* F_DUPFD_CLOEXEC */, 0}}},
	{SCMP_SYS(fcntl), 1, {{1, SCMP_CMP_EQ, 1032 /* F_GETPIPE_SZ */, 0}}},
	/* The version table of a virtio-fs daemon that was started again: can it shrink? */
	{SCMP_SYS(fcntl), 1, {{1, SCMP_CMP_EQ, 1034 /* F_GET_SEALS */, 0}}},
	/* What a virtio-fs daemon of a further container shares with us (mem/shared.c): made, and its size fixed. */
	{SCMP_SYS(memfd_create), 1, {{1, SCMP_CMP_EQ, MFD_CLOEXEC | MFD_ALLOW_SEALING, 0}}},
	{SCMP_SYS(fcntl), 1, {{1, SCMP_CMP_EQ, 1033 /* F_ADD_SEALS */, 0}}},
	/* Memory: never executable. */
	{SCMP_SYS(mmap), 1, {{2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0}}},
	{SCMP_SYS(mprotect), 1, {{2, SCMP_CMP_MASKED_EQ, PROT_EXEC, 0}}},
	ALLOW(munmap),
	ALLOW(mremap),
	ALLOW(madvise),
	ALLOW(brk),
	/* Threads of our own and what they wait on. */
	{SCMP_SYS(clone), 1, {{0, SCMP_CMP_MASKED_EQ, ~THREAD_TELLS, THREAD_FLAGS}}},
	ALLOW(futex),
	ALLOW(set_robust_list),
	ALLOW(rseq),
	ALLOW(exit),
	ALLOW(exit_group),
	ALLOW(gettid),
	ALLOW(getpid),
	ALLOW(sched_yield),
	ALLOW(sched_getaffinity),
	ALLOW(sched_setaffinity),
	ALLOW(getcpu),
	ALLOW(membarrier),
	ALLOW(nanosleep),
	ALLOW(clock_nanosleep),
	ALLOW(restart_syscall),
	ALLOW(set_tid_address),
	{SCMP_SYS(prctl), 1, {{0, SCMP_CMP_EQ, PR_SET_NAME, 0}}},
	{SCMP_SYS(prctl), 1, {{0, SCMP_CMP_EQ, PR_SET_TIMERSLACK, 0}}},
	/* Signals: kicks between our threads, SIGBUS and SIGSEGV fix-ups. tgkill cannot leave the pid namespace: we are alone in it. */
	ALLOW(rt_sigaction),
	ALLOW(rt_sigprocmask),
	ALLOW(rt_sigreturn),
	ALLOW(sigaltstack),
	ALLOW(tgkill),
	/* What only the kernel can tell a stub's thread (platform/systrap/recycle.c). */
	{SCMP_SYS(rt_tgsigqueueinfo), 1, {{2, SCMP_CMP_EQ, STUB_RESET_SIGNAL, 0}}},
	ALLOW(rt_sigpending),
	ALLOW(rt_sigtimedwait),
	/* Clocks and randomness; libc's qsort asks how much memory there is. */
	ALLOW(sysinfo),
	ALLOW(clock_gettime),
	ALLOW(clock_getres),
	ALLOW(gettimeofday),
	ALLOW(getrandom),
	ALLOW(getrusage),
	/* Readiness, the gofer's socket, the control socket. */
	ALLOW(poll),
	ALLOW(ppoll),
	ALLOW(epoll_wait),
	ALLOW(epoll_pwait),
	ALLOW(epoll_ctl),
	ALLOW(eventfd2),
	ALLOW(recvmsg),
	ALLOW(sendmsg),
	ALLOW(recvfrom),
	ALLOW(sendto),
	ALLOW(shutdown),
	/* The back channel to that daemon and what its queues are kicked by: two ends of nothing else, one of which it is given. */
	{SCMP_SYS(socketpair),
	 3,
	 {{0, SCMP_CMP_EQ, AF_UNIX, 0},
	  {1, SCMP_CMP_EQ, SOCK_STREAM | SOCK_CLOEXEC, 0},
	  {2, SCMP_CMP_EQ, 0, 0}}},
	{SCMP_SYS(accept4), 1, {{3, SCMP_CMP_EQ, 02000000, 0}}},
/*
 * The container's network is the host's stack: sockets by family, type and protocol (docs/network.md). No AF_UNIX (the
 * sentry's own) and no AF_PACKET, nothing of netlink but routes and sock_diag: netfilter, generic netlink and audit are other
 * attack surface. SOCK_RAW is refused by the host unless the container has CAP_NET_RAW.
 */
#define HOST_SOCKET(domain, type, cmp, protocol)                                             \
	{                                                                                    \
		SCMP_SYS(socket), 3,                                                         \
		{                                                                            \
			{0, SCMP_CMP_EQ, domain, 0}, {1, SCMP_CMP_EQ, (type) | 02004000, 0}, \
			{                                                                    \
				2, cmp, protocol, 0                                          \
			}                                                                    \
		}                                                                            \
	}
	HOST_SOCKET(AF_INET, SOCK_STREAM, SCMP_CMP_LE, IPPROTO_TCP),
	HOST_SOCKET(AF_INET, SOCK_DGRAM, SCMP_CMP_LE, IPPROTO_UDPLITE),
	HOST_SOCKET(AF_INET, SOCK_RAW, SCMP_CMP_LE, IPPROTO_RAW),
	HOST_SOCKET(AF_INET6, SOCK_STREAM, SCMP_CMP_LE, IPPROTO_TCP),
	HOST_SOCKET(AF_INET6, SOCK_DGRAM, SCMP_CMP_LE, IPPROTO_UDPLITE),
	HOST_SOCKET(AF_INET6, SOCK_RAW, SCMP_CMP_LE, IPPROTO_RAW),
	HOST_SOCKET(AF_NETLINK, SOCK_RAW, SCMP_CMP_EQ, NETLINK_ROUTE),
	HOST_SOCKET(AF_NETLINK, SOCK_RAW, SCMP_CMP_EQ, NETLINK_SOCK_DIAG),
	/* On those; the control socket and the gofer's are bound or connected already, and there is no AF_UNIX to be had. */
	ALLOW(bind),
	ALLOW(connect),
	ALLOW(listen),
	ALLOW(getsockname),
	ALLOW(getpeername),
	{SCMP_SYS(accept4), 1, {{3, SCMP_CMP_EQ, 02004000, 0}}},
/* Options by level. Of IP's and IPv6's not those of netfilter (64 and up, 64 and 65) and of multicast routing (200 and up). */
#define OPT_LEVEL(call, level)                           \
	{                                                \
		SCMP_SYS(call), 1,                       \
		{                                        \
			{                                \
				1, SCMP_CMP_EQ, level, 0 \
			}                                \
		}                                        \
	}
#define OPT_NAMES(call, level, cmp, name)                              \
	{                                                              \
		SCMP_SYS(call), 2,                                     \
		{                                                      \
			{1, SCMP_CMP_EQ, level, 0}, {2, cmp, name, 0}, \
		}                                                      \
	}
	OPT_LEVEL(setsockopt, SOL_SOCKET),
	OPT_LEVEL(getsockopt, SOL_SOCKET),
	OPT_LEVEL(setsockopt, IPPROTO_TCP),
	OPT_LEVEL(getsockopt, IPPROTO_TCP),
	OPT_LEVEL(setsockopt, IPPROTO_UDP),
	OPT_LEVEL(getsockopt, IPPROTO_UDP),
	OPT_LEVEL(setsockopt, IPPROTO_UDPLITE),
	OPT_LEVEL(getsockopt, IPPROTO_UDPLITE),
	OPT_LEVEL(setsockopt, IPPROTO_RAW),
	OPT_LEVEL(getsockopt, IPPROTO_RAW),
	OPT_LEVEL(setsockopt, IPPROTO_ICMPV6),
	OPT_LEVEL(getsockopt, IPPROTO_ICMPV6),
	OPT_LEVEL(setsockopt, SOL_NETLINK),
	OPT_LEVEL(getsockopt, SOL_NETLINK),
	OPT_NAMES(setsockopt, IPPROTO_IP, SCMP_CMP_LT, 64),
	OPT_NAMES(getsockopt, IPPROTO_IP, SCMP_CMP_LT, 64),
	OPT_NAMES(setsockopt, IPPROTO_IPV6, SCMP_CMP_LT, 64),
	OPT_NAMES(getsockopt, IPPROTO_IPV6, SCMP_CMP_LT, 64),
	OPT_NAMES(setsockopt, IPPROTO_IPV6, SCMP_CMP_EQ, 66),
	OPT_NAMES(setsockopt, IPPROTO_IPV6, SCMP_CMP_EQ, 67),
	OPT_NAMES(setsockopt, IPPROTO_IPV6, SCMP_CMP_EQ, 70),
	OPT_NAMES(setsockopt, IPPROTO_IPV6, SCMP_CMP_EQ, 72),
	OPT_NAMES(setsockopt, IPPROTO_IPV6, SCMP_CMP_EQ, 73),
	OPT_NAMES(setsockopt, IPPROTO_IPV6, SCMP_CMP_EQ, 74),
	OPT_NAMES(setsockopt, IPPROTO_IPV6, SCMP_CMP_EQ, 75),
	OPT_NAMES(setsockopt, IPPROTO_IPV6, SCMP_CMP_EQ, 76),
	OPT_NAMES(setsockopt, IPPROTO_IPV6, SCMP_CMP_EQ, 77),
	OPT_NAMES(setsockopt, IPPROTO_IPV6, SCMP_CMP_EQ, 78),
	OPT_NAMES(getsockopt, IPPROTO_IPV6, SCMP_CMP_EQ, 66),
	OPT_NAMES(getsockopt, IPPROTO_IPV6, SCMP_CMP_EQ, 67),
	OPT_NAMES(getsockopt, IPPROTO_IPV6, SCMP_CMP_EQ, 70),
	OPT_NAMES(getsockopt, IPPROTO_IPV6, SCMP_CMP_EQ, 72),
	OPT_NAMES(getsockopt, IPPROTO_IPV6, SCMP_CMP_EQ, 73),
	OPT_NAMES(getsockopt, IPPROTO_IPV6, SCMP_CMP_EQ, 74),
	OPT_NAMES(getsockopt, IPPROTO_IPV6, SCMP_CMP_EQ, 75),
	OPT_NAMES(getsockopt, IPPROTO_IPV6, SCMP_CMP_EQ, 76),
	OPT_NAMES(getsockopt, IPPROTO_IPV6, SCMP_CMP_EQ, 77),
	OPT_NAMES(getsockopt, IPPROTO_IPV6, SCMP_CMP_EQ, 78),
/* By command; KVM's are kvm_confined_ioctls. */
#define IOCTL(cmd)                                     \
	{                                              \
		SCMP_SYS(ioctl), 1,                    \
		{                                      \
			{                              \
				1, SCMP_CMP_EQ, cmd, 0 \
			}                              \
		}                                      \
	}
	/* The container's terminal when it is the host's own. */
	IOCTL(TCGETS),
	IOCTL(TCSETS),
	IOCTL(TCSETSW),
	IOCTL(TCSETSF),
	IOCTL(TIOCGWINSZ),
	IOCTL(TIOCSWINSZ),
	IOCTL(FIONREAD),
	IOCTL(TIOCOUTQ),
	IOCTL(TCSBRK),
	IOCTL(TCXONC),
	IOCTL(TCFLSH),
	IOCTL(TIOCGPGRP),
	IOCTL(FIONBIO),
	/* Sockets: queues (FIONREAD and TIOCOUTQ above are SIOCINQ and SIOCOUTQ) and the urgent mark. */
	IOCTL(SIOCOUTQNSD),
	IOCTL(SIOCATMARK),
	/* netdevice(7), fsimpl/socket/netdev.c: what there is; changes need the container's CAP_NET_ADMIN. */
	IOCTL(SIOCGIFCONF),
	IOCTL(SIOCGIFNAME),
	IOCTL(SIOCGIFFLAGS),
	IOCTL(SIOCGIFADDR),
	IOCTL(SIOCGIFDSTADDR),
	IOCTL(SIOCGIFBRDADDR),
	IOCTL(SIOCGIFNETMASK),
	IOCTL(SIOCGIFMETRIC),
	IOCTL(SIOCGIFMTU),
	IOCTL(SIOCGIFHWADDR),
	IOCTL(SIOCGIFINDEX),
	IOCTL(SIOCGIFTXQLEN),
	IOCTL(SIOCGIFMAP),
	IOCTL(SIOCGIFPFLAGS),
	IOCTL(SIOCGARP),
	IOCTL(SIOCSIFFLAGS),
	IOCTL(SIOCSIFADDR),
	IOCTL(SIOCSIFDSTADDR),
	IOCTL(SIOCSIFBRDADDR),
	IOCTL(SIOCSIFNETMASK),
	IOCTL(SIOCSIFMTU),
	IOCTL(SIOCSIFHWADDR),
	IOCTL(SIOCSIFTXQLEN),
	IOCTL(SIOCSIFNAME),
#ifdef CONFINE_SANITIZER
	/* What the sanitizers' runtimes do besides (reports, shadow memory, symbolizing gives up). */
	ALLOW(open),
	ALLOW(openat),
	ALLOW(readlink),
	ALLOW(stat),
	ALLOW(access),
	ALLOW(getppid),
	ALLOW(prlimit64),
	ALLOW(arch_prctl),
	ALLOW(kill),
	ALLOW(dup),
	ALLOW(dup2),
	ALLOW(pipe2),
	ALLOW(uname),
	ALLOW(getuid),
	ALLOW(geteuid),
#endif
};

static void on_sigsys(int signo, siginfo_t *info, void *context)
{
	char line[160];
	int n = snprintf(line, sizeof(line),
			 "host call %d is not in the sentry's allow-list (from %p)\n",
			 info->si_syscall, info->si_call_addr);

	(void)signo;
	(void)context;
	log_error("%.*s", n - 1, line);
	(void)!write(STDERR_FILENO, line, (size_t)n);
	log_dump_recorder(STDERR_FILENO);
	_exit(140);
}

int sentry_confine_seccomp(char *why, size_t why_size)
{
	struct sigaction sa = {.sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO};
	scmp_filter_ctx ctx = seccomp_init(SCMP_ACT_TRAP);
	int err = ctx ? 0 : -ENOMEM;

	if (sigaction(SIGSYS, &sa, NULL) < 0)
		err = -errno;
	if (!err)
		err = seccomp_attr_set(ctx, SCMP_FLTATR_CTL_TSYNC, 1);
	/* The most frequent calls are looked at first. */
	if (!err)
		err = seccomp_syscall_priority(ctx, SCMP_SYS(ioctl), 255);
	if (!err)
		err = seccomp_syscall_priority(ctx, SCMP_SYS(futex), 254);
	for (size_t i = 0; !err && i < ARRAY_SIZE(rules); i++)
		err = seccomp_rule_add_array(ctx, SCMP_ACT_ALLOW, rules[i].nr, rules[i].nargs,
					     rules[i].args);
	for (size_t i = 0; !err && i < ARRAY_SIZE(kvm_confined_ioctls); i++)
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(ioctl), 1,
				       SCMP_CMP(1, SCMP_CMP_EQ, kvm_confined_ioctls[i]));
	if (!err)
		err = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOSYS), SCMP_SYS(clone3), 0);
#ifndef CONFINE_SANITIZER
	/*
	 * malloc asks /proc/sys/vm/overcommit_memory when it first shrinks a thread's heap (check_may_shrink_heap()), and takes
	 * any error for "no".
	 */
	if (!err)
		err = seccomp_rule_add(ctx, SCMP_ACT_ERRNO(ENOENT), SCMP_SYS(openat), 0);
#endif
	if (!err)
		err = seccomp_load(ctx);
	if (ctx)
		seccomp_release(ctx);
	/* Making it took more memory than the sandbox may need for the rest of its life. */
	malloc_trim(0);
	if (err)
		snprintf(why, why_size, "confinement: seccomp filter: %s", strerror(-err));
	return err;
}
