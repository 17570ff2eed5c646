/* syscalls/strace_data.c - guest structures as text. Memory that cannot be read prints as its address. */
#include <arpa/inet.h>
#include <linux/openat2.h>
#include <netinet/in.h>
#include <poll.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/statfs.h>
#include <sys/un.h>

#include "abi/stat.h"
#include "syscalls/strace.h"
#include "syscalls/table.h"
#include "syscalls/util.h"

static void put_addr(struct strace_text *x, uint64_t addr)
{
	if (addr)
		strace_printf(x, "%#llx", (unsigned long long)addr);
	else
		strace_printf(x, "NULL");
}

static void put_bytes(struct strace_text *x, const char *data, size_t len, bool more)
{
	strace_printf(x, "\"");
	for (size_t i = 0; i < len; i++) {
		unsigned char c = (unsigned char)data[i];

		if (c == '\n')
			strace_printf(x, "\\n");
		else if (c == '\t')
			strace_printf(x, "\\t");
		else if (c == '\r')
			strace_printf(x, "\\r");
		else if (c == '"' || c == '\\')
			strace_printf(x, "\\%c", c);
		else if (c >= 0x20 && c < 0x7f)
			strace_printf(x, "%c", c);
		else
			strace_printf(x, "\\%o", c);
	}
	strace_printf(x, more ? "\"..." : "\"");
}

static void put_string(struct strace_text *x, struct task *t, uint64_t addr, size_t max)
{
	char s[257];
	size_t got, len;

	max = MIN(max, sizeof(s) - 1);
	got = addr ? mm_copy_in_partial(t->mm, s, addr, max + 1) : 0;
	if (!got) {
		put_addr(x, addr);
		return;
	}
	len = strnlen(s, MIN(got, max));
	put_bytes(x, s, len, len == max);
}

static void put_buffer(struct strace_text *x, struct task *t, uint64_t addr, uint64_t size)
{
	char s[STRACE_STR_MAX];
	size_t got = addr && size ? mm_copy_in_partial(t->mm, s, addr, MIN(size, sizeof(s))) : 0;

	if (!got && size)
		put_addr(x, addr);
	else
		put_bytes(x, s, got, got < size);
}

/* argv: the first strings; envp: only how many. */
static void put_strings(struct strace_text *x, struct task *t, uint64_t addr, bool show)
{
	uint64_t p;
	unsigned n = 0;

	if (!addr || mm_copy_in(t->mm, &p, addr, sizeof(p))) {
		put_addr(x, addr);
		return;
	}
	if (show)
		strace_printf(x, "[");
	for (; !mm_copy_in(t->mm, &p, addr + n * 8, sizeof(p)) && p && n < 4096; n++) {
		if (show && n < STRACE_LIST_MAX) {
			if (n)
				strace_printf(x, ", ");
			put_string(x, t, p, STRACE_STR_MAX);
		}
	}
	if (show)
		strace_printf(x, n > STRACE_LIST_MAX ? ", ...]" : "]");
	else
		strace_printf(x, "%#llx /* %u vars */", (unsigned long long)addr, n);
}

/* left: bytes moved; UINT64_MAX at entry: all of them. */
static void put_iovec(struct strace_text *x, struct task *t, uint64_t addr, uint64_t count,
		      uint64_t left)
{
	struct iovec iov[STRACE_LIST_MAX];
	unsigned n = (unsigned)MIN(count, (uint64_t)ARRAY_SIZE(iov));

	if (!addr || mm_copy_in(t->mm, iov, addr, n * sizeof(iov[0]))) {
		put_addr(x, addr);
		return;
	}
	strace_printf(x, "[");
	for (unsigned i = 0; i < n; i++) {
		uint64_t len = MIN((uint64_t)iov[i].iov_len, left);

		strace_printf(x, "%s{", i ? ", " : "");
		put_buffer(x, t, (uint64_t)iov[i].iov_base, len);
		strace_printf(x, ", %zu}", iov[i].iov_len);
		if (left != UINT64_MAX)
			left -= len;
	}
	strace_printf(x, count > n ? ", ...]" : "]");
}

