/*
 * fsimpl/virtiofs/pass.c - long reads of files with a page cache, by the host's own call: what Linux's FUSE calls passthrough.
 *
 * A READ's data is copied twice, by the daemon into the shared memory and by the reader out of it, mostly on another CPU, whose caches each line has to
 * cross. A daemon that has a DAX window gives the file's descriptor for a range of it, mounted with DAX or not. So who reads on in long pieces has one range set
 * up, of which nothing is ever mapped, and has the host copy what is not in the page cache from that descriptor straight to where it is wanted.
 *
 * Pages that are cached come from the cache: they may be newer than the host's file (dirty). A page that was dirty goes from the cache under fill_lock, which
 * WRITEs keep, so the host has it by then: no lock is needed here. What the call does not bring (the file ends sooner than is believed, an error)
 * is asked for by READ, whose answer counts.
 *
 * The descriptor goes with the last open handle, with the window's room (dax_window.c) and with the daemon's connection. Cannot do: writes, whose bits and
 * times are the daemon's business.
 */
#include <fcntl.h>

#include "fsimpl/virtiofs/internal_dax.h"

/* No file shorter than that is worth a request of its own. */
#define PASS_FILE_MIN (1ul << 20)

enum {
	PASS_UNASKED,
	PASS_ASKED, /* there may be a descriptor, but somebody found none or has not seen it yet */
	PASS_HAS,
	PASS_NEVER,
};

/* Does the daemon that gave it serve the file still? What lost its name with a daemon is lost here too. */
static bool is_served(const struct virtiofs_inode *in)
{
	return virtiofs_device_alive(in->fs->dev) && vdev_node_current(in->fs->dev, in->nodeid);
}

bool virtiofs_pass_ready(const struct virtiofs_handle *h, bool ask)
{
	struct virtiofs_inode *in = h->in;
	int state = atomic_load(&in->pass), err;
	uint64_t node = in->nodeid;

	/* The daemon opened its own without it; what it would not open again after its end gives READs' error. */
	if ((h->flags & O_NOATIME) || atomic_load(&h->fh) == UINT64_MAX)
		return false;
	if (likely(state >= PASS_HAS) || !ask || virtiofs_inode_size(in) < PASS_FILE_MIN)
		return state == PASS_HAS && is_served(in);
	if (!virtiofs_device_dax(in->fs->dev) || !is_served(in))
		return false;
	atomic_store(&in->pass, PASS_ASKED);
	err = virtiofs_dax_setup(in, 0, false);
	if (!err)
		atomic_store(&in->pass, PASS_HAS);
	else if (err != -EINTR && is_served(in))
		atomic_store(&in->pass, PASS_NEVER);
	/* From a daemon that is gone: the reconnection may have been here before it came. */
	if (!err && (node != in->nodeid || !is_served(in))) {
		virtiofs_pass_end(in);
		return false;
	}
	return !err;
}

ssize_t virtiofs_pass_read(struct virtiofs_inode *in, struct io_iter *it, uint64_t off,
			   uint64_t end)
{
	struct memfile *mf = virtiofs_dax_file(in);
	uint64_t done;
	int err;

	if (!mf) {
		/* Its range went to make room for others; somebody may just have another. */
		atomic_store(&in->pass, PASS_ASKED);
		return 0;
	}
	done = virtiofs_dax_call(it, mf, off, end, &err);
	memfile_unref(mf);
	if (done)
		return (ssize_t)done;
	return err == -EFAULT ? -EFAULT : 0;
}

void virtiofs_pass_end(struct virtiofs_inode *in)
{
	int state = in->dax.on ? PASS_UNASKED : atomic_exchange(&in->pass, PASS_UNASKED);

	if (state != PASS_UNASKED)
		virtiofs_dax_free(in);
}
