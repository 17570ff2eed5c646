/*
 * fsimpl/gofer/conn.h - remote procedure calls over one 9P connection.
 *
 * Locks: p9_conn.lock (LOCK_RPC) guards the tag table and who reads; send_lock (LOCK_RPC) is never held with it.
 * Callers hold at most LOCK_FS_OP.
 * A server without Moat's extension makes the connection `plain`: compound requests are carried out by plain ones (plain.c), and
 * the descriptors that the rest of the client knows by number are open fids then.
 */
#ifndef MOAT_FSIMPL_GOFER_CONN_H
#define MOAT_FSIMPL_GOFER_CONN_H

#include <sys/queue.h>

#include "base/hostpoll.h"
#include "base/lock.h"
#include "base/ref.h"
#include "base/spin.h"
#include "fsimpl/gofer/gofer_fs.h"
#include "wire/p9.h"

#define P9_TAGS_MAX 256
#define P9_CALLS_MAX (2 * P9_TAGS_MAX) /* the second half: each tag's Tflush */
#define P9_TFLUSH_SIZE (P9_HEADER_SIZE + 2u)
#define P9_TX_SIZE (P9_MSIZE_DEFAULT + P9_TAGS_MAX * P9_TFLUSH_SIZE)
#define P9_RX_SIZE (P9_MSIZE_DEFAULT * 2u)
#define P9_LATER_MAX \
	(P9_TAGS_MAX / 2) /* calls under way: no more are started ahead of their wait */
#define P9_CLUNKS_MAX P9_FIDS_MAX
#define P9_CLUNK_BATCH 64
#define P9_CLUNK_BYTES (1u << 20) /* that removed files may take on the server's disk until then */
#define P9_FD_QUEUE_MAX 64
#define P9_REPLY_INLINE 1024
#define P9_HELD_BUCKETS 1024
#define P9_SPIN_NS 50000 /* for how long the reader looks for a reply before it sleeps */
#define P9_TICK_MS 250 /* how often a caller that waits looks whether it was killed */

/* One request and its reply. On the caller's stack. */
struct p9_call {
	struct p9_msg r; /* the decoded reply; borrows from buf */
	int fd; /* a donated descriptor (plain: an open fid), or -1 (none, or it was lost: recv.c): the caller takes it by setting -1 */
	struct p9_conn *plain; /* NULL, or whose fid fd is */
	/* conn.c's own */
	_Atomic uint32_t word; /* futex: 1 look again */
	bool done;
	bool sleeps; /* guarded by p9_conn.lock: its caller waits for word */
	bool waited; /* a tick at least */
	bool must; /* P9_MUST_WAIT */
	bool droppable; /* given up though it changes something: nobody needs its answer */
	bool async; /* nobody waits: freed by whoever reads the reply */
	bool later; /* guarded by p9_conn.lock: p9_call_wait() has not come yet, so nobody is there who could read */
	_Atomic bool sent; /* set by who sends, whose it is before; afterwards a reply may end it */
	bool flushed; /* async: it was given up; its tag is taken until the Rflush */
	struct p9_call *flushes; /* async, a Tflush: the call that its reply frees; owned */
	uint32_t unwanted_fid; /* of a call that was given up: what its reply may have bound */
	int err;
	uint16_t tag;
	uint8_t request; /* P9_T*; 0: not sent by itself */
	int64_t since_ns;
	uint8_t *buf;
	uint32_t size;
	uint8_t inline_buf[P9_REPLY_INLINE];
};

/* A lock that the server waits for on our behalf. On the caller's stack. */
struct p9_lock_wait {
	LIST_ENTRY(p9_lock_wait) link;
	struct sleeper *sleeper; /* woken when done is set */
	uint64_t id;
	bool done;
	int err;
};

