/*
 * tests/fs/path_cache.c OPERATIONS [SECONDS [SEED]] - the path cache against the plain walk.
 *
 * A pool of paths (names, "..", symlinks, mounts and binds, missing names) is looked up through the cache and without it; place and
 * error must be the same, each time. First one thread makes OPERATIONS random changes, with a few looks after each.
 * Then, for SECONDS: (a) a writer publishes after each change where each path leads, under a sequence count, and
 * readers that saw no change during their look compare; (b) writers and readers run free for a moment, stop, and the whole
 * pool is compared, so that an entry that a race left behind is found.
 *
 * LOOKUP_NO_MAGICLINKS makes the plain walk: such lookups are never cached, and memfs has no magic links.
 */
#include <pthread.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>
#include <time.h>

#include "base/ref.h"
#include "tests/fs/env.h"
#include "vfs/path_cache.h"

#define POOL 240
#define PUBLISHED 48
#define WHO 3
#define READERS 2
#define WRITERS 2

struct who {
	struct fs_env env;
	const char *name;
};

static struct fs_env root_env;
static struct who who[WHO];
static char pool[POOL][64];
static unsigned pool_flags[POOL];
static unsigned failures;

static uint32_t rnd(uint64_t *rng, uint32_t n)
{
	*rng ^= *rng << 13;
	*rng ^= *rng >> 7;
	*rng ^= *rng << 17;
	return (uint32_t)((*rng * 0x2545f4914f6cdd1dull >> 33) % n);
}

static double now(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return (double)ts.tv_sec + (double)ts.tv_nsec / 1e9;
}

/* Deep enough for subtrees to move, small enough for changes to meet what is cached. */
static char *random_path(uint64_t *rng, char *buf, bool plain)
{
	unsigned depth = 1 + rnd(rng, 4);
	char *p = buf;

	if (plain || rnd(rng, 4))
		*p++ = '/';
	for (unsigned i = 0; i < depth; i++) {
		if (i)
			*p++ = '/';
		if (!plain && !rnd(rng, 9)) {
			*p++ = '.';
			*p++ = '.';
		} else {
			*p++ = "abcd"[rnd(rng, 4)];
		}
	}
	if (!plain && !rnd(rng, 12))
		*p++ = '/';
	*p = '\0';
	return buf;
}

struct answer {
	int err;
	struct mount *mount;
	struct dentry *dentry;
};

static struct answer look(const struct fs_env *e, const char *path, unsigned flags)
{
	struct vfs_lookup lk = fs_env_at(e, path, flags);
	struct vfs_path p = {0};
	struct answer a;

	a.err = vfs_get_path(&lk, &p);
	a.mount = p.mount;
	a.dentry = p.dentry;
	if (!a.err)
		vfs_path_unref(&p);
	return a;
}

static bool same(const struct answer *a, const struct answer *b)
{
	return a->err == b->err && a->mount == b->mount && a->dentry == b->dentry;
}

static void wrong(const char *where, const struct who *w, unsigned i, const struct answer *a,
		  const struct answer *b)
{
	printf("%s: %s looks up %s (flags %x): cache %d %p %p, walk %d %p %p\n", where, w->name,
	       pool[i], pool_flags[i], a->err, (void *)a->mount, (void *)a->dentry, b->err,
	       (void *)b->mount, (void *)b->dentry);
	failures++;
}

static void compare(const char *where, const struct who *w, unsigned i)
{
	struct answer a = look(&w->env, pool[i], pool_flags[i]);
	struct answer b = look(&w->env, pool[i], pool_flags[i] | LOOKUP_NO_MAGICLINKS);

	if (!same(&a, &b))
		wrong(where, w, i, &a, &b);
}

/* ---- changes ---- */

