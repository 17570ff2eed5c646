/*
 * sentry/tty/internal.h - one terminal, as its parts see it.
 *
 *	ldisc.c		the line discipline: input editing, echo, output processing
 *	tty.c		life, job control, hang-up
 *	pty.c		the files: slave and master
 *	ioctl.c		terminal ioctls
 *	devpts.c	the filesystem, ptmx, device numbers
 *	console.c	a terminal whose master is a host descriptor
 */
#ifndef MOAT_SENTRY_TTY_INTERNAL_H
#define MOAT_SENTRY_TTY_INTERNAL_H

#include <asm/termbits.h>

#include "base/hostpoll.h"
#include "base/idr.h"
#include "fsimpl/synth/synth.h"
#include "sentry/task.h"
#include "sentry/tty/tty.h"

#define LDISC_BUF 4096u /* N_TTY_BUF_SIZE */
#define TTY_OUT_SOFT 8192u /* a slave's write waits beyond it */
#define TTY_OUT_HARD 16384u /* echo is dropped beyond it; a power of two */
#define TTY_IN_MAX \
	8192u /* master's bytes that the line discipline cannot take yet; a power of two */

#define PTS_MAJOR 136

struct devpts {
	struct filesystem *fs; /* immutable after mount; borrowed: it owns us */
	struct dentry
		*root; /* likewise; only used while a mount or a terminal pins the filesystem */
	struct mutex lock; /* LOCK_FS_SUPER: lookups against the last unref */
	struct idr ptys; /* index -> struct tty; changed under lock */
	bool set_uid, set_gid; /* options; guarded by lock */
	uint32_t uid, gid, mode, ptmxmode, max;
	_Atomic uint32_t count;
	_Atomic uint64_t named[PTY_MAX / 64]; /* a bit an index: its terminal's master is open */
	LIST_ENTRY(devpts) link; /* guarded by devpts_list_lock */
};

struct byte_ring {
	uint8_t *data;
	uint32_t size, head, tail; /* size is a power of two; indices run free */
};

static inline uint32_t ring_used(const struct byte_ring *r)
{
	return r->head - r->tail;
}
static inline uint32_t ring_room(const struct byte_ring *r)
{
	return r->size - ring_used(r);
}
static inline void ring_put(struct byte_ring *r, uint8_t c)
{
	r->data[r->head++ & (r->size - 1)] = c;
}
static inline uint8_t ring_get(struct byte_ring *r)
{
	return r->data[r->tail++ & (r->size - 1)];
}

struct ldisc {
	uint8_t buf[LDISC_BUF];
	uint64_t flags[LDISC_BUF / 64]; /* ends of lines */
	uint32_t read_head, canon_head, read_tail; /* free-running */
	uint32_t column, canon_column;
	/* where the output and the columns stood when this batch of input began */
	uint32_t batch_out, batch_column, batch_canon_column;
	bool in_batch;
	bool lnext, erasing, icanon;
};

struct tty {
	struct ref ref;
	struct mutex lock; /* LOCK_TTY; guards everything below but what says otherwise */
	struct wait_queue wait; /* slave side */
	struct wait_queue master_wait;
	struct devpts *inst; /* immutable; its filesystem is referenced */
	unsigned index; /* immutable */
	bool indexed; /* guarded by inst->lock */
	struct ktermios termios;
	struct ktermios termios_locked; /* TIOCSLCKTRMIOS: a bit that is set stays as it is */
	struct winsize ws;
	struct ldisc ld;
	struct byte_ring out; /* slave to master */
	struct byte_ring in; /* master to line discipline, overflow */
	bool stopped; /* ^S */
	bool tco_stopped; /* tcflow(TCOOFF) */
	bool locked; /* TIOCSPTLCK */
	bool exclusive;
	bool packet;
	uint8_t packet_status;
	bool master_open, slave_was_open;
	uint32_t slaves; /* open slave files */
	uint32_t hup_gen; /* files of older generations are hung up */
	int32_t session, pgrp; /* 0: none */
	/* the inode in devpts */
	uint32_t mode, uid, gid;
	int64_t time_ns;
	/* console.c */
	bool console; /* the master is host_fd, from creation to tty_host_close() */
	int host_fd; /* owned; -1 */
	bool host_nonblock, host_eof;
	struct hostpoll hp;
};

