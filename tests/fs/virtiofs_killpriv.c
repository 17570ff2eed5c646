/*
 * Who changes a file's data or owner loses its setuid and setgid bits, unless privileged: the mode that a file of the host has after each operation by
 * each kind of caller is what a file behind the daemon has after the same.
 */
#include <errno.h>
#include <grp.h>
#include <linux/capability.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mman.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "base/log.h"
#include "mem/guard.h"
#include "tests/fs/backend_virtiofs.h"
#include "tests/fs/env.h"

#define SKIPPED 77
#define ALL_CAPS ((1ull << (CAP_LAST_CAP + 1)) - 1)
#define GROUP 3000u

static struct fs_env e;
static char host_dir[128];

static const struct caller {
	const char *name;
	uint32_t uid, gid;
	uint64_t caps;
} callers[] = {
	{"owner", 1000, 1000, 0},
	{"stranger", 2000, 2000, 0},
	{"root", 0, 0, ALL_CAPS},
	{"root without CAP_FSETID", 0, 0, ALL_CAPS & ~(1ull << CAP_FSETID)},
};

static const struct owner {
	uint32_t uid, gid;
} owners[] = {{1000, 1000}, {1000, 4000}};

static const mode_t modes[] = {04777, 02777, 06777, 02767, 06666, 07777, 0777};

enum operation {
	WRITE,
	APPEND,
	TRUNCATE,
	FTRUNCATE,
	ALLOCATE,
	OPEN_TRUNC,
	OPEN_ONLY,
	CHGRP,
	OPERATIONS
};
#define CASES (ARRAY_SIZE(owners) * ARRAY_SIZE(modes) * OPERATIONS) /* a caller */
#define NAME_BYTES 32
static const char *const operation_names[] = {"write",	   "append",	   "truncate",	"ftruncate",
					      "fallocate", "open O_TRUNC", "open only", "chown"};

/* ---- the host ---- */

static int host_operation(int dir, const char *name, enum operation op)
{
	int fd = -1, err = 0;
	char path[64];

	if (op == CHGRP)
		return fchownat(dir, name, (uid_t)-1, GROUP, 0) < 0 ? errno : 0;
	if (op != TRUNCATE) {
		fd = openat(dir, name,
			    O_WRONLY | (op == APPEND ? O_APPEND : 0) |
				    (op == OPEN_TRUNC ? O_TRUNC : 0));
		if (fd < 0)
			return errno;
	}
	if (op == TRUNCATE) {
		snprintf(path, sizeof(path), "./%s", name);
		err = fchdir(dir) < 0 || truncate(path, 2) < 0 ? errno : 0;
	} else if (op == FTRUNCATE) {
		err = ftruncate(fd, 2) < 0 ? errno : 0;
	} else if (op == ALLOCATE) {
		err = fallocate(fd, 0, 0, 10) < 0 ? errno : 0;
	} else if (op == WRITE || op == APPEND) {
		err = write(fd, "xy", 2) != 2 ? errno : 0;
	}
	if (fd >= 0)
		close(fd);
	return err;
}

static void become(const struct caller *c)
{
	struct __user_cap_header_struct head = {.version = _LINUX_CAPABILITY_VERSION_3};
	struct __user_cap_data_struct data[2] = {
		{(uint32_t)c->caps, (uint32_t)c->caps, 0},
		{(uint32_t)(c->caps >> 32), (uint32_t)(c->caps >> 32), 0},
	};
	gid_t group = GROUP;

	if (setgroups(1, &group) < 0 || setresgid(c->gid, c->gid, c->gid) < 0 ||
	    setresuid(c->uid, c->uid, c->uid) < 0)
		_exit(200);
	/* Of root's. Another user's are gone. */
	if (!c->uid && syscall(SYS_capget, &head, data) == 0) {
		data[0].effective &= (uint32_t)c->caps;
		data[1].effective &= (uint32_t)(c->caps >> 32);
		if (syscall(SYS_capset, &head, data) < 0)
			_exit(201);
	}
}

static void name_of(unsigned number, char *ret)
{
	snprintf(ret, NAME_BYTES, "/f%u", number);
}

/* All operations by one caller; results: what each gave, shared with the process that does it. */
static void on_host(unsigned caller, int *results)
{
	int dir = open(host_dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), status;
	char name[NAME_BYTES];
	pid_t pid = fork();

	assert_true(pid >= 0);
	if (!pid) {
		become(&callers[caller]);
		for (unsigned i = 0; i < CASES; i++) {
			name_of(caller * CASES + i, name);
			results[i] = -host_operation(dir, name + 1, i % OPERATIONS);
		}
		_exit(0);
	}
	assert_int_equal(waitpid(pid, &status, 0), pid);
	close(dir);
	assert_int_equal(status, 0);
}

/* ---- the client ---- */

static int by_client(const char *name, enum operation op)
{
	struct file *f;
	int err;

	if (op == CHGRP)
		return fs_chown(&e, name, UINT32_MAX, GROUP);
	if (op == TRUNCATE)
		return fs_truncate(&e, name, 2);
	err = fs_open(&e, name,
		      O_WRONLY | (op == APPEND ? O_APPEND : 0) | (op == OPEN_TRUNC ? O_TRUNC : 0),
		      0, &f);
	if (err)
		return err;
	if (op == FTRUNCATE)
		err = file_truncate(f, 2);
	else if (op == ALLOCATE)
		err = file_fallocate(f, 0, 0, 10);
	else if (op == WRITE || op == APPEND)
		err = (int)MIN(fs_write(f, "xy", 2), 0);
	fs_close(f);
	return err;
}

