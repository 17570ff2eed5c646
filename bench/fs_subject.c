/* bench/fs_subject.c - see fs_subject.h. Gofers and daemons are started as tests/fs's backends start them. */
#include "bench/fs_subject.h"

#include <dirent.h>
#include <fcntl.h>
#include <ftw.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>
#include <time.h>

#include "base/hostpoll.h"
#include "fsimpl/gofer/gofer_fs.h"
#include "fsimpl/virtiofs/device.h"
#include "fsimpl/virtiofs/virtiofs.h"
#include "mem/mappable.h"
#include "tests/fs/env.h"
#include "tests/diod_process.h"
#include "tests/gofer_process.h"
#include "tests/virtiofs_process.h"

#define DAEMONS_MAX 64
#define DEVICE_MEMORY (1ul << 30) /* sparse */
#define PAGE_SIZE 4096
#define MAP_TRIES 3 /* of asking for a page that goes again */
#define LIST_BYTES 32768 /* as the C library's readdir(3) */

struct subject_mount {
	struct fs_env env;
	struct filesystem *fs; /* a reference */
	struct p9_conn *conn; /* a reference; gofer */
	struct virtiofs_device *dev; /* a reference; virtio-fs */
	pid_t daemon; /* virtio-fs */
};

struct subject subjects[SUBJECTS] = {
	{.name = "host", .kind = SUBJECT_HOST, .options = ""},
	{.name = "gofer-exclusive", .kind = SUBJECT_GOFER, .options = ""},
	{.name = "gofer-shared", .kind = SUBJECT_GOFER, .options = "shared"},
	{.name = "diod", .kind = SUBJECT_DIOD, .options = ""},
	{.name = "stock-none", .kind = SUBJECT_STOCK, .options = "cache=none"},
	{.name = "stock-auto", .kind = SUBJECT_STOCK, .options = "cache=auto"},
	{.name = "stock-always", .kind = SUBJECT_STOCK, .options = "cache=always"},
	{.name = "stock-writeback", .kind = SUBJECT_STOCK, .options = "cache=always,writeback"},
	{.name = "own-none", .kind = SUBJECT_OWN, .options = "cache=none"},
	{.name = "own-auto", .kind = SUBJECT_OWN, .options = "cache=auto"},
	{.name = "own-windowless",
	 .kind = SUBJECT_OWN,
	 .options = "cache=auto",
	 .windowless = true},
	{.name = "own-always", .kind = SUBJECT_OWN, .options = "cache=always"},
	{.name = "own-writeback", .kind = SUBJECT_OWN, .options = "cache=always,writeback"},
	{.name = "own-dax", .kind = SUBJECT_OWN, .options = "dax=always"},
	{.name = "own-versions", .kind = SUBJECT_OWN, .options = "coherence=versions"},
	{.name = "own-strict", .kind = SUBJECT_OWN, .options = "coherence=strict"},
};

static const char *tree_dir, *scratch_dir;
static int tree_fd = -1;
static int janitor_fd = -1;
static pid_t janitor;

/* ---- who cleans up ---- */

static int remove_one(const char *path, const struct stat *st unused_arg, int type unused_arg,
		      struct FTW *at unused_arg)
{
	(void)remove(path);
	return 0;
}

/* Daemons are held by pidfd from the moment on that this process, their parent, names them: an id is never used anew under us. */
static void clean(int from)
{
	int pidfds[DAEMONS_MAX], count = 0;
	pid_t pid;

	while (read(from, &pid, sizeof(pid)) == sizeof(pid)) {
		int fd = (int)syscall(SYS_pidfd_open, pid, 0);

		if (fd >= 0 && count < DAEMONS_MAX)
			pidfds[count++] = fd;
	}
	for (int i = 0; i < count; i++) {
		struct pollfd p = {.fd = pidfds[i], .events = POLLIN};

		/* They end with their connections, which the end of the benchmark closed. */
		if (poll(&p, 1, 200) == 0)
			(void)syscall(SYS_pidfd_send_signal, pidfds[i], SIGKILL, NULL, 0);
		(void)poll(&p, 1, 1000);
	}
	(void)nftw(scratch_dir, remove_one, 32, FTW_DEPTH | FTW_PHYS | FTW_MOUNT);
}

