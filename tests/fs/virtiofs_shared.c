/*
 * tests/fs/virtiofs_shared.c - two clients on one daemon of ours, and the host: who sees what when, and DAX. A change on the host is to be seen
 * within milliseconds; on a loaded machine the test gives it SEEN_MS.
 */
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>

#include "base/rcu.h"
#include "base/sleep.h"
#include "fsimpl/virtiofs/internal_dax.h"
#include "tests/fs/virtiofs_clients.h"

/* ---- versions ---- */

/* The host's own change takes a moment, where nobody asks for it (the_host_is_seen has those who do). */
static void await(struct client *c, const char *name)
{
	int64_t end = now_ms() + SEEN_MS;
	struct moat_statx st;

	while (fs_stat(as(c), name, &st) == -ENOENT && now_ms() < end)
		usleep(500);
}

/* After each kind of change by b, a's next look. a has everything cached before. */
static void changes_are_seen(struct client *a, struct client *b)
{
	struct moat_statx st;
	struct file *f;
	char buf[16] = "";

	put_host("f", "one");
	await(a, "f");
	await(b, "f");
	assert_int_equal(stat_of(a, "f").size, 3);
	assert_int_equal(fs_chmod(as(b), "f", 0600), 0);
	assert_int_equal(stat_of(a, "f").mode & 07777, 0600);
	assert_int_equal(fs_chown(as(b), "f", 7, 8), 0);
	assert_int_equal(stat_of(a, "f").uid, 7);
	put_client(b, "f", "four", O_TRUNC);
	assert_int_equal(stat_of(a, "f").size, 4);
	assert_int_equal(fs_truncate(as(b), "f", 100), 0);
	assert_int_equal(stat_of(a, "f").size, 100);
	/* names: new, renamed, exchanged, removed, linked */
	assert_int_equal(fs_stat(as(a), "new", &st), -ENOENT);
	assert_int_equal(fs_creat(as(b), "new", 0640), 0);
	assert_int_equal(stat_of(a, "new").mode & 07777, 0640);
	assert_int_equal(fs_rename(as(b), "new", "newer", 0), 0);
	assert_int_equal(fs_stat(as(a), "new", &st), -ENOENT);
	assert_int_equal(fs_stat(as(a), "newer", &st), 0);
	assert_int_equal(fs_link(as(b), "f", "hard", false), 0);
	assert_int_equal(stat_of(a, "f").nlink, 2);
	assert_int_equal(fs_unlink(as(b), "hard"), 0);
	assert_int_equal(stat_of(a, "f").nlink, 1);
	assert_int_equal(fs_rename(as(b), "newer", "f", 0), 0);
	assert_int_equal(stat_of(a, "f").size, 0);
	assert_int_equal(fs_unlink(as(b), "f"), 0);
	assert_int_equal(fs_stat(as(a), "f", &st), -ENOENT);
	assert_int_equal(fs_mkdir(as(b), "d", 0755), 0);
	assert_int_equal(stat_of(a, "d").mode & 07777, 0755);
	assert_int_equal(fs_creat(as(b), "d/x", 0644), 0);
	assert_int_equal(fs_stat(as(a), "d/x", &st), 0);
	assert_int_equal(fs_rename(as(b), "d", "e", 0), 0);
	assert_int_equal(fs_stat(as(a), "d/x", &st), -ENOENT);
	assert_int_equal(fs_stat(as(a), "e/x", &st), 0);
	assert_int_equal(fs_symlink(as(b), "x", "e/l"), 0);
	assert_int_equal(fs_stat(as(a), "e/l", &st), 0);
	assert_int_equal(fs_unlink(as(b), "e/l"), 0);
	assert_int_equal(fs_lstat(as(a), "e/l", &st), -ENOENT);
	assert_int_equal(fs_unlink(as(b), "e/x"), 0);
	assert_int_equal(fs_rmdir(as(b), "e"), 0);
	assert_int_equal(fs_stat(as(a), "e", &st), -ENOENT);
	/* data, of a file that a has open and cached */
	put_host("data", "old");
	assert_int_equal(fs_open(as(a), "data", O_RDONLY, 0, &f), 0);
	assert_int_equal(fs_pread(f, buf, 3, 0), 3);
	put_client(b, "data", "new", 0);
	as(a);
	assert_int_equal(fs_pread(f, buf, 3, 0), 3);
	assert_memory_equal(buf, "new", 3);
	put_client(b, "data", "longer", 0);
	as(a);
	assert_int_equal(fs_pread(f, buf, 16, 0), 6);
	fs_close(f);
	remove_all();
}

