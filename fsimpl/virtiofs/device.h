/*
 * fsimpl/virtiofs/device.h - a virtio-fs device behind a vhost-user socket: memory, queues, requests.
 *
 * The sentry is the vhost-user front end and the driver at once. The device sees one memory file (virtiofs_device_memory()): rings, request
 * slots and the page cache of the one filesystem on it. A request occupies a slot of its queue from vdev_call() or vdev_begin() until
 * its completion was taken; slots outlive callers that were killed while they waited. The completions of those that have an owner are taken when
 * they are there, others' when somebody comes by or waits for room.
 *
 * Waiting: who waits polls the used ring for a while if cores are free, then sleeps (killably) and is woken by the housekeeping thread, which
 * drains the ring when the device calls. A device that breaks the protocol, or whose socket closes, is dead: every request, waiting or to
 * come, gives -EIO at once, and one line is logged.
 *
 * Locks: queue->lock (LOCK_RPC), a leaf. Callers hold at most LOCK_FS_OP.
 */
#ifndef MOAT_FSIMPL_VIRTIOFS_DEVICE_H
#define MOAT_FSIMPL_VIRTIOFS_DEVICE_H

#include "base/ref.h"
#include "base/sleep.h"
#include "mem/memfile.h"
#include "wire/fuse.h"
#include "wire/virtqueue.h"

struct virtiofs_device;

#define VDEV_DATA_MAX 64 /* pieces of data in one request, each way */
#define VDEV_REPLY_MAX 4096 /* bytes of reply that are no file data */
#define VDEV_CONNECT_TIMEOUT_MS 5000

struct virtiofs_device_options {
	uint64_t memory; /* bytes of shared memory; 0: VDEV_MEMORY_DEFAULT */
	unsigned
		queues; /* request queues wanted; 0: as many as CPUs, at most what the device has */
	unsigned
		queue_size; /* requests at once; 0: 128; a power of two, up to VIRTQ_SIZE_MAX / 2 */
	/*
	 * Connects to the daemon anew, after the connection broke: a socket, or -errno (it is tried again after a while, which doubles up to
	 * VDEV_RECONNECT_MS_MAX). From a thread of the device's, blocking for no longer than that. NULL: a dead device stays so.
	 */
	int (*reconnect)(void *arg);
	void *reconnect_arg;
};
#define VDEV_RECONNECT_MS_MIN 10
#define VDEV_RECONNECT_MS_MAX 1000
#define VDEV_GRACE_NS \
	900000000ll /* a call that began while the daemon was away waits so long after its death */

#define VDEV_MEMORY_DEFAULT (8ul << 30)

/*
 * virtiofs_device_connect - takes a connected socket and does the vhost-user handshake and FUSE_INIT's transport, not INIT itself.
 * Return: 0 and a reference; -EPROTO, -ETIMEDOUT, -EIO, -ENOMEM. One line is logged on failure.
 */
must_check int virtiofs_device_connect(int sock, const struct virtiofs_device_options *options,
				       struct virtiofs_device **ret);
void virtiofs_device_ref(struct virtiofs_device *dev);
/* The last one stops the rings and closes the socket. */
void virtiofs_device_unref(struct virtiofs_device *dev);
bool virtiofs_device_alive(const struct virtiofs_device *dev);
struct memfile *virtiofs_device_memory(struct virtiofs_device *dev); /* borrowed */
/* Requests so far whose answers are waited for: round trips, for benchmarks and tests. */
uint64_t virtiofs_device_requests(const struct virtiofs_device *dev);
/* What the daemon has besides; NULL: nothing. */
struct dax_window;
struct virtiofs_versions;
struct dax_window *virtiofs_device_dax(struct virtiofs_device *dev);
struct virtiofs_versions *virtiofs_device_versions(struct virtiofs_device *dev);
/* One filesystem at a time. claim: false if another has it. */
bool virtiofs_device_claim(struct virtiofs_device *dev);
void virtiofs_device_release(struct virtiofs_device *dev);
/*
 * If the daemon is away and may come back: waits for it, killably, at most until VDEV_GRACE_NS after it went. Whether it is back the next request
 * tells. Called by an operation before it takes locks.
 */
void virtiofs_device_await(struct virtiofs_device *dev);
/* Waits while the file system is being brought back, which ends; a signal that `mode` heeds ends it sooner. Return: it is alive. */
bool virtiofs_device_settle(struct virtiofs_device *dev, enum sleep_mode mode);
bool virtiofs_device_restoring(const struct virtiofs_device *dev);
/* Kills it: an answer made no sense. why: for the log; NULL: nothing is said. Waits for nobody. */
void virtiofs_device_kill(struct virtiofs_device *dev, const char *why);
/*
 * Kills it for good: it is not connected again, and `reconnect` is not called any more. Waits for one under way. Once, by a thread that is none of the device's
 * own and has a reference.
 */
void virtiofs_device_retire(struct virtiofs_device *dev);

/* A piece of the shared memory. */
struct vdev_data {
	uint64_t off;
	uint32_t size;
};

/*
 * Whose requests these are: told when a killed caller leaves one behind, so that what must not overtake it waits. Both without locks of the
 * device's; `left` comes from any thread.
 */
struct vdev_owner {
	void (*leave)(struct vdev_owner *o); /* the caller is gone, the request goes on */
	/*
	 * The device is through with it; once for each leave. err: what it says, 0 or -errno; -EIO: nothing, or nonsense. It may come from within any
	 * call of the device's, one made here too.
	 */
	void (*left)(struct vdev_owner *o, int err);
};

