// LINK: moat_sentry moat_overlay moat_memfs moat_gofer_fs moat_gofer moat_vfs moat_mem moat_wire seccomp
/*
 * bench/vfs_stat.c [--json] [--filter=SUBSTRING | --only=NAME] [--count=N] - the VFS as a library: no sandbox, no system calls.
 *
 * MemfsStat/N and MemfsMountStat/N are gVisor's VFS2 benchmark: directories named by their depth counted down ("N/.../1"), the file
 * "gvisor_test_temp_0_1557494568", stat by absolute path with every attribute; the second below a memfs mounted on /tmp. MemfsStatWalk/N and
 * MemfsMountStatWalk/N are the same with the path cache off, as is every case whose name ends in "Walk".
 * FdGet is a descriptor of a table that two tasks share, looked up and given back; each thread has a file of its own.
 * OverlayStat/8 is an overlay over a memfs, RootStat/8 what a container's root is: an overlay over a directory of the host behind a gofer.
 *
 * Each line is a median of rounds, by the wall's clock: a thread that sleeps for a lock does not scale. "NAME:private2" and "NAME:same2" are what one of two threads sees (ns of its own
 * per operation), each on a CPU of its own, on paths of its own or on the same; "NAME:...2-scaling" is their throughput over what each has alone, divided by what two loops
 * that share nothing scale to in the same round (1 is perfect). --count=N runs each case N times once and measures nothing: for callgrind.
 */
#include <fcntl.h>
#include <linux/stat.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <time.h>
#include <unistd.h>

#include "base/rcu.h"
#include "fsimpl/gofer/gofer_fs.h"
#include "fsimpl/memfs/memfs.h"
#include "fsimpl/overlay/overlay.h"
#include "sentry/fdtable.h"
#include "tests/gofer_process.h"
#include "vfs/path_cache.h"

#define RUNS 9
#define RUN_NS 5000000ll
#define ROUNDS 25
#define PHASE_NS 1000000ll
#define FILE_NAME "gvisor_test_temp_0_1557494568"

static struct mount_namespace *ns;
static struct vfs_path root;
static struct cred *cred, *user;
static bool json, first = true;
static const char *filter = "", *only;