static void another_client_sees(void **state)
{
	static const char *const options[] = {"coherence=versions",
					      "coherence=strict",
					      "cache=always,coherence=versions",
					      "coherence=versions,dax=always",
					      "cache=always,writeback,coherence=versions",
					      "cache=none"};
	struct client a, b;

	(void)state;
	for (unsigned i = 0; i < sizeof(options) / sizeof(options[0]); i++) {
		client_start(&a, options[i]);
		client_start(&b, options[i]);
		changes_are_seen(&a, &b);
		changes_are_seen(&b, &a);
		client_stop(&a);
		client_stop(&b);
	}
}

/* Nothing is asked while nothing changes; a client's own changes cost at most one question each. */
/*
 * Looks at what it is about, until that asks for nothing: the daemons of the clients before these may still be there, and tell late of how the host
 * made the files.
 */
static void look_until_quiet(struct client *c)
{
	int64_t end = now_ms() + SEEN_MS;
	struct moat_statx st;
	uint64_t sent;

	do {
		usleep(50000);
		sent = virtiofs_device_requests(c->dev);
		stat_of(c, "f");
		stat_of(c, "d/g");
		assert_int_equal(fs_stat(as(c), "none", &st), -ENOENT);
	} while (virtiofs_device_requests(c->dev) != sent && now_ms() < end);
}

static void nothing_is_asked(void **state)
{
	struct moat_statx st;
	struct client a, b;
	uint64_t sent;

	(void)state;
	put_host("f", "x");
	assert_int_equal(mkdir(host_path("d"), 0755), 0);
	put_host("d/g", "x");
	client_start(&a, "coherence=versions");
	client_start(&b, "coherence=versions");
	look_until_quiet(&a);
	sent = virtiofs_device_requests(a.dev);
	for (int i = 0; i < 1000; i++) {
		stat_of(&a, "f");
		stat_of(&a, "d/g");
		assert_int_equal(fs_stat(as(&a), "none", &st), -ENOENT);
	}
	assert_int_equal(virtiofs_device_requests(a.dev), sent);
	/* What another file's change costs: nothing, but for those that share its slot. */
	assert_int_equal(fs_chmod(as(&b), "d/g", 0600), 0);
	stat_of(&a, "f");
	assert_int_equal(virtiofs_device_requests(a.dev), sent);
	stat_of(&a, "d/g");
	assert_int_equal(virtiofs_device_requests(a.dev), sent + 1);
	/* Its own are in the answers. */
	assert_int_equal(fs_chmod(as(&a), "f", 0600), 0);
	sent = virtiofs_device_requests(a.dev);
	usleep(20000);
	stat_of(&a, "f");
	assert_int_equal(virtiofs_device_requests(a.dev), sent);
	client_stop(&a);
	client_stop(&b);
	remove_all();
}

/* Who has the table and goes by seconds all the same gets seconds: a look soon after another asks nothing. */
static void seconds_are_given(void **state)
{
	struct client a;
	uint64_t sent = 1, before = 0;

	(void)state;
	put_host("f", "x");
	client_start(&a, "cache=auto");
	/* Again where the machine was busy for a second. */
	for (int i = 0; i < 20 && sent != before; i++) {
		stat_of(&a, "f");
		before = virtiofs_device_requests(a.dev);
		stat_of(&a, "f");
		sent = virtiofs_device_requests(a.dev);
	}
	assert_int_equal(sent, before);
	client_stop(&a);
	remove_all();
}

