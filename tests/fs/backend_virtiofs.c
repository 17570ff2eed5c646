/*
 * A scratch directory of the host behind a virtio-fs daemon, one a filesystem. $VIRTIOFS_OPTIONS are the mount's (cache=none,
 * writeback ...), $VIRTIOFSD the daemon: Debian's (of qemu-system-common) by default, "own" for ours, which is this program
 * executed anew; $VIRTIOFSD_WINDOW: the bytes of its window.
 */
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/stat.h>

#include "base/hostpoll.h"
#include "fsimpl/virtiofs/virtiofs.h"
#include "tests/fs/backend_virtiofs.h"
#include "tests/fs/env.h"
#include "tests/fs/scratch.h"
#include "tests/virtiofs_process.h"

#define DAX_WINDOW (64ul << 20) /* small enough to be full at times */

static _Atomic pid_t daemon_pid; /* another's after each restart, which the device's thread makes */
static char shared_dir[96];
bool backend_virtiofs_reconnects;
_Atomic bool backend_virtiofs_hold;

void backend_virtiofs_kill(void)
{
	kill(daemon_pid, SIGKILL);
}

const char *backend_virtiofs_dir(void)
{
	return shared_dir;
}

static uint64_t dax_window(void)
{
	const char *bytes = getenv("VIRTIOFSD_WINDOW");

	return bytes ? strtoul(bytes, NULL, 0) : DAX_WINDOW;
}

/* A daemon of shared_dir, and a connection to it. */
static int start(const char *mount_options)
{
	char path[112];
	pid_t pid = 0;
	int sock;

	/* Whoever ends first is waited for by nobody. */
	signal(SIGCHLD, SIG_IGN);
	if (getenv("VIRTIOFSD") && !strcmp(getenv("VIRTIOFSD"), "own")) {
		sock = virtiofs_process_own(shared_dir, mount_options, dax_window(), &pid);
	} else {
		snprintf(path, sizeof(path), "%s.sock", shared_dir);
		unlink(path); /* of one that was killed */
		sock = virtiofs_process_stock(shared_dir, path, mount_options, NULL, &pid);
	}
	daemon_pid = pid;
	return sock;
}

/* On the device's thread, whose signals are blocked: the daemon must not inherit that. */
static int restart(void *arg)
{
	if (atomic_load(&backend_virtiofs_hold))
		return -EAGAIN;
	sigset_t none, old;
	int sock;

	sigemptyset(&none);
	pthread_sigmask(SIG_SETMASK, &none, &old);
	sock = start(arg);
	pthread_sigmask(SIG_SETMASK, &old, NULL);
	return sock;
}

static struct virtiofs_device *last_device; /* borrowed: while its filesystem lives */

struct virtiofs_device *backend_virtiofs_device(void)
{
	return last_device;
}

static int create(struct filesystem **ret_fs, struct dentry **ret_root)
{
	char *text = getenv("VIRTIOFS_OPTIONS") ? getenv("VIRTIOFS_OPTIONS") : (char *)"";
	const struct virtiofs_device_options device_options = {
		.memory = 1ul << 30,
		.reconnect = backend_virtiofs_reconnects ? restart : NULL,
		.reconnect_arg = text,
	};
	struct virtiofs_options options;
	struct virtiofs_device *dev;
	static bool polling;
	int err, sock;

	if (!polling) {
		err = hostpoll_start();
		if (err)
			return err;
		polling = true;
	}
	err = virtiofs_parse_options(text, &options);
	if (!err)
		err = scratch_dir(shared_dir, sizeof(shared_dir));
	if (err)
		return err;
	sock = start(text);
	if (sock < 0)
		return sock;
	virtiofs_register();
	err = virtiofs_device_connect(sock, &device_options, &dev);
	if (err)
		return err;
	last_device = dev;
	err = virtiofs_create(dev, &options, "scratch", ret_fs, ret_root);
	virtiofs_device_unref(dev);
	return err;
}

const struct fs_backend fs_backend = {
	.name = "virtiofs",
	.create = create,
	.lacks_acl = true, /* but with $VIRTIOFSD_ACL */
	.lacks_trusted = true,
	.lacks_tmpfile = true,
};