static void put_times(struct strace_text *x, struct task *t, uint64_t addr, unsigned pairs,
		      bool usec)
{
	int64_t v[4];

	if (!addr || mm_copy_in(t->mm, v, addr, pairs * 16ul)) {
		put_addr(x, addr);
		return;
	}
	for (unsigned i = 0; i < pairs; i++)
		strace_printf(x, usec ? "%s{%lld.%06lld}" : "%s{%lld.%09lld}", i ? ", " : "",
			      (long long)v[2 * i], (long long)v[2 * i + 1]);
}

static void put_stat(struct strace_text *x, struct task *t, uint64_t addr)
{
	struct moat_stat st;

	if (!addr || mm_copy_in(t->mm, &st, addr, sizeof(st)))
		put_addr(x, addr);
	else
		strace_printf(x, "{st_mode=0%o, st_size=%lld, st_ino=%llu}", st.mode,
			      (long long)st.size, (unsigned long long)st.ino);
}

static void put_statx(struct strace_text *x, struct task *t, uint64_t addr)
{
	struct moat_statx st;

	if (!addr || mm_copy_in(t->mm, &st, addr, sizeof(st)))
		put_addr(x, addr);
	else
		strace_printf(x, "{stx_mask=%#x, stx_mode=0%o, stx_size=%llu}", st.mask, st.mode,
			      (unsigned long long)st.size);
}

static void put_statfs(struct strace_text *x, struct task *t, uint64_t addr)
{
	struct statfs st;

	if (!addr || mm_copy_in(t->mm, &st, addr, sizeof(st)))
		put_addr(x, addr);
	else
		strace_printf(x, "{f_type=%#lx, f_bfree=%lu}", (unsigned long)st.f_type,
			      (unsigned long)st.f_bfree);
}

static void put_sockaddr(struct strace_text *x, struct task *t, uint64_t addr, uint64_t len)
{
	union {
		struct sockaddr sa;
		struct sockaddr_un un;
		struct sockaddr_in in;
		struct sockaddr_in6 in6;
	} u = {0};
	char ip[INET6_ADDRSTRLEN];

	len = MIN(len, (uint64_t)sizeof(u.un));
	if (!addr || len < 2 || mm_copy_in(t->mm, &u, addr, len)) {
		put_addr(x, addr);
		return;
	}
	switch (u.sa.sa_family) {
	case AF_UNIX:
		strace_printf(x, "{AF_UNIX, ");
		if (len > 2 && !u.un.sun_path[0]) {
			strace_printf(x, "@");
			put_bytes(x, u.un.sun_path + 1, len - 3, false);
		} else {
			put_bytes(x, u.un.sun_path, strnlen(u.un.sun_path, len - 2), false);
		}
		strace_printf(x, "}");
		break;
	case AF_INET:
		strace_printf(x, "{AF_INET, %s:%u}",
			      inet_ntop(AF_INET, &u.in.sin_addr, ip, sizeof(ip)),
			      ntohs(u.in.sin_port));
		break;
	case AF_INET6:
		strace_printf(x, "{AF_INET6, [%s]:%u}",
			      inet_ntop(AF_INET6, &u.in6.sin6_addr, ip, sizeof(ip)),
			      ntohs(u.in6.sin6_port));
		break;
	default:
		strace_printf(x, "{family %u}", u.sa.sa_family);
	}
}

static void put_sockaddr_out(struct strace_text *x, struct task *t, uint64_t addr, uint64_t ulen)
{
	int len = 0;

	if (!addr || mm_copy_in(t->mm, &len, ulen, sizeof(len)) || len < 0)
		put_addr(x, addr);
	else
		put_sockaddr(x, t, addr, (uint64_t)len);
}

static void put_msghdr(struct strace_text *x, struct task *t, uint64_t addr, int64_t ret, bool out)
{
	uint64_t h[7];

	if (!addr || mm_copy_in(t->mm, h, addr, sizeof(h))) {
		put_addr(x, addr);
		return;
	}
	strace_printf(x, "{");
	if (h[0])
		put_sockaddr(x, t, h[0], (uint32_t)h[1]);
	strace_printf(x, "%siov=", h[0] ? ", " : "");
	put_iovec(x, t, h[2], h[3], out ? (uint64_t)MAX(ret, (int64_t)0) : UINT64_MAX);
	strace_printf(x, ", controllen=%llu}", (unsigned long long)h[5]);
}