/* Until the mode that a sees is what it is to be. at_once: the very first look. */
static void expect_mode(struct client *a, const char *name, unsigned mode, bool at_once)
{
	int64_t end = now_ms() + SEEN_MS;

	while ((stat_of(a, name).mode & 07777u) != mode) {
		assert_false(at_once);
		assert_true(now_ms() < end);
		usleep(500);
	}
}

static void expect_gone(struct client *a, const char *name, bool at_once)
{
	int64_t end = now_ms() + SEEN_MS;
	struct moat_statx st;
	int err;

	while ((err = fs_lstat(as(a), name, &st)) != -ENOENT) {
		assert_int_equal(err, 0);
		assert_false(at_once);
		assert_true(now_ms() < end);
		usleep(500);
	}
}

static void host_changes(struct client *a, bool strict)
{
	for (int i = 0; i < 20; i++) {
		put_host("f", "abc");
		expect_there(a, "f", strict);
		assert_int_equal(chmod(host_path("f"), 0600), 0);
		expect_mode(a, "f", 0600, strict);
		assert_int_equal(chmod(host_path("f"), 0644), 0);
		expect_mode(a, "f", 0644, strict);
		assert_int_equal(rename(host_path("f"), host_path("g")), 0);
		expect_gone(a, "f", strict);
		expect_there(a, "g", strict);
		assert_int_equal(mkdir(host_path("d"), 0755), 0);
		expect_there(a, "d", strict);
		assert_int_equal(symlink("g", host_path("d/l")), 0);
		expect_there(a, "d/l", strict);
		assert_int_equal(unlink(host_path("d/l")), 0);
		expect_gone(a, "d/l", strict);
		assert_int_equal(rmdir(host_path("d")), 0);
		expect_gone(a, "d", strict);
		assert_int_equal(unlink(host_path("g")), 0);
		expect_gone(a, "g", strict);
	}
}

static void the_host_is_seen(void **state)
{
	struct client a;

	(void)state;
	client_start(&a, "cache=always,coherence=versions");
	host_changes(&a, false);
	client_stop(&a);
	client_start(&a, "cache=always,coherence=strict");
	host_changes(&a, true);
	client_stop(&a);
	remove_all();
}

/* A connection's process that is killed takes nobody with it. */
static void a_killed_neighbour(void **state)
{
	struct client a, b;

	(void)state;
	put_host("f", "x");
	client_start(&a, "coherence=strict");
	client_start(&b, "coherence=strict");
	stat_of(&a, "f");
	stat_of(&b, "f");
	client_stop(&b);
	assert_int_equal(chmod(host_path("f"), 0600), 0);
	expect_mode(&a, "f", 0600, true);
	client_stop(&a);
	remove_all();
}

/* ---- DAX ---- */

static void dax_reads_and_writes(void **state)
{
	struct file *fa, *fb;
	static char buf[RANGE], page[4096];
	struct client a, b;
	uint64_t sent;

	(void)state;
	put_host("f", "");
	assert_int_equal(truncate(host_path("f"), 3 * RANGE), 0);
	client_start(&a, "dax=always,timeout=100");
	client_start(&b, "dax=always,timeout=100");
	assert_int_equal(fs_open(as(&a), "f", O_RDWR, 0, &fa), 0);
	assert_int_equal(fs_open(as(&b), "f", O_RDWR, 0, &fb), 0);
	/* across ranges */
	memset(buf, 'a', sizeof(buf));
	as(&a);
	assert_int_equal(fs_pwrite(fa, buf, sizeof(buf), RANGE / 2), sizeof(buf));
	as(&b);
	assert_int_equal(fs_pread(fb, page, sizeof(page), RANGE - 100), sizeof(page));
	assert_memory_equal(page, buf, sizeof(page));
	/* warm: no message, whatever another writes */
	sent = virtiofs_device_requests(b.dev);
	for (int i = 0; i < 100; i++) {
		page[0] = (char)i;
		as(&a);
		assert_int_equal(fs_pwrite(fa, page, 1, RANGE - 100), 1);
		as(&b);
		assert_int_equal(fs_pread(fb, page, sizeof(page), RANGE - 100), sizeof(page));
		assert_int_equal(page[0], i);
	}
	assert_int_equal(virtiofs_device_requests(b.dev), sent);
	/* and the host */
	put_host("g", "host");
	assert_int_equal(truncate(host_path("g"), 8192), 0);
	fs_close(fa);
	assert_int_equal(fs_open(as(&a), "g", O_RDWR, 0, &fa), 0);
	assert_int_equal(fs_pread(fa, page, sizeof(page), 0), sizeof(page));
	assert_memory_equal(page, "host", 4);
	fs_close(fa);
	fs_close(fb);
	client_stop(&a);
	client_stop(&b);
	remove_all();
}

