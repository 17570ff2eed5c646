// LINK: moat_gofer moat_gofer_fs moat_vfs moat_mem moat_wire seccomp
/*
 * inotify on a shared tree: what programs of the host and other sandboxes do is told as the host's own inotify tells it, what the sandbox does itself
 * once; a queue that overflows, a gofer that goes, more watches than there may be.
 */
#include "tests/unit/p9_gofer_fixture.h"

#include <limits.h>
#include <sys/inotify.h>
#include <sys/resource.h>

#include "base/hostpoll.h"
#include "base/sleep.h"
#include "fsimpl/gofer/conn.h"
#include "vfs/inotify.h"

/* The sanitizers' allocators end a process that gets no memory. */
#if defined(__SANITIZE_ADDRESS__) || defined(__SANITIZE_THREAD__)
#define SANITIZED true
#elif defined(__has_feature)
#if __has_feature(address_sanitizer) || __has_feature(thread_sanitizer)
#define SANITIZED true
#endif
#endif
#ifndef SANITIZED
#define SANITIZED false
#endif

#define TEXT_MAX 16384
#define HOST_WATCHES 4096 /* SERVER_WATCHES_MAX */
#define SOON_NS (30ll * 1000000000) /* on a loaded machine */

static struct file *inside; /* the sandbox's inotify */
static char seen[TEXT_MAX]; /* what it told, a line an event */
static uint32_t cookie_from;
static bool overflowed;

static int setup_watch(void **state)
{
	struct vfs_path none = {0};

	shared_mode = true;
	assert_int_equal(setup(state), 0);
	assert_int_equal(mkdir(host("d"), 0755), 0);
	assert_int_equal(mkdir(host("other"), 0755), 0);
	write_host("d/f", "contents");
	assert_int_equal(inotify_file_create(&none, O_NONBLOCK, &inside), 0);
	seen[0] = '\0';
	overflowed = false;
	return 0;
}

static int teardown_watch(void **state)
{
	if (inside)
		file_unref(inside);
	inside = NULL;
	return teardown(state);
}

static int watch_at(const struct vfs_path *p, uint32_t mask)
{
	return inotify_file_add_watch(inside, p, mask);
}

static int watch(const char *path, uint32_t mask)
{
	struct vfs_lookup lk = at(path, 0);
	struct vfs_path p;
	int wd = vfs_get_path(&lk, &p);

	if (wd)
		return wd;
	wd = watch_at(&p, mask);
	vfs_path_unref(&p);
	return wd;
}

/* A move's second half has the first one's cookie, and nothing else has any. */
static void describe(char *text, const struct inotify_event *ev)
{
	size_t len = strlen(text);

	overflowed |= ev->wd == -1 && ev->mask == IN_Q_OVERFLOW;
	if (len > TEXT_MAX / 2)
		text[len = 0] = '\0';
	if (ev->mask & IN_MOVED_FROM)
		cookie_from = ev->cookie;
	snprintf(text + len, TEXT_MAX - len, "%d %x %s%s\n", ev->wd, ev->mask,
		 ev->len ? ev->name : "",
		 !ev->cookie		     ? ""
		 : ev->cookie == cookie_from ? " moved"
					     : " another cookie");
}

static void describe_all(char *text, const void *buf, ssize_t got)
{
	for (ssize_t off = 0; off < got;) {
		const struct inotify_event *ev = (const void *)((const char *)buf + off);

		describe(text, ev);
		off += (ssize_t)(sizeof(*ev) + ev->len);
	}
}

static void collect(void)
{
	_Alignas(8) char buf[4096];
	ssize_t got;

	while ((got = do_pread(inside, buf, sizeof(buf), -1)) > 0)
		describe_all(seen, buf, got);
}

/* Collects what is told until `line` is among it. */
static void collect_until(const char *line)
{
	int64_t end = time_monotonic_ns() + SOON_NS;

	collect();
	while (!strstr(seen, line) && time_monotonic_ns() < end) {
		usleep(2000);
		collect();
	}
	if (!strstr(seen, line))
		fail_msg("never told: %sonly:\n%s", line, seen);
}

/* Whatever came is followed by this, in watch 1. */
static void collect_rest(void)
{
	assert_int_equal(mkdir(host("d/the-end"), 0755), 0);
	collect_until("the-end");
}