static int64_t clock_ns(clockid_t clock)
{
	struct timespec ts;

	clock_gettime(clock, &ts);
	return ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

static void check(int err, const char *what)
{
	if (!err)
		return;
	fprintf(stderr, "vfs_stat: %s: %s\n", what, strerror(-err));
	exit(1);
}

static struct vfs_lookup at(const struct cred *c, const char *path)
{
	return (struct vfs_lookup){.cred = c,
				   .ns = ns,
				   .root = root,
				   .start = root,
				   .path = path,
				   .flags = LOOKUP_FOLLOW};
}

static void make_dir(const char *path)
{
	struct vfs_lookup lk = at(cred, path);

	lk.flags = 0;
	check(vfs_mkdir(&lk, &(struct mkdir_args){.mode = 0755}), path);
}

static void make_file(const char *path)
{
	struct vfs_lookup lk = at(cred, path);
	struct file *f;

	check(vfs_open(&lk, &(struct open_args){.flags = O_CREAT | O_WRONLY, .mode = 0644}, &f),
	      path);
	file_unref(f);
}

/* ---- what is measured ---- */

struct job {
	const char *path, *path2;
	const struct cred *cred;
	int expect;
};

static void op_stat(const struct job *j)
{
	struct vfs_lookup lk = at(j->cred, j->path);
	struct moat_statx st;

	if (vfs_stat(&lk, &(struct stat_args){.mask = STATX_BASIC_STATS}, &st) != j->expect)
		check(-EIO, j->path);
}

static void op_open_close(const struct job *j)
{
	struct vfs_lookup lk = at(j->cred, j->path);
	struct file *f;

	check(vfs_open(&lk, &(struct open_args){.flags = O_RDONLY}, &f), j->path);
	file_unref(f);
}

static void op_create_unlink(const struct job *j)
{
	struct vfs_lookup lk = at(j->cred, j->path);

	make_file(j->path);
	lk.flags = 0;
	check(vfs_unlink(&lk), j->path);
}

static void op_rename(const struct job *j)
{
	struct vfs_lookup a = at(j->cred, j->path), b = at(j->cred, j->path2);

	a.flags = b.flags = 0;
	check(vfs_rename(&a, &b, &(struct rename_args){0}), "rename");
	check(vfs_rename(&b, &a, &(struct rename_args){0}), "rename back");
}

static bool take(struct dir_emit *ctx unused_arg, const char *name unused_arg,
		 size_t len unused_arg, uint64_t ino unused_arg, unsigned type unused_arg,
		 int64_t next unused_arg)
{
	return true;
}

static void op_readdir(const struct job *j)
{
	struct vfs_lookup lk = at(j->cred, j->path);
	struct dir_emit ctx = {.emit = take};
	struct file *f;

	check(vfs_open(&lk, &(struct open_args){.flags = O_RDONLY | O_DIRECTORY}, &f), j->path);
	check(file_iterate(f, &ctx), j->path);
	file_unref(f);
}

static struct fd_table *fds;

static void op_fd_get(const struct job *j)
{
	struct file *f = fd_get(fds, j->expect);

	if (!f)
		check(-EBADF, "fd_get");
	file_unref(f);
}

typedef void (*bench_op)(const struct job *);

struct bench_case {
	const char *name;
	bench_op op;
	struct job
		jobs[2]; /* one a thread; the second is the private path of the two-thread runs */
	bool cache;
	bool same_too; /* two threads may run it on one path */
};

static long count; /* --count */

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static double median(double *v, int n)
{
	qsort(v, (size_t)n, sizeof(v[0]), by_value);
	return v[n / 2];
}

static void report(const char *name, const char *suffix, double value, const char *unit)
{
	if (json)
		printf("%s{\"case\": \"%s%s\", \"value\": %.2f, \"unit\": \"%s\"}",
		       first ? "[\n" : ",\n", name, suffix, value, unit);
	else
		printf("%s%s %.*f %s\n", name, suffix, strcmp(unit, "ns/op") ? 2 : 1, value, unit);
	fflush(stdout);
	first = false;
}

static bool chosen(const char *name)
{
	return only ? !strcmp(name, only) : strstr(name, filter) != NULL;
}

/* ---- threads ---- */

/* A worker has a CPU of its own, for two threads on one CPU would seem to share nothing. */
struct worker {
	pthread_t thread;
	int cpu; /* -1: wherever */
	const struct bench_case *c;
	const struct job *job;
	bool spin, idle, stop;
	int64_t run_ns;
	double ns; /* of the last phase: an operation, by the wall's clock */
};

static struct worker workers[2];
static pthread_barrier_t phase_begin, phase_end;

static void spin_64(void)
{
	for (int i = 0; i < 64; i++)
		for (int k = 0; k < 100; k++)
			__asm__ volatile("" : : "r"(k)); /* keeps the loop */
}

static void work(struct worker *w)
{
	/* The wall's time, not the thread's: who sleeps for a lock does not scale. */
	int64_t begin = clock_ns(CLOCK_MONOTONIC), end = begin + w->run_ns, now;
	long n = 0;

	do {
		if (w->spin)
			spin_64();
		else
			for (int i = 0; i < 64; i++) {
				w->c->op(w->job);
				/* As a task's thread does after each call. */
				vfs_run_deferred();
			}
		n += 64;
		now = clock_ns(CLOCK_MONOTONIC);
	} while (now < end);
	w->ns = (double)(now - begin) / (double)n;
}

static void *worker_main(void *arg)
{
	struct worker *w = arg;
	cpu_set_t set;

	if (w->cpu >= 0) {
		CPU_ZERO(&set);
		CPU_SET(w->cpu, &set);
		(void)sched_setaffinity(0, sizeof(set), &set);
	}
	rcu_thread_begin();
	cred_set_current(cred);
	for (;;) {
		pthread_barrier_wait(&phase_begin);
		if (w->stop)
			break;
		if (!w->idle)
			work(w);
		pthread_barrier_wait(&phase_end);
	}
	cred_set_current(NULL);
	rcu_thread_end();
	return NULL;
}

static void workers_start(void)
{
	cpu_set_t set;
	int cpu = 0;

	CPU_ZERO(&set);
	(void)sched_getaffinity(0, sizeof(set), &set);
	pthread_barrier_init(&phase_begin, NULL, 3);
	pthread_barrier_init(&phase_end, NULL, 3);
	for (int i = 0; i < 2; i++) {
		while (cpu < CPU_SETSIZE && !CPU_ISSET(cpu, &set))
			cpu++;
		workers[i].cpu = cpu < CPU_SETSIZE ? cpu++ : -1;
		check(-pthread_create(&workers[i].thread, NULL, worker_main, &workers[i]),
		      "thread");
	}
}

static void workers_end(void)
{
	workers[0].stop = workers[1].stop = true;
	pthread_barrier_wait(&phase_begin);
	for (int i = 0; i < 2; i++)
		pthread_join(workers[i].thread, NULL);
}

/* Runs the workers of `which` (bits) for run_ns. Return: operations a ns, of all of them. */
static double phase(const struct bench_case *c, unsigned which, bool same, bool spin,
		    int64_t run_ns)
{
	double sum = 0;

	for (unsigned i = 0; i < 2; i++) {
		workers[i].c = c;
		workers[i].job = &c->jobs[same ? 0 : i];
		workers[i].spin = spin;
		workers[i].idle = !(which & 1u << i);
		workers[i].run_ns = run_ns;
	}
	pthread_barrier_wait(&phase_begin);
	pthread_barrier_wait(&phase_end);
	for (unsigned i = 0; i < 2; i++)
		if (which & 1u << i)
			sum += 1 / workers[i].ns;
	return sum;
}

/* One thread. */
static void run_one(const struct bench_case *c)
{
	double v[RUNS];

	if (count) {
		for (long i = 0; i < count; i++)
			c->op(&c->jobs[0]);
		return;
	}
	for (int i = 0; i < RUNS; i++)
		v[i] = 1 / phase(c, 1, false, false, RUN_NS);
	report(c->name, "", median(v, RUNS), "ns/op");
}

/*
 * Two threads. A round has each thread alone, then both, of the case and of the spin loop; what the machine's other tenants do lasts longer than
 * a round, so the ratio is taken within rounds and the median over them.
 */
static void run_two(const struct bench_case *c, bool same)
{
	double lat[ROUNDS], scaling[ROUNDS];

	for (int i = 0; i < ROUNDS; i++) {
		double alone = 0, both, spin_alone = 0, spin_both;

		for (unsigned t = 1; t <= 2; t++)
			alone += phase(c, t, same, false, PHASE_NS);
		both = phase(c, 3, same, false, PHASE_NS);
		spin_both = phase(c, 3, same, true, PHASE_NS);
		for (unsigned t = 1; t <= 2; t++)
			spin_alone += phase(c, t, same, true, PHASE_NS);
		lat[i] = 2 / both;
		scaling[i] = both / alone / (spin_both / spin_alone);
	}
	report(c->name, same ? ":same2" : ":private2", median(lat, ROUNDS), "ns/op");
	report(c->name, same ? ":same2-scaling" : ":private2-scaling", median(scaling, ROUNDS),
	       "of-private-spin-scaling");
}

static void run(const struct bench_case *c, bool two)
{
	if (!chosen(c->name))
		return;
	vfs_path_cache_enable(c->cache);
	run_one(c);
	if (!two || count)
		return;
	run_two(c, false);
	if (c->same_too)
		run_two(c, true);
}

/* ---- trees ---- */

static const int depths[] = {1, 2, 3, 8, 64, 100};

static char *build(const char *prefix, int depth)
{
	char *path = malloc(VFS_PATH_MAX), *p = path;

	p += sprintf(p, "%s", prefix);
	for (int d = depth; d >= 1; d--) {
		struct vfs_lookup lk;
		struct moat_statx st;

		p += sprintf(p, "/%d", d);
		lk = at(cred, path);
		if (vfs_stat(&lk, &(struct stat_args){0}, &st))
			make_dir(path);
	}
	sprintf(p, "/" FILE_NAME);
	make_file(path);
	return path;
}

static void stat_case(const char *name, int depth, const char *path, const char *path2,
		      const struct cred *who, int expect, bool two)
{
	char label[64];

	for (int walk = 0; walk < 2; walk++) {
		snprintf(label, sizeof(label), "%s%s/%d", name, walk ? "Walk" : "", depth);
		run(&(struct bench_case){.name = label,
					 .op = op_stat,
					 .jobs = {{.path = path, .cred = who, .expect = expect},
						  {.path = path2, .cred = who, .expect = expect}},
					 .cache = !walk,
					 .same_too = true},
		    two);
	}
}

static void bench_depths(const char *name, const char *prefix, const char *prefix2)
{
	for (unsigned i = 0; i < ARRAY_SIZE(depths); i++) {
		char *path = build(prefix, depths[i]), *path2 = build(prefix2, depths[i]);

		stat_case(name, depths[i], path, path2, cred, 0, depths[i] == 1 || depths[i] == 8);
		free(path);
		free(path2);
	}
}

/* Every directory on the way to the file has WIDE more entries. */
#define WIDE 10000
static char *build_wide(const char *prefix, int depth)
{
	char dir[64], name[128];
	int len = snprintf(dir, sizeof(dir), "%s", prefix);

	for (int d = depth; d >= 0; d--) {
		for (int i = 0; i < WIDE; i++) {
			snprintf(name, sizeof(name), "%s/entry%d", dir, i);
			make_file(name);
		}
		if (d)
			len += snprintf(dir + len, sizeof(dir) - (size_t)len, "/%d", d);
		if (d)
			make_dir(dir);
	}
	snprintf(name, sizeof(name), "%s/" FILE_NAME, dir);
	make_file(name);
	return strdup(name);
}

static void add_symlink(const char *path, const char *target)
{
	struct vfs_lookup lk = at(cred, path);

	lk.flags = 0;
	check(vfs_symlink(&lk, target), path);
}

static void bench_stats(void)
{
	char *p = build("/p1", 8), *q = build("/p2", 8), missing[2][VFS_PATH_MAX];

	snprintf(missing[0], VFS_PATH_MAX, "%s-missing", p);
	snprintf(missing[1], VFS_PATH_MAX, "%s-missing", q);
	stat_case("MemfsStatMissing", 8, missing[0], missing[1], cred, -ENOENT, true);
	stat_case("MemfsStatUser", 8, p, q, user, 0, true);
	add_symlink("/p1/link", "8/7");
	add_symlink("/p2/link", "8/7");
	stat_case("MemfsStatSymlink", 8, "/p1/link/6/5/4/3/2/1/" FILE_NAME,
		  "/p2/link/6/5/4/3/2/1/" FILE_NAME, cred, 0, true);
	free(p);
	free(q);
	if (!chosen("MemfsStatWide/8") && !chosen("MemfsStatWideWalk/8") && !chosen("MemfsReaddir"))
		return;
	make_dir("/wide1");
	make_dir("/wide2");
	p = build_wide("/wide1", 8);
	q = build_wide("/wide2", 8);
	stat_case("MemfsStatWide", 8, p, q, cred, 0, true);
	free(p);
	free(q);
}

static void bench_descriptors(void)
{
	const char *paths[] = {"/p1", "/p2"};
	struct bench_case c = {.name = "FdGet", .op = op_fd_get, .cache = true};

	check(fd_table_create(&fds), "descriptors");
	fd_table_ref(fds); /* the second task's */
	for (int i = 0; i < 2; i++) {
		struct vfs_lookup lk = at(cred, paths[i]);
		struct file *f;

		check(vfs_open(&lk, &(struct open_args){.flags = O_RDONLY}, &f), paths[i]);
		c.jobs[i].expect = fd_install(fds, f, 0, 16, false);
		check(MIN(c.jobs[i].expect, 0), "fd_install");
		file_unref(f);
	}
	run(&c, true);
	fd_table_unref(fds);
	fd_table_unref(fds);
}

static void bench_changes(void)
{
	char *p = build("/p3", 8), *q = build("/p4", 8);

	run(&(struct bench_case){"MemfsCreateUnlink",
				 op_create_unlink,
				 {{.path = "/p1/new", .cred = cred},
				  {.path = "/p2/new", .cred = cred}},
				 .cache = true},
	    true);
	run(&(struct bench_case){"MemfsOpenClose/8",
				 op_open_close,
				 {{.path = p, .cred = cred}, {.path = q, .cred = cred}},
				 .cache = true,
				 .same_too = true},
	    true);
	run(&(struct bench_case){"MemfsOpenCloseWalk/8",
				 op_open_close,
				 {{.path = p, .cred = cred}, {.path = q, .cred = cred}},
				 .same_too = true},
	    true);
	make_file("/p1/moved");
	make_file("/p2/moved");
	run(&(struct bench_case){"MemfsRenameTwice",
				 op_rename,
				 {{.path = "/p1/moved", .path2 = "/p1/renamed", .cred = cred},
				  {.path = "/p2/moved", .path2 = "/p2/renamed", .cred = cred}},
				 .cache = true},
	    true);
	run(&(struct bench_case){"MemfsReaddir/10000",
				 op_readdir,
				 {{.path = "/wide1", .cred = cred},
				  {.path = "/wide2", .cred = cred}},
				 .cache = true,
				 .same_too = true},
	    true);
	free(p);
	free(q);
}

/* An overlay over `lower` (its references are taken) on `dir`, and the cases on a file below it. */
static void bench_overlay(const char *name, const char *dir, struct filesystem *lower,
			  struct dentry *lower_root)
{
	char path[2][128], missing[2][160], label[64];
	struct vfs_lookup lk = at(cred, dir);
	struct filesystem *fs;
	struct dentry *d;

	make_dir(dir);
	check(overlay_create_over(lower, lower_root, &(struct overlay_top){0}, &fs, &d), "overlay");
	check(vfs_mount_fs(&lk, fs, d, MNT_RELATIME_F), dir);
	dentry_unref(d);
	filesystem_unref(fs);
	for (int i = 0; i < 2; i++) {
		snprintf(path[i], sizeof(path[i]), "%s/%c/8/7/6/5/4/3/2/1/" FILE_NAME, dir,
			 "pq"[i]);
		snprintf(missing[i], sizeof(missing[i]), "%s-missing", path[i]);
	}
	snprintf(label, sizeof(label), "%sStat", name);
	stat_case(label, 8, path[0], path[1], cred, 0, true);
	snprintf(label, sizeof(label), "%sStatMissing", name);
	stat_case(label, 8, missing[0], missing[1], cred, -ENOENT, true);
	snprintf(label, sizeof(label), "%sOpenClose/8", name);
	run(&(struct bench_case){label,
				 op_open_close,
				 {{.path = path[0], .cred = cred}, {.path = path[1], .cred = cred}},
				 .cache = true,
				 .same_too = true},
	    true);
}

static void bench_overlay_memfs(void)
{
	struct memfs_options opts = {.mode = 0755};
	struct vfs_lookup lk = at(cred, "/lower");
	struct filesystem *fs;
	struct dentry *d;

	check(memfs_create_fs("lower", &opts, &fs, &d), "memfs");
	make_dir("/lower");
	check(vfs_mount_fs(&lk, fs, d, 0), "/lower");
	make_dir("/lower/p");
	make_dir("/lower/q");
	free(build("/lower/p", 8));
	free(build("/lower/q", 8));
	bench_overlay("Overlay", "/overlay", fs, d);
	dentry_unref(d);
	filesystem_unref(fs);
}

static void host_tree(const char *dir, char which)
{
	char path[160];
	int len = snprintf(path, sizeof(path), "%s/%c", dir, which), fd;

	check(mkdir(path, 0755) ? -errno : 0, path);
	for (int d = 8; d >= 1; d--) {
		len += snprintf(path + len, sizeof(path) - (size_t)len, "/%d", d);
		check(mkdir(path, 0755) ? -errno : 0, path);
	}
	snprintf(path + len, sizeof(path) - (size_t)len, "/" FILE_NAME);
	fd = open(path, O_CREAT | O_WRONLY | O_CLOEXEC, 0644);
	check(fd < 0 ? -errno : 0, path);
	close(fd);
}

static void bench_overlay_gofer(void)
{
	struct gofer_mount_args args = {.source = "root", .readonly = true};
	char dir[] = "/tmp/moat-vfs-stat.XXXXXX", remove[64];
	struct filesystem *fs;
	struct dentry *d;
	int sv[2];

	check(mkdtemp(dir) ? 0 : -errno, dir);
	host_tree(dir, 'p');
	host_tree(dir, 'q');
	check(socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0, sv) ? -errno : 0, "socketpair");
	signal(SIGCHLD, SIG_IGN);
	check(gofer_process_start(dir, sv[1], NULL), "gofer");
	close(sv[1]);
	gofer_fs_register();
	check(p9_conn_create(sv[0], &args.conn), "gofer");
	check(gofer_fs_create(&args, &fs, &d), "gofer");
	p9_conn_unref(args.conn);
	bench_overlay("Root", "/root", fs, d);
	dentry_unref(d);
	filesystem_unref(fs);
	signal(SIGCHLD, SIG_DFL);
	snprintf(remove, sizeof(remove), "rm -rf %s", dir);
	(void)!system(remove);
}

