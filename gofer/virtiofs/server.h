/*
 * gofer/virtiofs/server.h - the daemon inside.
 *
 *	vhost.c		the vhost-user back end: messages, memory, queues and their threads
 *	request.c	a request from a ring: decoded, served, answered
 *	node.c		nodes: what LOOKUP gave out, each an O_PATH descriptor
 *	ops.c, io.c	the requests
 *	walk.c		several LOOKUPs in one
 *	lock.c		remote locks, and the threads that wait for them
 *	dax.c		file ranges in the client's window
 *	version.c	the table that tells clients of changes
 *	confine.c	what the process gives up
 *
 * Everything that comes from the rings is the client's to forge: requests are copied once (but for file data, which goes straight between the
 * rings and the files) and decoded by wire/fuse. Names are single components, checked not to hold a slash nor to be "." or "..", and are
 * used with O_NOFOLLOW below O_PATH descriptors; a node is opened through /proc/self/fd, so it is the very object that was looked up.
 * Locks: a directory handle (LOCK_FS_DIR) -> nodes_lock, handles_lock, waits_lock or a queue's done_lock (LOCK_LEAF), not together. back_lock: nothing
 * else is held.
 */
#ifndef MOAT_GOFER_VIRTIOFS_SERVER_H
#define MOAT_GOFER_VIRTIOFS_SERVER_H

#include <fcntl.h>
#include <pthread.h>
#include <sys/stat.h>

#include "base/lock.h"
#include "base/ref.h"
#include "gofer/virtiofs/virtiofsd.h"
#include "wire/fuse.h"
#include "wire/version_table.h"
#include "wire/vhost_user.h"
#include "wire/virtqueue.h"

/*
 * Around what touches the front end's memory. The front end hands it from one queue to another, and is a process that
 * ThreadSanitizer does not see: to it our two threads race.
 */
#if defined(__SANITIZE_THREAD__)
#define FRONT_END_TSAN 1
#elif defined(__has_feature)
#if __has_feature(thread_sanitizer)
#define FRONT_END_TSAN 1
#endif
#endif
#ifdef FRONT_END_TSAN
void AnnotateIgnoreReadsBegin(const char *file, int line);
void AnnotateIgnoreReadsEnd(const char *file, int line);
void AnnotateIgnoreWritesBegin(const char *file, int line);
void AnnotateIgnoreWritesEnd(const char *file, int line);

static inline void front_end_begin(void)
{
	AnnotateIgnoreReadsBegin(__FILE__, __LINE__);
	AnnotateIgnoreWritesBegin(__FILE__, __LINE__);
}

static inline void front_end_end(void)
{
	AnnotateIgnoreWritesEnd(__FILE__, __LINE__);
	AnnotateIgnoreReadsEnd(__FILE__, __LINE__);
}
#else
static inline void front_end_begin(void)
{
}

static inline void front_end_end(void)
{
}
#endif

#define NODE_BUCKETS 65536
#define HANDLES_MAX 65536
#define SPARE_FDS 256 /* descriptors that are not for nodes or handles */
#define MAX_IO (1u << 20)
#define DAX_ALIGN 4096ul /* of places in files and in the window */
#define DAX_FILE_MIN \
	32768 /* bytes: a shorter file is not worth a mapping (mounts with dax=inode) */
#define REQUEST_BYTES_MAX \
	(FUSE_REQUEST_ARG_MAX + 65536) /* with an xattr's value, without file data */
#define REPLY_BYTES_MAX (65536 + 4096)

#define WAITS_MAX 64 /* locks that are waited for, each by a thread; more: ENOLCK */

/* The POSIX locks of one owner on one file. */
struct lock_owner {
	struct lock_owner *next; /* guarded by nodes_lock */
	uint64_t id; /* the client's; immutable */
	int fd; /* immutable: open-file-description locks on it */
	unsigned refs; /* guarded by nodes_lock; the node's list is one */
};

struct node {
	struct node *next_by_file, *next_by_id; /* guarded by nodes.lock, as all below */
	uint64_t id;
	uint64_t nlookup;
	unsigned refs; /* requests that use it; the lookups together count as one */
	uint64_t dev, ino,
		mount; /* immutable; mount: the host's number of that which it was reached through */
	int fd; /* O_PATH; immutable */
	uint32_t type; /* S_IFMT; immutable */
	bool watched; /* immutable, as is key: the version table tells of its changes */
	uint64_t key;
	struct lock_owner *owners;
};