struct p9_conn {
	struct ref ref;
	int sock;
	uint32_t msize;
	int64_t answer_by; /* 0, or until when the server must have agreed; of who makes the connection */
	bool plain; /* immutable: the server has no compound requests */
	_Atomic bool no_unlinkat, no_renameat; /* plain: it answered that it has none */
	struct mutex send_lock;
	/* guarded by send_lock: what the socket has had no room for */
	uint8_t *tx;
	size_t tx_start, tx_len;
	_Atomic bool tx_left; /* there is some */
	struct hostpoll left_poll; /* and callers went: send.c; registered when first wanted */
	_Atomic bool left_watched; /* written under send_lock */
	struct mutex lock;
	bool reading; /* guarded by lock: somebody is in recvmsg(2) */
	struct p9_call *sending; /* guarded by lock: NULL; whose caller sends on, not reading */
	struct p9_call *calls[P9_CALLS_MAX]; /* guarded by lock */
	unsigned in_flight; /* guarded by lock */
	_Atomic unsigned given_up; /* calls; written under lock */
	unsigned next_tag; /* guarded by lock: where the search for a free one begins */
	_Atomic uint32_t tag_word; /* futex: a tag was freed */
	_Atomic int dead; /* 0 or -EIO */
	/* owned by the reader */
	struct spin spin;
	uint8_t *rx;
	size_t rx_len;
	int fds[P9_FD_QUEUE_MAX]; /* -1: lost */
	unsigned fd_count;
	/* fids to be given back; guarded by lock */
	uint32_t clunks[P9_CLUNKS_MAX];
	unsigned clunk_count;
	uint64_t clunk_bytes; /* guarded by lock: of the removed files among them */
	_Atomic uint32_t next_fid;
	struct mutex fid_lock; /* LOCK_LEAF */
	LIST_HEAD(, p9_held)
	held[P9_HELD_BUCKETS]; /* guarded by fid_lock: fids that the server has for us */
	_Atomic uint64_t requests;
	_Atomic uint64_t received; /* bytes; changed by the reader */
	/* donated descriptors, of all filesystems on this connection: fsimpl/gofer/hostfd.c */
	struct mutex fd_lock; /* LOCK_LEAF */
	TAILQ_HEAD(, gofer_inode)
	idle_fds; /* guarded by fd_lock: inodes whose descriptors nothing uses, oldest first */
	_Atomic unsigned host_fds;
	/* notices: fsimpl/gofer/notify.c */
	_Atomic bool notify_asked;
	int notify_sock; /* -1 */
	struct hostpoll notify_poll;
	LIST_HEAD(, p9_lock_wait) lock_waits; /* guarded by lock */
	uint64_t last_wait; /* guarded by lock */
	_Atomic unsigned lock_fids; /* of all lock owners */
	/* inotify on the host: fsimpl/gofer/watch.c */
	struct mutex watch_lock; /* LOCK_FS_DIR */
	struct gofer_watches *_Atomic watches; /* set once; owned */
};

/*
 * p9_rpc - sends t (its tag is filled in), waits for the reply, which is call->r. A fatal signal ends the wait for a request that changes
 * nothing: it is flushed (Tflush), and its tag is not used again before the server has said so.
 * Return: 0: p9_call_fini() must follow; -errno of the server; -EINTR: killed; -EIO when the connection is dead or was killed for
 * a reply that makes no sense. Nothing to free on an error.
 */
must_check int p9_rpc(struct p9_conn *c, struct p9_call *call, struct p9_msg *t);
void p9_call_fini(struct p9_call *call);
/*
 * p9_call_start - p9_rpc()'s first half: sends t, never waiting for anything. No compound request on a plain connection; t binds no fid. Any lock below
 * LOCK_RPC may be held.
 * Return: 0: p9_call_wait() must follow, and nothing else that waits; -EAGAIN: too many requests are under way, or no room; -ENOMEM, -EIO.
 */
must_check int p9_call_start(struct p9_conn *c, struct p9_msg *t, struct p9_call **ret);
/* Its second half; t as it was sent, but for its strings. Return: as p9_rpc(); 0: p9_call_fini(), then free(), must follow. On an error call is freed. */
must_check int p9_call_wait(struct p9_conn *c, struct p9_call *call, const struct p9_msg *t);
/* Does a killed caller wait for the reply? */
enum p9_wait {
	P9_MAY_LEAVE, /* no, if the request changes nothing */
	P9_MUST_WAIT, /* yes: it belongs to a change that is done already and has to be made known */
};

