/* fsimpl/virtiofs/internal_dax.h - the DAX window's inside: dax_window.c (ranges, the back channel) and dax.c (files). */
#ifndef MOAT_FSIMPL_VIRTIOFS_INTERNAL_DAX_H
#define MOAT_FSIMPL_VIRTIOFS_INTERNAL_DAX_H

#include <sched.h>
#include <sys/stat.h>

#include "base/hostpoll.h"
#include "fsimpl/virtiofs/internal.h"
#include "wire/vhost_user.h"

/* Above the platform's: pages are translated under its locks. Below LOCK_MEMFILE, which is taken inside. */
#define LOCK_DAX ((enum lock_rank)(LOCK_PLATFORM + 1))
#define DAX_BUCKETS 4096
#define DAX_RECLAIM 8 /* ranges that go at once when there is none left: one request */
#define DAX_TAKE_TRIES 1000
#define DAX_MESSAGES_MAX \
	64 /* of the back channel at a time: the thread that takes them serves others too */

enum dax_state {
	DAX_FREE, /* neither end knows anything of it */
	DAX_SETUP, /* one caller's; nothing is mapped yet */
	DAX_MAPPED,
	DAX_LEAVING, /* one caller's: it asks the daemon to forget it */
	DAX_LEFT, /* nobody uses it here, but the daemon was not told */
	DAX_LOST, /* its setup's caller was killed: free when the daemon's message has come and was refused */
};

struct dax_range {
	/* All guarded by window->lock; while in SETUP or LEAVING, in, index and writable are the caller's alone. */
	enum dax_state state;
	bool writable, recent;
	bool old; /* set up with a daemon that is gone, or with none: what is mapped stays, but this one knows nothing of it */
	struct virtiofs_inode
		*in; /* borrowed: its end takes its ranges along; LEAVING: a reference */
	uint64_t index; /* in the file, in ranges */
	struct memfile *fresh; /* SETUP: what came for it; a reference */
	struct dax_range *hash_next, *inode_next;
};

struct dax_window {
	struct virtiofs_device *dev; /* immutable; borrowed: it owns this */
	int fd; /* the back channel; another after a reconnection, while it is not polled */
	struct hostpoll poll;
	_Atomic bool broken;
	_Atomic bool taken; /* somebody takes messages: fd, poll and what follows is his */
	_Atomic bool missed; /* the housekeeping thread wanted to, too */
	struct vhost_user_msg message; /* one on its way */
	size_t have;
	int fds[1];
	unsigned fd_count;
	struct mutex lock; /* LOCK_DAX: all below */
	unsigned count; /* immutable */
	unsigned fresh; /* ranges from here on were never used */
	unsigned hand;
	struct dax_range *ranges;
	struct dax_range *buckets[DAX_BUCKETS];
};

/* Takes a message of the back channel, if there is one and nobody else takes any: by who waits for it. arg: the window. Never sleeps. */
void dax_window_look(void *arg);
/* Pre, these three: window->lock. */
struct dax_range *dax_range_find(struct dax_window *w, const struct virtiofs_inode *in,
				 uint64_t index);
void dax_range_enter(struct dax_window *w, struct dax_range *r);
void dax_range_remove(struct dax_window *w, struct dax_range *r, enum dax_state state);
/* One for the caller and that place of the inode, in DAX_SETUP; may take others away. Return: 0, -EAGAIN (none in a while), -errno. */
must_check int dax_range_take(struct dax_window *w, struct virtiofs_inode *in, uint64_t index,
			      bool writable, struct dax_range **ret);
/*
 * What came for a range of the caller's in DAX_SETUP, a regular file? No locks held but fill_lock: whose server it is may be slow.
 * Return: 0, -EIO: nothing came, or no file.
 */
must_check int dax_range_look(struct dax_window *w, struct dax_range *r, struct stat *ret_st);

#endif