static void make(const char *dir, const char *name, const struct owner *o, mode_t mode)
{
	char path[256];
	int fd;

	snprintf(path, sizeof(path), "%s%s", dir, name);
	fd = open(path, O_CREAT | O_EXCL | O_WRONLY | O_CLOEXEC, 0600);
	assert_true(fd >= 0);
	assert_int_equal(write(fd, "data", 4), 4);
	assert_int_equal(fchown(fd, o->uid, o->gid), 0);
	assert_int_equal(fchmod(fd, mode), 0);
	close(fd);
}

static mode_t mode_in(const char *dir, const char *name)
{
	struct stat st;
	char path[256];

	snprintf(path, sizeof(path), "%s%s", dir, name);
	assert_int_equal(stat(path, &st), 0);
	return st.st_mode & 07777;
}

static void be(const struct caller *c)
{
	const uint32_t group = GROUP;

	assert_int_equal(fs_env_become(&e, c->uid, c->gid, &group, 1, c->caps), 0);
}

static void one(unsigned number, const struct caller *c, int want)
{
	enum operation op = number % OPERATIONS;
	const char *shared = backend_virtiofs_dir();
	struct moat_statx st;
	char name[NAME_BYTES];
	int got;

	name_of(number, name);
	got = by_client(name, op);
	if (got != want || mode_in(shared, name) != mode_in(host_dir, name))
		fail_msg("case %u, %s by %s: %d and mode %o, on the host %d and mode %o", number,
			 operation_names[op], c->name, got, mode_in(shared, name), want,
			 mode_in(host_dir, name));
	/* What the client believes is what it is. */
	assert_int_equal(fs_stat(&e, name, &st), 0);
	assert_int_equal(st.mode & 07777, mode_in(shared, name));
}

static void test_as_the_host(void **state)
{
	int *results = mmap(NULL, CASES * sizeof(int), PROT_READ | PROT_WRITE,
			    MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	char name[NAME_BYTES];

	(void)state;
	assert_true(results != MAP_FAILED);
	for (unsigned c = 0; c < ARRAY_SIZE(callers); c++) {
		for (unsigned i = 0; i < CASES; i++) {
			const struct owner *o = &owners[i / OPERATIONS / ARRAY_SIZE(modes)];
			mode_t mode = modes[i / OPERATIONS % ARRAY_SIZE(modes)];

			name_of(c * CASES + i, name);
			make(host_dir, name, o, mode);
			make(backend_virtiofs_dir(), name, o, mode);
		}
		on_host(c, results);
		be(&callers[c]);
		for (unsigned i = 0; i < CASES; i++)
			one(c * CASES + i, &callers[c], results[i]);
	}
	munmap(results, CASES * sizeof(int));
}

/* The bits came after the client had looked: the server, which is asked to, finds them. */
static void test_unseen(void **state)
{
	static const enum operation operations[] = {WRITE, FTRUNCATE};
	const char *options = getenv("VIRTIOFS_OPTIONS");
	struct file *f;
	char name[32], path[256];

	(void)state;
	if (!getenv("VIRTIOFSD_MORE") ||
	    (options && (strstr(options, "writeback") || strstr(options, "dax"))))
		skip();
	be(&callers[0]);
	for (size_t i = 0; i < ARRAY_SIZE(operations); i++) {
		snprintf(name, sizeof(name), "/unseen%zu", i);
		make(backend_virtiofs_dir(), name, &owners[0], 0755);
		assert_int_equal(fs_open(&e, name, O_WRONLY, 0, &f), 0);
		snprintf(path, sizeof(path), "%s%s", backend_virtiofs_dir(), name);
		assert_int_equal(chmod(path, 06755), 0);
		if (operations[i] == WRITE)
			assert_int_equal(fs_write(f, "x", 1), 1);
		else
			assert_int_equal(file_truncate(f, 1), 0);
		assert_int_equal(mode_in(backend_virtiofs_dir(), name), 0755);
		fs_close(f);
	}
}

static int set_up(void **state)
{
	(void)state;
	umask(0);
	if (fs_env_init(&e))
		return -1;
	/* The backend waits for nobody; we do. */
	signal(SIGCHLD, SIG_DFL);
	snprintf(host_dir, sizeof(host_dir), "%s.host", backend_virtiofs_dir());
	return mkdir(host_dir, 0777);
}

static int tear_down(void **state)
{
	char cmd[192];

	(void)state;
	be(&callers[2]);
	fs_env_fini(&e);
	snprintf(cmd, sizeof(cmd), "rm -rf %s", host_dir);
	(void)!system(cmd);
	signal(SIGCHLD, SIG_IGN);
	return 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {cmocka_unit_test(test_as_the_host),
					   cmocka_unit_test(test_unseen)};

	if (geteuid() != 0) {
		printf("only root can be all of these callers\n");
		return SKIPPED;
	}
	log_init(-1, LOG_ERROR_LEVEL, "test");
	if (fs_env_process_init() || guard_install())
		return 1;
	return cmocka_run_group_tests(tests, set_up, tear_down);
}
