/*
 * fsimpl/virtiofs/listing.h - listings of directories that are kept: who lists again what has not changed asks the daemon for nothing.
 *
 * A listing is gathered by an open directory that is read from its start to its end, and kept with what was known of the directory before its first
 * entry was asked for. It is used for as long as that is so:
 *	always			nothing in the directory was changed by us since
 *	auto			that, while the attributes are believed that were known then, and have not come with other times since
 *	coherence=versions	the directory's version is what it was
 *	none			never
 * At most VIRTIOFS_LISTINGS_BYTES are kept of all of a device's directories, those used last, VIRTIOFS_LISTING_BYTES of one.
 */
#ifndef MOAT_FSIMPL_VIRTIOFS_LISTING_H
#define MOAT_FSIMPL_VIRTIOFS_LISTING_H

#include <sys/queue.h>

#include "base/lock.h"
#include "base/ref.h"

#define VIRTIOFS_LISTING_BYTES (2ul << 20)
#define VIRTIOFS_LISTINGS_BYTES (8ul << 20)

struct virtiofs_inode;
struct virtiofs_fs;
struct remote_dentry;

struct virtiofs_stamp {
	uint64_t sec;
	uint32_t nsec;
};

/* What a directory looked like when its first entry was asked for. */
struct virtiofs_listed_state {
	uint64_t changes; /* inode->attr_version */
	uint64_t key, version; /* with fs->versions */
	unsigned epoch; /* the connection */
	bool known; /* mtime and ctime are of the last attributes */
	int64_t until; /* host CLOCK_MONOTONIC: until then these attributes are believed */
	struct virtiofs_stamp mtime, ctime;
};

struct virtiofs_listing {
	struct ref ref;
	struct virtiofs_listed_state state; /* immutable, as all below but for the links */
	struct virtiofs_inode *
		in; /* guarded by the device's listings' lock, as link: whose listing it is; NULL: not kept any more */
	TAILQ_ENTRY(virtiofs_listing) link;
	uint32_t count;
	size_t size; /* bytes of data */
	uint8_t data[]; /* READDIR's entries, one behind the other */
};

/* Of a device. */
struct virtiofs_listings {
	struct mutex lock; /* LOCK_FS_SUPER */
	TAILQ_HEAD(, virtiofs_listing) used; /* guarded by lock: those used last at the end */
	size_t bytes; /* guarded by lock: of those kept and those being gathered */
};

/* Being gathered. Zeros: nothing is. Guarded by the open file's pos_lock. */
struct virtiofs_gathering {
	struct virtiofs_listing *l; /* owned */
	size_t room; /* bytes of l->data, which count among the kept */
	int64_t next; /* the position that must be read next */
};

void virtiofs_listings_init(struct virtiofs_listings *all);

/* Before the first entry is asked for. What may not be kept is not gathered. */
void virtiofs_gather_begin(struct virtiofs_gathering *g, struct virtiofs_inode *in);
/* A reply's entries, which have been asked for at `pos`, and were found in order. */
void virtiofs_gather_add(struct virtiofs_gathering *g, struct virtiofs_inode *in, int64_t pos,
			 const uint8_t *data, size_t size, bool plus);
/* There are no more: kept, if `pos` is where the last ended. */
void virtiofs_gather_end(struct virtiofs_gathering *g, struct virtiofs_inode *in, int64_t pos);
void virtiofs_gather_drop(struct virtiofs_gathering *g, struct virtiofs_inode *in);

/*
 * The directory's listing, if it is to be believed: a reference; NULL. Asks nobody. attributes: its entries' will be wanted, so it does only
 * if they are known for the most part.
 */
struct virtiofs_listing *virtiofs_listing_get(struct remote_dentry *d, bool attributes);
void virtiofs_listing_unref(struct virtiofs_listing *l); /* NULL is ignored */
/* The inode goes. */
void virtiofs_listing_forget(struct virtiofs_inode *in);
/* Keeps none of the file system's. */
void virtiofs_listings_drop(struct virtiofs_fs *fs);

#endif
