/* bench/fs_lookup.c - see fs_lookup.h. */
#include "bench/fs_lookup.h"

#include <dirent.h>
#include <errno.h>
#include <sched.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <time.h>
#include <unistd.h>

#include "base/compiler.h"
#include "bench/fs_bare.h"

#define BATCHES 8 /* of a round, of each client in turn */
#define BATCH 250
#define WALKS 8 /* of a batch; each is WALK_NAMES LOOKUPs */
#define WALK_NAMES 65
#define FILE_NAME "data"

const char *const lookup_names[LOOKUP_HOWS] = {"bare",	 "bare_socket", "bare_walk",
					       "device", "stat_0",	"walk"};

/* The bare clients of each subject, and their daemons. */
static struct bare_run {
	struct bare *client;
	int sock;
	pid_t daemon;
} bare[SUBJECTS][2];

static double samples[LOOKUP_HOWS][BATCHES * BATCH];
static char walk_path[2 * WALK_NAMES + 2];

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

/* ---- where they run ---- */

static void place_threads(pid_t pid, const cpu_set_t *cpus)
{
	char path[64];
	struct dirent *e;
	DIR *dir;

	snprintf(path, sizeof(path), "/proc/%d/task", (int)pid);
	dir = opendir(path);
	while (dir && (e = readdir(dir)))
		if (e->d_name[0] != '.')
			(void)sched_setaffinity(atoi(e->d_name), sizeof(*cpus), cpus);
	if (dir)
		closedir(dir);
}

/* A daemon and what it forked. */
static void place(pid_t pid, const cpu_set_t *cpus)
{
	char path[64];
	int child;
	FILE *f;

	place_threads(pid, cpus);
	snprintf(path, sizeof(path), "/proc/%d/task/%d/children", (int)pid, (int)pid);
	f = fopen(path, "re");
	while (f && fscanf(f, "%d", &child) == 1)
		place(child, cpus);
	if (f)
		fclose(f);
}

/* The first two CPUs that we may use. False: there is one. */
static bool two_cpus(const cpu_set_t *all, cpu_set_t *ret_ours, cpu_set_t *ret_theirs)
{
	int found = 0;

	CPU_ZERO(ret_ours);
	CPU_ZERO(ret_theirs);
	for (int i = 0; i < CPU_SETSIZE && found < 2; i++)
		if (CPU_ISSET(i, all))
			CPU_SET(i, found++ ? ret_theirs : ret_ours);
	return found == 2;
}

static void place_daemons(const struct subject *s, const struct bare_run *runs,
			  const cpu_set_t *cpus)
{
	place(subject_daemon(s), cpus);
	for (int i = 0; i < 2; i++)
		place(runs[i].daemon, cpus);
}

/* ---- one operation ---- */

static bool is_walk(enum lookup_how how)
{
	return how == LOOKUP_WALK || how == LOOKUP_BARE_WALK;
}

/* As walk_path. */
static int bare_walk(struct bare *b)
{
	struct fuse_entry_out e = {.nodeid = FUSE_ROOT};
	int err = bare_lookup(b, e.nodeid, "t0", &e);

	for (int i = 2; i < WALK_NAMES && !err; i++)
		err = bare_lookup(b, e.nodeid, "d", &e);
	return err ? err : bare_lookup(b, e.nodeid, "f", &e);
}

static int lookup_once(struct subject *s, const struct bare_run *runs, enum lookup_how how)
{
	struct fuse_entry_out e;

	switch (how) {
	case LOOKUP_BARE:
		return bare_lookup(runs[0].client, FUSE_ROOT, FILE_NAME, &e);
	case LOOKUP_BARE_SOCKET:
		return bare_lookup(runs[1].client, FUSE_ROOT, FILE_NAME, &e);
	case LOOKUP_BARE_WALK:
		return bare_walk(runs[0].client);
	case LOOKUP_DEVICE:
		return subject_lookup(s, FILE_NAME);
	case LOOKUP_STAT:
		return subject_stat(s, FILE_NAME);
	default:
		return subject_stat(s, walk_path);
	}
}

static int measure_batch(struct subject *s, const struct bare_run *runs, enum lookup_how how,
			 unsigned batch)
{
	unsigned count = is_walk(how) ? WALKS : BATCH;
	unsigned names = is_walk(how) ? WALK_NAMES : 1;
	uint64_t sent = subject_requests(s);
	int64_t last = now_ns(), now;
	int err = 0;

	for (unsigned i = 0; i < count && !err; i++) {
		err = lookup_once(s, runs, how);
		now = now_ns();
		samples[how][batch * count + i] = (double)(now - last) / names / 1000;
		last = now;
	}
	sent = subject_requests(s) - sent;
	/* Our own daemon is asked for many names at once. */
	if (how == LOOKUP_STAT && sent != count)
		err = -EBADMSG;
	return err;
}

static int by_value(const void *a, const void *b)
{
	double x = *(const double *)a, y = *(const double *)b;

	return (x > y) - (x < y);
}

/* ---- a round ---- */

static int start_bare(struct subject *s, struct bare_run *runs)
{
	static const enum bare_kick kicks[2] = {BARE_EVENTFD, BARE_SOCKET};

	for (int i = 0; i < 2; i++) {
		int err;

		if (runs[i].client)
			continue;
		runs[i].sock = subject_daemon_start(s, &runs[i].daemon);
		if (runs[i].sock < 0)
			return runs[i].sock;
		err = bare_create(runs[i].sock, kicks[i], &runs[i].client);
		if (err) {
			close(runs[i].sock);
			return err;
		}
	}
	return 0;
}

static void make_walk_path(void)
{
	char *at = walk_path;

	at = stpcpy(at, "t0");
	for (int i = 2; i < WALK_NAMES; i++)
		at = stpcpy(at, "/d");
	stpcpy(at, "/f");
}

int lookup_measure(struct subject *s, double ret_us[LOOKUP_HOWS])
{
	struct bare_run *runs = bare[s - subjects];
	cpu_set_t all, ours, theirs;
	int err;

	if (sched_getaffinity(0, sizeof(all), &all) < 0)
		return -errno;
	if (!two_cpus(&all, &ours, &theirs))
		return -ENOTSUP;
	err = start_bare(s, runs);
	if (err)
		return err;
	make_walk_path();
	place_daemons(s, runs, &theirs);
	if (sched_setaffinity(0, sizeof(ours), &ours) < 0)
		err = -errno;
	for (unsigned batch = 0; batch < BATCHES && !err; batch++)
		for (int how = 0; how < LOOKUP_HOWS && !err; how++)
			err = measure_batch(s, runs, (enum lookup_how)how, batch);
	(void)sched_setaffinity(0, sizeof(all), &all);
	place_daemons(s, runs, &all);
	for (int how = 0; how < LOOKUP_HOWS && !err; how++) {
		unsigned count = BATCHES * (is_walk((enum lookup_how)how) ? WALKS : BATCH);

		qsort(samples[how], count, sizeof(samples[how][0]), by_value);
		ret_us[how] = samples[how][count / 2];
	}
	return err;
}

void lookup_stop(void)
{
	for (int who = 0; who < SUBJECTS; who++)
		for (int i = 0; i < 2; i++) {
			if (!bare[who][i].client)
				continue;
			bare_destroy(bare[who][i].client);
			close(bare[who][i].sock);
			bare[who][i].client = NULL;
		}
}