int subjects_init(const char *dir, const char *tree)
{
	int fds[2];

	scratch_dir = dir;
	tree_dir = tree;
	if (pipe2(fds, O_CLOEXEC) < 0)
		return -errno;
	janitor = fork();
	if (janitor < 0)
		return -errno;
	if (janitor == 0) {
		int null = open("/dev/null", O_RDWR);

		/* Not of the terminal's or a timeout's process group, and no reader of our output waits for it. */
		setsid();
		if (null < 0 || dup2(null, 0) < 0 || dup2(null, 1) < 0 || dup2(null, 2) < 0)
			_exit(1);
		close(fds[1]);
		clean(fds[0]);
		_exit(0);
	}
	close(fds[0]);
	janitor_fd = fds[1];
	return 0;
}

void subjects_fini(void)
{
	close(janitor_fd);
	(void)waitpid(janitor, NULL, 0);
}

static void remember(pid_t pid)
{
	if (write(janitor_fd, &pid, sizeof(pid)) != sizeof(pid))
		fprintf(stderr, "fs: process %d is not watched\n", (int)pid);
}

/* ---- starting ---- */

/* What a daemon that did not start said. */
static void show_log(const char *path)
{
	char text[1024];
	FILE *f = fopen(path, "re");
	size_t got = f ? fread(text, 1, sizeof(text), f) : 0;

	if (f)
		fclose(f);
	fwrite(text, 1, got, stderr);
}

static int start_own(const char *options, bool windowless, pid_t *ret_pid)
{
	int sock = virtiofs_process_own(tree_dir, options, windowless ? 0 : VIRTIOFSD_DAX_WINDOW,
					ret_pid);

	if (sock >= 0)
		remember(*ret_pid);
	return sock;
}

/* It complains of every end of a connection: shown only when it does not start. */
static int start_stock(const char *options, pid_t *ret_pid)
{
	static unsigned number;
	char path[100], log[100];
	int sock, len;

	len = snprintf(path, sizeof(path), "%s/stock-%u.sock", scratch_dir, number);
	if ((size_t)len >= sizeof(path))
		return -ENAMETOOLONG;
	snprintf(log, sizeof(log), "%.80s/stock-%u.log", scratch_dir, number++);
	*ret_pid = 0;
	sock = virtiofs_process_stock(tree_dir, path, options, log, ret_pid);
	if (*ret_pid)
		remember(*ret_pid);
	if (sock < 0)
		show_log(log);
	return sock;
}

int subject_daemon_start(const struct subject *s, pid_t *ret_pid)
{
	return s->kind == SUBJECT_OWN ? start_own(s->options, s->windowless, ret_pid)
				      : start_stock(s->options, ret_pid);
}

pid_t subject_daemon(const struct subject *s)
{
	return s->mount->daemon;
}

/* What fs_env_init() asks its backend for: the subject that is being started. */
static struct subject *starting;

static int create_gofer(struct subject *s, struct filesystem **ret_fs, struct dentry **ret_root)
{
	struct gofer_mount_args args = {.source = "bench",
					.shared = !strcmp(s->options, "shared"),
					.aname = s->kind == SUBJECT_DIOD ? tree_dir : NULL};
	int sv[2], err;
	pid_t pid;

	if (socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) < 0)
		return -errno;
	err = s->kind == SUBJECT_DIOD
		      ? diod_process_start(tree_dir, scratch_dir, false, sv[1], &pid)
		      : gofer_process_start((char *)tree_dir, sv[1], &pid);
	close(sv[1]);
	if (err) {
		close(sv[0]);
		return err;
	}
	remember(pid);
	gofer_fs_register();
	err = p9_conn_create(sv[0], &s->mount->conn);
	if (err)
		return err;
	args.conn = s->mount->conn;
	return gofer_fs_create(&args, ret_fs, ret_root);
}