/* Growth by either end, and the file cut short by the host under what is mapped. */
#ifndef PR_SET_SYSCALL_USER_DISPATCH
#define PR_SET_SYSCALL_USER_DISPATCH 59
#endif
static volatile char refuse_calls; /* SYSCALL_DISPATCH_FILTER_BLOCK is 1 */
static volatile sig_atomic_t calls_refused, call_number;

/* Counted, and made after all: it may be one that wakes another thread. */
static void on_call(int sig, siginfo_t *info, void *context)
{
	ucontext_t *uc = context;

	(void)sig;
	refuse_calls = 0; /* the way back from here is a call */
	calls_refused++;
	call_number = info->si_syscall;
	uc->uc_mcontext.gregs[REG_RIP] -= 2; /* the instruction's length */
}

/* Reads the whole file, 4 KiB each, of which none may make a call. */
static void read_without_calls(struct file *f)
{
	static char page[4096];
	ssize_t got = sizeof(page);

	refuse_calls = 1;
	for (int64_t off = 0; off < (int64_t)RANGE && got == sizeof(page);
	     off += (int64_t)sizeof(page))
		got = fs_pread(f, page, sizeof(page), off);
	refuse_calls = 0;
	assert_int_equal(got, sizeof(page));
}

/*
 * Warm reads of 4 KiB: no message, and no call to the host: one would be a SIGSYS. Where another thread of the file
 * system's holds a lock for a moment, or has one that is waited for, there is a call: not each time.
 */
static void dax_calls_nobody(void **state)
{
	struct sigaction act = {.sa_sigaction = on_call, .sa_flags = SA_SIGINFO}, old;
	static char page[4096];
	struct client a;
	struct file *f;
	uint64_t sent;
	pid_t parent = getppid();

	(void)state;
	put_host("f", "");
	assert_int_equal(truncate(host_path("f"), RANGE), 0);
	client_start(&a, "dax=always,timeout=100");
	assert_int_equal(fs_open(as(&a), "f", O_RDONLY, 0, &f), 0);
	for (int64_t off = 0; off < (int64_t)RANGE; off += (int64_t)sizeof(page))
		assert_int_equal(fs_pread(f, page, sizeof(page), off), sizeof(page));
	sent = virtiofs_device_requests(a.dev);
	assert_int_equal(sigaction(SIGSYS, &act, &old), 0);
	if (prctl(PR_SET_SYSCALL_USER_DISPATCH, 1, 0, 0, &refuse_calls) == 0) {
		for (int i = 0; i < 10; i++) {
			calls_refused = 0;
			read_without_calls(f);
			if (!calls_refused)
				break;
			print_message("pass %d: system call %d\n", i, (int)call_number);
		}
		assert_int_equal(calls_refused, 0);
		/* The count counts. */
		refuse_calls = 1;
		assert_int_equal(getppid(), parent);
		refuse_calls = 0;
		assert_int_equal(calls_refused, 1);
		assert_int_equal(call_number, SYS_getppid);
		assert_int_equal(prctl(PR_SET_SYSCALL_USER_DISPATCH, 0, 0, 0, 0), 0);
	}
	assert_int_equal(virtiofs_device_requests(a.dev), sent);
	assert_int_equal(sigaction(SIGSYS, &old, NULL), 0);
	fs_close(f);
	client_stop(&a);
	remove_all();
}

