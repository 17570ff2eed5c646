/*
 * runtime/sandbox.h - starts a sandbox's processes, and ends them.
 *
 *	moat create|run ──clone──► monitor     pid 1 of a pid namespace, in the container's cgroup and network namespace;
 *	                             │         the pid that engines see; exits with the container's status
 *	                             ├──exec──► gofer    serves the host's trees
 *	                             └──exec──► sentry   the guest kernel
 *
 * A further container of a pod (runtime/pod.h) has no sentry of its own: its monitor hands the gofer's connection to that of the sandbox, and its
 * connection there is the lifeline.
 *
 * The kernel kills what is in the monitor's pid namespace when the monitor dies. Until it is told to keep the container (SANDBOX_KEEP), the
 * monitor takes everything away when the command line that started it goes.
 */
#ifndef MOAT_RUNTIME_SANDBOX_H
#define MOAT_RUNTIME_SANDBOX_H

#include "runtime/cgroup.h"
#include "runtime/network.h"
#include "runtime/notify.h"
#include "runtime/oci.h"
#include "runtime/overlay.h"
#include "runtime/pod.h"
#include "runtime/state.h"
#include "runtime/userns.h"
#include "runtime/virtiofs.h"

#define SANDBOX_FD_FIRST 10 /* the roles' descriptors begin here */

struct sandbox_options {
	const char *id;
	const char *bundle; /* for state.json; may be NULL */
	const char *pid_file; /* NULL: none */
	const char *console_socket; /* NULL: the caller's terminal */
	const char *rootfs_virtiofs; /* a virtio-fs daemon's socket: its tree is the root; NULL */
	unsigned preserve_fds;
	bool detach; /* create, run --detach: the container outlives the caller */
	bool hold; /* create: the program waits for `moat start` */
	bool keep; /* run --keep: the state stays after the end */
	bool no_cgroup;
	struct network_options
		network; /* of the command line; the configuration's path is used where it gives one */
};

struct sandbox {
	struct oci_config *config;
	const struct sandbox_options *opts;
	bool network_shared; /* in the monitor: the namespace is the caller's */
	bool network_entered, uts_entered; /* before the user namespace was made or entered */
	bool cgroup_entered; /* the monitor began in its cgroup */
	struct userns userns;
	struct state_dir state;
	struct cgroup cgroup;
	int exe_fd, log_fd, listen_fd;
	int link; /* to the monitor, or the monitor's to the command line; -1 once gone */
	int console_master, console_slave; /* -1 without a terminal */
	struct virtiofs_sockets virtiofs;
	struct overlay_locks overlay_locks; /* the monitor keeps them for the container's life */
	struct notify notify;
	struct pod pod; /* whose sandbox it joins */
	pid_t monitor; /* as the caller sees it */
	char created[40]; /* RFC 3339 */
	/* the monitor's own */
	int lifeline;
	pid_t sentry, gofer;
	sigset_t old_mask;
	int host_cgroups; /* the cgroup namespace that it was started in, -1 while still there */
	int host_mounts; /* the mount namespace that it was started in, -1 while still there */
};

/* Does the monitor begin with a wait for SANDBOX_MAPPED? */
static inline bool sandbox_settles(const struct sandbox *sb)
{
	return sb->userns.create || sb->userns.path || sb->cgroup.unit;
}

/* What goes over the link, a byte each. */
enum {
	SANDBOX_MAPPED = 'm', /* the user namespace has its mappings, and the monitor its cgroup */
	SANDBOX_NAMESPACES = 'n', /* monitor: namespaces and cgroup are there, hooks may run */
	SANDBOX_GO = 'g', /* go on */
	SANDBOX_READY = 'r', /* monitor: the program waits, or has started */
	SANDBOX_KEEP = 'k', /* the container outlives the command line */
};

/*
 * Runs the sandbox to its end, or (opts->detach) until it is up: stdio passed through (or a raw terminal), signals forwarded.
 * Return: the CLI's exit status: the program's, 128 + signal, or an error's (1, 126, 127) after printing it.
 */
int sandbox_run(struct oci_config *config, const struct sandbox_options *opts);

/* The monitor's body, in the new process. */
noreturn_fn void monitor_main(struct sandbox *sb);

/* view.c: the monitor leaves the host's mounts for the container's. Prints its error. */
must_check int view_make(struct sandbox *sb);
/* Back to those, which a user namespace may have no way to: false. */
must_check bool view_leave(struct sandbox *sb);
/* The monitor's in `proc`, a directory with a bind mount of its own at 1: status and stat as the container's first process has them. */
void view_identity(const struct boot_spec *s, const struct userns *u, int proc);
/* Missing mount points of a read-only root, which neither sentry nor gofer may write. What cannot be made the sentry reports. */
void view_make_mountpoints(struct oci_config *c);

/* console.c: a pty pair whose slave is raw: our end of a container's terminal. */
must_check int console_open(int *ret_master, int *ret_slave);
/* Sends the master to an engine's --console-socket. Prints its error. */
must_check int console_send(const char *socket_path, int master);
/* In a child: 0, 1 (and 2 unless `keep_stderr`) become /dev/null. */
void stdio_to_null(bool keep_stderr);

#endif
