/* syscalls/strace_names.c - flag and enumeration names, as tables. */
#include <fcntl.h>
#include <sched.h>
#include <stdio.h>
#include <sys/mman.h>
#include <sys/mount.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <string.h>
#include <unistd.h>

#include "syscalls/strace.h"
#include "syscalls/table.h"

/* clang-format off */
struct name {
	uint64_t value;
	const char *name;
};
#define N(x) { (uint64_t)(x), #x }

static const struct name open_flags[] = {
	N(O_CREAT), N(O_EXCL), N(O_NOCTTY), N(O_TRUNC), N(O_APPEND), N(O_NONBLOCK), N(O_SYNC), N(O_DSYNC), N(O_ASYNC),
	N(O_DIRECT), { 0100000, "O_LARGEFILE" }, N(O_TMPFILE), N(O_DIRECTORY), N(O_NOFOLLOW), N(O_NOATIME), N(O_CLOEXEC), N(O_PATH),
};
static const struct name at_flags[] = {
	{ 0x100, "AT_SYMLINK_NOFOLLOW" }, { 0x200, "AT_REMOVEDIR" }, { 0x400, "AT_SYMLINK_FOLLOW" },
	{ 0x800, "AT_NO_AUTOMOUNT" }, { 0x1000, "AT_EMPTY_PATH" }, { 0x2000, "AT_STATX_FORCE_SYNC" },
	{ 0x4000, "AT_STATX_DONT_SYNC" },
};
static const struct name access_modes[] = { N(R_OK), N(W_OK), N(X_OK) };
static const struct name whences[] = { N(SEEK_SET), N(SEEK_CUR), N(SEEK_END), N(SEEK_DATA), N(SEEK_HOLE) };
static const struct name fcntl_cmds[] = {
	N(F_DUPFD), N(F_GETFD), N(F_SETFD), N(F_GETFL), N(F_SETFL), N(F_GETLK), N(F_SETLK), N(F_SETLKW),
	N(F_SETOWN), N(F_GETOWN), N(F_SETSIG), N(F_GETSIG), N(F_SETOWN_EX), N(F_GETOWN_EX), N(F_OFD_GETLK),
	N(F_OFD_SETLK), N(F_OFD_SETLKW), N(F_SETLEASE), N(F_GETLEASE), N(F_NOTIFY), N(F_DUPFD_CLOEXEC),
	{ 1027, "F_DUPFD_QUERY" }, { 1028, "F_CREATED_QUERY" }, N(F_SETPIPE_SZ), N(F_GETPIPE_SZ), N(F_ADD_SEALS), N(F_GET_SEALS),
};
static const struct name flock_ops[] = {
	{ 1, "LOCK_SH" }, { 2, "LOCK_EX" }, { 4, "LOCK_NB" }, { 8, "LOCK_UN" },
};
static const struct name rename_flags[] = {
	{ 1, "RENAME_NOREPLACE" }, { 2, "RENAME_EXCHANGE" }, { 4, "RENAME_WHITEOUT" },
};
static const struct name rwf_flags[] = {
	{ 1, "RWF_HIPRI" }, { 2, "RWF_DSYNC" }, { 4, "RWF_SYNC" }, { 8, "RWF_NOWAIT" }, { 16, "RWF_APPEND" }, { 32, "RWF_NOAPPEND" }, { 256, "RWF_NOSIGNAL" },
};
static const struct name mount_flags[] = {
	N(MS_RDONLY), N(MS_NOSUID), N(MS_NODEV), N(MS_NOEXEC), N(MS_SYNCHRONOUS), N(MS_REMOUNT), N(MS_NOATIME),
	N(MS_NODIRATIME), N(MS_BIND), N(MS_MOVE), N(MS_REC), N(MS_SILENT), N(MS_UNBINDABLE), N(MS_PRIVATE),
	N(MS_SLAVE), N(MS_SHARED), N(MS_RELATIME), N(MS_STRICTATIME), N(MS_LAZYTIME),
};
static const struct name prots[] = {
	N(PROT_READ), N(PROT_WRITE), N(PROT_EXEC), N(PROT_GROWSDOWN), N(PROT_GROWSUP),
};
static const struct name map_flags[] = {
	N(MAP_SHARED), N(MAP_PRIVATE), N(MAP_FIXED), N(MAP_ANONYMOUS), N(MAP_32BIT), N(MAP_GROWSDOWN), N(MAP_DENYWRITE),
	N(MAP_EXECUTABLE), N(MAP_LOCKED), N(MAP_NORESERVE), N(MAP_POPULATE), N(MAP_NONBLOCK), N(MAP_STACK),
	N(MAP_HUGETLB), N(MAP_FIXED_NOREPLACE),
};
static const struct name mremap_flags[] = {
	{ 1, "MREMAP_MAYMOVE" }, { 2, "MREMAP_FIXED" }, { 4, "MREMAP_DONTUNMAP" },
};
static const struct name msync_flags[] = { N(MS_ASYNC), N(MS_INVALIDATE), N(MS_SYNC) };
static const struct name advices[] = {
	N(MADV_NORMAL), N(MADV_RANDOM), N(MADV_SEQUENTIAL), N(MADV_WILLNEED), N(MADV_DONTNEED), N(MADV_FREE),
	N(MADV_REMOVE), N(MADV_DONTFORK), N(MADV_DOFORK), N(MADV_MERGEABLE), N(MADV_UNMERGEABLE), N(MADV_HUGEPAGE),
	N(MADV_NOHUGEPAGE), N(MADV_DONTDUMP), N(MADV_DODUMP), N(MADV_WIPEONFORK), N(MADV_KEEPONFORK), N(MADV_COLD),
	N(MADV_PAGEOUT), N(MADV_POPULATE_READ), N(MADV_POPULATE_WRITE), { 24, "MADV_DONTNEED_LOCKED" },
	{ 25, "MADV_COLLAPSE" },
};
static const struct name sig_hows[] = { { 0, "SIG_BLOCK" }, { 1, "SIG_UNBLOCK" }, { 2, "SIG_SETMASK" } };
static const struct name clockids[] = {
	{ 0, "CLOCK_REALTIME" }, { 1, "CLOCK_MONOTONIC" }, { 2, "CLOCK_PROCESS_CPUTIME_ID" },
	{ 3, "CLOCK_THREAD_CPUTIME_ID" }, { 4, "CLOCK_MONOTONIC_RAW" }, { 5, "CLOCK_REALTIME_COARSE" },
	{ 6, "CLOCK_MONOTONIC_COARSE" }, { 7, "CLOCK_BOOTTIME" }, { 8, "CLOCK_REALTIME_ALARM" },
	{ 9, "CLOCK_BOOTTIME_ALARM" }, { 11, "CLOCK_TAI" },
};
static const struct name epoll_ops[] = { { 1, "EPOLL_CTL_ADD" }, { 2, "EPOLL_CTL_DEL" }, { 3, "EPOLL_CTL_MOD" } };
static const struct name domains[] = {
	N(AF_UNSPEC), N(AF_UNIX), N(AF_INET), N(AF_INET6), N(AF_NETLINK), N(AF_PACKET), N(AF_ALG), N(AF_VSOCK),
};
static const struct name sock_types[] = {
	{ 1, "SOCK_STREAM" }, { 2, "SOCK_DGRAM" }, { 3, "SOCK_RAW" }, { 4, "SOCK_RDM" }, { 5, "SOCK_SEQPACKET" },
};
static const struct name sock_flags[] = { { 02000000, "SOCK_CLOEXEC" }, { 04000, "SOCK_NONBLOCK" } };
static const struct name sock_levels[] = {
	N(SOL_SOCKET), { 0, "SOL_IP" }, { 6, "SOL_TCP" }, { 17, "SOL_UDP" }, { 41, "SOL_IPV6" },
};
static const struct name sock_opts[] = {
	N(SO_DEBUG), N(SO_REUSEADDR), N(SO_TYPE), N(SO_ERROR), N(SO_DONTROUTE), N(SO_BROADCAST), N(SO_SNDBUF),
	N(SO_RCVBUF), N(SO_KEEPALIVE), N(SO_OOBINLINE), N(SO_LINGER), N(SO_REUSEPORT), N(SO_PASSCRED),
	N(SO_PEERCRED), N(SO_RCVLOWAT), N(SO_SNDLOWAT), N(SO_RCVTIMEO), N(SO_SNDTIMEO), N(SO_ACCEPTCONN),
	N(SO_PROTOCOL), N(SO_DOMAIN), N(SO_TIMESTAMP), N(SO_PEERSEC), N(SO_PASSSEC), N(SO_PEERGROUPS),
};
static const struct name msg_flags[] = {
	N(MSG_OOB), N(MSG_PEEK), N(MSG_DONTROUTE), N(MSG_CTRUNC), N(MSG_TRUNC), N(MSG_DONTWAIT), N(MSG_EOR),
	N(MSG_WAITALL), N(MSG_NOSIGNAL), N(MSG_MORE), { 0x10000, "MSG_WAITFORONE" }, N(MSG_CMSG_CLOEXEC),
};
static const struct name clone_flags[] = {
	N(CLONE_VM), N(CLONE_FS), N(CLONE_FILES), N(CLONE_SIGHAND), N(CLONE_PIDFD), N(CLONE_PTRACE), N(CLONE_VFORK),
	N(CLONE_PARENT), N(CLONE_THREAD), N(CLONE_NEWNS), N(CLONE_SYSVSEM), N(CLONE_SETTLS), N(CLONE_PARENT_SETTID),
	N(CLONE_CHILD_CLEARTID), N(CLONE_UNTRACED), N(CLONE_CHILD_SETTID), N(CLONE_NEWCGROUP), N(CLONE_NEWUTS),
	N(CLONE_NEWIPC), N(CLONE_NEWUSER), N(CLONE_NEWPID), N(CLONE_NEWNET), N(CLONE_IO),
};
static const struct name wait_options[] = {
	N(WNOHANG), N(WUNTRACED), N(WEXITED), N(WCONTINUED), N(WNOWAIT), { 0x80000000, "__WCLONE" },
	{ 0x40000000, "__WALL" }, { 0x20000000, "__WNOTHREAD" },
};
static const struct name futex_cmds[] = {
	{ 0, "FUTEX_WAIT" }, { 1, "FUTEX_WAKE" }, { 2, "FUTEX_FD" }, { 3, "FUTEX_REQUEUE" }, { 4, "FUTEX_CMP_REQUEUE" },
	{ 5, "FUTEX_WAKE_OP" }, { 6, "FUTEX_LOCK_PI" }, { 7, "FUTEX_UNLOCK_PI" }, { 8, "FUTEX_TRYLOCK_PI" },
	{ 9, "FUTEX_WAIT_BITSET" }, { 10, "FUTEX_WAKE_BITSET" }, { 11, "FUTEX_WAIT_REQUEUE_PI" },
	{ 12, "FUTEX_CMP_REQUEUE_PI" }, { 13, "FUTEX_LOCK_PI2" },
};
static const struct name futex_opts[] = { { 128, "FUTEX_PRIVATE_FLAG" }, { 256, "FUTEX_CLOCK_REALTIME" } };
static const struct name resources[] = {
	N(RLIMIT_CPU), N(RLIMIT_FSIZE), N(RLIMIT_DATA), N(RLIMIT_STACK), N(RLIMIT_CORE), N(RLIMIT_RSS), N(RLIMIT_NPROC),
	N(RLIMIT_NOFILE), N(RLIMIT_MEMLOCK), N(RLIMIT_AS), N(RLIMIT_LOCKS), N(RLIMIT_SIGPENDING), N(RLIMIT_MSGQUEUE),
	N(RLIMIT_NICE), N(RLIMIT_RTPRIO), N(RLIMIT_RTTIME),
};
static const struct name prctls[] = {
	{ 1, "PR_SET_PDEATHSIG" }, { 2, "PR_GET_PDEATHSIG" }, { 3, "PR_GET_DUMPABLE" }, { 4, "PR_SET_DUMPABLE" },
	{ 7, "PR_GET_KEEPCAPS" }, { 8, "PR_SET_KEEPCAPS" }, { 15, "PR_SET_NAME" }, { 16, "PR_GET_NAME" },
	{ 21, "PR_GET_SECCOMP" }, { 22, "PR_SET_SECCOMP" }, { 23, "PR_CAPBSET_READ" }, { 24, "PR_CAPBSET_DROP" },
	{ 25, "PR_GET_TSC" }, { 26, "PR_SET_TSC" }, { 27, "PR_GET_SECUREBITS" }, { 28, "PR_SET_SECUREBITS" },
	{ 29, "PR_SET_TIMERSLACK" }, { 30, "PR_GET_TIMERSLACK" }, { 35, "PR_SET_MM" }, { 36, "PR_SET_CHILD_SUBREAPER" },
	{ 37, "PR_GET_CHILD_SUBREAPER" }, { 38, "PR_SET_NO_NEW_PRIVS" }, { 39, "PR_GET_NO_NEW_PRIVS" },
	{ 40, "PR_GET_TID_ADDRESS" }, { 41, "PR_SET_THP_DISABLE" }, { 47, "PR_CAP_AMBIENT" },
	{ 0x53564d41, "PR_SET_VMA" }, { 0x59616d61, "PR_SET_PTRACER" },
};
static const struct name arch_prctls[] = {
	{ 0x1001, "ARCH_SET_GS" }, { 0x1002, "ARCH_SET_FS" }, { 0x1003, "ARCH_GET_FS" }, { 0x1004, "ARCH_GET_GS" },
	{ 0x1011, "ARCH_GET_CPUID" }, { 0x1012, "ARCH_SET_CPUID" }, { 0x3001, "ARCH_CET_STATUS" },
	{ 0x5001, "ARCH_SHSTK_ENABLE" },
};
static const struct name ptrace_reqs[] = {
	{ 0, "PTRACE_TRACEME" }, { 1, "PTRACE_PEEKTEXT" }, { 2, "PTRACE_PEEKDATA" }, { 3, "PTRACE_PEEKUSER" },
	{ 4, "PTRACE_POKETEXT" }, { 5, "PTRACE_POKEDATA" }, { 6, "PTRACE_POKEUSER" }, { 7, "PTRACE_CONT" },
	{ 8, "PTRACE_KILL" }, { 9, "PTRACE_SINGLESTEP" }, { 12, "PTRACE_GETREGS" }, { 13, "PTRACE_SETREGS" },
	{ 16, "PTRACE_ATTACH" }, { 17, "PTRACE_DETACH" }, { 24, "PTRACE_SYSCALL" }, { 0x4200, "PTRACE_SETOPTIONS" },
	{ 0x4201, "PTRACE_GETEVENTMSG" }, { 0x4202, "PTRACE_GETSIGINFO" }, { 0x4203, "PTRACE_SETSIGINFO" },
	{ 0x4204, "PTRACE_GETREGSET" }, { 0x4205, "PTRACE_SETREGSET" }, { 0x4206, "PTRACE_SEIZE" },
	{ 0x4207, "PTRACE_INTERRUPT" }, { 0x4208, "PTRACE_LISTEN" }, { 0x420e, "PTRACE_GET_SYSCALL_INFO" },
};
static const struct name ioctls[] = {
	{ 0x5401, "TCGETS" }, { 0x5402, "TCSETS" }, { 0x5403, "TCSETSW" }, { 0x5404, "TCSETSF" }, { 0x5409, "TCSBRK" },
	{ 0x540a, "TCXONC" }, { 0x540b, "TCFLSH" }, { 0x540e, "TIOCSCTTY" }, { 0x540f, "TIOCGPGRP" },
	{ 0x5410, "TIOCSPGRP" }, { 0x5411, "TIOCOUTQ" }, { 0x5413, "TIOCGWINSZ" }, { 0x5414, "TIOCSWINSZ" },
	{ 0x541b, "FIONREAD" }, { 0x5421, "FIONBIO" }, { 0x5422, "TIOCNOTTY" }, { 0x5429, "TIOCGSID" },
	{ 0x5450, "FIONCLEX" }, { 0x5451, "FIOCLEX" }, { 0x5452, "FIOASYNC" }, { 0x80045430, "TIOCGPTN" },
	{ 0x40045431, "TIOCSPTLCK" }, { 0x5441, "TIOCGPTPEER" }, { 0x80086601, "FS_IOC_GETFLAGS" },
	{ 0x40049409, "FICLONE" },
};