static int create_virtiofs(struct subject *s, struct filesystem **ret_fs, struct dentry **ret_root)
{
	const struct virtiofs_device_options device = {.memory = DEVICE_MEMORY};
	struct virtiofs_options options;
	static bool polling;
	int err = 0, sock;

	if (!polling)
		err = hostpoll_start();
	polling = !err;
	if (!err)
		err = virtiofs_parse_options(s->options, &options);
	if (err)
		return err;
	sock = subject_daemon_start(s, &s->mount->daemon);
	if (sock < 0)
		return sock;
	virtiofs_register();
	err = virtiofs_device_connect(sock, &device, &s->mount->dev);
	if (err)
		return err;
	return virtiofs_create(s->mount->dev, &options, "bench", ret_fs, ret_root);
}

static int create_starting(struct filesystem **ret_fs, struct dentry **ret_root)
{
	bool p9 = starting->kind == SUBJECT_GOFER || starting->kind == SUBJECT_DIOD;
	int err = p9 ? create_gofer(starting, ret_fs, ret_root)
		     : create_virtiofs(starting, ret_fs, ret_root);

	if (!err) {
		starting->mount->fs = *ret_fs;
		filesystem_ref(*ret_fs);
	}
	return err;
}

const struct fs_backend fs_backend = {.name = "bench", .create = create_starting};

static void drop_mount(struct subject *s)
{
	if (s->mount->conn)
		p9_conn_unref(s->mount->conn);
	if (s->mount->dev)
		virtiofs_device_unref(s->mount->dev);
	free(s->mount);
	s->mount = NULL;
}

int subject_start(struct subject *s)
{
	int err = 0;

	if (tree_fd < 0)
		tree_fd = open(tree_dir, O_PATH | O_DIRECTORY | O_CLOEXEC);
	if (tree_fd < 0)
		return -errno;
	if (s->kind != SUBJECT_HOST) {
		err = fs_env_process_init();
		if (err)
			return err;
		s->mount = calloc(1, sizeof(*s->mount));
		if (!s->mount)
			return -ENOMEM;
		starting = s;
		err = fs_env_init(&s->mount->env);
		if (err)
			drop_mount(s);
	}
	s->usable = !err;
	return err;
}

void subject_stop(struct subject *s)
{
	s->usable = false;
	if (!s->mount)
		return;
	filesystem_unref(s->mount->fs);
	fs_env_fini(&s->mount->env);
	drop_mount(s);
}

void subject_shrink(struct subject *s)
{
	/* Parents and inodes of what was dropped go with the next round. */
	for (int i = 0; s->mount && i < 3; i++) {
		rcu_drain();
		vfs_run_deferred();
		if (s->mount->conn)
			gofer_fs_shrink(s->mount->fs);
		else
			virtiofs_shrink(s->mount->fs);
	}
	/* Nor is what is left of it freed while others are measured. */
	for (int i = 0; s->mount && i < 2; i++) {
		rcu_drain();
		vfs_run_deferred();
	}
}

uint64_t subject_requests(const struct subject *s)
{
	if (!s->mount)
		return 0;
	return s->mount->conn ? p9_conn_requests(s->mount->conn)
			      : virtiofs_device_requests(s->mount->dev);
}

int subject_lookup(struct subject *s, const char *name)
{
	struct fuse_entry_out e;
	struct vdev_call call = {
		.req = {.opcode = FUSE_LOOKUP,
			.nodeid = FUSE_ROOT,
			.name = {name},
			.name_len = {strlen(name)}},
		.reply = &e,
		.reply_size = sizeof(e),
	};

	return (int)MIN(vdev_call(s->mount->dev, &call), 0);
}