/* p9_rpc() of exactly this message: no compound one on a plain connection. */
must_check int p9_rpc_one(struct p9_conn *c, struct p9_call *call, struct p9_msg *t,
			  enum p9_wait wait);
/* p9_rpc() of a compound message on a plain connection. */
must_check int p9_plain_rpc(struct p9_conn *c, struct p9_call *call, struct p9_msg *t);
void p9_call_init(struct p9_call *call);
/* fids.c: a number that fits an int and is no fid of ours. */
uint32_t p9_fid_alloc(struct p9_conn *c);
/* t is about to be sent: what it ends is not held any more, whatever the answer. */
void p9_fids_asked(struct p9_conn *c, const struct p9_msg *t);
/* t was answered by r: what it bound is held. */
void p9_fids_replied(struct p9_conn *c, const struct p9_msg *t, const struct p9_msg *r);
/* It is given back. */
void p9_fid_forget(struct p9_conn *c, uint32_t fid);
void p9_fids_fini(struct p9_conn *c);
/* Gives a fid back, some time soon. Sleeps only when P9_CLUNKS_MAX gathered with no request in between. */
void p9_fid_clunk(struct p9_conn *c, uint32_t fid);
/*
 * The same of a file that has no name any more: until it is given back the host cannot have its `bytes` for others. Sent at once when P9_CLUNK_BYTES
 * gathered (to a plain server, where it would be waited for, with the next request).
 */
void p9_fid_clunk_removed(struct p9_conn *c, uint32_t fid, uint64_t bytes);

/* ---- send.c ---- */

/*
 * Into the buffer, and what fits into the socket; call->sent is set in between, and nothing here touches the call afterwards. Return: 0; not sent: -EAGAIN:
 * not now (never of a Tflush), -EMSGSIZE; -EPIPE.
 */
must_check int p9_send_try(struct p9_conn *c, const struct p9_msg *t, struct p9_call *call);
/* Waits for room in the socket, or for events, and sends on. Return: poll(2)'s, 0: time is over. */
short p9_send_more(struct p9_conn *c, short events, int timeout_ms);
/* A caller goes: the housekeeping thread, where there is one, sends what is left, and reads until what was given up is answered. */
void p9_send_leave(struct p9_conn *c);
/* Does it have to go on? announce: what is ready for it now, too, not only what will be. */
void p9_send_left(struct p9_conn *c, bool announce);
/* conn.c, on the housekeeping thread: there is room for what callers left behind, or replies for which the server wants room itself. */
void p9_left_ready(struct hostpoll *hp, uint32_t events);

/* ---- recv.c ---- */

/* Pre: the caller is the reader. Blocks for some bytes, a tick at most (true), and hands out what is whole. */
bool p9_read_some(struct p9_conn *c);
/* Pre: c->lock. call's tag is free again. */
void p9_tag_put_locked(struct p9_conn *c, struct p9_call *call);

/* ---- notify.c: what the server says unasked ---- */

/* Asks for the second connection, once. Where none is to be had (no housekeeping thread) locks are asked for again and again. */
void p9_notify_start(struct p9_conn *c);
void p9_notify_stop(struct p9_conn *c);
/* One packet of the server's, whatever is in it. Return: 0; -EPROTO: no message. */
must_check int p9_notice(struct p9_conn *c, const uint8_t *buf, size_t size);
/* Pre: c->lock. All waits are over. */
void p9_lock_waits_end_locked(struct p9_conn *c, int err);

/* ---- watch.c ---- */

void p9_watch_event(struct p9_conn *c, const struct p9_Tmevent *ev);
void p9_watches_fini(struct p9_conn *c);

/* Closes what p9_call.fd was. */
void p9_fd_put(struct p9_conn *c, int fd);

#endif