/* ---- what others do ---- */

static void do_on_host(void)
{
	int fd = open(host("d/a"), O_CREAT | O_RDWR, 0644);
	char c;

	assert_true(fd >= 0);
	assert_int_equal(write(fd, "text", 4), 4);
	assert_int_equal(pread(fd, &c, 1, 0), 1);
	assert_int_equal(close(fd), 0);
	assert_int_equal(chmod(host("d/a"), 0600), 0);
	assert_int_equal(rename(host("d/a"), host("d/b")), 0);
	assert_int_equal(rename(host("d/b"), host("other/b")), 0);
	assert_int_equal(rename(host("other/b"), host("d/c")), 0);
	assert_int_equal(link(host("d/c"), host("d/l")), 0);
	assert_int_equal(unlink(host("d/c")), 0);
	assert_int_equal(symlink("f", host("d/s")), 0);
	assert_int_equal(mkdir(host("d/sub"), 0755), 0);
	assert_int_equal(rmdir(host("d/sub")), 0);
	/* Watched itself, and in its directory. */
	assert_int_equal(truncate(host("d/f"), 3), 0);
	assert_int_equal(chmod(host("d/f"), 0640), 0);
	fd = open(host("d/f"), O_RDONLY);
	close(fd);
	assert_int_equal(rename(host("d/f"), host("d/g")), 0);
	assert_int_equal(unlink(host("d/g")), 0);
}

static void as_on_the_host(void **state)
{
	static char wanted[TEXT_MAX];
	_Alignas(8) char buf[8192];
	int in = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	ssize_t got;

	(void)state;
	assert_int_equal(watch("d", IN_ALL_EVENTS), 1);
	assert_int_equal(watch("d/f", IN_ALL_EVENTS), 2);
	assert_int_equal(inotify_add_watch(in, host("d"), IN_ALL_EVENTS), 1);
	assert_int_equal(inotify_add_watch(in, host("d/f"), IN_ALL_EVENTS), 2);
	do_on_host();
	collect_rest();
	wanted[0] = '\0';
	while ((got = read(in, buf, sizeof(buf))) > 0)
		describe_all(wanted, buf, got);
	close(in);
	assert_true(strstr(wanted, "moved") != NULL);
	assert_string_equal(seen, wanted);
	/* A name that came is seen. */
	assert_int_equal(do_stat("d/the-end", &(struct moat_statx){0}), 0);
}

/* Only what is asked for; an end of the watch, and nothing after it. */
static void masks(void **state)
{
	(void)state;
	assert_int_equal(watch("d", IN_CREATE), 1);
	write_host("d/one", "1");
	collect_rest();
	assert_string_equal(seen, "1 100 one\n1 40000100 the-end\n");
	seen[0] = '\0';
	/* More of the same place. */
	assert_int_equal(watch("d", IN_DELETE | IN_MASK_ADD), 1);
	assert_int_equal(unlink(host("d/one")), 0);
	collect_until("200 one");
	assert_int_equal(inotify_file_rm_watch(inside, 1), 0);
	vfs_run_deferred();
	write_host("d/two", "2");
	/* Another one: what came before would be there. */
	assert_int_equal(watch("d", IN_CREATE), 2);
	write_host("d/three", "3");
	collect_until("three");
	assert_string_equal(seen, "1 200 one\n1 8000 \n2 100 three\n");
}

/* ---- what the sandbox does: once ---- */

static void use_file(const char *path, unsigned flags)
{
	struct file *f;
	char c;

	assert_int_equal(do_open(path, flags, 0644, &f), 0);
	if (flags & O_RDWR)
		assert_int_equal(do_pwrite(f, "x", 1, 0), 1);
	assert_int_equal(do_pread(f, &c, 1, 0), 1);
	file_unref(f);
	vfs_run_deferred();
}