static void dax_sizes(void **state)
{
	static char buf[3 * 4096];
	struct client a;
	struct file *f;

	(void)state;
	assert_int_equal(guard_install(), 0); /* cmocka has its own handlers */
	put_host("f", "");
	client_start(&a, "dax=always,timeout=100");
	assert_int_equal(fs_open(as(&a), "f", O_RDWR, 0, &f), 0);
	memset(buf, 'x', sizeof(buf));
	assert_int_equal(fs_pwrite(f, buf, sizeof(buf), 0), sizeof(buf));
	assert_int_equal(stat_of(&a, "f").size, sizeof(buf));
	assert_int_equal(fs_pwrite(f, buf, 100, 4000), 100);
	assert_int_equal(fs_pread(f, buf, sizeof(buf), 0), sizeof(buf));
	/* cut by the host: a believes the old size for 100 s more */
	assert_int_equal(truncate(host_path("f"), 5000), 0);
	assert_int_equal(fs_pread(f, buf, sizeof(buf), 0), 5000);
	assert_int_equal(fs_pread(f, buf, sizeof(buf), 8192), 0);
	assert_int_equal(truncate(host_path("f"), 0), 0);
	assert_int_equal(fs_pread(f, buf, sizeof(buf), 0), 0);
	/* written to what is gone: it is there again, as on Linux's own file systems */
	assert_int_equal(truncate(host_path("f"), sizeof(buf)), 0);
	assert_int_equal(fs_pread(f, buf, sizeof(buf), 0), 0); /* believed to be empty */
	fs_close(f);
	assert_int_equal(fs_open(as(&a), "f", O_RDWR, 0, &f), 0);
	assert_int_equal(fs_pread(f, buf, sizeof(buf), 0), sizeof(buf));
	assert_int_equal(truncate(host_path("f"), 0), 0);
	memset(buf, 'y', sizeof(buf));
	assert_int_equal(fs_pwrite(f, buf, 4096, 4096), 4096);
	assert_int_equal(stat_of(&a, "f").size, 8192);
	assert_int_equal(fs_truncate(as(&a), "f", 10), 0);
	assert_int_equal(fs_pread(f, buf, sizeof(buf), 0), 10);
	fs_close(f);
	client_stop(&a);
	remove_all();
}

/* A file that is read through is one message's: the descriptor does for the rest. What is read again and again is mapped; the host's changes show either way. */
static unsigned ranges_mapped(struct client *c, struct file *f, unsigned of)
{
	const struct virtiofs_inode *in = virtiofs_inode_of(remote_dentry_of(f->path.dentry));
	struct dax_window *w = virtiofs_device_dax(c->dev);
	unsigned count = 0;

	mutex_lock(&w->lock);
	for (unsigned i = 0; i < of; i++)
		count += dax_range_find(w, in, i) != NULL;
	mutex_unlock(&w->lock);
	return count;
}

