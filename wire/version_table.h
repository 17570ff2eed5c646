/*
 * wire/version_table.h - the shared metadata version table: how a client knows, by one load, that nothing has changed.
 *
 * A daemon and its clients share one memory file: a header of VERSION_HEADER_BYTES, then VERSION_SLOTS counters of 8 bytes. Whatever can be
 * cached has a 64-bit key, and the key's low bits name a slot:
 *	a file's attributes	version_handle_key() of its file handle as the host gives it out: all daemons of a host, and its
 *				notifications, name the same file alike
 *	a name in a directory	version_name_key() of the directory's key and the name, whether it exists or not
 * Two keys may share a slot: a change of the one then looks like a change of the other, and costs a request.
 *
 * Whoever changes something (a daemon for any client of its, or the daemon that hears of a change on the host) first changes it, then adds 1 to
 * the slot (release), then answers. Whoever answers loads the slot (acquire), then looks at the file, and sends the value along. A client
 * keeps that value beside what it cached, which holds while a load (acquire) of the slot gives the same. So an answer that was under way
 * while the change came carries the old value, is cached, and is found out by the next load. 64 bits do not overflow. When notifications
 * were lost, every slot is raised.
 *
 * Changes on the host are heard of within milliseconds. Who must not be late asks first whether notifications wait to be read (the
 * descriptor that GET_VERSIONS brings is readable then), then whether the watcher's `busy` word is odd, in this order: the watcher makes it
 * odd before it reads and even after the slots were raised. A change that preceded the question is in the queue, or in `busy`, or in its slot.
 *
 * On the wire: a front end that takes the protocol feature VHOST_USER_PROTOCOL_MOAT_VERSIONS may send GET_VERSIONS. If it also sets
 * FUSE_MOAT_VERSIONS in FUSE_INIT and is granted it, the fields of replies that say how long something holds carry versions instead:
 *	fuse_entry_out	generation: the node's key, 0: nobody tells of its changes, ask each time; entry_valid: the name's version; attr_valid: the attributes'
 *	fuse_attr_out	attr_valid: the attributes' version
 * The root's key is in the header. Without these two bits nothing differs from other daemons.
 *
 * What is not followed: access times, and stores through shared mappings (the host tells nobody either).
 * A hostile client cannot write to the table (the file is sealed against it). A hostile daemon cannot take it away (sealed against
 * shrinking, which the client checks); any value that it writes can at worst make the client ask again, or believe what it was told by that very daemon.
 */
#ifndef MOAT_WIRE_VERSION_TABLE_H
#define MOAT_WIRE_VERSION_TABLE_H

#include <stdatomic.h>
#include <stddef.h>

#include "base/compiler.h"

#define VERSION_TABLE_MAGIC 0x312d737265766f6dull /* "movers-1" */
#define VERSION_SLOTS (1u << 18)
#define VERSION_WATCHERS 64
#define VERSION_HEADER_BYTES 8192
#define VERSION_TABLE_BYTES (VERSION_HEADER_BYTES + VERSION_SLOTS * 8ul)

/* A bit of FUSE_INIT's flags (with FUSE_INIT_EXT: flags2's last) that Linux does not know. */
#define FUSE_MOAT_VERSIONS (1ull << 63)

struct version_table {
	uint64_t magic;
	uint64_t root_key;
	_Atomic uint64_t users; /* connections that use it; the daemons' */
	uint64_t reserved[125];
	struct {
		_Atomic uint64_t busy; /* odd: changes were read that are not in the slots yet */
		_Atomic uint64_t active; /* a connection has it; the daemons' */
		uint64_t pad[6];
	} watchers[VERSION_WATCHERS];
	uint64_t reserved2[384];
	_Atomic uint64_t slots[VERSION_SLOTS];
};

uint64_t version_handle_key(int type, const void *handle, size_t size);
uint64_t version_name_key(uint64_t dir, const char *name, size_t len);

static inline uint64_t version_load(const struct version_table *t, uint64_t key)
{
	return atomic_load_explicit(&((struct version_table *)t)->slots[key % VERSION_SLOTS],
				    memory_order_acquire);
}

static inline void version_bump(struct version_table *t, uint64_t key)
{
	atomic_fetch_add_explicit(&t->slots[key % VERSION_SLOTS], 1, memory_order_release);
}

/* What was read of them is lost: everything may have changed. */
void version_bump_all(struct version_table *t);

#endif
