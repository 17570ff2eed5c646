/* bench/fs_floor.h - what a request to another process and a safe walk of nine steps cost at least, on this machine and now. */
#ifndef MOAT_BENCH_FS_FLOOR_H
#define MOAT_BENCH_FS_FLOOR_H

#include <stdint.h>

/* The process that echoes. Return: 0, -errno. */
int floor_start(void);
void floor_stop(void);
/* tree: holds t0/d/d/d/d/d/d/d/f. Return: 0, -errno. */
int floor_measure(const char *tree, double *ret_socket_us, double *ret_walk_us);
/* A MiB of `file`, of which there are mib, read into shared memory by one thread and copied out by another. Return: 0, -errno. */
int floor_pipe(const char *file, unsigned mib, double *ret_us);

#endif