double subject_lookup_raw(struct subject *s, const char *name, unsigned count, int64_t think_ns)
{
	int64_t waited = 0;

	for (unsigned i = 0; i < count; i++) {
		int64_t from = time_monotonic_ns(), start = from;
		int err;

		while (start - from < think_ns)
			start = time_monotonic_ns();
		err = subject_lookup(s, name);
		if (err)
			return (double)err;
		waited += time_monotonic_ns() - start;
	}
	return (double)waited / count / 1000;
}

/* ---- calls ---- */

static int host_err(int ret)
{
	return ret < 0 ? -errno : 0;
}

/* With this subject's credentials, and what a task does before it returns to the application. */
static struct fs_env *begin(struct subject *s)
{
	cred_set_current(s->mount->env.cred);
	return &s->mount->env;
}

static int end(int err)
{
	vfs_run_deferred();
	return err;
}

int subject_stat(struct subject *s, const char *path)
{
	struct moat_statx st;
	struct statx stx;

	if (!s->mount)
		return host_err(statx(tree_fd, path, 0, STATX_BASIC_STATS, &stx));
	return end(fs_stat(begin(s), path, &st));
}

int subject_open(struct subject *s, const char *path, int flags, struct subject_file *ret)
{
	if (s->mount)
		return end(fs_open(begin(s), path, flags, 0644, &ret->f));
	ret->fd = openat(tree_fd, path, flags | O_CLOEXEC, 0644);
	return host_err(ret->fd);
}

int subject_close(struct subject *s, struct subject_file *f)
{
	int err;

	if (!s->mount)
		return host_err(close(f->fd));
	begin(s);
	err = f->f->ops->flush ? f->f->ops->flush(f->f) : 0;
	fs_close(f->f);
	return end(err);
}

int subject_mkdir(struct subject *s, const char *path)
{
	return s->mount ? end(fs_mkdir(begin(s), path, 0755))
			: host_err(mkdirat(tree_fd, path, 0755));
}

int subject_rmdir(struct subject *s, const char *path)
{
	return s->mount ? end(fs_rmdir(begin(s), path))
			: host_err(unlinkat(tree_fd, path, AT_REMOVEDIR));
}

int subject_chmod(struct subject *s, const char *path, unsigned mode)
{
	return s->mount ? end(fs_chmod(begin(s), path, mode))
			: host_err(fchmodat(tree_fd, path, mode, 0));
}

int subject_unlink(struct subject *s, const char *path)
{
	return s->mount ? end(fs_unlink(begin(s), path)) : host_err(unlinkat(tree_fd, path, 0));
}

ssize_t subject_pread(struct subject *s, const struct subject_file *f, void *buf, size_t size,
		      int64_t off)
{
	ssize_t got;

	if (s->mount) {
		begin(s);
		return fs_pread(f->f, buf, size, off);
	}
	got = pread(f->fd, buf, size, off);
	return got < 0 ? -errno : got;
}

ssize_t subject_pwrite(struct subject *s, const struct subject_file *f, const void *buf,
		       size_t size, int64_t off)
{
	ssize_t got;

	if (s->mount) {
		begin(s);
		return fs_pwrite(f->f, buf, size, off);
	}
	got = pwrite(f->fd, buf, size, off);
	return got < 0 ? -errno : got;
}

static int read_host_mapped(int fd, int64_t off, size_t size)
{
	const volatile char *p = mmap(NULL, size, PROT_READ, MAP_SHARED, fd, off);

	if (p == MAP_FAILED)
		return -errno;
	for (size_t at = 0; at < size; at += PAGE_SIZE)
		(void)p[at];
	return host_err(munmap((void *)(uintptr_t)p, size));
}

/* The pages of t from `at` to `end`; their addresses are looked up once for as many as follow each other. */
static void touch_pages(const struct mem_trans *t, uint64_t at, uint64_t end)
{
	while (at < end) {
		const uint64_t off = t->mf_off + (at - t->start);
		const volatile char *p = memfile_ptr(t->mf, off);
		const uint64_t len = memfile_ptr_len(t->mf, off, end - at);

		for (uint64_t i = 0; i < len; i += PAGE_SIZE)
			(void)p[i];
		at += len;
	}
}

