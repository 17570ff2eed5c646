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

#define MIB (1ul << 20)

struct pipe_run {
	int fd;
	char *ring; /* the reader's mapping of it */
	size_t pieces, piece,
		ring_size; /* the last two: bytes; all of the ring but one piece is read ahead */
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
		while (i >= r->taken + r->ring_size / r->piece - 1)
			sched_yield();
		if (pread(r->fd, r->ring + i * r->piece % r->ring_size, r->piece,
			  (off_t)(i * r->piece)) != (ssize_t)r->piece)
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
		memcpy(to + i * r->piece % MIB, out_ring + i * r->piece % r->ring_size, r->piece);
		r->taken = i + 1;
	}
	r->taken = r->pieces;
	pthread_join(thread, NULL);
	*ret_us = (double)(now_ns() - start) * MIB / (double)(r->pieces * r->piece) / 1000;
	return r->err;
}

/* ---- a cache line to and fro ---- */

#define LINE_TURNS 5000
#define LINE_LOOKS 1000 /* before the CPU is given away: both may be on one */

static _Alignas(128) _Atomic unsigned line;

/* Each number that is the other's turn to write, one after the other. */
static void line_turns(unsigned from)
{
	for (unsigned i = from; i < 2 * LINE_TURNS; i += 2) {
		for (unsigned looks = 1; line != i; looks++)
			if (looks % LINE_LOOKS == 0)
				sched_yield();
		line = i + 1;
	}
}

static void *line_main(void *arg)
{
	line_turns(1);
	return arg;
}

int floor_line(double *ret_ns)
{
	pthread_t thread;
	int64_t start;

	line = 1;
	if (pthread_create(&thread, NULL, line_main, NULL))
		return -EAGAIN;
	while (line == 1)
		sched_yield();
	start = now_ns();
	line_turns(2);
	while (line != 2 * LINE_TURNS)
		;
	*ret_ns = (double)(now_ns() - start) / (2 * LINE_TURNS - 2);
	pthread_join(thread, NULL);
	return 0;
}

int floor_pipe(const char *file, unsigned mib, size_t piece, size_t ring, double *ret_us)
{
	struct pipe_run r = {.fd = open(file, O_RDONLY | O_CLOEXEC),
			     .pieces = mib * (MIB / piece),
			     .piece = piece,
			     .ring_size = ring};
	int fd = memfd_create("bench-fs-pipe", MFD_CLOEXEC), err = -ENOMEM;
	char *to = malloc(MIB), *out_ring = MAP_FAILED;

	r.ring = MAP_FAILED;
	if (fd >= 0 && !ftruncate(fd, ring)) {
		r.ring = mmap(NULL, ring, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
		out_ring = mmap(NULL, ring, PROT_READ | PROT_WRITE, MAP_SHARED, fd, 0);
	}
	if (to && r.ring != MAP_FAILED && out_ring != MAP_FAILED) {
		memset(r.ring, 1, ring);
		memset(out_ring, 1, ring);
		memset(to, 1, MIB);
		err = r.fd < 0 ? -ENOENT : run(&r, out_ring, to, ret_us);
	}
	if (r.ring != MAP_FAILED)
		munmap(r.ring, ring);
	if (out_ring != MAP_FAILED)
		munmap(out_ring, ring);
	free(to);
	if (fd >= 0)
		close(fd);
	if (r.fd >= 0)
		close(r.fd);
	return err;
}
