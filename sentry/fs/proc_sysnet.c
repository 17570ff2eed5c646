/*
 * sentry/fs/proc_sysnet.c - /proc/sys/net: settings of the host's stack in the sandbox's network namespace (fsimpl/socket/hostnet.h), and
 * the one of AF_UNIX, which is the sentry's.
 *
 * Directories are the paths below; files are what hostnet.c keeps open. Writing needs root's ownership or CAP_NET_ADMIN inside, and
 * that the host lets the sentry: a namespace of the container's own, and the capability for most.
 */
#include <stdio.h>
#include <string.h>
#include <linux/capability.h>

#include "fsimpl/socket/hostnet.h"
#include "sentry/fs/internal.h"
#include "sentry/fs/proc.h"

#define PATH_MAX_ 128
#define UNIX_QLEN "unix/max_dgram_qlen"

static const char *const dirs[] = {
	"core",		"ipv4", "ipv4/conf", "ipv4/conf/all", "ipv4/conf/default",
	"ipv4/conf/lo", "ipv6", "ipv6/conf", "ipv6/conf/all", "ipv6/conf/default",
	"ipv6/conf/lo", "unix",
};

static const struct synth_node_ops dir_ops, file_ops, unix_ops;

/* The last component of `path` if it lies directly in `dir` ("": the top). */
static const char *child_of(const char *dir, const char *path)
{
	size_t len = strlen(dir);
	const char *rest = path;

	if (len) {
		if (strncmp(path, dir, len) != 0 || path[len] != '/')
			return NULL;
		rest = path + len + 1;
	}
	return strchr(rest, '/') ? NULL : rest;
}

static const char *dir_path(const struct synth_node *n)
{
	return n->ops == &proc_sysnet_ops ? "" : n->priv;
}

static int sysnet_lookup(struct synth_node *dir, const char *name, size_t len,
			 struct synth_node **ret)
{
	char path[PATH_MAX_];
	const char *parent = dir_path(dir), *known;
	int n = snprintf(path, sizeof(path), "%s%s%.*s", parent, *parent ? "/" : "", (int)len,
			 name);

	if (n < 0 || (size_t)n >= sizeof(path))
		return -ENOENT;
	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++)
		if (strcmp(dirs[i], path) == 0)
			return synth_node_create(dir, name, len, S_IFDIR | 0555, &dir_ops,
						 (void *)dirs[i], ret);
	if (strcmp(path, UNIX_QLEN) == 0)
		return synth_node_create(dir, name, len, S_IFREG | 0444, &unix_ops, NULL, ret);
	known = hostnet_sysctl_name(path);
	if (!known)
		return -ENOENT;
	return synth_node_create(dir, name, len, S_IFREG | 0644, &file_ops, (void *)known, ret);
}

static int sysnet_iterate(struct synth_node *dir, int64_t from, struct synth_iter *it)
{
	const char *parent = dir_path(dir), *name, *path;
	int64_t key = 0;

	for (size_t i = 0; i < ARRAY_SIZE(dirs); i++, key++) {
		name = child_of(parent, dirs[i]);
		if (name && key >= from && !synth_emit(it, name, strlen(name), S_IFDIR, 0, key))
			return 0;
	}
	if (child_of(parent, UNIX_QLEN) && key >= from &&
	    !synth_emit(it, "max_dgram_qlen", 14, S_IFREG, 0, key))
		return 0;
	key++;
	for (unsigned i = 0; (path = hostnet_sysctl_at(i)); i++, key++) {
		name = child_of(parent, path);
		if (name && key >= from && !synth_emit(it, name, strlen(name), S_IFREG, 0, key))
			return 0;
	}
	return 0;
}

static int sysnet_show(struct synth_node *n, unused_arg struct synth_file *sf, struct buf *b)
{
	return hostnet_sysctl_read(n->priv, b);
}

static ssize_t sysnet_store(struct synth_node *n, unused_arg struct synth_file *sf,
			    const char *data, size_t size, int64_t off)
{
	const struct cred *c = cred_current();
	int err;

	if (off)
		return (ssize_t)
			size; /* proc_dostring() and friends: the rest of a value is ignored */
	if (c->euid && !cred_has_cap(c, CAP_NET_ADMIN))
		return -EPERM;
	err = hostnet_sysctl_write(n->priv, data, size);
	return err ? err : (ssize_t)size;
}

static int unix_show(unused_arg struct synth_node *n, unused_arg struct synth_file *sf,
		     struct buf *b)
{
	buf_puts(b, "512\n");
	return 0;
}

static const struct synth_node_ops dir_ops = {
	.lookup = sysnet_lookup, .iterate = sysnet_iterate, .setattr = synth_setattr_eperm};
static const struct synth_node_ops file_ops = {
	.show = sysnet_show, .store = sysnet_store, .setattr = synth_setattr_eperm};
static const struct synth_node_ops unix_ops = {.show = unix_show, .setattr = synth_setattr_eperm};

const struct synth_node_ops proc_sysnet_ops = {
	.lookup = sysnet_lookup, .iterate = sysnet_iterate, .setattr = synth_setattr_eperm};