struct tty_file {
	struct file f;
	struct tty *tty; /* a reference */
	uint32_t gen; /* immutable */
};

extern const struct file_ops tty_slave_ops, tty_master_ops;

static inline struct tty_file *tty_file_of(struct file *f)
{
	return (struct tty_file *)f;
}

/* ---- ldisc.c; all with tty->lock ---- */
void ldisc_init(struct tty *t);
/* Bytes from the master. Takes what there is room for, the rest waits in t->in. Return: how many were taken. */
size_t ldisc_receive(struct tty *t, const uint8_t *data, size_t size);
void ldisc_pump(struct tty *t); /* t->in into the line discipline, as far as there is room */
/* Output processing of slave's bytes. Return: how many were consumed. */
size_t ldisc_write(struct tty *t, const uint8_t *data, size_t size);
bool ldisc_readable(const struct tty *t, bool poll);
size_t ldisc_read(struct tty *t, uint8_t *data, size_t size, bool *ret_eof);
size_t ldisc_chars(const struct tty *t); /* FIONREAD */
void ldisc_flush_input(struct tty *t);
void ldisc_flush_output(struct tty *t);
void ldisc_set_termios(struct tty *t, const struct ktermios *new_);
void tty_default_termios(struct ktermios *k);
void tty_start(struct tty *t);
void tty_stop(struct tty *t);

/* ---- tty.c ---- */
must_check int tty_create(struct devpts *inst, struct tty **ret);
/* Job control for the calling task: 0, -EIO, -ERESTARTSYS_. Takes and drops tty->lock. */
must_check int tty_check_change(struct tty *t, int signo);
void tty_hangup(struct tty *t, bool exit_session);
int32_t tty_current_session(void);
bool tty_is_controlling(struct tty *t); /* of the calling task */
bool tty_file_hung(struct tty_file *tf);
/* New bytes for the master: wakes it, or writes them to the host. Pre: tty->lock. */
void tty_output_ready(struct tty *t);

/* ---- pty.c ---- */
must_check int tty_slave_open(struct tty *t, const struct vfs_path *place, unsigned flags,
			      struct file **ret);
must_check int tty_master_open(struct devpts *inst, const struct vfs_path *place, unsigned flags,
			       struct file **ret);

/* ---- ioctl.c ---- */
int64_t tty_ioctl(struct file *f, unsigned cmd, uint64_t arg);

/* ---- devpts.c ---- */
must_check int devpts_add(struct devpts *inst, struct tty *t); /* gives it an index: -ENOSPC */
void devpts_remove(struct devpts *inst, struct tty *t);
/* The name in devpts goes; the index stays taken until devpts_remove(). Any locks. */
void devpts_unname(struct devpts *inst, const struct tty *t);
struct tty *devpts_find(struct devpts *inst, unsigned index); /* a reference or NULL */
struct devpts *
devpts_first(struct filesystem *fs); /* fs's, or any; its filesystem gets a reference. NULL */
must_check int devpts_open_index(struct devpts *inst, const struct vfs_path *place, unsigned index,
				 unsigned flags, struct file **ret);
void devpts_register(void);
must_check int tty_slave_place(struct tty *t, struct mount *mnt, struct vfs_path *ret);

/* ---- console.c ---- */
struct tty *tty_console(void); /* a reference or NULL */
void console_flush(struct tty *t); /* Pre: tty->lock */
void console_pump(struct tty *t); /* Pre: tty->lock */
#endif