static void own_once(void **state)
{
	struct vfs_lookup lk = at("d/x", 0);
	struct setattr_args mode = {.valid = SETATTR_MODE, .mode = 0600};

	(void)state;
	assert_int_equal(watch("d", IN_ALL_EVENTS), 1);
	use_file("d/x", O_CREAT | O_EXCL | O_RDWR);
	/* A descriptor that is there already is asked for again, and what is idle closed. */
	use_file("d/x", O_RDONLY);
	gofer_fs_shrink(fx.fs);
	use_file("d/x", O_RDWR);
	assert_int_equal(vfs_set_stat(&lk, &mode), 0);
	assert_int_equal(do_rename("d/x", "d/y", 0), 0);
	assert_int_equal(do_link("d/y", "d/z"), 0);
	assert_int_equal(do_unlink("d/y"), 0);
	assert_int_equal(do_mkdir("d/sub", 0755), 0);
	assert_int_equal(do_rmdir("d/sub"), 0);
	gofer_fs_shrink(fx.fs);
	collect_rest();
	assert_string_equal(seen, "1 100 x\n1 20 x\n1 2 x\n1 1 x\n1 8 x\n" /* made, written, read */
				  "1 20 x\n1 1 x\n1 10 x\n" /* read */
				  "1 20 x\n1 2 x\n1 1 x\n1 8 x\n" /* written, read */
				  "1 4 x\n1 40 x moved\n1 80 y moved\n"
				  "1 100 z\n1 200 y\n1 40000100 sub\n1 40000200 sub\n"
				  "1 40000100 the-end\n");
}

/* The sandbox has it open when somebody else removes it: the end of its watch is that of its last use. */
static void removed_while_open(void **state)
{
	struct file *f;

	(void)state;
	assert_int_equal(watch("d", IN_CREATE), 1);
	assert_int_equal(watch("d/f", IN_DELETE_SELF), 2);
	assert_int_equal(do_open("d/f", O_RDONLY, 0, &f), 0);
	assert_int_equal(unlink(host("d/f")), 0);
	collect_rest();
	assert_null(strstr(seen, "2 "));
	file_unref(f);
	vfs_run_deferred();
	collect_until("2 400 \n2 8000 \n");
}

/* One that was read, and whose descriptor is kept, does not live on for that. */
static void removed_while_idle(void **state)
{
	(void)state;
	use_file("d/f", O_RDONLY);
	assert_int_equal(watch("d/f", IN_DELETE_SELF | IN_ATTRIB), 1);
	assert_int_equal(unlink(host("d/f")), 0);
	collect_until("1 400 \n1 8000 \n");
	assert_string_equal(seen, "1 4 \n1 400 \n1 8000 \n");
}

/* The same where nothing else is asked for, and when it was used and closed in between. */
static void removed_alone(void **state)
{
	(void)state;
	use_file("d/f", O_RDONLY);
	assert_int_equal(watch("d/f", IN_DELETE_SELF), 1);
	use_file("d/f", O_RDWR);
	assert_int_equal(unlink(host("d/f")), 0);
	collect_until("1 400 \n1 8000 \n");
	assert_string_equal(seen, "1 400 \n1 8000 \n");
}

/* ---- what others do is told though the sandbox does the like ---- */

static void host_writes(const char *path)
{
	int fd = open(host(path), O_WRONLY);

	assert_true(fd >= 0);
	assert_int_equal(write(fd, "y", 1), 1);
	assert_int_equal(close(fd), 0);
}

/* A change of its attributes is no closing. */
static void changed_then_written(void **state)
{
	(void)state;
	assert_int_equal(watch("d/f", IN_ATTRIB | IN_CLOSE_WRITE), 1);
	assert_int_equal(chmod(host("d/f"), 0600), 0);
	collect_until("1 4 \n");
	host_writes("d/f");
	collect_until("1 8 \n");
	assert_string_equal(seen, "1 4 \n1 8 \n");
}

/* Closing of something elsewhere, or of nothing, is not that of this file. */
static void closed_elsewhere(void **state)
{
	struct moat_statx stx;

	(void)state;
	assert_int_equal(watch("d", IN_CLOSE_WRITE), 1);
	use_file("other/tmp", O_CREAT | O_EXCL | O_RDWR);
	assert_int_equal(do_unlink("other/tmp"), 0);
	assert_int_equal(do_stat("other/none", &stx), -ENOENT);
	write_host("other/went", "x");
	assert_int_equal(do_stat("other/went", &stx), 0);
	assert_int_equal(unlink(host("other/went")), 0);
	assert_int_equal(do_stat("other/went", &stx), -ENOENT);
	gofer_fs_shrink(fx.fs);
	host_writes("d/f");
	collect_until("1 8 f\n");
	assert_string_equal(seen, "1 8 f\n");
}

