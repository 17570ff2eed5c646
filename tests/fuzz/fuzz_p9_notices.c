// LINK: moat_gofer moat_gofer_fs moat_vfs moat_mem moat_wire seccomp
/*
 * What a gofer says unasked: events of watches, locks that were waited for. Any packets, in any order: nothing but well-formed events of watches that there are
 * comes to whoever watches, and only who waits is told of a lock.
 *
 * An input is packets, each behind a byte with its size in the lower 7 bits. Where the byte's highest bit is set they are taken as they are, else the
 * message's own size is put right first, so that the fuzzer need not find it. The tree is a real gofer's, which tells nothing itself.
 */
#include <fcntl.h>
#include <limits.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/wait.h>
#include <unistd.h>

#include "base/hostpoll.h"
#include "base/rcu.h"
#include "base/sleep.h"
#include "fsimpl/gofer/conn.h"
#include "fsimpl/gofer/gofer_fs.h"
#include "mem/memfile.h"
#include "tests/gofer_process.h"
#include "vfs/inotify.h"
#include "wire/p9.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

#define WAIT_ID 7
#define WATCHED 2 /* "d", and "d/f" */
#define PACKETS_MAX 256

static char top[] = "/tmp/moat-fuzz-notices.XXXXXX";
static pid_t gofer;
static struct p9_conn *conn;
static struct mount_namespace *ns;
static struct vfs_path root;
static struct cred *cred;
static struct file *inside; /* the sandbox's inotify */

static void require(bool ok)
{
	if (!ok)
		abort();
}

static const char *below(const char *name)
{
	static char path[128];

	snprintf(path, sizeof(path), "%s/%s", top, name);
	return path;
}

/* At exit: the gofer ends with its connection, which this process's end closes. */
static void clean_up(void)
{
	(void)kill(gofer, SIGKILL);
	(void)waitpid(gofer, NULL, 0);
	(void)unlink(below("d/f"));
	(void)rmdir(below("d"));
	(void)rmdir(top);
}

static void make_tree(void)
{
	int fd;

	require(mkdtemp(top) != NULL);
	(void)chmod(top, 0755);
	require(!mkdir(below("d"), 0755));
	fd = open(below("d/f"), O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
	require(fd >= 0);
	close(fd);
}

static int watch(const char *path)
{
	struct vfs_lookup lk = {.cred = cred, .ns = ns, .root = root, .start = root, .path = path};
	struct vfs_path p;
	int wd = vfs_get_path(&lk, &p);

	if (wd)
		return wd;
	wd = inotify_file_add_watch(inside, &p, IN_ALL_EVENTS);
	vfs_path_unref(&p);
	return wd;
}

static void start(void)
{
	struct gofer_mount_args args = {.shared = true, .source = "fuzz"};
	struct vfs_path none = {0};
	struct filesystem *fs;
	struct dentry *d;
	int sv[2];

	make_tree();
	require(!socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv));
	require(!gofer_process_start(top, sv[1], &gofer));
	atexit(clean_up);
	close(sv[1]);
	require(!hostpoll_start());
	gofer_fs_register();
	require(!p9_conn_create(sv[0], &conn));
	args.conn = conn;
	require(!gofer_fs_create(&args, &fs, &d));
	require(!mount_namespace_create(fs, d, 0, &ns));
	dentry_unref(d);
	filesystem_unref(fs);
	mount_namespace_root(ns, &root);
	require(!cred_create_root(&cred));
	cred_set_current(cred);
	require(!inotify_file_create(&none, O_NONBLOCK, &inside));
}

/* What the sandbox's program reads. */
static void check_events(const uint8_t *buf, ssize_t got, int last)
{
	for (ssize_t at = 0; at < got;) {
		const struct inotify_event *ev = (const void *)(buf + at);
		size_t len;

		require(got - at >= (ssize_t)sizeof(*ev));
		at += (ssize_t)(sizeof(*ev) + ev->len);
		require(at <= got);
		if (ev->mask & IN_Q_OVERFLOW) {
			require(ev->wd == -1 && !ev->len);
			continue;
		}
		require(ev->wd > 0 && ev->wd <= last);
		require(!(ev->mask & ~(uint32_t)(IN_ALL_EVENTS | IN_ISDIR | IN_IGNORED)));
		len = ev->len ? strnlen(ev->name, ev->len) : 0;
		require(!ev->len || len < ev->len);
		require(!memchr(ev->name, '/', len) && len <= NAME_MAX);
	}
}

static void collect(int last)
{
	static _Alignas(8) uint8_t buf[16384];
	struct io_iter it;
	ssize_t got;

	do {
		io_iter_init_kernel(&it, buf, sizeof(buf), true);
		got = file_read_iter(inside, &it, NULL, 0);
		io_iter_fini(&it);
		check_events(buf, got, last);
	} while (got > 0);
	require(got == -EAGAIN);
}

/* Return: its bytes of the input. */
static size_t packet(const uint8_t *data, size_t size)
{
	size_t want = MIN((size_t)(data[0] & 0x7f), size - 1);
	uint32_t framed = (uint32_t)want;
	/* Of its own size, so that a byte read past it is seen. */
	uint8_t *buf = malloc(want + 4);
	int err;

	require(buf != NULL);
	memcpy(buf, data + 1, want);
	if (!(data[0] & 0x80)) {
		memmove(buf + 4, buf, want);
		framed += 4;
		memcpy(buf, &framed, 4);
	}
	buf = realloc(buf, MAX(framed, 1u));
	require(buf != NULL);
	err = p9_notice(conn, buf, framed);
	require(!err || err == -EPROTO);
	free(buf);
	return want + 1;
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct p9_lock_wait waits[2] = {{.sleeper = sleeper_current(), .id = WAIT_ID},
					{.sleeper = sleeper_current(), .id = 1ull << 63}};
	int last = 0;

	if (!conn)
		start();
	/* Events may have ended those of the input before. */
	for (int i = 0; i < WATCHED; i++)
		last = MAX(last, watch(i ? "d/f" : "d"));
	require(last > 0);
	mutex_lock(&conn->lock);
	for (int i = 0; i < 2; i++)
		LIST_INSERT_HEAD(&conn->lock_waits, &waits[i], link);
	mutex_unlock(&conn->lock);
	for (int i = 0; i < PACKETS_MAX && size; i++) {
		size_t n = packet(data, size);

		data += n;
		size -= n;
	}
	mutex_lock(&conn->lock);
	for (int i = 0; i < 2; i++) {
		require(waits[i].done ? waits[i].err <= 0 && waits[i].err > -4096 : !waits[i].err);
		LIST_REMOVE(&waits[i], link);
	}
	mutex_unlock(&conn->lock);
	collect(last);
	vfs_run_deferred();
	/* Notices end no connection that the decoder has no quarrel with. */
	require(p9_conn_alive(conn));
	return 0;
}