static void put_pollfds(struct strace_text *x, struct task *t, uint64_t addr, uint64_t count)
{
	struct pollfd p[STRACE_LIST_MAX];
	unsigned n = (unsigned)MIN(count, (uint64_t)ARRAY_SIZE(p));

	if (!addr || mm_copy_in(t->mm, p, addr, n * sizeof(p[0]))) {
		put_addr(x, addr);
		return;
	}
	strace_printf(x, "[");
	for (unsigned i = 0; i < n; i++)
		strace_printf(x, "%s{%d, %#x, %#x}", i ? ", " : "", p[i].fd,
			      (unsigned short)p[i].events, (unsigned short)p[i].revents);
	strace_printf(x, count > n ? ", ...]" : "]");
}

static void put_epoll_events(struct strace_text *x, struct task *t, uint64_t addr, int64_t count)
{
	struct {
		uint32_t events;
		uint64_t data;
	} __attribute__((packed)) e[STRACE_LIST_MAX];
	unsigned n = (unsigned)MIN(MAX(count, (int64_t)0), (int64_t)ARRAY_SIZE(e));

	if (!addr || mm_copy_in(t->mm, e, addr, n * sizeof(e[0]))) {
		put_addr(x, addr);
		return;
	}
	strace_printf(x, "[");
	for (unsigned i = 0; i < n; i++)
		strace_printf(x, "%s{%#x, %#llx}", i ? ", " : "", e[i].events,
			      (unsigned long long)e[i].data);
	strace_printf(x, "]");
}

static void put_sigset(struct strace_text *x, struct task *t, uint64_t addr)
{
	uint64_t set;
	bool first = true;

	if (!addr || mm_copy_in(t->mm, &set, addr, sizeof(set))) {
		put_addr(x, addr);
		return;
	}
	if (__builtin_popcountll(set) > 20) {
		strace_printf(x, "~[");
		set = ~set;
	} else {
		strace_printf(x, "[");
	}
	for (unsigned s = 1; s <= 64; s++)
		if (set & sigbit(s)) {
			const char *name = strace_signal(s);

			if (name)
				strace_printf(x, "%s%s", first ? "" : " ", name + 3);
			else
				strace_printf(x, "%sRT_%u", first ? "" : " ", s - 32);
			first = false;
		}
	strace_printf(x, "]");
}

static void put_sigaction(struct strace_text *x, struct task *t, uint64_t addr)
{
	struct moat_sigaction sa;

	if (!addr || mm_copy_in(t->mm, &sa, addr, sizeof(sa)))
		put_addr(x, addr);
	else if (sa.handler < 2)
		strace_printf(x, "{%s, flags=%#llx}", sa.handler ? "SIG_IGN" : "SIG_DFL",
			      (unsigned long long)sa.flags);
	else
		strace_printf(x, "{%#llx, flags=%#llx}", (unsigned long long)sa.handler,
			      (unsigned long long)sa.flags);
}

static void put_wstatus(struct strace_text *x, struct task *t, uint64_t addr)
{
	int st;

	if (!addr || mm_copy_in(t->mm, &st, addr, sizeof(st)))
		put_addr(x, addr);
	else if ((st & 0x7f) == 0)
		strace_printf(x, "[exit %d]", st >> 8 & 0xff);
	else if ((st & 0xff) == 0x7f)
		strace_printf(x, "[stopped %d]", st >> 8 & 0xff);
	else
		strace_printf(x, "[signal %s]", strace_signal((unsigned)st & 0x7f) ?: "?");
}

static void put_rlimit(struct strace_text *x, struct task *t, uint64_t addr)
{
	uint64_t v[2];

	if (!addr || mm_copy_in(t->mm, v, addr, sizeof(v)))
		put_addr(x, addr);
	else
		strace_printf(x, "{%lld, %lld}", (long long)v[0], (long long)v[1]);
}