/* One kind's table: `bits` of flags, or values to find whole (in the bits of `mask`). */
struct name_table {
	const struct name *names;
	unsigned count;
	bool flags;
};
#define FLAGS(t) { t, ARRAY_SIZE(t), true }
#define VALUES(t) { t, ARRAY_SIZE(t), false }

static const struct name_table tables[] = {
	[SC_OPEN_FLAGS] = FLAGS(open_flags), [SC_AT_FLAGS] = FLAGS(at_flags), [SC_ACCESS] = FLAGS(access_modes),
	[SC_WHENCE] = VALUES(whences), [SC_FCNTL_CMD] = VALUES(fcntl_cmds), [SC_FLOCK_OP] = FLAGS(flock_ops),
	[SC_RENAME_FLAGS] = FLAGS(rename_flags), [SC_RWF_FLAGS] = FLAGS(rwf_flags), [SC_MOUNT_FLAGS] = FLAGS(mount_flags),
	[SC_PROT] = FLAGS(prots), [SC_MAP_FLAGS] = FLAGS(map_flags), [SC_MREMAP_FLAGS] = FLAGS(mremap_flags),
	[SC_MSYNC_FLAGS] = FLAGS(msync_flags), [SC_MADVICE] = VALUES(advices), [SC_SIG_HOW] = VALUES(sig_hows),
	[SC_CLOCKID] = VALUES(clockids), [SC_EPOLL_OP] = VALUES(epoll_ops), [SC_SOCK_DOMAIN] = VALUES(domains),
	[SC_SOCK_TYPE] = VALUES(sock_types), [SC_SOCK_FLAGS] = FLAGS(sock_flags), [SC_SOCK_LEVEL] = VALUES(sock_levels),
	[SC_SOCK_OPT] = VALUES(sock_opts), [SC_MSG_FLAGS] = FLAGS(msg_flags), [SC_CLONE_FLAGS] = FLAGS(clone_flags),
	[SC_WAIT_OPTIONS] = FLAGS(wait_options), [SC_FUTEX_OP] = VALUES(futex_cmds), [SC_RESOURCE] = VALUES(resources),
	[SC_PRCTL_OP] = VALUES(prctls), [SC_ARCH_PRCTL_OP] = VALUES(arch_prctls), [SC_PTRACE_REQ] = VALUES(ptrace_reqs),
	[SC_IOCTL] = VALUES(ioctls),
};

