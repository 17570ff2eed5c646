/* runtime/notify.c - sockets for sd_notify(3), made while the host's files can still be seen. */
#include <fcntl.h>
#include <linux/openat2.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include "base/buf.h"
#include "base/io.h"
#include "runtime/cli.h"
#include "runtime/notify.h"

#define NOTIFY_MESSAGES_MAX 64 /* at once; more than a queue holds by default */
#define NOTIFY_NAME "NOTIFY_SOCKET="
#define GUEST_DIR "/run/notify"
#define GUEST_SOCKET GUEST_DIR "/notify.sock"

void notify_init(struct notify *n)
{
	*n = (struct notify){.guest_fd = -1, .in_fd = -1, .host_fd = -1};
}

void notify_close(struct notify *n)
{
	const int fds[] = {n->guest_fd, n->in_fd, n->host_fd};

	for (size_t i = 0; i < ARRAY_SIZE(fds); i++)
		if (fds[i] >= 0)
			close(fds[i]);
	notify_init(n);
}

/* Connected to a socket of the host's: a path (of any length), or "@name" of the abstract ones. Return the descriptor or -errno. */
static int connect_to(const char *path)
{
	struct sockaddr_un un = {.sun_family = AF_UNIX};
	socklen_t len = sizeof(un);
	const char *slash = strrchr(path, '/');
	int fd = socket(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0), dir = -1, err = 0;

	if (fd < 0)
		return -errno;
	if (path[0] == '@') {
		len = (socklen_t)(offsetof(struct sockaddr_un, sun_path) +
				  MIN(strlen(path), sizeof(un.sun_path)));
		memcpy(un.sun_path, path, len - offsetof(struct sockaddr_un, sun_path));
		un.sun_path[0] = '\0';
	} else if (slash) {
		auto_free char *parent = strndup(path, (size_t)(slash - path) + 1);

		/* By way of its directory: an engine's paths are longer than an address may be. */
		dir = parent ? open(parent, O_PATH | O_DIRECTORY | O_CLOEXEC) : -1;
		if (dir < 0 ||
		    (size_t)snprintf(un.sun_path, sizeof(un.sun_path), "/proc/self/fd/%d/%s", dir,
				     slash + 1) >= sizeof(un.sun_path))
			err = dir < 0 ? -errno : -ENAMETOOLONG;
	} else {
		err = -EINVAL;
	}
	if (!err && connect(fd, (struct sockaddr *)&un, len) < 0)
		err = -errno;
	if (dir >= 0)
		close(dir);
	if (err)
		close(fd);
	return err ? err : fd;
}

/* The bind mount that a path is below, and what is left of the path; NULL. The last mount that covers it counts. */
static const struct boot_mount *mount_of(const struct boot_spec *s, const char *path,
					 const char **ret_rest)
{
	const struct boot_mount *found = NULL;

	for (unsigned i = 0; i < s->nmounts; i++) {
		const struct boot_mount *m = &s->mounts[i];
		size_t len = strlen(m->destination);

		while (len && m->destination[len - 1] == '/')
			len--;
		if (strncmp(path, m->destination, len) != 0 || (path[len] && path[len] != '/'))
			continue;
		found = m;
		*ret_rest = path + len + strspn(path + len, "/");
	}
	return found && found->attach >= 0 && found->source[0] == '/' && !strstr(path, "..") ? found
											     : NULL;
}

/*
 * The socket below a mount, O_PATH. What a container of before left in the volume may be a symbolic link to any socket of the host's: none is
 * followed, and the descriptor is what is connected to, not the name once more. Return: the descriptor, -errno.
 */
static int open_socket(const struct boot_mount *m, const char *rest)
{
	struct open_how how = {.flags = O_PATH | O_NOFOLLOW | O_CLOEXEC,
			       .resolve = RESOLVE_BENEATH | RESOLVE_NO_SYMLINKS |
					  RESOLVE_NO_MAGICLINKS};
	/* The source itself is the engine's word. */
	int fd = open(m->source, O_PATH | O_CLOEXEC), dir = fd, err = 0;
	struct stat st;

	if (fd < 0)
		return -errno;
	if (*rest) {
		fd = (int)syscall(SYS_openat2, dir, rest, &how, sizeof(how));
		err = fd < 0 ? -errno : 0;
		close(dir);
	}
	if (!err && fstat(fd, &st) < 0)
		err = -errno;
	else if (!err && !S_ISSOCK(st.st_mode))
		err = S_ISLNK(st.st_mode) ? -ELOOP : -ENOTSOCK;
	if (err && fd >= 0)
		close(fd);
	return err ? err : fd;
}

