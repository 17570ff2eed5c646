/*
 * gofer/virtiofs/confine.c - what the daemon gives up before it reads its first message.
 *
 * Its root directory is the shared tree, in a mount namespace of its own with everything else detached; /proc/self/fd is kept by a descriptor, and is the
 * working directory for the calls that take only paths. Capabilities are the 9P gofer's (gofer/confine.c says why each). The seccomp filter
 * kills the process at any call that is not in the table.
 */
#include <fcntl.h>
#include <sched.h>
#include <seccomp.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "gofer/confine.h"
#include "gofer/virtiofs/server.h"

/* The tree becomes the root; the old one goes. Not noexec: clients map programs by the descriptors that DAX gives them, and nothing here executes. */
static int enter_tree(const char *dir, bool readonly)
{
	if (unshare(CLONE_NEWNS) < 0 || mount(NULL, "/", NULL, MS_PRIVATE | MS_REC, NULL) < 0)
		return -errno;
	if (mount(dir, dir, NULL, MS_BIND | MS_REC, NULL) < 0 || chdir(dir) < 0)
		return -errno;
	if (mount(NULL, ".", NULL,
		  MS_REMOUNT | MS_BIND | MS_NODEV | MS_NOSUID | (readonly ? MS_RDONLY : 0),
		  NULL) < 0)
		return -errno;
	if (syscall(SYS_pivot_root, ".", ".") < 0 || umount2(".", MNT_DETACH) < 0)
		return -errno;
	return chdir("/") < 0 ? -errno : 0;
}

static uint64_t raise_nofile(void)
{
	struct rlimit lim;

	if (getrlimit(RLIMIT_NOFILE, &lim) < 0)
		return 1024;
	lim.rlim_cur = lim.rlim_max;
	(void)setrlimit(RLIMIT_NOFILE, &lim);
	return lim.rlim_max;
}

int daemon_enter_proc(struct daemon *d)
{
	d->proc_fd = openat(d->proc_root, "self/fd", O_PATH | O_DIRECTORY | O_CLOEXEC);
	close(d->proc_root);
	d->proc_root = -1;
	return d->proc_fd < 0 || fchdir(d->proc_fd) < 0 ? -errno : 0;
}

int daemon_confine(struct daemon *d)
{
	uint64_t files = raise_nofile();
	int err;

	d->fd_max = files > 2 * SPARE_FDS ? files - SPARE_FDS : files / 2;
	d->proc_root = open("/proc", O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (d->proc_root < 0)
		return -errno;
	umask(0);
	if (!d->config.no_namespaces) {
		err = enter_tree(d->config.shared_dir, d->config.readonly);
		if (err)
			return err;
	}
	return geteuid() == 0				    ? confine_caps()
	       : prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) < 0 ? -errno
							    : 0;
}

/* Besides what both servers call (gofer/seccomp.c). */
static const int calls[] = {
	/* the connections: messages and their descriptors; kicks and calls */
	SCMP_SYS(accept4),
	SCMP_SYS(recvmsg),
	SCMP_SYS(sendto),
	SCMP_SYS(sendmsg), /* with descriptors: DAX, the version table */
	SCMP_SYS(poll),
	SCMP_SYS(ppoll),
	SCMP_SYS(fcntl), /* kicks and calls never block */
	SCMP_SYS(read),
	SCMP_SYS(write),
	/* the version table: files' handles, marks on what a client knows, its notifications */
	SCMP_SYS(name_to_handle_at),
	SCMP_SYS(fanotify_init),
	SCMP_SYS(fanotify_mark),
	SCMP_SYS(epoll_create1),
	SCMP_SYS(epoll_ctl),
	/* data */
	SCMP_SYS(preadv),
	SCMP_SYS(pwritev),
	SCMP_SYS(copy_file_range),
	/* remote locks (POSIX ones by fcntl); a thread's umask */
	SCMP_SYS(flock),
	SCMP_SYS(umask),
	/* threads, one a queue: their making */
	SCMP_SYS(clone),
	SCMP_SYS(clone3),
	SCMP_SYS(set_robust_list),
	SCMP_SYS(rseq),
};

/*
 * The process that listens makes others, each of which then loads the filter anew, with its own process id in it. Its messages come from nobody: it
 * reads none.
 */
static int add_listener(void *ctx)
{
	static const int plain[] = {
		SCMP_SYS(wait4),   SCMP_SYS(getppid),
		SCMP_SYS(seccomp), SCMP_SYS(fchdir), /* to a child's own /proc/self/fd */
		SCMP_SYS(tgkill), /* the children's; they narrow it down to themselves */
	};
	static const int prctls[] = {PR_SET_PDEATHSIG, PR_SET_NO_NEW_PRIVS, PR_SET_SECCOMP};
	int err = 0;

	for (unsigned i = 0; i < ARRAY_SIZE(plain) && !err; i++)
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, plain[i], 0);
	for (unsigned i = 0; i < ARRAY_SIZE(prctls) && !err; i++)
		err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(prctl), 1,
				       SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)prctls[i]));
	return err;
}

static int add_rules(void *ctx, const void *arg)
{
	const bool *listens = arg;
	/* A queue's thread: an umask of its own. */
	int err = seccomp_rule_add(ctx, SCMP_ACT_ALLOW, SCMP_SYS(unshare), 1,
				   SCMP_A0(SCMP_CMP_EQ, (scmp_datum_t)CLONE_FS));

	return !err && *listens ? add_listener(ctx) : err;
}

int daemon_seccomp(struct daemon *d, bool listens)
{
	const struct confine_filter filter = {
		.calls = calls, .count = ARRAY_SIZE(calls), .add = add_rules, .arg = &listens};

	return d->config.no_seccomp ? 0 : confine_filter_load(&filter);
}
