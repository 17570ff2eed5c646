/*
 * Limits in /proc/sys that hold, and hold as they were set. On the host they are everybody's: they are only raised, by little,
 * for a moment, and one test at a time (a lock on the file itself).
 */
#include "t.h"

#include <linux/aio_abi.h>
#include <sys/file.h>
#include <sys/inotify.h>

#define SOMEBODY 54321 /* a user whom nobody else uses */
#define MAPS_MAX 200000 /* a host's limit that is worth reaching */

static long long value_of(const char *path)
{
	return strtoll(t_read(path), NULL, 10);
}

static void set_to(const char *path, long long value)
{
	char text[32];
	int fd = open(path, O_WRONLY), len = snprintf(text, sizeof(text), "%lld\n", value);

	CHECK_OK(fd);
	CHECK_EQ(write(fd, text, (size_t)len), len);
	CHECK_OK(close(fd));
}

static void refused(const char *path, const char *text)
{
	int fd = open(path, O_WRONLY);

	CHECK_OK(fd);
	CHECK_ERR(write(fd, text, strlen(text)), EINVAL);
	CHECK_OK(close(fd));
}

/* In a child, so that the value is restored whatever becomes of it: what `act` finds with the limit as it was and `more` higher. */
static void with_raised(const char *path, long long more, void (*act)(long long limit, int user))
{
	int lock = open(path, O_RDONLY), status;
	long long was;
	pid_t pid;

	if (access(path, W_OK) || geteuid())
		SKIP("root's settings");
	CHECK_OK(lock);
	CHECK_OK(flock(lock, LOCK_EX));
	was = value_of(path);
	for (int i = 0; i < 2; i++) {
		if (i)
			set_to(path, was + more);
		pid = fork();
		CHECK_OK(pid);
		if (!pid) {
			act(was + i * more, SOMEBODY + i);
			_exit(0);
		}
		CHECK_EQ(waitpid(pid, &status, 0), pid);
		set_to(path, was);
		CHECK_EQ(status, 0);
	}
}

static void become(int user)
{
	CHECK_OK(setrlimit(RLIMIT_NOFILE, &(struct rlimit){4096, 4096}));
	CHECK_OK(setresgid(user, user, user));
	CHECK_OK(setresuid(user, user, user));
}

static void largest_pipe(long long limit, int user)
{
	int p[2];

	become(user);
	CHECK_OK(pipe(p));
	CHECK_EQ(fcntl(p[0], F_SETPIPE_SZ, limit), limit);
	CHECK_ERR(fcntl(p[0], F_SETPIPE_SZ, limit + 1), EPERM);
	CHECK_EQ(fcntl(p[0], F_GETPIPE_SZ), limit);
	CHECK_EQ(fcntl(p[0], F_SETPIPE_SZ, 1), 4096);
}

TEST(pipe_max_size)
{
	with_raised("/proc/sys/fs/pipe-max-size", value_of("/proc/sys/fs/pipe-max-size"),
		    largest_pipe);
	refused("/proc/sys/fs/pipe-max-size", "x");
	refused("/proc/sys/fs/pipe-max-size", "2147483649");
}

/* Pipes of a user who has more pages than that are of two, and do not grow. */
static void pipes_of_pages(long long limit, int user)
{
	long long pages = 0;
	int p[2];

	become(user);
	while (pages + 16 <= limit) {
		CHECK_OK(pipe(p));
		CHECK_EQ(fcntl(p[0], F_GETPIPE_SZ), 65536);
		pages += 16;
	}
	CHECK_OK(pipe(p));
	CHECK_EQ(fcntl(p[0], F_GETPIPE_SZ), 8192);
	CHECK_ERR(fcntl(p[0], F_SETPIPE_SZ, 65536 * 2), EPERM);
	CHECK_EQ(fcntl(p[0], F_SETPIPE_SZ, 4096), 4096);
	close(p[0]);
	close(p[1]);
	/* What was closed counts no longer. */
	close(3);
	close(4);
	close(5);
	close(6);
	CHECK_OK(pipe(p));
	CHECK_EQ(fcntl(p[0], F_GETPIPE_SZ), 65536);
}

TEST(pipe_user_pages_soft)
{
	if (value_of("/proc/sys/fs/pipe-user-pages-soft") > 30000)
		SKIP("many pages");
	with_raised("/proc/sys/fs/pipe-user-pages-soft", 160, pipes_of_pages);
	refused("/proc/sys/fs/pipe-user-pages-soft", "-1");
}

static void instances(long long limit, int user)
{
	int fd = -1;

	become(user);
	for (long long i = 0; i < limit; i++)
		CHECK_OK(fd = inotify_init());
	CHECK_ERR(inotify_init(), EMFILE);
	CHECK_OK(close(fd));
	CHECK_OK(inotify_init());
}

TEST(inotify_instances)
{
	const char *path = "/proc/sys/fs/inotify/max_user_instances";

	if (value_of(path) > 4000)
		SKIP("many instances");
	with_raised(path, 5, instances);
	refused(path, "-1");
	refused(path, "1x");
}

static void mappings(long long limit, __attribute__((unused)) int user)
{
	size_t page = 4096, size = (size_t)limit * 2 * page;
	char *p = mmap(NULL, size, PROT_READ, MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE, -1, 0);
	long long made = 0;
	int why;

	CHECK(p != MAP_FAILED);
	/* Each takes a page out of the middle: two mappings more. */
	while (made < limit && !mprotect(p + ((size_t)made * 2 + 1) * page, page, PROT_NONE))
		made++;
	why = errno;
	CHECK_EQ(why, ENOMEM);
	/* The limit stops who splits; new mappings stop one later. */
	for (why = 0; why < 3; why++)
		if (mmap(NULL, page, PROT_READ, MAP_SHARED | MAP_ANONYMOUS, -1, 0) == MAP_FAILED)
			break;
	CHECK(why == 1 || why == 2);
	/* The program's own ones are some dozens at most. */
	CHECK(made * 2 > limit - 100);
	CHECK(made * 2 <= limit);
}

TEST(max_map_count)
{
	const char *path = "/proc/sys/vm/max_map_count";

	if (value_of(path) > MAPS_MAX)
		SKIP("a limit too high to reach");
	with_raised(path, 1000, mappings);
	refused(path, "-1");
}

TEST(nr_open)
{
	long long max = value_of("/proc/sys/fs/nr_open");

	CHECK_ERR(setrlimit(RLIMIT_NOFILE, &(struct rlimit){(rlim_t)max + 1, (rlim_t)max + 1}),
		  EPERM);
	refused("/proc/sys/fs/nr_open", "1");
}

TEST(aio_max_nr)
{
	long long max = value_of("/proc/sys/fs/aio-max-nr");
	aio_context_t c = 0;

	CHECK(max > 0);
	if (max > 1000000)
		SKIP("many requests");
	CHECK_ERR(syscall(SYS_io_setup, max + 1, &c), EAGAIN);
	refused("/proc/sys/fs/aio-max-nr", "-1");
}

/* Root asks by its number, not with capabilities. */
TEST(read_only)
{
	static const char *const files[] = {"kernel/ostype", "kernel/version", "fs/aio-nr",
					    "fs/dentry-state", "kernel/random/uuid"};
	char path[64];

	for (size_t i = 0; i < sizeof(files) / sizeof(files[0]); i++) {
		snprintf(path, sizeof(path), "/proc/sys/%s", files[i]);
		CHECK_ERR(open(path, O_WRONLY), EACCES);
		CHECK_ERR(access(path, W_OK), EACCES);
		CHECK_OK(open(path, O_RDONLY));
	}
}
