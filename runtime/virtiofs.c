/* runtime/virtiofs.c - connections to file servers that were there before: virtio-fs daemons, and 9P servers such as diod. */
#include "runtime/virtiofs.h"

#include <errno.h>
#include <fcntl.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include "runtime/cli.h"

struct virtiofs_place {
	int dir; /* O_PATH */
	char name[sizeof(((struct sockaddr_un *)0)->sun_path)];
	struct sockaddr_un peer; /* as what the daemon bound itself, at the first connection */
};

/* The socket's directory and name, and who is at the other end of fd, a connection to it. */
static int place_of(const char *mount, const char *path, int fd, struct virtiofs_place *ret)
{
	const char *slash = strrchr(path, '/'), *name = slash ? slash + 1 : path;
	socklen_t len = sizeof(ret->peer);
	char *dir;
	int err = 0;

	if (strlen(name) >= sizeof(ret->name)) {
		cli_error("mount %s: virtio-fs socket %s: its name is longer than %zu bytes", mount,
			  path, sizeof(ret->name) - 1);
		return -ENAMETOOLONG;
	}
	strcpy(ret->name, name);
	dir = slash ? strndup(path, slash == path ? 1 : (size_t)(slash - path)) : strdup(".");
	ret->dir = dir ? open(dir, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
	if (ret->dir < 0)
		err = dir ? -errno : -ENOMEM;
	else if (getpeername(fd, (struct sockaddr *)&ret->peer, &len) < 0) {
		err = -errno;
		close(ret->dir);
	}
	if (err)
		cli_error("mount %s: virtio-fs socket %s: %s", mount, path, strerror(-err));
	free(dir);
	return err;
}

static int connect_to(const char *mount, const char *path, bool is_9p)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd, err;

	if (strlen(path) >= sizeof(addr.sun_path)) {
		cli_error("mount %s: virtio-fs socket %s: the path is longer than %zu bytes", mount,
			  path, sizeof(addr.sun_path) - 1);
		return -ENAMETOOLONG;
	}
	fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		err = -errno;
		cli_error("mount %s: virtio-fs socket: %m", mount);
		return err;
	}
	memcpy(addr.sun_path, path, strlen(path));
	if (connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0) {
		err = -errno;
		if (is_9p)
			cli_error("mount %s: 9p socket %s: %m; start the server first, for example "
				  "diod -f -n -e DIR -l %s",
				  mount, path, path);
		else
			cli_error("mount %s: virtio-fs socket %s: %m; start the daemon first: "
				  "moat gofer --virtiofs --shared-dir DIR --socket %s",
				  mount, path, path);
		close(fd);
		return err;
	}
	return fd;
}

/* Appends path, which `mount` names, to spec->virtiofs and its connection to v, unless it is there. */
static int add(struct boot_spec *spec, const char *mount, const char *path, bool is_9p,
	       struct virtiofs_sockets *v)
{
	unsigned n = v->count;
	int fd, err;

	for (unsigned i = 0; i < n; i++)
		if (!strcmp(spec->virtiofs[i], path))
			return 0;
	if (n == VIRTIOFS_DEVICES_MAX) {
		cli_error("more than %d virtio-fs devices", VIRTIOFS_DEVICES_MAX);
		return -E2BIG;
	}
	fd = connect_to(mount, path, is_9p);
	if (fd < 0)
		return fd;
	err = place_of(mount, path, fd, &v->places[n]);
	if (err) {
		close(fd);
		return err;
	}
	v->fds[n] = fd;
	v->count = n + 1;
	spec->virtiofs[n] = strdup(path);
	return spec->virtiofs[n] ? 0 : -ENOMEM;
}

int virtiofs_connect(struct boot_spec *spec, const char *rootfs_socket,
		     struct virtiofs_sockets *ret)
{
	int err = 0;

	*ret = (struct virtiofs_sockets){.again = -1};
	ret->fds = calloc(VIRTIOFS_DEVICES_MAX, sizeof(*ret->fds));
	ret->places = calloc(VIRTIOFS_DEVICES_MAX, sizeof(*ret->places));
	spec->virtiofs = calloc(VIRTIOFS_DEVICES_MAX + 1, sizeof(*spec->virtiofs));
	if (!ret->fds || !ret->places || !spec->virtiofs)
		return -ENOMEM;
	if (rootfs_socket) {
		spec->rootfs = BOOT_ROOTFS_VIRTIOFS;
		err = add(spec, "/", rootfs_socket, false, ret);
	}
	for (unsigned i = 0; i < spec->nmounts && !err; i++) {
		const struct boot_mount *m = &spec->mounts[i];

		if (strcmp(m->type, "virtiofs") != 0 && strcmp(m->type, "9p") != 0)
			continue;
		if (!m->source || m->source[0] != '/') {
			cli_error("mount %s of type %s: its source must be the absolute path of a "
				  "daemon's socket",
				  m->destination, m->type);
			return -EINVAL;
		}
		err = add(spec, m->destination, m->source, !strcmp(m->type, "9p"), ret);
	}
	return err;
}