/*
 * Node ids carry in their upper 16 bits which connection they are of (vdev_node()): a request for a node of an earlier one is -EIO, whatever
 * its daemon would take the number for. The root's is the same for all.
 */
#define VDEV_EPOCH_SHIFT 48
#define VDEV_EPOCH_MAX 0xffffu /* no connection after that one: numbers are not used twice */
/* The device's name for a node of a daemon's; epoch: vdev_epoch() before the request that named it. */
uint64_t vdev_node(uint64_t nodeid, unsigned epoch);
/* Is it of the present connection? */
bool vdev_node_current(const struct virtiofs_device *dev, uint64_t node);
static inline uint64_t vdev_server_node(uint64_t node)
{
	return node & ((1ull << VDEV_EPOCH_SHIFT) - 1);
}
/* Connections so far. */
unsigned vdev_epoch(const struct virtiofs_device *dev);
/*
 * What is done after reconnecting, by the device's thread, whose requests alone are let through meanwhile: 0, or an errno with which the device is
 * dead again. NULL: nothing. Waits for one under way.
 */
void vdev_set_restore(struct virtiofs_device *dev, int (*restore)(void *arg), void *arg);

struct vdev_call {
	struct fuse_request req; /* req.data_size is filled in from send */
	struct vdev_owner *owner; /* NULL: nobody cares */
	unsigned
		epoch; /* if epoch_set: -EIO on any other connection; for the root, whose node is of all of them */
	bool epoch_set;
	bool ids_set; /* req.uid and gid are not to be the caller's */
	bool unkillable; /* waits whatever signals come: what it does must not be lost */
	void (*meanwhile)(
		void *arg); /* what the caller does again and again while he polls for the answer; NULL: nothing */
	void *meanwhile_arg;
	bool more; /* the caller sends another as soon as he has the answer: what serves the queue is kept awake for that */
	bool heard; /* the same, once the device has it: what the answer says must be known */
	const struct vdev_data *send, *receive; /* file data, in place */
	unsigned send_count, receive_count;
	const void *
		inline_data; /* or a little data of the caller's (xattr values, security contexts), at most VDEV_REPLY_MAX */
	size_t inline_size;
	void *reply; /* the fixed reply and small data land here, copied once */
	size_t reply_size;
};

/* Each request that the device has: emit(arg, opcode, its number, age). emit takes no locks. */
void vdev_in_flight(struct virtiofs_device *dev,
		    void (*emit)(void *arg, const char *what, uint64_t id, int64_t age_ns),
		    void *arg);

/* A request under way. */
struct vdev_pending {
	struct vdev_queue *q; /* NULL: none */
	struct vdev_slot *slot;
};

/*
 * vdev_call - sends, waits. Return: bytes of reply (received data is behind call->reply's fixed part, that is, all of it if the opcode has
 * none), -errno of the server, -EIO (dead or nonsense), -EINTR (killed; the request goes on by itself: `receive` must stay
 * untouched memory of nobody: the device holds references on its chunks until it completes).
 */
must_check ssize_t vdev_call(struct virtiofs_device *dev, struct vdev_call *call);
/*
 * The same in two steps, for several at once. begin: 0, -EIO, -EINTR, -EAGAIN (no room, !may_wait: take a completion first; who holds pending
 * requests must not wait for room). end: as vdev_call(); the reply's data into `reply`, of call->reply_size. One thread at a time waits.
 */
must_check int vdev_begin(struct virtiofs_device *dev, const struct vdev_call *call, bool may_wait,
			  struct vdev_pending *ret);
must_check ssize_t vdev_end(struct vdev_pending *p, void *reply);
/*
 * Room for a READ of `pieces` that nobody waits for: it keeps its slot until somebody comes for the answer, so all of them of all the filesystems on the
 * device together take less than half a ring. take: what it cost, which the
 * next daemon's rings would not tell; 0: there is none. give: its answer was taken, or it was not sent after all.
 */
must_check unsigned vdev_ahead_take(struct virtiofs_device *dev, unsigned pieces);
void vdev_ahead_give(struct virtiofs_device *dev, unsigned cost);
/* Is the answer there? Never sleeps. */
bool vdev_done(struct vdev_pending *p);
/*
 * Waits for the answer, as sleeper_wait() does with `mode` and `deadline`, and takes nothing: vdev_end() or vdev_leave() is next, or another wait.
 * Return: 0: it is there, or the device is dead; -EINTR, -ETIMEDOUT.
 */
must_check int vdev_wait(struct vdev_pending *p, enum sleep_mode mode, int64_t deadline);
/* Asks the device, which must be known to bear it, to answer the pending request now. Nobody waits for an answer to that. 0, -EAGAIN: no room; -EIO. */
must_check int vdev_interrupt(const struct vdev_pending *p);
/* Nobody will wait for it: its owner is told of its end. */
void vdev_leave(struct vdev_pending *p);
/* Sends a request that is answered, but whose answer nobody wants (RELEASE). Never sleeps. 0, -EAGAIN: no room; -EIO. */
must_check int vdev_begin_unwaited(struct virtiofs_device *dev, const struct vdev_call *call);
/* Waits until nothing is in flight, at most `ns`: before DESTROY. */
void vdev_drain(struct virtiofs_device *dev, int64_t ns);

/* FORGET and kin: no answer is waited for. Never sleeps; lost when the ring is full (the caller batches and tries again: -EAGAIN). */
must_check int vdev_post(struct virtiofs_device *dev, const struct fuse_request *req,
			 const void *data, size_t size);

#endif
