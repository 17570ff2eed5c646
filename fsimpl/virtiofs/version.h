/*
 * fsimpl/virtiofs/version.h - the version table (wire/version_table.h) from the client's side.
 *
 * With it (the mount option coherence=) attributes and names hold as long as their versions do, whatever the cache mode says of time: each use
 * is checked by one load. Attributes keep the version that came with them, a dentry keeps its name's in valid_until.
 * strict: before a walk begins, and before attributes of an open file are believed, the client asks whether the host has changes that the
 * table does not show yet, and waits for the daemon to take them in. One that does not is not believed for a second: everything is asked for.
 */
#ifndef MOAT_FSIMPL_VIRTIOFS_VERSION_H
#define MOAT_FSIMPL_VIRTIOFS_VERSION_H

#include "base/compiler.h"
#include "wire/version_table.h"
#include "wire/vhost_user.h"

struct virtiofs_versions {
	const struct version_table
		*table; /* immutable: mapped for reading; another daemon's takes its place there */
	_Atomic int notify_fd; /* -1: the daemon hears nothing of the host */
	_Atomic unsigned watcher;
	_Atomic uint64_t root_key; /* changed by INIT */
	bool strict; /* the same */
	_Atomic int64_t distrusted_until; /* host CLOCK_MONOTONIC */
	int retired_fd; /* the notify_fd before, which may be asked yet when another takes its place; the reconnecting thread's; -1 */
};

/*
 * Takes fds: the table, and if so said what tells of changes. Return: 0, -EPROTO (what came is no table that is safe to read), -errno.
 */
must_check int virtiofs_versions_create(const struct vhost_user_versions *v, const int *fds,
					unsigned count, struct virtiofs_versions **ret);
/* After a reconnection, as create: on success v is the new daemon's, and what was seen of the old one's table must not be believed. */
must_check int virtiofs_versions_restart(struct virtiofs_versions *v,
					 const struct vhost_user_versions *wire, const int *fds,
					 unsigned count);
void virtiofs_versions_destroy(struct virtiofs_versions *v); /* NULL is ignored */
/* strict: what the host changed until now is in the table when this returns, or nothing is believed. Does not sleep. */
void virtiofs_versions_settle_slow(struct virtiofs_versions *v);
bool virtiofs_versions_distrusted(struct virtiofs_versions *v);
/* strict: is it so already? Asks once and waits for nothing. */
bool virtiofs_versions_settled_slow(struct virtiofs_versions *v);

static inline void virtiofs_versions_settle(struct virtiofs_versions *v)
{
	if (v && v->strict)
		virtiofs_versions_settle_slow(v);
}

static inline bool virtiofs_versions_settled(struct virtiofs_versions *v)
{
	return likely(!v->strict) || virtiofs_versions_settled_slow(v);
}

/* Does what was cached as `seen` still hold? key: 0: nobody tells of its changes. */
static inline bool virtiofs_version_holds(struct virtiofs_versions *v, uint64_t key, uint64_t seen)
{
	return key && version_load(v->table, key) == seen &&
	       likely(!atomic_load_explicit(&v->distrusted_until, memory_order_relaxed) ||
		      !virtiofs_versions_distrusted(v));
}

#endif
