/* fsimpl/pipe/internal.h - the ring, shared by pipe.c, fifo.c and splice.c. */
#ifndef MOAT_FSIMPL_PIPE_INTERNAL_H
#define MOAT_FSIMPL_PIPE_INTERNAL_H

#include "base/ucount.h"
#include "fsimpl/pipe/pipe.h"

#define PIPE_SPARE_PAGES 2

struct pipe_page {
	_Atomic uint32_t refs; /* tee shares pages */
	char data[MOAT_PAGE_SIZE];
};

struct pipe_buf {
	struct pipe_page *page; /* a reference */
	uint32_t off, len;
	bool packet; /* O_DIRECT: one read takes one */
	bool merge; /* a later write may append (the page is ours alone) */
};

struct pipe {
	struct ref ref;
	struct mutex lock;
	struct wait_queue wait;
	/* guarded by lock */
	struct pipe_buf *bufs; /* nslots of them, a power of two */
	struct ucount *user; /* immutable; a reference: who is charged for nslots */
	uint32_t nslots, head, tail; /* free-running; head - tail are full */
	uint32_t readers, writers;
	uint32_t reader_seq, writer_seq; /* opens ever: FIFO open waits on a change */
	bool busy; /* splice_to holds the front out of the lock */
	struct pipe_page *spare[PIPE_SPARE_PAGES];
	/* FIFOs; immutable, guarded by the table lock while hashed */
	struct filesystem *fs;
	uint64_t inode_key;
	bool hashed;
	LIST_ENTRY(pipe) link;
};

struct pipe_file {
	struct file f;
	struct pipe *pipe; /* a reference */
	bool must_wait; /* owned by the opener: pipe_open_wait has something to do */
	uint32_t open_seq; /* the other side's sequence at open */
	uint32_t hup_seq; /* POLLHUP only once writer_seq differs */
};

extern const struct file_ops pipe_ops, fifo_ops;

static inline struct pipe_file *pipe_file_of(struct file *f)
{
	return (struct pipe_file *)f;
}
static inline struct pipe *pipe_of(struct file *f)
{
	return pipe_file_of(f)->pipe;
}
static inline uint32_t pipe_used(const struct pipe *p)
{
	return p->head - p->tail;
}
static inline bool pipe_full(const struct pipe *p)
{
	return pipe_used(p) >= p->nslots;
}
static inline struct pipe_buf *pipe_slot(const struct pipe *p, uint32_t i)
{
	return &p->bufs[i & (p->nslots - 1)];
}

must_check int pipe_alloc(struct pipe **ret);
void pipe_unref(struct pipe *p);
/* A page; from the spares if there is one. Pre: p->lock. NULL: no memory. */
struct pipe_page *pipe_page_get_locked(struct pipe *p);
void pipe_page_put_locked(struct pipe *p, struct pipe_page *page);
void pipe_page_unref(struct pipe_page *page);
/* Takes a slot's page. Pre: p->lock, not full. */
void pipe_push_locked(struct pipe *p, struct pipe_page *page, uint32_t off, uint32_t len,
		      bool packet, bool merge);
/* A description on p, counted as reader/writer. `path` is borrowed. -ENXIO, -ENOMEM. */
must_check int pipe_file_create(struct pipe *p, const struct file_ops *ops,
				const struct vfs_path *path, unsigned flags, struct file **ret);
must_check int pipe_open_on(struct pipe *p, const struct file_ops *ops, const struct vfs_path *path,
			    unsigned flags, struct file **ret);
void pipe_fifo_forget(struct pipe *p); /* the last reference is gone */
ssize_t pipe_broken(int rwf); /* SIGPIPE but with RWF_NOSIGNAL; -EPIPE */
#endif
