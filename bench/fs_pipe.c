/*
 * bench/fs_pipe.c - see fs_floor.h: what a file costs that one thread reads into shared memory while another copies it out, and nothing else is done: no requests,
 * no cache, no fresh pages. Both look for each other without ever sleeping. It is what the virtio-fs client and its daemon do to a file that is read on.
 */
#include <errno.h>
#include <fcntl.h>
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mman.h>
#include <time.h>
#include <unistd.h>

#include "bench/fs_floor.h"

#define PIECE (1ul << 20)
#define RING (4 * PIECE) /* as much as the client uses again and again */
#define AHEAD 3 /* pieces that are read and not copied out, at most */

struct pipe_run {
	int fd;
	char *ring; /* the reader's mapping of it */
	size_t pieces;
	_Atomic size_t filled, taken; /* pieces */
	_Atomic int err;
};

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

static void *fill_main(void *arg)
{
	struct pipe_run *r = arg;

	for (size_t i = 0; i < r->pieces && !r->err; i++) {
		while (i >= r->taken + AHEAD)
			sched_yield();
		if (pread(r->fd, r->ring + i * PIECE % RING, PIECE, (off_t)(i * PIECE)) !=
		    (ssize_t)PIECE)
			r->err = -EIO;
		r->filled = i + 1;
	}
	return NULL;
}

static int run(struct pipe_run *r, const char *out_ring, char *to, double *ret_us)
{
	int64_t start = now_ns();
	pthread_t thread;

	r->filled = r->taken = 0;
	if (pthread_create(&thread, NULL, fill_main, r))
		return -EAGAIN;
	for (size_t i = 0; i < r->pieces && !r->err; i++) {
		while (r->filled <= i && !r->err)
			sched_yield();
		memcpy(to, out_ring + i * PIECE % RING, PIECE);
		r->taken = i + 1;
	}
	r->taken = r->pieces;
	pthread_join(thread, NULL);
	*ret_us = (double)(now_ns() - start) / (double)r->pieces / 1000;
	return r->err;
}

int floor_pipe(const char *file, unsigned mib, double *ret_us)
{
	struct pipe_run r = {.fd = open(file, O_RDONLY | O_CLOEXEC), .pieces = mib};
	int fd = memfd_create("bench-fs-pipe", MFD_CLOEXEC), err = -ENOMEM;
	char *to = malloc(PIECE), *out_ring = MAP_FAILED;

	r.ring = MAP_FAILED;
	if (fd >= 0 && !ftruncate(fd, RING)) {
		r.ring = mmap(NULL, RING, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		out_ring = mmap(NULL, RING, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	}
	if (to && r.ring != MAP_FAILED && out_ring != MAP_FAILED) {
		memset(r.ring, 1, RING);
		memset(out_ring, 1, RING);
		memset(to, 1, PIECE);
		err = r.fd < 0 ? -ENOENT : run(&r, out_ring, to, ret_us);
	}
	if (r.ring != MAP_FAILED)
		munmap(r.ring, RING);
	if (out_ring != MAP_FAILED)
		munmap(out_ring, RING);
	free(to);
	if (fd >= 0)
		close(fd);
	if (r.fd >= 0)
		close(r.fd);
	return err;
}