struct handle {
	int fd;
	bool is_dir;
	unsigned refs; /* guarded by handles.lock */
	struct mutex lock; /* directories: around their offset; LOCK_FS_DIR */
	int64_t pos; /* directories: where the descriptor stands; guarded by lock */
};

struct daemon;
struct queue;

/* A lock that is waited for, and where its answer goes. */
struct lock_wait {
	enum { WAIT_FREE, WAIT_BUSY, WAIT_DONE, WAIT_CLAIMED } state; /* guarded by waits_lock */
	struct queue *q; /* guarded by waits_lock; the rest is the thread's while BUSY */
	pthread_t thread;
	uint64_t unique; /* guarded by waits_lock */
	_Atomic bool interrupted;
	struct handle *handle; /* flock(2): a use; else NULL */
	int flock; /* LOCK_* */
	struct lock_owner *owner; /* POSIX: a use; else NULL */
	struct flock lk;
	uint16_t head;
	unsigned in_count;
	uint64_t in_size;
	struct iovec in[4]; /* for a reply's header */
};

struct queue {
	struct daemon *d;
	unsigned index;
	struct mutex done_lock; /* leaf: around the used ring and call_fd */
	struct virtq_device
		ring; /* the queue's thread's, but for its used side: guarded by done_lock */
	unsigned num;
	uint64_t desc_addr, used_addr, avail_addr; /* the front end's */
	uint16_t base;
	int kick_fd, call_fd;
	bool enabled, running;
	_Atomic bool stop;
	pthread_t thread;
};

struct daemon {
	struct virtiofsd_config config; /* immutable */
	unsigned queue_count; /* immutable: with the high-priority one */
	int proc_fd; /* immutable: /proc/self/fd, the working directory too */
	int proc_root; /* /proc, until a process knows its own: -1 then */
	uint64_t fd_max; /* immutable: nodes and handles together */
	_Atomic uint64_t fd_count;
	/* the connection; the main thread's, and the queues' while they run */
	int sock;
	uint64_t features, protocol_features;
	struct virtq_region regions[VHOST_USER_REGIONS_MAX]; /* by guest address */
	uint64_t user_base[VHOST_USER_REGIONS_MAX];
	uint64_t map_size[VHOST_USER_REGIONS_MAX];
	void *map_base[VHOST_USER_REGIONS_MAX];
	struct virtq_memory mem;
	struct queue queues[VIRTIOFSD_QUEUES_MAX + 1];
	/* the session */
	_Atomic bool initialised;
	struct mutex nodes_lock;
	struct node *by_file[NODE_BUCKETS], *by_id[NODE_BUCKETS]; /* guarded by nodes_lock */
	uint64_t next_id; /* guarded by nodes_lock */
	struct node *root; /* immutable while a session lasts */
	struct mutex handles_lock;
	struct handle *handles[HANDLES_MAX]; /* guarded by handles_lock */
	unsigned handle_hint; /* guarded by handles_lock */
	bool writeback; /* immutable after INIT: the client completes pages before it writes them */
	bool inode_dax; /* immutable after INIT: attributes say what is to be mapped */
	bool submounts; /* immutable after INIT: entries say what another file system is mounted on */
	bool killpriv; /* immutable after INIT: setuid and setgid bits go where requests say so */
	bool walks; /* immutable after INIT: the client asks for whole paths */
	bool setxattr_ext; /* immutable after INIT: SETXATTR has its long form */
	struct mutex waits_lock;
	struct lock_wait waits[WAITS_MAX];
	/* DAX: the back channel */
	pthread_mutex_t back_lock; /* held over a message and its answer */
	int back_fd; /* guarded by back_lock while queues run; -1 */
	/* versions */
	struct version_table *versions; /* immutable; NULL: the host has no sealed memory files */
	int versions_fd; /* immutable */
	unsigned watcher; /* immutable: which `busy` word is ours */
	int notify_fd, notify_epoll; /* the main thread's while no queue runs; -1 */
	bool versions_on; /* the same: this client uses them */
	pthread_t watch_thread;
	_Atomic bool watch_stop, unwatched;
};

/* ---- vhost.c ---- */

