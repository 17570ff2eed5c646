// LINK: moat_memfs moat_vfs moat_mem
/*
 * bench/vfs_stat.c [--json] [--filter=SUBSTRING] - the VFS as a library: no sandbox, no system calls.
 *
 * MemfsStatWalk/N and MemfsMountStatWalk/N are gVisor's VFS2 benchmark: directories named by their depth counted down ("N/.../1"), the file
 * "gvisor_test_temp_0_1557494568", stat by absolute path; the second below a memfs mounted on /tmp. Medians of RUNS runs.
 */
#include <fcntl.h>
#include <linux/stat.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/rcu.h"
#include "fsimpl/memfs/memfs.h"
#include "mem/memfile.h"
#include "vfs/resolving_path.h"

#define RUNS 9
#define RUN_NS 20000000ll
#define FILE_NAME "gvisor_test_temp_0_1557494568"

static struct mount_namespace *ns;
static struct vfs_path root;
static struct cred *cred, *user;
static bool json, first = true;
static const char *filter = "";

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
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
	const char *path;
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
	struct vfs_lookup a = at(j->cred, j->path), b = at(j->cred, "/renamed");

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

typedef void (*bench_op)(const struct job *);

static double one_run(bench_op op, const struct job *j)
{
	int64_t start = now_ns(), end;
	long n = 0;

	do {
		for (int i = 0; i < 64; i++)
			op(j);
		n += 64;
		end = now_ns();
	} while (end - start < RUN_NS);
	return (double)(end - start) / (double)n;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

static void report(const char *name, double value, const char *unit)
{
	if (json)
		printf("%s{\"case\": \"%s\", \"value\": %.2f, \"unit\": \"%s\"}",
		       first ? "[\n" : ",\n", name, value, unit);
	else
		printf("%s %.1f %s\n", name, value, unit);
	fflush(stdout);
	first = false;
}

static void run(const char *name, bench_op op, struct job j)
{
	double v[RUNS];

	if (!strstr(name, filter))
		return;
	for (int i = 0; i < RUNS; i++) {
		v[i] = one_run(op, &j);
		vfs_run_deferred();
	}
	qsort(v, RUNS, sizeof(v[0]), by_value);
	report(name, v[RUNS / 2], "ns/op");
}

/* ---- two threads ---- */

struct pair {
	struct job job;
	bool spin;
	pthread_barrier_t *barrier;
	double ns;
};

static void *pair_thread(void *arg)
{
	struct pair *p = arg;
	int64_t start;
	long n = 0;

	rcu_thread_begin();
	pthread_barrier_wait(p->barrier);
	start = now_ns();
	while (now_ns() - start < RUN_NS * 5) {
		for (int i = 0; i < 64; i++) {
			if (p->spin)
				for (int k = 0; k < 100; k++)
					__asm__ volatile("" : : "r"(k)); /* keeps the loop */
			else
				op_stat(&p->job);
		}
		n += 64;
	}
	p->ns = (double)(now_ns() - start) / (double)n;
	rcu_thread_end();
	return NULL;
}

/* Operations a second on `count` threads. */
static double throughput(const char *const *paths, int count, bool spin)
{
	pthread_barrier_t barrier;
	pthread_t threads[2];
	struct pair pairs[2];
	double sum = 0;

	pthread_barrier_init(&barrier, NULL, (unsigned)count);
	for (int i = 0; i < count; i++) {
		pairs[i] = (struct pair){
			.job = {.path = paths[i], .cred = cred}, .spin = spin, .barrier = &barrier};
		pthread_create(&threads[i], NULL, pair_thread, &pairs[i]);
	}
	for (int i = 0; i < count; i++) {
		pthread_join(threads[i], NULL);
		sum += 1e9 / pairs[i].ns;
	}
	pthread_barrier_destroy(&barrier);
	return sum;
}

static void scale(const char *name, const char *a, const char *b)
{
	const char *const paths[2] = {a, b};
	double spin, stat;

	if (!strstr(name, filter))
		return;
	spin = throughput(paths, 2, true) / throughput(paths, 1, true);
	stat = throughput(paths, 2, false) / throughput(paths, 1, false);
	report(name, stat / spin, "of-private-spin-scaling");
}

/* ---- trees ---- */

static const int depths[] = {1, 2, 3, 8, 64, 100};

static char *build(const char *prefix, int depth)
{
	char *path = malloc(4096), *p = path;

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

static void bench_depths(const char *name, const char *prefix)
{
	char label[64];

	for (unsigned i = 0; i < ARRAY_SIZE(depths); i++) {
		char *path = build(prefix, depths[i]);

		snprintf(label, sizeof(label), "%s/%d", name, depths[i]);
		run(label, op_stat, (struct job){.path = path, .cred = cred});
		free(path);
	}
}

static void setup(void)
{
	struct memfs_options opts = {.mode = 0755};
	struct filesystem *fs;
	struct dentry *d;

	rcu_thread_begin();
	check(mem_init(0), "memory");
	check(vfs_init(), "vfs");
	check(cred_create_root(&cred), "credentials");
	check(cred_prepare(cred, &user), "credentials");
	user->fsuid = user->euid = user->uid = 1000;
	user->fsgid = user->egid = user->gid = 1000;
	user->cap_effective = user->cap_permitted = 0;
	cred_commit(user);
	cred_set_current(cred);
	check(memfs_register(), "memfs");
	check(memfs_create_fs("tmpfs", &opts, &fs, &d), "memfs");
	check(mount_namespace_create(fs, d, MNT_RELATIME_F, &ns), "namespace");
	dentry_unref(d);
	filesystem_unref(fs);
	mount_namespace_root(ns, &root);
}

static void bench_others(void)
{
	char *eight = build("/other", 8), *same = build("/same", 8), *p1 = build("/p1", 8),
	     *p2 = build("/p2", 8);
	char path[64], missing[4096];
	struct vfs_lookup lk;

	snprintf(missing, sizeof(missing), "%s-missing", eight);
	run("MemfsStatMissing/8", op_stat,
	    (struct job){.path = missing, .cred = cred, .expect = -ENOENT});
	run("MemfsStatUser/8", op_stat, (struct job){.path = eight, .cred = user});
	lk = at(cred, "/link");
	lk.flags = 0;
	check(vfs_symlink(&lk, "other/8/7"), "symlink");
	run("MemfsStatSymlink/8", op_stat,
	    (struct job){.path = "/link/6/5/4/3/2/1/" FILE_NAME, .cred = cred});
	make_dir("/many");
	for (int i = 0; i < 10000; i++) {
		snprintf(path, sizeof(path), "/many/file%d", i);
		make_file(path);
	}
	run("MemfsStatWide/10000", op_stat, (struct job){.path = "/many/file5000", .cred = cred});
	run("MemfsCreateUnlink/1", op_create_unlink, (struct job){.path = "/new", .cred = cred});
	run("MemfsOpenClose/8", op_open_close, (struct job){.path = eight, .cred = cred});
	make_file("/moved");
	run("MemfsRenameTwice/1", op_rename, (struct job){.path = "/moved", .cred = cred});
	run("MemfsReaddir/10000", op_readdir, (struct job){.path = "/many", .cred = cred});
	scale("MemfsStatScale/private", p1, p2);
	scale("MemfsStatScale/same", same, same);
	free(eight);
	free(same);
	free(p1);
	free(p2);
}

int main(int argc, char **argv)
{
	struct vfs_lookup lk;

	for (int i = 1; i < argc; i++) {
		if (!strcmp(argv[i], "--json"))
			json = true;
		else if (!strncmp(argv[i], "--filter=", 9))
			filter = argv[i] + 9;
		else
			check(-EINVAL, argv[i]);
	}
	setup();
	make_dir("/other");
	make_dir("/same");
	make_dir("/p1");
	make_dir("/p2");
	make_dir("/tmp");
	bench_depths("MemfsStatWalk", "");
	lk = at(cred, "/tmp");
	check(vfs_mount_new(&lk, "tmpfs", "tmpfs", 0, NULL, NULL), "mount");
	bench_depths("MemfsMountStatWalk", "/tmp");
	bench_others();
	if (json)
		printf("\n]\n");
	return 0;
}