/* What the sandbox uses by one name is its own doing by another one, too, which it has had or another link has. */
static void other_names(void **state)
{
	(void)state;
	use_file("d/f", O_RDWR);
	assert_int_equal(do_link("d/f", "d/z"), 0);
	assert_int_equal(watch("d", IN_MODIFY | IN_ACCESS | IN_CLOSE), 1);
	use_file("d/z", O_RDWR);
	assert_int_equal(do_rename("d/f", "d/g", 0), 0);
	gofer_fs_shrink(fx.fs);
	write_host("d/last", "x");
	collect_until("1 8 last\n");
	assert_string_equal(seen, "1 2 z\n1 1 z\n1 8 z\n1 2 last\n1 8 last\n");
}

/* An open file that the host put another one in the place of: that is none of its watch's. */
static void replaced(void **state)
{
	struct file *f;

	(void)state;
	assert_int_equal(watch("d", IN_CREATE), 1);
	assert_int_equal(do_open("d/f", O_RDWR, 0, &f), 0);
	assert_int_equal(rename(host("d/f"), host("d/old")), 0);
	write_host("d/f", "another");
	assert_int_equal(watch_at(&f->path, IN_MODIFY | IN_CLOSE_WRITE), 2);
	host_writes("d/f");
	collect_rest();
	assert_null(strstr(seen, "2 "));
	assert_int_equal(do_pwrite(f, "x", 1, 0), 1);
	collect_until("2 2 \n");
	file_unref(f);
	vfs_run_deferred();
}

static void other_sandbox(void **state)
{
	static struct fixture two;
	struct vfs_lookup lk = at("d/by-two", 0);
	struct mkdir_args args = {.mode = 0755};
	int status;

	(void)state;
	mount_client(&two, true, "two");
	assert_int_equal(watch("d", IN_CREATE | IN_DELETE), 1);
	lk.ns = two.ns;
	lk.root = lk.start = two.root;
	assert_int_equal(vfs_mkdir(&lk, &args), 0);
	collect_until("1 40000100 by-two\n");
	unmount_client(&two);
	assert_int_equal(waitpid(two.pid, &status, 0), two.pid);
}

/* ---- limits and faults ---- */

static void overflow(void **state)
{
	(void)state;
	assert_int_equal(watch("d", IN_CREATE | IN_DELETE), 1);
	assert_int_equal(kill(fx.pid, SIGSTOP), 0);
	for (unsigned i = 0; i < 9000; i++) {
		assert_int_equal(symlink("x", host("d/s")), 0);
		assert_int_equal(unlink(host("d/s")), 0);
	}
	assert_int_equal(kill(fx.pid, SIGCONT), 0);
	for (unsigned i = 0; i < 3000 && !overflowed; i++) {
		usleep(10000);
		collect();
	}
	assert_true(overflowed);
	collect_rest();
}

/*
 * A gofer that gets no memory says that something is lost. Its client takes nothing meanwhile, so that its queue grows, but to less than what is bounded
 * by numbers.
 */
static void no_memory(void **state)
{
	const struct rlimit none = {4096, RLIM_INFINITY}, all = {RLIM_INFINITY, RLIM_INFINITY};
	char name[NAME_MAX + 1];
	int dir_fd = open(host("d"), O_PATH | O_CLOEXEC);

	(void)state;
	if (SANITIZED)
		skip();
	assert_int_equal(watch("d", IN_CREATE), 1);
	mutex_lock(&fx.conn->watch_lock);
	assert_int_equal(prlimit(fx.pid, RLIMIT_DATA, &none, NULL), 0);
	memset(name, 'x', NAME_MAX);
	name[NAME_MAX] = '\0';
	for (unsigned i = 0; i < 3500; i++) {
		char number[8];

		snprintf(number, sizeof(number), "%06u", i);
		memcpy(name, number, 6);
		assert_int_equal(symlinkat("x", dir_fd, name), 0);
	}
	gofer_process_until_idle(fx.pid, -1);
	assert_int_equal(prlimit(fx.pid, RLIMIT_DATA, &all, NULL), 0);
	mutex_unlock(&fx.conn->watch_lock);
	close(dir_fd);
	collect_rest();
	assert_true(overflowed);
}