/* Once, before threads: what a client may provoke. */
void vhost_signals(struct daemon *d);
/* Serves d->sock until its end. Return: 0, -errno. */
int vhost_serve(struct daemon *d);
/* A request's answer of `len` bytes is in its buffers: tells the front end. */
void queue_complete(struct queue *q, uint16_t head, uint32_t len);
/* Ends a thread that looks at its stop flag, which is set: signals take it out of its calls, again and again. */
void thread_stop(pthread_t thread);

/* ---- request.c ---- */

struct request {
	struct daemon *d;
	struct queue *q;
	struct fuse_decoded in;
	const struct virtq_chain *chain;
	uint64_t data_at; /* where file data begins in chain->out */
	uint8_t *reply; /* REPLY_BYTES_MAX: payload of a reply that is no file data */
	size_t reply_size;
	size_t in_place; /* bytes of file data that are in chain->in already, behind the header */
	bool deferred; /* somebody else answers, by queue_complete() */
};
/* A thread's buffers. */
struct request_buffers {
	uint8_t request[REQUEST_BYTES_MAX];
	_Alignas(16) uint8_t reply[REPLY_BYTES_MAX];
};
/* False: it is answered later. ret_len: bytes written to the chain. */
bool request_serve(struct queue *q, const struct virtq_chain *chain, struct request_buffers *b,
		   uint32_t *ret_len);
/* An answer without a payload. Return: bytes written. */
uint32_t request_answer(const struct iovec *in, unsigned count, uint64_t size, uint64_t unique,
			int error);
/* setuid and setgid go as at a write by somebody without privileges. fd: not O_PATH, or of a node. */
void kill_privileges(struct daemon *d, int fd);
/* The request's umask, for the calls of this thread that make files. */
void set_umask(uint32_t mask);
/* The pieces of [skip, skip + size) of an iovec array. Return: how many. */
unsigned request_slice(const struct iovec *iov, unsigned count, uint64_t skip, uint64_t size,
		       struct iovec *ret, unsigned max);

/* ---- node.c ---- */

int session_start(struct daemon *d); /* the root node */
void session_end(struct daemon *d); /* everything that the client left */
struct node *node_get(struct daemon *d, uint64_t id); /* a use; NULL */
void node_put(struct daemon *d, struct node *n);
/*
 * The node of fd (taken), one lookup more: its id, key and version, for the node is nobody's to touch: another queue's FORGET may free it any time.
 * Return: 0, -ENFILE, -ENOMEM, -errno.
 */
must_check int node_enter(struct daemon *d, int fd, const struct statx *stx,
			  struct fuse_entry_out *ret);
void node_forget(struct daemon *d, uint64_t id, uint64_t nlookup);
/* A real descriptor of a node. -errno. */
int node_open(struct daemon *d, const struct node *n, int flags);
/* A path below the working directory, /proc/self/fd, that leads to fd. */
void fd_path(int fd, char out[16]);
/* Takes fd. Return: the handle's number, -ENFILE, -ENOMEM. */
must_check int64_t handle_add(struct daemon *d, int fd, bool is_dir);
struct handle *handle_get(struct daemon *d, uint64_t fh, bool is_dir); /* a use; NULL */
void handle_put(struct daemon *d, struct handle *h);
void handle_remove(struct daemon *d, uint64_t fh);
bool file_reserve(struct daemon *d); /* one more of fd_max: false */
void file_release(struct daemon *d);

/* ---- ops.c, io.c ---- */

/* Return: 0 with r->reply_size or r->in_place, -errno. */
typedef int (*request_fn)(struct request *r, struct node *n);
request_fn request_find(uint32_t opcode);
uint64_t dev_of(const struct statx *stx);
void attr_from_statx(const struct statx *stx, struct fuse_attr *ret);
must_check int stat_fd_now(int fd, struct statx *ret);
/* The entry of a file of dir by an O_PATH descriptor, which it takes; name_version: of the name that it was found by. Return: 0, -errno. */
must_check int enter_entry(struct daemon *d, const struct node *dir, int fd, uint64_t name_version,
			   struct fuse_entry_out *ret);
/* The entry of name below dir, looked up and entered. */
must_check int lookup_entry(struct daemon *d, const struct node *dir, const char *name,
			    struct fuse_entry_out *ret);
must_check int check_name(const char *name, size_t len);