static int set_acl(struct fs_env *e, const char *path, uint64_t *rng)
{
	/* version 2; user::rwx, user:1000:{---,rwx}, group::r-x, mask::rwx, other::{r-x,---} */
	struct {
		uint32_t version;
		struct {
			uint16_t tag, perm;
			uint32_t id;
		} entries[5];
	} acl = {2,
		 {{1, 7, ~0u},
		  {2, rnd(rng, 2) ? 7 : 0, 1000},
		  {4, 5, ~0u},
		  {16, 7, ~0u},
		  {32, rnd(rng, 2) ? 5 : 0, ~0u}}};
	struct xattr_args args = {
		.name = "system.posix_acl_access", .value = &acl, .size = sizeof(acl)};
	struct vfs_lookup lk = fs_env_at(e, path, LOOKUP_FOLLOW);

	return rnd(rng, 3) ? vfs_set_xattr(&lk, &args) : vfs_remove_xattr(&lk, args.name);
}

static int change(struct fs_env *e, uint64_t *rng)
{
	char p[64], q[64];

	random_path(rng, p, true);
	random_path(rng, q, rnd(rng, 2));
	switch (rnd(rng, 20)) {
	case 0 ... 3:
		return fs_mkdir(e, p, 0755);
	case 4 ... 5:
		return fs_creat(e, p, 0644);
	case 6:
		return fs_symlink(e, q, p);
	case 7 ... 9:
		return fs_rename(e, p, random_path(rng, q, true), rnd(rng, 3) ? 0 : 2);
	case 10:
		return fs_unlink(e, p);
	case 11:
		return fs_rmdir(e, p);
	case 12 ... 13:
		return fs_chmod(e, p, rnd(rng, 3) ? 0755 : rnd(rng, 2) ? 0700 : 01777);
	case 14:
		return fs_chown(e, p, rnd(rng, 2) * 1000, 0);
	case 15:
		return set_acl(e, p, rng);
	case 16:
		return fs_link(e, p, random_path(rng, q, true), false);
	case 17:
		return rnd(rng, 3) ? 0 : fs_mount(e, p, "tmpfs", 0, NULL);
	case 18:
		return rnd(rng, 3) ? 0 : fs_bind(e, p, random_path(rng, q, true), rnd(rng, 2));
	default:
		return fs_umount(e, p, rnd(rng, 2) ? MNT_DETACH : 0);
	}
}

static void one_thread(long operations, uint64_t *rng)
{
	for (long n = 0; n < operations && failures < 10; n++) {
		(void)change(&root_env, rng);
		for (int i = 0; i < 6; i++)
			compare("alone", &who[rnd(rng, WHO)], rnd(rng, POOL));
		vfs_run_deferred();
	}
}

/* ---- (a) published answers ---- */

static struct {
	_Atomic uint64_t seq; /* odd while the writer is at work */
	_Atomic int err[WHO][PUBLISHED];
	_Atomic(struct mount *) mount[WHO][PUBLISHED];
	_Atomic(struct dentry *) dentry[WHO][PUBLISHED];
} published;
static _Atomic bool stop;
static _Atomic long compared;

static void publish(void)
{
	for (unsigned w = 0; w < WHO; w++)
		for (unsigned i = 0; i < PUBLISHED; i++) {
			struct answer a =
				look(&who[w].env, pool[i], pool_flags[i] | LOOKUP_NO_MAGICLINKS);

			atomic_store(&published.err[w][i], a.err);
			atomic_store(&published.mount[w][i], a.mount);
			atomic_store(&published.dentry[w][i], a.dentry);
		}
}

static void spin(uint32_t n)
{
	while (n--)
		__asm__ volatile("" : : "r"(n));
}

static void *publishing_writer(void *arg)
{
	uint64_t rng = (uintptr_t)arg;

	rcu_thread_begin();
	cred_set_current(root_env.cred);
	while (!atomic_load(&stop)) {
		atomic_fetch_add(&published.seq, 1);
		/* Several: the first one's victims are being entered again while the next ones come. */
		for (uint32_t n = 1 + rnd(&rng, 6); n; n--) {
			(void)change(&root_env, &rng);
			spin(rnd(&rng, 3000));
		}
		publish();
		atomic_fetch_add(&published.seq, 1);
		vfs_run_deferred();
		for (int i = 0; i < 20; i++)
			sched_yield();
	}
	cred_set_current(NULL);
	rcu_thread_end();
	return NULL;
}