/* Past what the host gives watches are made all the same: they hear of the sandbox. */
static void too_many(void **state)
{
	char name[64], line[64];
	struct file *f;

	(void)state;
	assert_int_equal(mkdir(host("many"), 0755), 0);
	for (int i = 0; i <= HOST_WATCHES; i++) {
		snprintf(name, sizeof(name), "many/%d", i);
		assert_int_equal(mknod(host(name), S_IFREG | 0644, 0), 0);
		assert_int_equal(watch(name, IN_MODIFY), i + 1);
	}
	host_writes(name);
	host_writes("many/0");
	collect_until("1 2 \n");
	assert_string_equal(seen, "1 2 \n");
	assert_int_equal(do_open(name, O_RDWR, 0, &f), 0);
	assert_int_equal(do_pwrite(f, "x", 1, 0), 1);
	file_unref(f);
	snprintf(line, sizeof(line), "%d 2 \n", HOST_WATCHES + 1);
	collect_until(line);
	/* They go with the file, and there is room again. */
	file_unref(inside);
	for (int i = 0; i < 3; i++) {
		vfs_run_deferred();
		rcu_drain();
	}
	assert_int_equal(inotify_file_create(&(struct vfs_path){0}, O_NONBLOCK, &inside), 0);
	seen[0] = '\0';
	assert_int_equal(watch(name, IN_MODIFY), 1);
	host_writes(name);
	collect_until("1 2 \n");
}

static void gofer_killed(void **state)
{
	char cmd[128];
	int status;

	(void)state;
	assert_int_equal(watch("d", IN_ALL_EVENTS), 1);
	assert_int_equal(kill(fx.pid, SIGKILL), 0);
	assert_int_equal(waitpid(fx.pid, &status, 0), fx.pid);
	assert_int_equal(watch("d", IN_CREATE), -EIO);
	file_unref(inside);
	inside = NULL;
	unmount_client(&fx);
	cred_set_current(NULL);
	cred_unref(fx.cred);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", fx.dir);
	assert_int_equal(system(cmd), 0);
}

/* A server that tells nonsense: of watches that are none, of names that are paths, of times to come. */
static void nonsense(void **state)
{
	struct p9_Tmevent ev = {.watch = 1,
				.mask = UINT32_MAX & ~(uint32_t)IN_DELETE_SELF,
				.since = UINT64_MAX,
				.until = UINT64_MAX,
				.name = p9_str("../up")};

	(void)state;
	p9_watch_event(fx.conn, &ev);
	assert_int_equal(watch("d", IN_ALL_EVENTS), 1);
	for (unsigned i = 0; i < 300; i++) {
		ev.watch = i;
		p9_watch_event(fx.conn, &ev);
	}
	collect();
	assert_null(strstr(seen, "up"));
	ev.since = 0;
	ev.until = INT64_MAX;
	ev.name = p9_str("name");
	ev.mask = ~(uint32_t)(IN_DELETE_SELF | IN_Q_OVERFLOW);
	for (unsigned i = 0; i < 300; i++) {
		ev.watch = i;
		p9_watch_event(fx.conn, &ev);
	}
	collect();
	assert_non_null(strstr(seen, "name"));
	seen[0] = '\0';
	collect_rest();
}

#define WATCH_TEST(name) cmocka_unit_test_setup_teardown(name, setup_watch, teardown_watch)

static int init_watch(void **state)
{
	return init(state) || hostpoll_start();
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		WATCH_TEST(as_on_the_host),
		WATCH_TEST(masks),
		WATCH_TEST(own_once),
		WATCH_TEST(removed_while_open),
		WATCH_TEST(removed_while_idle),
		WATCH_TEST(other_sandbox),
		WATCH_TEST(changed_then_written),
		WATCH_TEST(closed_elsewhere),
		WATCH_TEST(other_names),
		WATCH_TEST(removed_alone),
		WATCH_TEST(replaced),
		WATCH_TEST(overflow),
		WATCH_TEST(no_memory),
		WATCH_TEST(too_many),
		WATCH_TEST(nonsense),
		cmocka_unit_test_setup(gofer_killed, setup_watch),
	};

	/* What hangs must not keep everything else waiting. */
	alarm(120);
	return cmocka_run_group_tests(tests, init_watch, NULL);
}
