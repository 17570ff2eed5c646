/*
 * bench/fs_bare.h - a virtio-fs client that does nothing but ask: what a LOOKUP costs at least, with this daemon and on this machine.
 *
 * One request at a time in a ring of direct descriptors, four each (header and rest, either way), in memory of its own; no cache, no locks, no names. It looks for the answer without ever giving its
 * CPU away, so the daemon needs another one. One thread.
 */
#ifndef MOAT_BENCH_FS_BARE_H
#define MOAT_BENCH_FS_BARE_H

#include <stdbool.h>
#include <stdint.h>

#include "wire/fuse.h"

struct bare;

/* How the daemon is kicked: as virtual machines do it, or as our client does (docs/virtiofs.md says why). */
enum bare_kick { BARE_EVENTFD, BARE_SOCKET };

/* sock: a daemon's, whose caller keeps it; handshake and INIT are done. Return: 0, -errno. */
int bare_create(int sock, enum bare_kick kick, struct bare **ret);
void bare_destroy(struct bare *b);
/* A LOOKUP of `name` in the node `dir` (FUSE_ROOT: the root). Nothing is ever forgotten. Return: 0, -errno. */
int bare_lookup(struct bare *b, uint64_t dir, const char *name, struct fuse_entry_out *ret);

#endif
