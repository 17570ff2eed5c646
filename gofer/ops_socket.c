/*
 * gofer/ops_socket.c - Unix sockets of the host, where an attach point allows them: connected or bound here, and donated.
 *
 * A socket file goes by its descriptor's name below the working directory, /proc/self/fd: "N" is the very inode that was looked at, whatever its
 * path's length, and no symbolic link is followed on the way; a new one is "N/name", with N the held directory. The new sockets are this process's,
 * in its empty network namespace: no abstract name of the host's is within their reach, here or in the sentry.
 * They never block: a listener whose queue is full is EAGAIN, and the client asks again.
 */
#include <fcntl.h>
#include <stdio.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "gofer/server.h"

static bool is_socket_type(uint32_t type)
{
	return type == SOCK_STREAM || type == SOCK_DGRAM || type == SOCK_SEQPACKET;
}

static int new_socket(uint32_t type)
{
	int fd = socket(AF_UNIX, (int)type | SOCK_NONBLOCK | SOCK_CLOEXEC, 0);

	return fd < 0 ? -errno : fd;
}

static int connect_to(int path_fd, uint32_t type, struct p9_Rmconnect *o)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	struct ucred cred;
	socklen_t len = sizeof(cred);
	int fd = new_socket(type), err = 0;

	if (fd < 0)
		return fd;
	fd_name(path_fd, un.sun_path);
	if (connect(fd, (struct sockaddr *)&un, sizeof(un)) < 0) {
		err = -errno;
		close(fd);
		return err;
	}
	o->uid = o->gid = (uint32_t)-1;
	/* A datagram socket has no such peer. */
	if (type != SOCK_DGRAM && getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &cred, &len) == 0) {
		o->uid = cred.uid;
		o->gid = cred.gid;
	}
	return fd;
}

int op_mconnect(struct worker *w, const struct p9_msg *t, struct p9_msg *r)
{
	const struct p9_Tmconnect *a = &t->Tmconnect;
	auto_fid struct fid *f = fid_get(w->srv, a->fid);
	struct statx stx;
	bool owned = false;
	int path_fd, fd, err;

	if (!f)
		return -EBADF;
	if (!f->attach->uds_open)
		return -ECONNREFUSED;
	if (!is_socket_type(a->type))
		return -EINVAL;
	err = resolve_path(w, f, &a->path, w->path, &path_fd, &owned);
	if (err)
		return err;
	err = stat_fd(path_fd, "", &stx);
	if (!err && !S_ISSOCK(stx.stx_mode))
		err = -ECONNREFUSED;
	fd = err ? err : connect_to(path_fd, a->type, &r->Rmconnect);
	if (owned)
		close(path_fd);
	if (fd < 0)
		return fd;
	stat_to_qid(w->srv, &stx, &r->Rmconnect.qid);
	w->donate_fd = fd;
	r->Rmconnect.donated = 1;
	return 0;
}

int create_socket(struct worker *w, int dirfd, const char *name, uint32_t mode, uint32_t type,
		  const struct new_owner *o, int *ret_fd)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	int fd, err;

	if (!is_socket_type(type))
		return -EINVAL;
	if ((size_t)snprintf(un.sun_path, sizeof(un.sun_path), "%d/%s", dirfd, name) >=
	    sizeof(un.sun_path))
		return -ENAMETOOLONG;
	fd = new_socket(type);
	if (fd < 0)
		return fd;
	/* The file's mode is 0777 without the umask. */
	worker_umask(w, o->umask | (~mode & 0777));
	if (bind(fd, (struct sockaddr *)&un, sizeof(un)) < 0) {
		err = errno == EADDRINUSE ? -EEXIST : -errno;
	} else {
		err = created_node_owner(w, dirfd, name, mode, o);
	}
	if (err)
		close(fd);
	else
		*ret_fd = fd;
	return err;
}