static void dax_long_reads(void **state)
{
	static char buf[RANGE / 2], want[RANGE / 2];
	const unsigned pieces = 8, passes = 14;
	struct client a;
	struct file *f;
	uint64_t sent, asked_before = 0;
	int fd;

	(void)state;
	put_host("long", "");
	fd = open(host_path("long"), O_RDWR);
	assert_true(fd >= 0);
	client_start(&a, "dax=always,timeout=100");
	for (unsigned i = 0; i < pieces; i++) {
		memset(want, (int)('a' + i), sizeof(want));
		assert_int_equal(pwrite(fd, want, sizeof(want), i * sizeof(want)), sizeof(want));
	}
	assert_int_equal(fs_open(as(&a), "long", O_RDONLY, 0, &f), 0);
	assert_int_equal(fs_pread(f, buf, 4, 0), 4);
	for (unsigned pass = 0; pass < passes; pass++) {
		sent = virtiofs_device_requests(a.dev);
		for (unsigned i = 0; i < pieces; i++) {
			assert_int_equal(fs_pread(f, buf, sizeof(buf), i * sizeof(buf)),
					 sizeof(buf));
			memset(want, (int)('a' + i + pass), sizeof(want));
			assert_memory_equal(buf, want, sizeof(want));
			memset(want, (int)('a' + i + pass + 1), sizeof(want));
			assert_int_equal(pwrite(fd, want, sizeof(want), i * sizeof(want)),
					 sizeof(want));
		}
		if (pass == 0 || pass == passes - 1)
			assert_int_equal(virtiofs_device_requests(a.dev), sent);
		if (pass == 0)
			asked_before = sent;
		/* The host copies eight times the file's size; what is read after that is mapped. */
		if (pass == 0)
			assert_int_equal(ranges_mapped(&a, f, pieces / 2), 1);
	}
	assert_int_equal(ranges_mapped(&a, f, pieces / 2), pieces / 2);
	/* The first range's descriptor is the whole file's. */
	assert_int_equal(virtiofs_device_requests(a.dev), asked_before);
	fs_close(f);
	/* Cut by the host in the middle of what one read wants, of which no range is there. */
	assert_int_equal(ftruncate(fd, 0), 0);
	assert_int_equal(ftruncate(fd, 4 * RANGE), 0);
	assert_int_equal(rename(host_path("long"), host_path("cut")), 0);
	client_stop(&a);
	client_start(&a, "dax=always,timeout=100");
	assert_int_equal(fs_open(as(&a), "cut", O_RDONLY, 0, &f), 0);
	assert_int_equal(fs_pread(f, buf, 4, 0), 4);
	assert_int_equal(ftruncate(fd, 2 * RANGE + 100000), 0);
	assert_int_equal(fs_pread(f, buf, sizeof(buf), 2 * RANGE), 100000);
	assert_int_equal(fs_pread(f, buf, sizeof(buf), 3 * RANGE), 0);
	fs_close(f);
	close(fd);
	client_stop(&a);
	remove_all();
}

/* More ranges than the window has. */
static void dax_pressure(void **state)
{
	const unsigned ranges = 3 * WINDOW / RANGE;
	struct client a;
	struct file *f;

	(void)state;
	put_host("big", "");
	assert_int_equal(truncate(host_path("big"), ranges * RANGE), 0);
	client_start(&a, "dax=always,timeout=100");
	assert_int_equal(fs_open(as(&a), "big", O_RDWR, 0, &f), 0);
	for (unsigned round = 0; round < 2; round++)
		for (unsigned i = 0; i < ranges; i++) {
			uint32_t v = i + 1000 * round, got = 0;

			if (round) {
				assert_int_equal(fs_pread(f, &got, 4, i * RANGE + 4), 4);
				assert_int_equal(got, i);
			}
			assert_int_equal(fs_pwrite(f, &v, 4, i * RANGE + 4), 4);
			assert_int_equal(fs_pread(f, &got, 4, i * RANGE + 4), 4);
			assert_int_equal(got, v);
		}
	fs_close(f);
	client_stop(&a);
	remove_all();
}

/* A space that only counts what it is asked to drop. */
static unsigned dropped;
static void count_invalidate(struct mapping_space *s, uint64_t addr, uint64_t size,
			     bool private_too)
{
	(void)s;
	(void)addr;
	(void)size;
	(void)private_too;
	dropped++;
}

static int translate(struct mappable *m, uint64_t off, unsigned access, struct mem_trans *ret)
{
	int err = -EAGAIN;

	for (int i = 0; i < 3 && err == -EAGAIN; i++) {
		rwlock_read_lock(&m->data_lock);
		err = m->ops->translate(m, off, 0, UINT64_MAX & ~4095ull, access, ret);
		rwlock_read_unlock(&m->data_lock);
		if (err == -EAGAIN && m->ops->populate(m, off, 4096, access))
			return -EIO;
	}
	return err;
}