/* The configuration's own: podman's. */
static int use_configured(struct notify *n, const struct oci_config *c, const char *path)
{
	const char *rest = NULL;
	const struct boot_mount *m = mount_of(&c->spec, path, &rest);
	char name[32];
	int fd;

	if (!m)
		return 0;
	fd = open_socket(m, rest);
	/* Not there, or a file: the container's own affair. */
	if (fd == -ENOENT || fd == -ENOTDIR || fd == -ENOTSOCK)
		return 0;
	n->guest_fd = fd;
	if (fd >= 0) {
		snprintf(name, sizeof(name), "/proc/self/fd/%d", fd);
		n->guest_fd = connect_to(name);
		close(fd);
	}
	if (n->guest_fd < 0)
		cli_warn("NOTIFY_SOCKET %s below %s: %s; the container's messages are lost", path,
			 m->source, strerror(-n->guest_fd));
	return 0;
}

static int set_variable(struct boot_spec *s)
{
	char **grown, *value = strdup(NOTIFY_NAME GUEST_SOCKET);
	size_t count = 0;

	while (s->envp[count] && strncmp(s->envp[count], NOTIFY_NAME, strlen(NOTIFY_NAME)) != 0)
		count++;
	if (!value)
		return -ENOMEM;
	if (s->envp[count]) {
		free(s->envp[count]);
		s->envp[count] = value;
		return 0;
	}
	grown = realloc(s->envp, (count + 2) * sizeof(*grown));
	if (!grown) {
		free(value);
		return -ENOMEM;
	}
	grown[count] = value;
	grown[count + 1] = NULL;
	s->envp = grown;
	return 0;
}

static int add_mount(struct boot_spec *s)
{
	struct boot_mount *grown = realloc(s->mounts, (s->nmounts + 1) * sizeof(*grown)), *m;

	if (!grown)
		return -ENOMEM;
	s->mounts = grown;
	m = &grown[s->nmounts];
	*m = (struct boot_mount){.destination = strdup(GUEST_DIR),
				 .type = strdup("tmpfs"),
				 .source = strdup("tmpfs"),
				 .data = strdup("mode=755,size=64k"),
				 .flags = MS_NOSUID | MS_NODEV | MS_NOEXEC,
				 .attach = -1};
	if (!m->destination || !m->type || !m->source || !m->data) {
		free(m->destination);
		free(m->type);
		free(m->source);
		free(m->data);
		return -ENOMEM;
	}
	s->nmounts++;
	return 0;
}

/* Ours: as runc, one that stands between the container and the service manager. */
static int use_own(struct notify *n, struct oci_config *c, const char *path)
{
	int sp[2];

	n->host_fd = connect_to(path);
	if (n->host_fd < 0) {
		cli_warn("NOTIFY_SOCKET %s: %s; going on without it", path, strerror(-n->host_fd));
		n->host_fd = -1;
		return 0;
	}
	if (socketpair(AF_UNIX, SOCK_DGRAM | SOCK_CLOEXEC, 0, sp) < 0)
		return -errno;
	n->guest_fd = sp[0];
	n->in_fd = sp[1];
	return set_variable(&c->spec) || add_mount(&c->spec) ? -ENOMEM : 0;
}

int notify_prepare(struct notify *n, struct oci_config *c)
{
	const char *own = getenv("NOTIFY_SOCKET");
	int err = 0;

	if (own && (own[0] == '/' || own[0] == '@'))
		err = use_own(n, c, own);
	else
		for (char **e = c->spec.envp; !err && *e && n->guest_fd < 0; e++)
			if (strncmp(*e, NOTIFY_NAME "/", strlen(NOTIFY_NAME "/")) == 0)
				err = use_configured(n, c, *e + strlen(NOTIFY_NAME));
	if (err)
		cli_error("NOTIFY_SOCKET: %s", strerror(-err));
	return err;
}

static void tell_host(const struct notify *n, const char *text)
{
	/* A service manager that does not read must not stop us. */
	if (send(n->host_fd, text, strlen(text), MSG_NOSIGNAL | MSG_DONTWAIT) < 0)
		cli_debug("NOTIFY_SOCKET: %m");
}

static void forward_message(struct notify *n, char *text)
{
	char line[NOTIFY_MESSAGE_MAX + 2], *save = NULL;

	for (char *l = strtok_r(text, "\n", &save); l && !n->ready;
	     l = strtok_r(NULL, "\n", &save)) {
		/* What else it says is about a process that the host does not have. */
		if (strncmp(l, "READY=", 6) != 0)
			continue;
		n->ready = true;
		snprintf(line, sizeof(line), "%s\n", l);
		tell_host(n, line);
		snprintf(line, sizeof(line), "MAINPID=%d\n", (int)n->main_pid);
		tell_host(n, line);
	}
}

void notify_forward(struct notify *n)
{
	char text[NOTIFY_MESSAGE_MAX + 1];

	/* All that is there: the caller may be about to see the container's end. */
	for (int i = 0; i < NOTIFY_MESSAGES_MAX; i++) {
		ssize_t len = recv(n->in_fd, text, NOTIFY_MESSAGE_MAX, MSG_DONTWAIT);

		if (len < 0)
			return;
		text[len] = '\0';
		forward_message(n, text);
	}
}
