/* syscalls/sys_misc.c - the system as a whole: names, memory and load, randomness, the kernel log. */
#include <sched.h>
#include <sys/personality.h>
#include <sys/random.h>
#include <sys/sysinfo.h>

#include "sentry/fs/fs.h"
#include "sentry/version.h"
#include "syscalls/syscalls.h"
#include "syscalls/util.h"

#define UTS_LEN 65
#define CAP_SYS_ADMIN_ 21
#define CAP_SYSLOG_ 34

struct new_utsname {
	char sysname[UTS_LEN], nodename[UTS_LEN], release[UTS_LEN], version[UTS_LEN],
		machine[UTS_LEN], domainname[UTS_LEN];
};

int64_t sys_uname(struct task *t, const struct syscall_args *a)
{
	struct new_utsname u = {
		.sysname = MOAT_SYSNAME,
		.release = MOAT_RELEASE,
		.version = MOAT_VERSION,
		.machine = MOAT_MACHINE,
	};

	if ((t->personality & PER_MASK) == PER_LINUX32)
		strcpy(u.machine, "i686");
	mutex_lock(&t->uts_ns->lock);
	memcpy(u.nodename, t->uts_ns->nodename, sizeof(u.nodename));
	memcpy(u.domainname, t->uts_ns->domainname, sizeof(u.domainname));
	mutex_unlock(&t->uts_ns->lock);
	return task_copy_out(t, a->a[0], &u, sizeof(u));
}

static int64_t set_name(struct task *t, const struct syscall_args *a, char *field)
{
	char name[UTS_LEN] = {0};
	int len = ARG_INT(1);

	if (!cred_has_cap(t->cred, CAP_SYS_ADMIN_))
		return -EPERM;
	if (len < 0 || len > UTS_LEN - 1)
		return -EINVAL;
	if (len && task_copy_in(t, name, a->a[0], (size_t)len))
		return -EFAULT;
	mutex_lock(&t->uts_ns->lock);
	memcpy(field, name, sizeof(name));
	mutex_unlock(&t->uts_ns->lock);
	return 0;
}

int64_t sys_sethostname(struct task *t, const struct syscall_args *a)
{
	return set_name(t, a, t->uts_ns->nodename);
}

int64_t sys_setdomainname(struct task *t, const struct syscall_args *a)
{
	return set_name(t, a, t->uts_ns->domainname);
}

int64_t sys_sysinfo(struct task *t, const struct syscall_args *a)
{
	struct sysinfo si;
	struct mem_stats ms;
	uint64_t total = mm_total_bytes();

	memset(&si, 0, sizeof(si));
	mem_get_stats(&ms);
	si.uptime = (time_monotonic_ns() - kernel.boot_monotonic_ns) / 1000000000;
	for (int i = 0; i < 3; i++)
		si.loads[i] = (unsigned long)(procfs_load_percent() << SI_LOAD_SHIFT) / 100;
	si.totalram = total;
	si.freeram = total - MIN(total, ms.private_bytes);
	si.procs = (unsigned short)MIN(
		atomic_load_explicit(&kernel.task_count, memory_order_relaxed), UINT16_MAX);
	si.mem_unit = 1;
	return task_copy_out(t, a->a[0], &si, sizeof(si));
}

int64_t sys_getrandom(struct task *t, const struct syscall_args *a)
{
	uint64_t size = MIN(a->a[1], (uint64_t)INT32_MAX), done = 0;
	unsigned flags = ARG_UINT(2);
	uint8_t buf[256];

	if (flags & ~(unsigned)(GRND_NONBLOCK | GRND_RANDOM | GRND_INSECURE))
		return -EINVAL;
	if ((flags & (GRND_RANDOM | GRND_INSECURE)) == (GRND_RANDOM | GRND_INSECURE))
		return -EINVAL;
	while (done < size) {
		size_t want = MIN(size - done, sizeof(buf)), put;
		ssize_t n = getrandom(buf, want, 0);

		if (n < 0) {
			if (errno == EINTR)
				continue;
			return -errno;
		}
		put = mm_copy_out_partial(t->mm, a->a[0] + done, buf, (size_t)n);
		done += put;
		if (put < (size_t)n)
			return done ? (int64_t)done : -EFAULT;
		if (task_should_interrupt(t) && done % MOAT_PAGE_SIZE == 0)
			break;
	}
	explicit_bzero(buf, sizeof(buf));
	return (int64_t)done;
}

/* ---- syslog(2) ---- */

enum {
	SYSLOG_CLOSE,
	SYSLOG_OPEN,
	SYSLOG_READ,
	SYSLOG_READ_ALL,
	SYSLOG_READ_CLEAR,
	SYSLOG_CLEAR,
	SYSLOG_CONSOLE_OFF,
	SYSLOG_CONSOLE_ON,
	SYSLOG_CONSOLE_LEVEL,
	SYSLOG_SIZE_UNREAD,
	SYSLOG_SIZE_BUFFER,
};

/* The last `size` bytes that begin a line. */
static int64_t syslog_read_all(struct task *t, uint64_t uaddr, int size)
{
	struct buf b;
	size_t skip = 0;
	int64_t ret;

	buf_init(&b, BUF_DEFAULT_MAX);
	kmsg_read_all(&b);
	ret = buf_error(&b);
	if (ret)
		goto out_buf;
	while (b.len - skip > (size_t)size) {
		const char *nl = memchr(b.data + skip, '\n', b.len - skip);

		skip = nl ? (size_t)(nl + 1 - b.data) : b.len;
	}
	ret = (int64_t)(b.len - skip);
	if (ret && task_copy_out(t, uaddr, b.data + skip, b.len - skip))
		ret = -EFAULT;
out_buf:
	buf_fini(&b);
	return ret;
}

int64_t sys_syslog(struct task *t, const struct syscall_args *a)
{
	int type = ARG_INT(0), size = ARG_INT(2);
	int64_t ret;

	/* kernel.dmesg_restrict = 0 */
	if (type != SYSLOG_READ_ALL && type != SYSLOG_SIZE_BUFFER &&
	    !cred_has_cap(t->cred, CAP_SYSLOG_) && !cred_has_cap(t->cred, CAP_SYS_ADMIN_))
		return -EPERM;
	switch (type) {
	case SYSLOG_CLOSE:
	case SYSLOG_OPEN:
		return 0;
	case SYSLOG_READ_ALL:
	case SYSLOG_READ_CLEAR:
		if (!a->a[1] || size < 0)
			return -EINVAL;
		ret = size ? syslog_read_all(t, a->a[1], size) : 0;
		if (ret >= 0 && type == SYSLOG_READ_CLEAR)
			kmsg_clear();
		return ret;
	case SYSLOG_CLEAR:
		kmsg_clear();
		return 0;
	case SYSLOG_SIZE_UNREAD:
		return (int64_t)kmsg_unread();
	case SYSLOG_SIZE_BUFFER:
		return (int64_t)kmsg_size_buffer();
	default: /* READ (/dev/kmsg has it), console levels: there is no console */
		return -EINVAL;
	}
}

int64_t sys_getcpu(struct task *t, const struct syscall_args *a)
{
	unsigned cpu = affinity_current_cpu(), node = 0;

	if (a->a[0] && task_copy_out(t, a->a[0], &cpu, sizeof(cpu)))
		return -EFAULT;
	if (a->a[1] && task_copy_out(t, a->a[1], &node, sizeof(node)))
		return -EFAULT;
	return 0;
}