/* Through the page cache. A build that checks the order of locks ends if a page is translated with one that may not be below data_lock. */
static void cached_mappings(void **state)
{
	struct mem_trans t;
	struct mappable *m;
	struct client a;
	struct file *f;

	(void)state;
	put_host("f", "mapped");
	client_start(&a, "cache=auto");
	assert_int_equal(fs_open(as(&a), "f", O_RDWR, 0, &f), 0);
	m = f->ops->mappable(f);
	assert_int_equal(translate(m, 0, MEM_READ, &t), 0);
	assert_memory_equal(memfile_ptr(t.mf, t.mf_off), "mapped", 7);
	memfile_range_unref(t.mf, t.mf_off, t.size);
	assert_int_equal(translate(m, 4096, MEM_READ, &t), -EFAULT);
	/* It grows by a write of ours, and is mapped as far. */
	assert_int_equal(fs_pwrite(f, "more", 4, 4096), 4);
	assert_int_equal(translate(m, 4096, MEM_READ, &t), 0);
	assert_memory_equal((char *)memfile_ptr(t.mf, t.mf_off) + (4096 - t.start), "more", 4);
	memfile_range_unref(t.mf, t.mf_off, t.size);
	assert_int_equal(translate(m, 8192, MEM_READ, &t), -EFAULT);
	fs_close(f);
	client_stop(&a);
	remove_all();
}

static void dax_mappings(void **state)
{
	static const struct mapping_space_ops ops = {.invalidate = count_invalidate};
	struct mapping_space space = {&ops};
	struct mapping map = {.space = &space, .addr = 0x10000000, .size = 4 * RANGE};
	struct mem_trans t;
	struct mappable *m;
	struct client a;
	struct file *f;
	uint32_t v = 0;

	(void)state;
	assert_int_equal(guard_install(), 0);
	put_host("f", "");
	assert_int_equal(truncate(host_path("f"), 3 * RANGE), 0);
	client_start(&a, "dax=always,timeout=100");
	assert_int_equal(fs_open(as(&a), "f", O_RDWR, 0, &f), 0);
	m = f->ops->mappable(f);
	m->ops->ref(m);
	assert_int_equal(mappable_add(m, &map), 0);
	assert_int_equal(translate(m, RANGE + 4096, MEM_READ, &t), 0);
	assert_false(t.access & MEM_WRITE);
	memfile_range_unref(t.mf, t.mf_off, t.size);
	/* For writing: what was mapped for reading goes first. */
	dropped = 0;
	assert_int_equal(translate(m, RANGE + 4096, MEM_READ | MEM_WRITE, &t), 0);
	assert_true(t.access & MEM_WRITE);
	assert_true(dropped > 0);
	*(volatile uint32_t *)((char *)memfile_ptr(t.mf, t.mf_off) + (RANGE + 4096 - t.start)) = 77;
	assert_int_equal(fs_pread(f, &v, 4, RANGE + 4096), 4);
	assert_int_equal(v, 77);
	/* The file ends under it: the access fails, we do not. */
	assert_int_equal(truncate(host_path("f"), 4096), 0);
	assert_int_equal(guard_probe((char *)memfile_ptr(t.mf, t.mf_off) + (RANGE + 4096 - t.start),
				     true),
			 -EFAULT);
	memfile_range_unref(t.mf, t.mf_off, t.size);
	assert_int_equal(translate(m, RANGE + 4096, MEM_READ, &t), -EFAULT);
	mappable_remove(m, &map);
	m->ops->unref(m);
	fs_close(f);
	client_stop(&a);
	remove_all();
}

