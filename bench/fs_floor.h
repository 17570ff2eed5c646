/* bench/fs_floor.h - what a request to another process and a safe walk of nine steps cost at least, on this machine and now. */
#ifndef MOAT_BENCH_FS_FLOOR_H
#define MOAT_BENCH_FS_FLOOR_H

#include <stddef.h>
#include <stdint.h>

/* The process that echoes. Return: 0, -errno. */
int floor_start(void);
void floor_stop(void);
/* tree: holds t0/d/d/d/d/d/d/d/f. Return: 0, -errno. */
int floor_measure(const char *tree, double *ret_socket_us, double *ret_walk_us);
/*
 * A MiB of `file`, of which there are mib, read into a ring of shared memory by one thread and copied out by another, so many bytes at a time (a part of a
 * MiB, of which the ring has two at least). Return: 0, -errno.
 */
int floor_pipe(const char *file, unsigned mib, size_t piece, size_t ring, double *ret_us);
/* How long it takes one CPU to see what another wrote. A virtual machine's CPUs may share a cache in one moment and none in the next. Return: 0, -errno. */
int floor_line(double *ret_ns);

#endif
