/*
 * gofer/virtiofs/main.c - the daemon: a process for each connection.
 *
 * One directory tree, served over vhost-user and FUSE 7.38. The first process makes the version table, confines itself and listens; each connection is served by
 * a fork of it, so that what a hostile client breaks, fills or exhausts (descriptors, nodes, threads) is its own; the table is what they share.
 * In a connection's process each request queue has a thread; requests of one queue are served in order. Performs: a LOOKUP is
 * one openat and one statx; data is read and written in the client's memory, or mapped by the client (DAX). Watch: the log.
 */
#include <poll.h>
#include <signal.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/wait.h>
#include <unistd.h>

#include "gofer/virtiofs/server.h"

#define ACCEPT_PAUSE_MS 100 /* after a failure that passes */

static int serve_connection(struct daemon *d, int sock)
{
	int err = session_start(d);

	if (err) {
		log_error("virtiofs: the shared directory cannot be opened: %s", strerror(-err));
		close(sock);
		return err;
	}
	d->sock = sock;
	err = vhost_serve(d);
	if (err)
		log_warn("virtiofs: the connection ends: %s", strerror(-err));
	session_end(d);
	close(sock);
	return err;
}

/* The processes of connections; index: the watcher in the version table. */
struct clients {
	pid_t pid[VIRTIOFSD_CLIENTS_MAX];
};

static void reap(struct daemon *d, struct clients *c)
{
	int status;
	pid_t pid;

	while ((pid = waitpid(-1, &status, WNOHANG)) > 0)
		for (unsigned i = 0; i < VIRTIOFSD_CLIENTS_MAX; i++)
			if (c->pid[i] == pid) {
				c->pid[i] = 0;
				version_watcher_gone(d->versions, i);
				if (WIFSIGNALED(status))
					log_error("virtiofs: the process of a connection was "
						  "killed by signal %d",
						  WTERMSIG(status));
			}
}

static void serve_in_child(struct daemon *d, struct clients *c, int sock, const sigset_t *mask)
{
	pid_t parent = getpid(), pid;
	unsigned i = 0;

	while (i < VIRTIOFSD_CLIENTS_MAX && c->pid[i])
		i++;
	if (i == VIRTIOFSD_CLIENTS_MAX) {
		log_warn("virtiofs: more than %d connections: one is refused",
			 VIRTIOFSD_CLIENTS_MAX);
		close(sock);
		return;
	}
	pid = fork();
	if (pid == 0) {
		/* It dies with the daemon, even if that died just now. */
		if (prctl(PR_SET_PDEATHSIG, SIGKILL) < 0 || getppid() != parent)
			_exit(1);
		close(d->config.listen_fd);
		sigprocmask(SIG_SETMASK, mask, NULL);
		d->watcher = i;
		if (daemon_enter_proc(d) || daemon_seccomp(d, false))
			_exit(1);
		_exit(serve_connection(d, sock) ? 1 : 0);
	}
	if (pid < 0)
		log_error("virtiofs: no process for a connection: %s", strerror(errno));
	else
		c->pid[i] = pid;
	close(sock);
}

static void on_child(int sig)
{
	(void)sig;
}

static int next_connection(struct daemon *d)
{
	int sock = accept4(d->config.listen_fd, NULL, NULL, SOCK_CLOEXEC);

	return sock < 0 ? -errno : sock;
}

static bool is_transient(int err)
{
	return err == -EINTR || err == -ECONNABORTED || err == -EAGAIN;
}

/* No later connection will fare better. Anything else (no descriptors, no memory) passes. */
static bool is_final(int err)
{
	return err == -EBADF || err == -EINVAL || err == -ENOTSOCK;
}

static int serve_once(struct daemon *d)
{
	int sock;

	do
		sock = next_connection(d);
	while (is_transient(sock));
	return sock < 0 ? sock : serve_connection(d, sock);
}

static int serve_all(struct daemon *d)
{
	const struct sigaction child = {.sa_handler = on_child};
	struct pollfd p = {.fd = d->config.listen_fd, .events = POLLIN};
	struct clients clients = {0};
	sigset_t blocked, before;

	/* Let in by ppoll() alone, so that none is missed. */
	sigemptyset(&blocked);
	sigaddset(&blocked, SIGCHLD);
	sigprocmask(SIG_BLOCK, &blocked, &before);
	sigdelset(&before, SIGCHLD);
	sigaction(SIGCHLD, &child, NULL);
	for (;;) {
		int sock;

		reap(d, &clients);
		if (ppoll(&p, 1, NULL, &before) < 0)
			continue;
		sock = next_connection(d);
		if (sock >= 0)
			serve_in_child(d, &clients, sock, &before);
		else if (is_final(sock))
			return sock;
		else if (!is_transient(sock)) {
			log_error("virtiofs: a connection cannot be accepted: %s", strerror(-sock));
			(void)!poll(NULL, 0, ACCEPT_PAUSE_MS);
		}
	}
}

static struct daemon *daemon_create(const struct virtiofsd_config *config)
{
	unsigned queues = config->queues ? config->queues : VIRTIOFSD_QUEUES_DEFAULT;
	struct daemon *d = calloc(1, sizeof(*d));
	int err;

	if (!d)
		return NULL;
	d->config = *config;
	d->queue_count = 1 + MIN(queues, (unsigned)VIRTIOFSD_QUEUES_MAX);
	d->back_fd = d->notify_fd = d->notify_epoll = d->versions_fd = -1;
	mutex_init(&d->nodes_lock, LOCK_LEAF, "nodes");
	mutex_init(&d->handles_lock, LOCK_LEAF, "handles");
	mutex_init(&d->waits_lock, LOCK_LEAF, "waits");
	pthread_mutex_init(&d->back_lock, NULL);
	err = version_create(d);
	if (err)
		log_warn("virtiofs: there is no version table: %s", strerror(-err));
	return d;
}

/* Whoever started us may have had them otherwise: SIGTERM ends a daemon. */
static void signals_of_a_daemon(void)
{
	sigset_t none;

	signal(SIGTERM, SIG_DFL);
	sigemptyset(&none);
	sigprocmask(SIG_SETMASK, &none, NULL);
}

int virtiofsd_main(const struct virtiofsd_config *config)
{
	bool forks = config->listen_fd >= 0 && !config->once;
	struct daemon *d = daemon_create(config);
	int err;

	if (!d)
		return -ENOMEM;
	signals_of_a_daemon();
	vhost_signals(d);
	err = daemon_confine(d);
	if (err)
		log_error("virtiofs: %s cannot become the root of the daemon: %s; it must be a "
			  "directory, and "
			  "the daemon be started as root",
			  config->shared_dir, strerror(-err));
	if (!err && !forks)
		err = daemon_enter_proc(d);
	if (!err)
		err = daemon_seccomp(d, forks);
	if (!err)
		err = forks		      ? serve_all(d)
		      : config->listen_fd < 0 ? serve_connection(d, config->sock_fd)
					      : serve_once(d);
	free(d);
	return err;
}
