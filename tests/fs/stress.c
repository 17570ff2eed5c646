/*
 * tests/fs/stress.c [SECONDS] - readers walk while others rename, create, delete, mount and unmount the same trees, with the path cache on.
 * For TSan and ASan; at the end the reference counts of dentries, mounts and inodes are what they were, and so is the memory in use, but
 * for what a first short run left to allocators and tables for good.
 */
#include <malloc.h>
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/mount.h>

#include "base/pool.h"
#include "base/ref.h"
#include "tests/fs/env.h"
#include "vfs/path_cache.h"

#define THREADS 4
#define GROWTH_MAX (256u << 10) /* bytes */

/* Sanitizers bring allocators of their own. */
#if !defined(__SANITIZE_ADDRESS__) && !defined(__SANITIZE_THREAD__)
#if defined(__has_feature)
#if !__has_feature(address_sanitizer) && !__has_feature(thread_sanitizer)
#define BYTES_ARE_KNOWN 1
#endif
#else
#define BYTES_ARE_KNOWN 1
#endif
#endif
#ifndef BYTES_ARE_KNOWN
#define BYTES_ARE_KNOWN 0
#endif

static struct fs_env shared;
static _Atomic bool stop;
static _Atomic long walks, hits, changes;

static uint32_t rnd(uint64_t *rng, uint32_t n)
{
	*rng ^= *rng << 13;
	*rng ^= *rng >> 7;
	*rng ^= *rng << 17;
	return (uint32_t)((*rng * 0x2545f4914f6cdd1dull >> 33) % n);
}

static char *path(uint64_t *rng, char *buf)
{
	unsigned depth = 1 + rnd(rng, 4);
	char *p = buf;

	for (unsigned i = 0; i < depth; i++) {
		*p++ = '/';
		if (!rnd(rng, 10)) {
			*p++ = '.';
			*p++ = '.';
		} else {
			*p++ = "abcde"[rnd(rng, 5)];
		}
	}
	*p = '\0';
	return buf;
}

static void *reader(void *arg)
{
	uint64_t rng = (uintptr_t)arg * 77 + 1;
	struct fs_env e = shared;
	char p[64], list[8192];
	struct moat_statx st;
	struct file *f;

	rcu_thread_begin();
	cred_set_current(e.cred);
	while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
		atomic_fetch_add_explicit(&walks, 1, memory_order_relaxed);
		switch (rnd(&rng, 8)) {
		case 0:
			if (!fs_open(&e, path(&rng, p), O_RDONLY, 0, &f)) {
				struct buf b;

				buf_init(&b, 8192);
				(void)!vfs_path_to_string(&e.root, &f->path, true, &b);
				buf_fini(&b);
				fs_close(f);
			}
			break;
		case 1:
			(void)fs_list(&e, path(&rng, p), list, sizeof(list));
			break;
		case 2:
			(void)fs_readlink(&e, path(&rng, p), list, sizeof(list));
			break;
		case 3:
			if (!rnd(&rng, 50)) {
				struct buf b;

				buf_init(&b, 1 << 20);
				vfs_show_mounts(e.ns, &e.root, MOUNT_SHOW_MOUNTINFO, &b);
				buf_fini(&b);
			}
			break;
		default:
			if (!fs_stat(&e, path(&rng, p), &st))
				atomic_fetch_add_explicit(&hits, 1, memory_order_relaxed);
		}
		vfs_run_deferred();
	}
	cred_set_current(NULL);
	rcu_thread_end();
	return NULL;
}

static int change(struct fs_env *e, uint64_t *rng)
{
	char p[64], q[64];

	switch (rnd(rng, 16)) {
	case 0 ... 3:
		return fs_mkdir(e, path(rng, p), 0755);
	case 4:
		return fs_creat(e, path(rng, p), 0644);
	case 5:
		return fs_symlink(e, path(rng, p), path(rng, q));
	case 6 ... 7:
		return fs_rename(e, path(rng, p), path(rng, q), rnd(rng, 4) ? 0 : 2);
	case 8:
		return fs_unlink(e, path(rng, p));
	case 9:
		return fs_rmdir(e, path(rng, p));
	case 10:
		return fs_chmod(e, path(rng, p), rnd(rng, 2) ? 0755 : 0700);
	case 11:
		return fs_link(e, path(rng, p), path(rng, q), false);
	case 12:
		return rnd(rng, 4) ? 0 : fs_mount(e, path(rng, p), "tmpfs", 0, NULL);
	case 13:
		return rnd(rng, 4) ? 0 : fs_bind(e, path(rng, p), path(rng, q), rnd(rng, 2));
	default:
		return fs_umount(e, path(rng, p), rnd(rng, 2) ? MNT_DETACH : 0);
	}
}

static void *writer(void *arg)
{
	uint64_t rng = (uintptr_t)arg * 991 + 5;
	struct fs_env e = shared;

	rcu_thread_begin();
	cred_set_current(e.cred);
	while (!atomic_load_explicit(&stop, memory_order_relaxed)) {
		if (!change(&e, &rng))
			atomic_fetch_add_explicit(&changes, 1, memory_order_relaxed);
		vfs_run_deferred();
	}
	cred_set_current(NULL);
	rcu_thread_end();
	return NULL;
}

static int64_t live_before, live_after;

static void count(void *arg, const char *name, int64_t live)
{
	if (!strcmp(name, "cred"))
		return;
	*(int64_t *)arg += live;
	if (arg == &live_after && live)
		printf("  %s: %lld\n", name, (long long)live);
}

/* One life of the trees. */
static int run(unsigned seconds)
{
	pthread_t threads[THREADS];

	if (fs_env_init(&shared))
		return -1;
	vfs_path_cache_enable(true);
	atomic_store(&stop, false);
	for (uintptr_t i = 0; i < THREADS; i++)
		pthread_create(&threads[i], NULL, i & 1 ? writer : reader, (void *)(i + 1));
	sleep(seconds);
	atomic_store(&stop, true);
	for (int i = 0; i < THREADS; i++)
		pthread_join(threads[i], NULL);
	fs_env_fini(&shared);
	vfs_path_cache_enable(false);
	for (int i = 0; i < 20; i++) {
		rcu_drain();
		vfs_run_deferred();
	}
	return 0;
}

static size_t bytes_in_use(void)
{
	struct mallinfo2 m;

	pool_trim();
	m = mallinfo2();

	return m.uordblks + m.hblkhd;
}

int main(int argc, char **argv)
{
	unsigned seconds = argc > 1 ? (unsigned)atoi(argv[1]) : 3;
	struct path_cache_stats cache;
	size_t before, after;

	if (fs_env_process_init())
		return 1;
	ref_report(count, &live_before);
	if (run(1))
		return 1;
	before = bytes_in_use();
	if (run(seconds))
		return 1;
	after = bytes_in_use();
	ref_report(count, &live_after);
	vfs_path_cache_stats(&cache);
	printf("%ld walks, %ld found, %ld changes; %llu cache hits; objects %lld before, %lld "
	       "after; bytes %zu before, %zu after\n",
	       walks, hits, changes, (unsigned long long)(cache.hits + cache.negative_hits),
	       (long long)live_before, (long long)live_after, before, after);
	if (live_before != live_after || !cache.hits)
		return 1;
	return BYTES_ARE_KNOWN && after > before + GROWTH_MAX;
}