/* clang-format on */

static void put_flags(struct strace_text *x, const struct name *names, unsigned count, uint64_t v,
		      bool first)
{
	for (unsigned i = 0; i < count; i++)
		if (names[i].value && (v & names[i].value) == names[i].value) {
			strace_printf(x, "%s%s", first ? "" : "|", names[i].name);
			v &= ~names[i].value;
			first = false;
		}
	if (v || first)
		strace_printf(x, first && !v ? "0" : "%s0x%llx", first ? "" : "|",
			      (unsigned long long)v);
}

static void put_value(struct strace_text *x, const struct name *names, unsigned count, uint64_t v)
{
	for (unsigned i = 0; i < count; i++)
		if (names[i].value == v) {
			strace_printf(x, "%s", names[i].name);
			return;
		}
	strace_printf(x, v < 4096 ? "%llu" : "0x%llx", (unsigned long long)v);
}

void strace_flags(struct strace_text *x, unsigned kind, uint64_t value)
{
	static const char *const modes[] = {"O_RDONLY", "O_WRONLY", "O_RDWR", "O_ACCMODE"};
	uint32_t v = (uint32_t)value;

	switch (kind) {
	case SC_OPEN_FLAGS:
		strace_printf(x, "%s", modes[v & 3]);
		if (v & ~3u)
			put_flags(x, open_flags, ARRAY_SIZE(open_flags), v & ~3u, false);
		return;
	case SC_SOCK_TYPE:
		put_value(x, sock_types, ARRAY_SIZE(sock_types), v & 0xf);
		if (v & ~0xfu)
			put_flags(x, sock_flags, ARRAY_SIZE(sock_flags), v & ~0xfu, false);
		return;
	case SC_FUTEX_OP:
		put_value(x, futex_cmds, ARRAY_SIZE(futex_cmds), v & 0x7f);
		if (v & ~0x7fu)
			put_flags(x, futex_opts, ARRAY_SIZE(futex_opts), v & ~0x7fu, false);
		return;
	case SC_CLONE_FLAGS:
		put_flags(x, clone_flags, ARRAY_SIZE(clone_flags), value & ~0xffull, true);
		if (value & 0xff)
			strace_printf(x, "|%s", strace_signal(value & 0xff) ?: "?");
		return;
	default:
		if (tables[kind].flags)
			put_flags(x, tables[kind].names, tables[kind].count, v, true);
		else
			put_value(x, tables[kind].names, tables[kind].count, v);
	}
}