static void setup(void)
{
	struct memfs_options opts = {.mode = 0755};
	struct filesystem *fs;
	struct dentry *d;

	rcu_thread_begin();
	check(vfs_init(), "vfs");
	check(cred_create_root(&cred), "credentials");
	check(cred_prepare(cred, &user), "credentials");
	user->fsuid = user->euid = user->uid = 1000;
	user->fsgid = user->egid = user->gid = 1000;
	user->cap_effective = user->cap_permitted = 0;
	cred_commit(user);
	cred_set_current(cred);
	check(memfs_register(), "memfs");
	check(overlay_register(), "overlay");
	check(memfs_create_fs("tmpfs", &opts, &fs, &d), "memfs");
	check(mount_namespace_create(fs, d, MNT_RELATIME_F, &ns), "namespace");
	dentry_unref(d);
	filesystem_unref(fs);
	mount_namespace_root(ns, &root);
}

static void parse_arguments(int argc, char **argv)
{
	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--json"))
			json = true;
		else if (!strncmp(argv[i], "--filter=", 9))
			filter = argv[i] + 9;
		else if (!strncmp(argv[i], "--only=", 7))
			only = argv[i] + 7;
		else if (!strncmp(argv[i], "--count=", 8))
			count = atol(argv[i] + 8);
		else
			check(-EINVAL, argv[i]);
	}
}

int main(int argc, char **argv)
{
	static const char *const dirs[] = {"/p1", "/p2", "/p3", "/p4", "/q", "/tmp"};
	struct vfs_lookup lk;

	parse_arguments(argc, argv);
	setup();
	for (unsigned i = 0; i < ARRAY_SIZE(dirs); i++)
		make_dir(dirs[i]);
	workers_start();
	bench_depths("MemfsStat", "", "/q");
	lk = at(cred, "/tmp");
	check(vfs_mount_new(&lk, "tmpfs", "tmpfs", 0, NULL, NULL), "mount");
	make_dir("/tmp/q");
	bench_depths("MemfsMountStat", "/tmp", "/tmp/q");
	bench_stats();
	bench_changes();
	bench_descriptors();
	if (strncmp(filter, "Memfs", 5) != 0 && (!only || strncmp(only, "Memfs", 5) != 0)) {
		bench_overlay_memfs();
		bench_overlay_gofer();
	}
	workers_end();
	if (json)
		printf("\n]\n");
	return 0;
}