void virtiofs_sockets_fini(struct virtiofs_sockets *v)
{
	for (unsigned i = 0; i < v->count; i++) {
		close(v->fds[i]);
		close(v->places[i].dir);
	}
	if (v->count && v->again >= 0)
		close(v->again);
	free(v->fds);
	free(v->places);
	*v = (struct virtiofs_sockets){.again = -1};
}

size_t virtiofs_sockets_kept(const struct virtiofs_sockets *v, int *ret)
{
	size_t n = 0;

	for (unsigned i = 0; i < v->count && n < VIRTIOFS_KEPT_MAX; i++) {
		ret[n++] = v->fds[i];
		ret[n++] = v->places[i].dir;
	}
	return n;
}

/* ---- the monitor's part ---- */

/*
 * Is the one at the other end of fd whom the user named? The daemon's directory may be written by others than us, who could have put a link to any socket of
 * the host's there: the name that it was bound to and the user who listens must be those of the connection before, `old`.
 */
static bool same_server(const struct virtiofs_place *place, int old, int fd)
{
	struct sockaddr_un peer = {0};
	struct ucred was, is;
	socklen_t len = sizeof(peer), was_len = sizeof(was), is_len = sizeof(is);

	/* Both users asked for now: we may have another user namespace than at the start. */
	return getpeername(fd, (struct sockaddr *)&peer, &len) == 0 &&
	       memcmp(&peer, &place->peer, sizeof(peer)) == 0 &&
	       getsockopt(old, SOL_SOCKET, SO_PEERCRED, &was, &was_len) == 0 &&
	       getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &is, &is_len) == 0 && was.uid == is.uid;
}

/* By its directory: our root may be another by now. One that does not listen, or has no room, is asked again later. Return: a socket, -errno. */
static int connect_place(const struct virtiofs_place *place, int old)
{
	struct sockaddr_un addr = {.sun_family = AF_UNIX};
	int fd = socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0), err = 0;

	if (fd < 0)
		return -errno;
	strcpy(addr.sun_path, place->name);
	if (fchdir(place->dir) < 0 || connect(fd, (struct sockaddr *)&addr, sizeof(addr)) < 0)
		err = -errno;
	else if (!same_server(place, old, fd))
		err = -ECONNREFUSED;
	if (chdir("/") < 0 && !err)
		err = -errno;
	/* The sentry reads and writes it with deadlines of its own. */
	if (!err && fcntl(fd, F_SETFL, 0) < 0)
		err = -errno;
	if (err)
		close(fd);
	return err ? err : fd;
}

void virtiofs_connect_again(struct virtiofs_sockets *v)
{
	struct boot_virtiofs_again ask;
	struct iovec iov = {&ask, sizeof(ask)};
	union {
		char buf[CMSG_SPACE(sizeof(int))];
		struct cmsghdr align;
	} control = {0};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	ssize_t n = recv(v->again, &ask, sizeof(ask), MSG_DONTWAIT);
	int fd;

	if (n < 0 && (errno == EINTR || errno == EAGAIN))
		return;
	if (n != sizeof(ask) || ask.index >= v->count) {
		close(v->again);
		v->again = -1;
		return;
	}
	/* One connection a place: a sentry that asks on and on keeps nobody else from the daemon. */
	shutdown(v->fds[ask.index], SHUT_RDWR);
	fd = connect_place(&v->places[ask.index], v->fds[ask.index]);
	if (fd >= 0) {
		struct cmsghdr *c;

		close(v->fds[ask.index]);
		v->fds[ask.index] = fd;

		msg.msg_control = control.buf;
		msg.msg_controllen = sizeof(control.buf);
		c = CMSG_FIRSTHDR(&msg);
		c->cmsg_level = SOL_SOCKET;
		c->cmsg_type = SCM_RIGHTS;
		c->cmsg_len = CMSG_LEN(sizeof(int));
		memcpy(CMSG_DATA(c), &fd, sizeof(int));
	}
	/* One that is lost is asked for again. */
	(void)!sendmsg(v->again, &msg, MSG_NOSIGNAL | MSG_DONTWAIT);
}
