/*
 * gofer/gofer.c - the file server process.
 *
 * One process per container serves the trees that the container may see, over one Unix socket, to the sentry (or to any 9P2000.L
 * client: diod's, QEMU's and Linux's speak the plain part). gofer_main() confines the process (confine.c), starts a small
 * pool of workers (conn.c), puts the seccomp filter over all of them and only then reads. Names are resolved in resolve.c
 * and nowhere else. ops_plain.c and ops_io.c are 9P2000.L; ops_walk.c and ops_change.c are Moat's compound requests, which make
 * every path operation one round trip.
 *
 * Performs: a lone client's request is read, served and answered by one thread without a wake-up. Regular files are donated as
 * descriptors, so their data never passes here.
 * Watch: --debug-log shows each request and reply as one line.
 * Cannot: cut an operation short but a lock that is waited for (a Tflush of what changes something waits for it), serve trusted.* attributes, open devices, or fifos and sockets unless the attach point says so.
 */
#include <malloc.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <unistd.h>

#include "base/io.h"
#include "gofer/confine.h"
#include "gofer/server.h"

static void server_free(struct server *srv)
{
	for (size_t i = 0; i < srv->attach_count; i++) {
		free(srv->attaches[i].real_path);
		if (srv->attaches[i].fd >= 0)
			close(srv->attaches[i].fd);
	}
	for (unsigned i = 0; i < GOFER_THREADS_MAX; i++)
		worker_fini(&srv->workers[i]);
	shares_fini(srv);
	if (srv->proc_fd >= 0)
		close(srv->proc_fd);
	close(srv->sock);
	if (atomic_load(&srv->notify_sock) >= 0)
		close(atomic_load(&srv->notify_sock));
	free(srv->rx);
	free(srv->attaches);
	free(srv);
}

static struct server *server_alloc(const struct gofer_config *config)
{
	struct server *srv = calloc(1, sizeof(*srv));

	if (!srv)
		return NULL;
	srv->attaches = calloc(config->attach_count + 1, sizeof(*srv->attaches));
	if (!srv->attaches) {
		free(srv);
		return NULL;
	}
	for (size_t i = 0; i < config->attach_count; i++)
		srv->attaches[i].fd = -1;
	srv->attach_count = config->attach_count;
	if (shares_init(srv)) {
		free(srv->attaches);
		free(srv);
		return NULL;
	}
	srv->sock = config->sock_fd;
	srv->proc_fd = -1;
	atomic_init(&srv->notify_sock, -1);
	srv->uid = geteuid();
	srv->gid = getegid();
	mutex_init(&srv->reader_lock, LOCK_BOOT, "gofer_reader");
	mutex_init(&srv->fid_lock, LOCK_FS_DIR, "gofer_fids");
	mutex_init(&srv->dev_lock, LOCK_LEAF, "gofer_devs");
	mutex_init(&srv->send_lock, LOCK_RPC, "gofer_send");
	for (unsigned i = 0; i < SERVER_FID_BUCKETS; i++)
		LIST_INIT(&srv->fids[i]);
	locks_init(srv);
	watches_init(srv);
	return srv;
}

int gofer_main(const struct gofer_config *config)
{
	unsigned threads = config->threads ? config->threads : GOFER_THREADS_DEFAULT;
	const char *step = "setting up";
	struct server *srv;
	int err;

	if (config->attach_count == 0 || config->attach_count > GOFER_ATTACHES_MAX ||
	    threads > GOFER_THREADS_MAX)
		return -EINVAL;
	log_init(config->log_fd, config->log_level, "gofer");
	/* Belt and braces: the socket's end is what normally stops us. */
	if (!(config->flags & GOFER_NO_PDEATHSIG) && prctl(PR_SET_PDEATHSIG, SIGKILL) < 0)
		return -errno;
	signal(SIGPIPE, SIG_IGN);
	/* Without a bound malloc counts the CPUs, a call that the filter has no reason for. */
	mallopt(M_ARENA_MAX, 2);
	err = confine_close_fds(config);
	if (err) {
		log_error("gofer: closing what it inherited: %s", strerror(-err));
		return err;
	}
	spin_allow();
	srv = server_alloc(config);
	if (!srv)
		return -ENOMEM;
	umask(0);
	step = "making its private root";
	err = confine_mounts(srv, config);
	if (!err) {
		step = "dropping capabilities";
		err = confine_caps();
	}
	if (!err) {
		step = "starting its threads";
		err = server_start(srv, threads);
	}
	if (!err) {
		step = "installing its system call filter";
		err = confine_seccomp(config, srv->sock);
	}
	if (err) {
		log_error("gofer: %s: %s", step, strerror(-err));
		/* Threads may have started: the caller exits. */
		return err;
	}
	err = server_run(srv);
	if (err)
		log_error("gofer: the connection failed: %s", strerror(-err));
	server_free(srv);
	return err;
}
