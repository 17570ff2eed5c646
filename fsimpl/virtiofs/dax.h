/*
 * fsimpl/virtiofs/dax.h - DAX: files mapped through a window instead of being read and written by requests.
 *
 * The window is divided into ranges of VIRTIOFS_DAX_RANGE bytes, each for one aligned range of one file, set up by SETUPMAPPING and given back by
 * REMOVEMAPPING. The daemon answers a SETUPMAPPING by SHMEM_MAP on the back channel, with the file's descriptor; the housekeeping thread
 * takes it while the caller waits for the request's reply. What is mapped then is that descriptor, through the memory window (mem/window.c) that host files
 * of the gofer's use too: so a file that shrinks under a copy is an error of the copy, and of a guest's access its SIGBUS.
 *
 * An inode is either DAX or has a page cache, for its life. All its ranges go through one memory file; the first writable range replaces one that is
 * for reading. A range that is not mapped any more is not translated any more, and what mappings have of it is taken back first.
 *
 *	inode->fill_lock (one setup at a time for an inode; held over requests)
 *	  inode->map.data_lock
 *	    window->lock (LOCK_DAX): which range is whose, the inode's memory file
 *	      LOCK_MEMFILE
 */
#ifndef MOAT_FSIMPL_VIRTIOFS_DAX_H
#define MOAT_FSIMPL_VIRTIOFS_DAX_H

#include "mem/io_iter.h"
#include "mem/mappable.h"

#define VIRTIOFS_DAX_SHIFT 21
#define VIRTIOFS_DAX_RANGE (1ul << VIRTIOFS_DAX_SHIFT)
#define VIRTIOFS_DAX_RANGES_MAX 4096 /* of a window: 8 GiB; each may hold a descriptor */

struct virtiofs_device;
struct virtiofs_fs;
struct virtiofs_inode;
struct virtiofs_handle;
struct dax_range;
struct dax_window;

/* What an inode has of it; one with a page cache a range that is not mapped, for its descriptor (pass.c). */
struct virtiofs_dax_inode {
	bool on; /* immutable */
	bool writable; /* guarded by data_lock (write) and window->lock, either to read; as mf, dev, ino */
	struct memfile *mf; /* a reference; NULL while no range is mapped */
	uint64_t dev, ino; /* of mf's file */
	struct dax_range *ranges; /* guarded by window->lock */
	_Atomic bool times; /* written to by memory: the server has not been told the new mtime */
	_Atomic uint64_t called; /* bytes that the host copied of what was in no range */
};

/* ---- the device's ---- */

/* Takes fd, the back channel; size: of the window as the daemon says. Return: 0, -ENOMEM, -EPROTO (no range fits). */
must_check int dax_window_create(struct virtiofs_device *dev, int fd, uint64_t size,
				 struct dax_window **ret);
/*
 * After a reconnection: takes fd, the back channel of the new daemon. What is mapped stays mapped: it is the host's files, whoever named them. A
 * window that is smaller than the old one is not used.
 */
void dax_window_restart(struct dax_window *w, int fd, uint64_t size);
/* The same, but the new daemon has none: what is mapped stays, and there will be no more. */
void dax_window_gone(struct dax_window *w);
/* Begins to serve the back channel, unless that is done already. */
must_check int dax_window_start(struct dax_window *w);
void dax_window_destroy(struct dax_window *w); /* NULL is ignored */

/* ---- the file system's: in->dax.on ---- */

extern const struct mappable_ops virtiofs_dax_mappable_ops;
/* By memory where a range is or can be mapped, else by requests. Return: bytes, -errno. */
ssize_t virtiofs_dax_read(struct virtiofs_inode *in, struct virtiofs_handle *h, struct io_iter *it,
			  uint64_t off);
/* Pre: write_lock. What makes the file longer is a request. */
ssize_t virtiofs_dax_write(struct virtiofs_inode *in, struct virtiofs_handle *h, struct io_iter *it,
			   uint64_t off);
/* Tells the server when the file was written to last, if it does not know. */
void virtiofs_dax_push_times(struct virtiofs_inode *in);
/* All its ranges are given up, and the memory file. Pre: nothing of it is mapped. */
void virtiofs_dax_free(struct virtiofs_inode *in);

/* ---- of these, what files with a page cache have as well: pass.c ---- */

/* The range of that index, if it is not there yet. Takes fill_lock. Return: 0, -EINTR, -errno. */
must_check int virtiofs_dax_setup(struct virtiofs_inode *in, uint64_t index, bool write);
/* The file that came with the ranges: a reference; NULL: there is none. */
struct memfile *virtiofs_dax_file(struct virtiofs_inode *in);
/* Has the host copy [off, end) of it. Return: bytes. *ret_err, where that is not all: -ESTALE: the file ended; -EAGAIN: requests must do the rest; -EFAULT. */
uint64_t virtiofs_dax_call(struct io_iter *it, const struct memfile *mf, uint64_t off, uint64_t end,
			   int *ret_err);

#endif