static void put_open_how(struct strace_text *x, struct task *t, uint64_t addr)
{
	struct open_how how;

	if (!addr || mm_copy_in(t->mm, &how, addr, sizeof(how))) {
		put_addr(x, addr);
		return;
	}
	strace_printf(x, "{");
	strace_flags(x, SC_OPEN_FLAGS, how.flags);
	strace_printf(x, ", 0%llo, resolve=%#llx}", (unsigned long long)how.mode,
		      (unsigned long long)how.resolve);
}

static void put_fdpair(struct strace_text *x, struct task *t, uint64_t addr)
{
	int fd[2];

	if (!addr || mm_copy_in(t->mm, fd, addr, sizeof(fd)))
		put_addr(x, addr);
	else
		strace_printf(x, "[%d, %d]", fd[0], fd[1]);
}

void strace_data(struct strace_text *x, struct task *t, unsigned kind, uint64_t addr,
		 uint64_t count, int64_t ret)
{
	uint64_t moved = ret > 0 ? (uint64_t)ret : 0;

	/* clang-format off */
	switch (kind) {
	case SC_PATH: put_string(x, t, addr, 256); break;
	case SC_STR: put_string(x, t, addr, STRACE_STR_MAX); break;
	case SC_STR_OUT: put_string(x, t, ret > 0 ? addr : 0, 256); break;
	case SC_BUF_IN: put_buffer(x, t, addr, count); break;
	case SC_BUF_OUT: put_buffer(x, t, addr, MIN(moved, count)); break;
	case SC_ARGV: put_strings(x, t, addr, true); break;
	case SC_ENVP: put_strings(x, t, addr, false); break;
	case SC_IOVEC_IN: put_iovec(x, t, addr, count, UINT64_MAX); break;
	case SC_IOVEC_OUT: put_iovec(x, t, addr, count, moved); break;
	case SC_FDPAIR_OUT: put_fdpair(x, t, addr); break;
	case SC_OPEN_HOW_IN: put_open_how(x, t, addr); break;
	case SC_STAT_OUT: put_stat(x, t, addr); break;
	case SC_STATX_OUT: put_statx(x, t, addr); break;
	case SC_STATFS_OUT: put_statfs(x, t, addr); break;
	case SC_SIGSET_IN:
	case SC_SIGSET_OUT: put_sigset(x, t, addr); break;
	case SC_SIGACTION_IN:
	case SC_SIGACTION_OUT: put_sigaction(x, t, addr); break;
	case SC_TIMESPEC_IN:
	case SC_TIMESPEC_OUT: put_times(x, t, addr, 1, false); break;
	case SC_TIMESPEC2_IN:
	case SC_ITIMERSPEC_IN:
	case SC_ITIMERSPEC_OUT: put_times(x, t, addr, 2, false); break;
	case SC_TIMEVAL_IN:
	case SC_TIMEVAL_OUT: put_times(x, t, addr, 1, true); break;
	case SC_ITIMERVAL_IN:
	case SC_ITIMERVAL_OUT: put_times(x, t, addr, 2, true); break;
	case SC_POLLFDS: put_pollfds(x, t, addr, count); break;
	case SC_EPOLL_EVENT_IN: put_epoll_events(x, t, addr, 1); break;
	case SC_EPOLL_EVENTS_OUT: put_epoll_events(x, t, addr, ret); break;
	case SC_SOCKADDR_IN: put_sockaddr(x, t, addr, (uint32_t)count); break;
	case SC_SOCKADDR_OUT: put_sockaddr_out(x, t, addr, count); break;
	case SC_MSGHDR_IN: put_msghdr(x, t, addr, 0, false); break;
	case SC_MSGHDR_OUT: put_msghdr(x, t, addr, ret, true); break;
	case SC_WSTATUS_OUT: put_wstatus(x, t, ret > 0 ? addr : 0); break;
	case SC_RLIMIT_IN:
	case SC_RLIMIT_OUT: put_rlimit(x, t, addr); break;
	default: put_addr(x, addr);
	}
	/* clang-format on */
}