static void *checking_reader(void *arg)
{
	uint64_t rng = (uintptr_t)arg * 31;

	rcu_thread_begin();
	cred_set_current(root_env.cred);
	while (!atomic_load(&stop)) {
		unsigned w = rnd(&rng, WHO), i = rnd(&rng, PUBLISHED);
		uint64_t seq = atomic_load(&published.seq);
		struct answer a = look(&who[w].env, pool[i], pool_flags[i]);
		struct answer b = {atomic_load(&published.err[w][i]),
				   atomic_load(&published.mount[w][i]),
				   atomic_load(&published.dentry[w][i])};

		if (seq && !(seq & 1) && atomic_load(&published.seq) == seq) {
			atomic_fetch_add(&compared, 1);
			if (!same(&a, &b))
				wrong("published", &who[w], i, &a, &b);
		}
		vfs_run_deferred();
	}
	cred_set_current(NULL);
	rcu_thread_end();
	return NULL;
}

/* ---- (b) free for a moment ---- */

static void *free_writer(void *arg)
{
	uint64_t rng = (uintptr_t)arg;

	rcu_thread_begin();
	cred_set_current(root_env.cred);
	while (!atomic_load(&stop)) {
		(void)change(&root_env, &rng);
		spin(rnd(&rng, 20000));
		vfs_run_deferred();
	}
	cred_set_current(NULL);
	rcu_thread_end();
	return NULL;
}

static void *free_reader(void *arg)
{
	uint64_t rng = (uintptr_t)arg * 31;

	rcu_thread_begin();
	cred_set_current(root_env.cred);
	while (!atomic_load(&stop)) {
		(void)look(&who[rnd(&rng, WHO)].env, pool[rnd(&rng, POOL)],
			   pool_flags[rnd(&rng, POOL)]);
		vfs_run_deferred();
	}
	cred_set_current(NULL);
	rcu_thread_end();
	return NULL;
}

static void run_threads(void *(*writer)(void *), unsigned writers, void *(*reader)(void *),
			unsigned readers, double length, uint64_t seed)
{
	pthread_t ids[READERS + WRITERS];
	unsigned n = 0;
	double end = now() + length;

	atomic_store(&stop, false);
	for (unsigned i = 0; i < writers; i++)
		pthread_create(&ids[n++], NULL, writer,
			       (void *)(uintptr_t)(seed * 2 + i * 7919 + 1));
	for (unsigned i = 0; i < readers; i++)
		pthread_create(&ids[n++], NULL, reader,
			       (void *)(uintptr_t)(seed * 3 + i * 104729 + 1));
	while (now() < end && failures < 10)
		usleep(500);
	atomic_store(&stop, true);
	for (unsigned i = 0; i < n; i++)
		pthread_join(ids[i], NULL);
}

/* Widens the moments between a recording walk's steps. */
static void pause_a_little(void)
{
	static _Thread_local uint64_t rng;

	rng = rng ? rng : (uintptr_t)&rng | 1;
	if (!rnd(&rng, 3))
		sched_yield();
	spin(rnd(&rng, 4000));
}

static long free_rounds(double length, uint64_t seed)
{
	double end = now() + length;
	long rounds = 0;

	for (; now() < end && failures < 10; rounds++) {
		run_threads(free_writer, WRITERS, free_reader, READERS, 0.02,
			    seed + (uint64_t)rounds);
		for (unsigned w = 0; w < WHO; w++)
			for (unsigned i = 0; i < POOL; i++)
				compare("after a race", &who[w], i);
		vfs_run_deferred();
	}
	return rounds;
}

/* ---- things with one right answer ---- */

static void expect(bool ok, const char *what)
{
	if (ok)
		return;
	printf("wrong: %s\n", what);
	failures++;
}