/* A write far behind the end that is believed leaves alone what the host has appended meanwhile. */
static void appended_by_the_host(void **state)
{
	char got[301], there[301], old[101] = "";
	struct client a;
	struct file *f;
	int fd;

	(void)state;
	memset(old, 'o', 100);
	put_host("tail", old);
	client_start(&a, "cache=auto,timeout=100");
	assert_int_equal(fs_open(as(&a), "tail", O_RDWR, 0, &f), 0);
	/* Nothing is cached of it, but how long it is. */
	assert_int_equal(fs_pread(f, got, 1, 5000), 0);
	fd = open(host_path("tail"), O_RDWR | O_CLOEXEC);
	assert_true(fd >= 0);
	assert_int_equal(pwrite(fd, "appended", 8, 100), 8);
	assert_int_equal(fs_pread(f, got, 100, 0), 100);
	assert_int_equal(fs_pwrite(f, "e", 1, 300), 1);
	assert_int_equal(pread(fd, there, sizeof(there), 0), sizeof(there));
	assert_memory_equal(there + 100, "appended", 8);
	assert_int_equal(fs_pread(f, got, sizeof(got), 0), sizeof(got));
	assert_memory_equal(got, there, sizeof(got));
	fs_close(f);
	close(fd);
	client_stop(&a);
	remove_all();
}

/* ---- two sync the same data ---- */

#define SYNC_BYTES (1ul << 20)
#define SYNC_TURNS 200

static struct client syncing;
static struct file *sync_file;
static pthread_barrier_t sync_begin, sync_end;
static int sync_host;
static _Atomic unsigned sync_late;

static void sync_once(unsigned turn)
{
	unsigned there = 0;

	pthread_barrier_wait(&sync_begin);
	if (file_fsync(sync_file, false, 0, UINT64_MAX) ||
	    pread(sync_host, &there, sizeof(there), SYNC_BYTES - sizeof(there)) != sizeof(there) ||
	    there != turn)
		atomic_fetch_add(&sync_late, 1);
	pthread_barrier_wait(&sync_end);
}

static void *sync_main(void *arg)
{
	struct sleeper s;

	rcu_thread_begin();
	sleeper_init(&s);
	sleeper_set_current(&s);
	cred_set_current(syncing.env.cred);
	for (unsigned turn = 1; turn <= SYNC_TURNS; turn++)
		sync_once(turn);
	vfs_run_deferred();
	cred_set_current(NULL);
	sleeper_set_current(NULL);
	rcu_thread_end();
	return arg;
}

/* Who finds nothing dirty waits for what another has just begun to write. */
static void both_wait(void **state)
{
	static unsigned data[SYNC_BYTES / sizeof(unsigned)];
	pthread_t thread;

	(void)state;
	put_host("sync", "");
	sync_host = open(host_path("sync"), O_RDONLY | O_CLOEXEC);
	assert_true(sync_host >= 0);
	client_start(&syncing, "cache=always,writeback");
	assert_int_equal(fs_open(as(&syncing), "sync", O_RDWR, 0, &sync_file), 0);
	pthread_barrier_init(&sync_begin, NULL, 2);
	pthread_barrier_init(&sync_end, NULL, 2);
	assert_int_equal(pthread_create(&thread, NULL, sync_main, NULL), 0);
	for (unsigned turn = 1; turn <= SYNC_TURNS; turn++) {
		data[ARRAY_SIZE(data) - 1] = turn;
		if (fs_pwrite(sync_file, data, sizeof(data), 0) != sizeof(data))
			atomic_fetch_add(&sync_late, 1);
		sync_once(turn);
	}
	pthread_join(thread, NULL);
	assert_int_equal(sync_late, 0);
	fs_close(sync_file);
	close(sync_host);
	client_stop(&syncing);
	remove_all();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(another_client_sees),	cmocka_unit_test(nothing_is_asked),
		cmocka_unit_test(seconds_are_given),	cmocka_unit_test(the_host_is_seen),
		cmocka_unit_test(a_killed_neighbour),	cmocka_unit_test(dax_reads_and_writes),
		cmocka_unit_test(dax_calls_nobody),	cmocka_unit_test(dax_sizes),
		cmocka_unit_test(dax_long_reads),	cmocka_unit_test(dax_pressure),
		cmocka_unit_test(dax_mappings),		cmocka_unit_test(cached_mappings),
		cmocka_unit_test(appended_by_the_host), cmocka_unit_test(both_wait),
	};

	/* Before there are threads. */
	if (start_daemon())
		return 1;
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