/* The pages from `off` on that come in one piece, as a fault gets them; their bytes are touched. Return: where the piece ends, -errno. */
static int64_t touch_piece(struct mappable *m, int64_t off, int64_t end_off)
{
	const uint64_t at = (uint64_t)off, stop = (uint64_t)end_off;
	struct mem_trans t;
	int err = -EAGAIN;

	for (int i = 0; i < MAP_TRIES && err == -EAGAIN; i++) {
		rwlock_read_lock(&m->data_lock);
		err = m->ops->translate(m, at, at, stop, MEM_READ, &t);
		rwlock_read_unlock(&m->data_lock);
		if (err == -EAGAIN) {
			int filled = m->ops->populate(m, at, stop - at, MEM_READ);

			if (filled)
				return filled;
		}
	}
	if (err)
		return err;
	touch_pages(&t, at, MIN(t.start + t.size, stop));
	memfile_range_unref(t.mf, t.mf_off, t.size);
	return (int64_t)MIN(t.start + t.size, stop);
}

int subject_read_mapped(struct subject *s, const struct subject_file *f, int64_t off, size_t size)
{
	const int64_t stop = off + (int64_t)size;
	struct mappable *m;

	if (!s->mount)
		return read_host_mapped(f->fd, off, size);
	begin(s);
	m = f->f->ops->mappable ? f->f->ops->mappable(f->f) : NULL;
	if (!m)
		return -ENODEV;
	while (off >= 0 && off < stop)
		off = touch_piece(m, off, stop);
	return end(off < 0 ? (int)off : 0);
}

int subject_fsync(struct subject *s, const struct subject_file *f)
{
	if (!s->mount)
		return host_err(fsync(f->fd));
	begin(s);
	return end(file_fsync(f->f, false, 0, UINT64_MAX));
}

/* ---- directories ---- */

struct lister {
	struct dir_emit ctx;
	char (*names)[SUBJECT_NAME_MAX];
	int count, max;
};

static bool keep_name(struct lister *l, const char *name, size_t len)
{
	if (l->count == l->max)
		return false;
	if (name[0] == '.' && (len == 1 || (len == 2 && name[1] == '.')))
		return true;
	memcpy(l->names[l->count], name, len);
	l->names[l->count++][len] = '\0';
	return true;
}

static bool list_emit(struct dir_emit *ctx, const char *name, size_t len, uint64_t ino unused_arg,
		      unsigned type unused_arg, int64_t next unused_arg)
{
	return keep_name(container_of(ctx, struct lister, ctx), name, len);
}

struct host_dirent {
	uint64_t ino;
	int64_t off;
	uint16_t reclen;
	uint8_t type;
	char name[];
};

/* One getdents(2), repeated when it brought nothing but the dots. */
static int list_host(int fd, struct lister *l)
{
	static _Alignas(8) char buf[LIST_BYTES];
	size_t room = MIN((size_t)l->max * 24, sizeof(buf)); /* no entry is shorter */
	long got;

	do {
		got = syscall(SYS_getdents64, fd, buf, room);
		for (long at = 0; at < got;) {
			const struct host_dirent *d = (const struct host_dirent *)(buf + at);

			keep_name(l, d->name, strlen(d->name));
			at += d->reclen;
		}
	} while (got > 0 && !l->count);
	return got < 0 ? -errno : l->count;
}

int subject_list(struct subject *s, const struct subject_file *f, char (*names)[SUBJECT_NAME_MAX],
		 int max)
{
	struct lister l = {.ctx = {.emit = list_emit}, .names = names, .max = max};
	int err;

	if (!s->mount)
		return list_host(f->fd, &l);
	begin(s);
	err = end(file_iterate(f->f, &l.ctx));
	return err ? err : l.count;
}
