/*
 * fsimpl/gofer/socket.c - Unix sockets of the host, where --host-uds allows them: the gofer connects, and donates the socket.
 *
 * The guest's right to write to the file is checked before, by the cached attributes (path_ops.c); that it was this file's listener the reply says.
 */
#include <stdlib.h>
#include <sys/socket.h>

#include "fsimpl/gofer/internal.h"

struct host_endpoint {
	struct vfs_endpoint e;
	struct remote_dentry *d; /* immutable; a reference, as of its filesystem */
};

static REF_TYPE(host_endpoint_type, "host endpoint");

static void host_endpoint_release(struct vfs_endpoint *e)
{
	struct host_endpoint *ep = container_of(e, struct host_endpoint, e);
	struct filesystem *fs = ep->d->d.fs;

	remote_dentry_unref(ep->d);
	filesystem_unref(fs);
	ref_fini(&e->ref, &host_endpoint_type);
	free(ep);
}

bool gofer_is_unix_socket(int fd, int type)
{
	int domain, is;
	socklen_t domain_len = sizeof(domain), is_len = sizeof(is);

	return fd >= 0 && getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &domain_len) == 0 &&
	       domain == AF_UNIX && getsockopt(fd, SOL_SOCKET, SO_TYPE, &is, &is_len) == 0 &&
	       is == type;
}

/* Pre: tree_lock. */
static int ask_connect(struct remote_dentry *d, int type, struct p9_call *call)
{
	struct p9_msg t = {.type = P9_Tmconnect};
	struct gofer_where where;
	int err = gofer_where(d, &where);

	if (err)
		return err;
	t.Tmconnect.fid = where.fid;
	t.Tmconnect.path = gofer_where_path(&where);
	t.Tmconnect.type = (uint32_t)type;
	return p9_rpc(gofer_fs_of(d->d.fs)->conn, call, &t);
}

static int host_endpoint_connect(struct vfs_endpoint *e, int type, struct vfs_host_socket *ret)
{
	struct remote_dentry *d = container_of(e, struct host_endpoint, e)->d;
	struct gofer_fs *fs = gofer_fs_of(d->d.fs);
	struct p9_call call;
	int err;

	err = rwlock_read_lock_killable(&fs->tree_lock);
	if (err)
		return err;
	err = ask_connect(d, type, &call);
	rwlock_read_unlock(&fs->tree_lock);
	if (err)
		return err;
	if (!gofer_is_unix_socket(call.fd, type)) {
		err = -EIO;
	} else if (call.r.Rmconnect.qid.path != gofer_inode_of(d)->qid_path) {
		/* The host put another there, which the guest may not be allowed to use. */
		err = -ECONNREFUSED;
	} else {
		ret->fd = call.fd;
		ret->uid = call.r.Rmconnect.uid;
		ret->gid = call.r.Rmconnect.gid;
		call.fd = -1;
	}
	p9_call_fini(&call);
	return err;
}

int gofer_host_endpoint(struct remote_dentry *d, struct vfs_endpoint **ret)
{
	struct host_endpoint *ep = calloc(1, sizeof(*ep));

	if (!ep)
		return -ENOMEM;
	ref_init(&ep->e.ref, &host_endpoint_type);
	ep->e.release = host_endpoint_release;
	ep->e.connect_host = host_endpoint_connect;
	ep->e.host_fd = -1;
	ep->d = remote_dentry_ref(d);
	filesystem_ref(d->d.fs);
	*ret = &ep->e;
	return 0;
}