static uint64_t hits(void)
{
	struct path_cache_stats s;

	vfs_path_cache_stats(&s);
	return s.hits;
}

/* Following a symlink updates its access time, from the cache too. */
static void check_atime(struct fs_env *e)
{
	struct setattr_args old = {.valid = SETATTR_ATIME, .atime = {.sec = 1000}};
	struct vfs_lookup lk = fs_env_at(e, "/atime", 0);
	struct moat_statx st, target;
	uint64_t before;

	expect(!fs_symlink(e, "/target", "/atime") && !fs_mkdir(e, "/target", 0755), "set-up");
	for (int i = 0; i < 4; i++)
		expect(!fs_stat(e, "/atime", &target), "the link leads on");
	expect(!vfs_set_stat(&lk, &old), "the link's times can be set");
	before = hits();
	expect(!fs_stat(e, "/atime", &target) && S_ISDIR(target.mode), "the link leads on");
	expect(hits() == before + 1, "that was from the cache");
	expect(!fs_lstat(e, "/atime", &st) && st.atime.sec > 1000, "the link's atime moved");
	expect(!fs_unlink(e, "/atime") && !fs_rmdir(e, "/target"), "clean-up");
}

/* A directory's fall from favour reaches a file below it that has many siblings (beyond the scan's bound). */
static void check_wide(struct fs_env *e)
{
	struct who *user = &who[1];
	char path[64];

	expect(!fs_mkdir(e, "/wide", 0755) && !fs_mkdir(e, "/wide/x", 0755), "set-up");
	for (int i = 0; i < 3000; i++) {
		snprintf(path, sizeof(path), "/wide/x/%d", i);
		expect(!fs_creat(e, path, 0644), "set-up");
	}
	for (int i = 0; i < 4; i++)
		expect(!look(&user->env, "/wide/x/1500", LOOKUP_FOLLOW).err, "it is there");
	expect(!fs_chmod(e, "/wide", 0700), "chmod");
	expect(look(&user->env, "/wide/x/1500", LOOKUP_FOLLOW).err == -EACCES, "no way to it");
	expect(!fs_chmod(e, "/wide", 0755), "chmod");
	expect(!look(&user->env, "/wide/x/1500", LOOKUP_FOLLOW).err, "a way again");
	for (int i = 0; i < 3000; i++) {
		snprintf(path, sizeof(path), "/wide/x/%d", i);
		expect(!fs_unlink(e, path), "clean-up");
	}
	expect(!fs_rmdir(e, "/wide/x") && !fs_rmdir(e, "/wide"), "clean-up");
}

/* ".." in a directory that was moved out from under a bind mount: a cached path from below must not lead out. */
static void check_moved_out(struct fs_env *e)
{
	struct fs_env below = *e;
	struct vfs_lookup lk = fs_env_at(e, "/bound/w/x/y", LOOKUP_DIRECTORY);
	struct answer a, b;

	expect(!fs_mkdir(e, "/src", 0755) && !fs_mkdir(e, "/src/w", 0755) &&
		       !fs_mkdir(e, "/src/w/x", 0755) && !fs_mkdir(e, "/src/w/x/y", 0755) &&
		       !fs_mkdir(e, "/src/w/x/z", 0755) && !fs_mkdir(e, "/bound", 0755) &&
		       !fs_bind(e, "/src", "/bound", false) && !vfs_get_path(&lk, &below.cwd),
	       "set-up");
	for (int i = 0; i < 4; i++)
		expect(!look(&below, "../z", 0).err, "a neighbour");
	expect(!fs_rename(e, "/src/w", "/moved", 0), "rename");
	a = look(&below, "../z", 0);
	b = look(&below, "../z", LOOKUP_NO_MAGICLINKS);
	expect(same(&a, &b) && b.err == -ENOENT, "no way out of the bind mount");
	vfs_path_unref(&below.cwd);
	expect(!fs_umount(e, "/bound", 0) && !fs_rmdir(e, "/bound") && !fs_rmdir(e, "/src") &&
		       !fs_rmdir(e, "/moved/x/y") && !fs_rmdir(e, "/moved/x/z") &&
		       !fs_rmdir(e, "/moved/x") && !fs_rmdir(e, "/moved"),
	       "clean-up");
}