const char *strace_errno(int err)
{
	switch (err) {
	case ERESTARTSYS_:
		return "ERESTARTSYS";
	case ERESTARTNOINTR_:
		return "ERESTARTNOINTR";
	case ERESTARTNOHAND_:
		return "ERESTARTNOHAND";
	case ERESTART_RESTARTBLOCK_:
		return "ERESTART_RESTARTBLOCK";
	default:
		return strerrorname_np(err);
	}
}

const char *strace_signal(uint64_t signo)
{
	static const char *const names[] = {
		NULL,	    "SIGHUP",  "SIGINT",    "SIGQUIT", "SIGILL",  "SIGTRAP",   "SIGABRT",
		"SIGBUS",   "SIGFPE",  "SIGKILL",   "SIGUSR1", "SIGSEGV", "SIGUSR2",   "SIGPIPE",
		"SIGALRM",  "SIGTERM", "SIGSTKFLT", "SIGCHLD", "SIGCONT", "SIGSTOP",   "SIGTSTP",
		"SIGTTIN",  "SIGTTOU", "SIGURG",    "SIGXCPU", "SIGXFSZ", "SIGVTALRM", "SIGPROF",
		"SIGWINCH", "SIGIO",   "SIGPWR",    "SIGSYS",
	};

	return signo < ARRAY_SIZE(names) ? names[signo] : NULL;
}
