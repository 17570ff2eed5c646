/*
 * bench/fs_subject.h - one tree of the host, reached in several ways: system calls, the gofer's client, the virtio-fs client.
 *
 * Paths are relative to the tree's root. Every function returns 0 (or a count) or -errno. One thread.
 */
#ifndef MOAT_BENCH_FS_SUBJECT_H
#define MOAT_BENCH_FS_SUBJECT_H

#include <stdbool.h>
#include <stdint.h>
#include <sys/types.h>

#define SUBJECTS 16
#define SUBJECT_NAME_MAX 256 /* of an entry, with its terminator */

struct subject {
	const char *name;
	enum { SUBJECT_HOST, SUBJECT_GOFER, SUBJECT_DIOD, SUBJECT_STOCK, SUBJECT_OWN } kind;
	const char *options; /* gofer: "shared"; virtio-fs: the mount's */
	bool windowless; /* own: a daemon that gives no descriptors, --dax-window=0 */
	struct subject_mount *mount; /* owned: while it runs; host: NULL */
	bool usable;
};
extern struct subject subjects[SUBJECTS];

struct subject_file {
	int fd;
	struct file *f;
};

/*
 * Forks the process that ends the daemons and removes `dir` when this process has ended, in whatever way. Before there are threads.
 * tree: the directory that subjects show, below `dir`.
 */
int subjects_init(const char *dir, const char *tree);
/* Waits until everything is removed. */
void subjects_fini(void);

int subject_start(struct subject *s);
void subject_stop(struct subject *s);
void subject_shrink(struct subject *s); /* the client forgets everything; the host's caches stay */
uint64_t subject_requests(const struct subject *s);
/* Of a virtio-fs mount: its daemon, and another like it on the same tree. Return: our end of its connection, -errno. */
pid_t subject_daemon(const struct subject *s);
int subject_daemon_start(const struct subject *s, pid_t *ret_pid);
/* A LOOKUP of `name` in the root by the device alone: no path, no cache, nothing but the request. Pre: virtio-fs. */
int subject_lookup(struct subject *s, const char *name);
/*
 * The same, `count` times, each think_ns after the answer before.
 * Return: us from a request to its answer, -errno. Pre: virtio-fs, and the mount is in no use.
 */
double subject_lookup_raw(struct subject *s, const char *name, unsigned count, int64_t think_ns);

int subject_stat(struct subject *s, const char *path);
int subject_open(struct subject *s, const char *path, int flags, struct subject_file *ret);
int subject_close(struct subject *s, struct subject_file *f); /* as close(2): flushes */
int subject_mkdir(struct subject *s, const char *path);
int subject_rmdir(struct subject *s, const char *path);
int subject_chmod(struct subject *s, const char *path, unsigned mode);
int subject_unlink(struct subject *s, const char *path);
ssize_t subject_pread(struct subject *s, const struct subject_file *f, void *buf, size_t size,
		      int64_t off);
ssize_t subject_pwrite(struct subject *s, const struct subject_file *f, const void *buf,
		       size_t size, int64_t off);
/* A byte of every page of [off, + size), as a mapping has them: the host's page tables, or the client's translations. */
int subject_read_mapped(struct subject *s, const struct subject_file *f, int64_t off, size_t size);
int subject_fsync(struct subject *s, const struct subject_file *f);
/* The next `max` names at most, "." and ".." left out, as one getdents(2) or a few. Return: how many, 0 at the end, -errno. */
int subject_list(struct subject *s, const struct subject_file *f, char (*names)[SUBJECT_NAME_MAX],
		 int max);

#endif