static int setup_who(void)
{
	int err = 0;

	who[0] = (struct who){root_env, "root"};
	who[1] = (struct who){root_env, "user"};
	who[2] = (struct who){root_env, "chroot"};
	/* fs_env_become() drops the old credentials' reference. */
	who[1].env.cred = cred_ref(root_env.cred);
	err = fs_env_become(&who[1].env, 1000, 1000, NULL, 0, 0);
	cred_set_current(root_env.cred);
	if (!err)
		err = fs_mkdir(&root_env, "/jail", 0755);
	if (!err)
		err = fs_mkdir(&root_env, "/jail/a", 0755);
	if (!err) {
		struct vfs_lookup lk = fs_env_at(&root_env, "/jail", LOOKUP_DIRECTORY);

		err = vfs_get_path(&lk, &who[2].env.root);
	}
	if (!err) {
		struct vfs_lookup lk = fs_env_at(&root_env, "/jail/a", LOOKUP_DIRECTORY);

		err = vfs_get_path(&lk, &who[2].env.cwd);
	}
	return err;
}

static void clean_up(void)
{
	vfs_path_unref(&who[2].env.root);
	vfs_path_unref(&who[2].env.cwd);
	cred_unref(who[1].env.cred);
	fs_env_fini(&root_env);
	for (int i = 0; i < 20; i++) {
		rcu_drain();
		vfs_run_deferred();
	}
}

static int64_t live_before, live_after;

static void count(void *arg, const char *name, int64_t live)
{
	if (strcmp(name, "cred"))
		*(int64_t *)arg += live;
}

int main(int argc, char **argv)
{
	long operations = argc > 1 ? atol(argv[1]) : 20000;
	double length = argc > 2 ? atof(argv[2]) : 2;
	uint64_t seed = argc > 3 ? strtoull(argv[3], NULL, 0) : 1, rng = seed * 2654435761u + 1;
	struct path_cache_stats stats;
	long rounds;

	if (fs_env_process_init() || (ref_report(count, &live_before), fs_env_init(&root_env)) ||
	    setup_who())
		return 1;
	for (unsigned i = 0; i < POOL; i++) {
		random_path(&rng, pool[i], false);
		pool_flags[i] = rnd(&rng, 4) ? LOOKUP_FOLLOW : 0;
	}
	check_atime(&root_env);
	check_wide(&root_env);
	check_moved_out(&root_env);
	one_thread(operations, &rng);
	vfs_path_cache_pause = pause_a_little;
	run_threads(publishing_writer, 1, checking_reader, READERS, length / 2, seed);
	rounds = free_rounds(length / 2, seed);
	vfs_path_cache_pause = NULL;
	vfs_path_cache_stats(&stats);
	expect(stats.hits > 1000 && stats.negative_hits > 1000 && stats.stale > 100 &&
		       (length == 0 || compared > 100),
	       "the cache was at work");
	clean_up();
	ref_report(count, &live_after);
	expect(live_before == live_after, "every object is gone");
	vfs_path_cache_enable(false);
	vfs_path_cache_stats(&stats);
	expect(!stats.entries && !stats.bytes, "an empty cache has no memory");
	printf("seed %llu: %ld operations, %ld compared under way, %ld rounds; %llu hits, %llu "
	       "negative, %llu misses, %llu stale, "
	       "%llu entered, %llu not; %u failures\n",
	       (unsigned long long)seed, operations, compared, rounds,
	       (unsigned long long)stats.hits, (unsigned long long)stats.negative_hits,
	       (unsigned long long)stats.misses, (unsigned long long)stats.stale,
	       (unsigned long long)stats.inserts, (unsigned long long)stats.uncacheable, failures);
	return failures != 0;
}
