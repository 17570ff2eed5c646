/*
 * tests/fs/differential.h - the state of a differential run, and what its parts share: differential.c (comparing), differential_ops.c
 * (the operations), differential_layers.c (an overlay's layers, filled from the seed).
 */
#ifndef MOAT_TESTS_FS_DIFFERENTIAL_H
#define MOAT_TESTS_FS_DIFFERENTIAL_H

#include <errno.h>
#include <stdio.h>
#include <stdlib.h>

#include "tests/fs/env.h"
#include "tests/fs/host_ops.h"

#ifdef DIFFERENTIAL_OVERLAY
#define OVERLAY 1
#else
#define OVERLAY 0
#endif
#ifdef DIFFERENTIAL_GOFER
#define GOFER 1
#else
#define GOFER 0
#endif
#define FDS 6

struct diff_fd {
	int host;
	struct file *ours;
};

extern struct fs_env e;
extern uint64_t rng, seed;
extern long op_nr;
extern int verbose;
extern char what[20000]; /* the operation under way, for messages */
extern char p1[8192], p2[8192]; /* its paths */
extern char name255[256], name256[257];
extern struct diff_fd fds[FDS];

/* A number below n, from the seed. */
uint32_t rnd(uint32_t n);
noreturn_fn void finish(int status);
/* A path of a few names that exist now and then, into buf, which is returned. */
char *pick_path(char *buf);
/* Ends the run, with the seed and the operation, unless both agree. */
void same(const char *field, long long host, long long ours);
void same_stat(const struct moat_statx *h, const struct moat_statx *o);
/* Relative paths begin at the current directory again. */
void from_cwd(void);
/* One operation, on both sides. */
void do_op(void);
/* Shared with the layers. */
int ours_setxattr(const char *path, const char *name, const void *v, size_t size, int flags);
size_t make_acl(uint8_t *buf);
/* /l1 over /l2 over /l3, /u on top: the root from here on is the overlay. Nothing for other backends. Return 0 or -errno. */
int enter_overlay(void);

#endif