/* OPEN's flags as the host is given them. */
int open_flags(const struct daemon *d, uint32_t wanted);
/* Takes fd. Return: 0 and how a regular file's handle is told of; -errno. */
must_check int add_open(struct daemon *d, int fd, struct fuse_open_out *ret);
/* A new file of the caller's, by O_EXCL. Return: its descriptor and entry, -errno. */
must_check int file_make(struct request *r, const struct node *dir, const char *name, int flags,
			 uint32_t mode, uint32_t mask, struct fuse_entry_out *ret);
int do_walk(struct request *r, struct node *n);

int do_read(struct request *r, struct node *n);
int do_write(struct request *r, struct node *n);
int do_open(struct request *r, struct node *n);
/* n: NULL: it was forgotten. */
int do_release(struct request *r, struct node *n);
int do_create(struct request *r, struct node *n);
int do_tmpfile(struct request *r, struct node *n);
int do_opendir(struct request *r, struct node *n);
int do_readdir(struct request *r, struct node *n);
int do_readdirplus(struct request *r, struct node *n);
int do_fsync(struct request *r, struct node *n);
int do_fsyncdir(struct request *r, struct node *n);
int do_flush(struct request *r, struct node *n);
int do_fallocate(struct request *r, struct node *n);
int do_lseek(struct request *r, struct node *n);
int do_copy_file_range(struct request *r, struct node *n);
/* unlinkat(2), told to the version table. */
int remove_name(struct daemon *d, const struct node *dir, const char *name, int flags);
/* Gives a new object its owner and special bits as Linux's rules have them; its mode is what the host gave it by the umask or a default ACL. */
must_check int give_to_caller(const struct request *r, const struct node *dir, int fd,
			      uint32_t mode);

/* ---- lock.c ---- */

int do_getlk(struct request *r, struct node *n);
int do_setlk(struct request *r, struct node *n); /* and SETLKW */
int do_interrupt(struct request *r);
void locks_drop_owner(struct daemon *d, struct node *n, uint64_t id);
void locks_drop_all(struct daemon *d, struct node *n); /* nobody else knows the node any more */
/* The queue has stopped: who waits answers EINTR. */
void locks_end_waits(struct daemon *d, const struct queue *q);

/* ---- dax.c ---- */

/* SET_BACKEND_REQ_FD: takes *fd if it is a socket. Return: 0, -EINVAL. */
must_check int back_set(struct daemon *d, int *fd);
void back_close(struct daemon *d);
bool dax_on(const struct daemon *d);
int do_setupmapping(struct request *r, struct node *n);
int do_removemapping(struct request *r, struct node *n);

/* ---- version.c ---- */

/* Before confinement and before forks. Return: 0, -errno: no versions. */
must_check int version_create(struct daemon *d);
/* This connection's notifications; the session has begun. Return: 0, -errno: it has no versions. */
must_check int version_watch_start(struct daemon *d);
/* The queues have stopped. */
void version_watch_stop(struct daemon *d);
/* The process of that connection has ended, in whatever way. */
void version_watcher_gone(struct version_table *t, unsigned watcher);
/* A node comes to the table of nodes, leaves it. Pre: nodes_lock, or nobody else knows it. */
void version_watch(struct daemon *d, struct node *n);
void version_unwatch(struct daemon *d, struct node *n);
/* Before one looks at the file or the name. */
uint64_t version_of(const struct daemon *d, const struct node *n);
uint64_t version_of_name(const struct daemon *d, const struct node *dir, const char *name);
/* After a change of ours, before the answer. name: what it stands for, and with it the directory's attributes. */
void version_changed(struct daemon *d, const struct node *n);
void version_fd_changed(struct daemon *d, int fd);
void version_name_changed(struct daemon *d, const struct node *dir, const char *name);
/* What dir has under the name, for version_fd_changed() after it was removed; -1: nobody cares, or nothing. */
int version_hold(const struct daemon *d, const struct node *dir, const char *name);
void version_drop_held(struct daemon *d, int fd); /* tells and closes */

/* ---- confine.c ---- */

must_check int daemon_confine(struct daemon *d); /* before threads */
/* In the process that will serve: its /proc/self/fd, and none of /proc besides. Before its filter. */
must_check int daemon_enter_proc(struct daemon *d);
must_check int daemon_seccomp(struct daemon *d, bool listens); /* listens: for connections */

#endif
