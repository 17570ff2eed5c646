/* sentry/boot/internal.h - what the files of boot/ share. boot.h has the way in. */
#ifndef MOAT_SENTRY_BOOT_INTERNAL_H
#define MOAT_SENTRY_BOOT_INTERNAL_H

#include "sentry/task.h"
#include "wire/boot_spec.h"
#include "wire/control.h"

struct ipc_namespace;
struct boot_devices;
struct p9_conn;
struct pid_namespace;
struct tty;
struct virtiofs_device;

/* A boot error: the CLI prints `text` and exits with `exit_code`. */
struct boot_error {
	int exit_code;
	char text[512];
};

/* Formats into e and returns -1. */
int boot_fail(struct boot_error *e, int exit_code, const char *fmt, ...) printf_like(3, 4);

/*
 * A container: the first one, which the sandbox was started for, or a further one of a pod (boot_add.c). Made by one thread (boot_main(), or
 * that of a job); then read by the control thread and jobs of its own.
 */
struct boot_container {
	TAILQ_ENTRY(boot_container) link; /* guarded by the list's lock: boot_add.c */
	struct ref ref;
	bool first;
	struct boot_spec spec;
	struct boot_error error;
	struct cred *root_cred; /* full: mounts are made with it */
	struct mount_namespace *ns;
	struct vfs_path root; /* references */
	struct p9_conn *gofer; /* a reference */
	struct boot_devices *devices; /* boot_virtiofs.c; NULL: none */
	/* What its processes are made with: references. */
	struct uts_namespace *uts_ns;
	struct ipc_namespace *ipc_ns;
	struct pid_namespace *pid_ns;
	struct task_cgroup *cgroup;
	struct tty *console; /* NULL without a terminal */
	struct task *init; /* a reference, once made; as long as the container */
	struct waiter end; /* of a further one: on its init's end */
	_Atomic bool started;
	/* Of a further one: steps of `moat exec` that use the above, and that it may be used no more. */
	_Atomic int execs;
	_Atomic bool ended;
	struct wait_queue idle; /* woken when execs becomes 0 */
	/* The control thread's. */
	int lifeline; /* the connection to the monitor */
	int listen_fd; /* where its verbs connect; -1 */
};

/* A process that comes from outside: what it is, and what became of it. */
struct boot_process {
	struct boot_container *boot;
	struct boot_spec *spec; /* its descriptors are taken */
	struct boot_error *error;
	bool is_init;
	int *extra; /* spec->extra_fds descriptors, -1 once taken; NULL: from spec->extra_fd on */
	struct tty *tty; /* out: its terminal, a reference; also after an error */
};

/* boot_mounts.c: root filesystem, config mounts, /dev, masked and read-only paths. Return 0 or -1 with b->error. */
must_check int boot_make_root(struct boot_container *b);
/*
 * boot_virtiofs.c: connects the virtio-fs devices and 9P servers of the spec, whose descriptors are at spec.virtiofs_fd, or `fds` (taken: -1), as many as names
 * and one more. Blocks, bounded. Return 0 or -1 with b->error; boot_release_devices() in any case.
 */
must_check int boot_connect_devices(struct boot_container *b, int *fds);
/* Mounts of the container may name them from now on. Pre: b->cgroup. Return 0 or -1 with b->error. */
must_check int boot_name_devices(struct boot_container *b);
/* The first device; borrowed. */
struct virtiofs_device *boot_root_device(const struct boot_container *b);
/* The container ends: a connection on which an answer is overdue ends too, so that nothing waits for it. Waits for nobody. Pre: they are not released meanwhile. */
void boot_hurry_devices(struct boot_container *b);
void boot_release_devices(struct boot_container *b);
void boot_show_devices(struct boot_container *b, struct buf *out);
must_check int boot_make_mounts(struct boot_container *b);
/* boot_copyup.c: takes a word out of comma-separated options; was it there? */
bool boot_take_option(char *data, const char *option);
/* Copies what `covered` (a directory below the mount on `path`) holds; its own mode and owner too, but for keep_mode. Return 0 or -errno. */
must_check int boot_copy_up(struct boot_container *b, const struct vfs_path *covered,
			    const char *path, bool keep_mode);
/* A lookup with full credentials from the container's root. */
struct vfs_lookup boot_lookup(struct boot_container *b, const char *path, unsigned flags);

/* boot_home.c: HOME=, where the environment has none: the home directory in the container's /etc/passwd, "/" for a user who is not there. Return 0, -ENOMEM. */
must_check int boot_add_home(struct boot_container *b, struct boot_spec *s);

/* boot_notify.c: connects the container's NOTIFY_SOCKET with the host's, if there is one. Failure is logged: the program is told by its own calls. */
void boot_make_notify(struct boot_container *b);

/* boot_trim.c: a moment from now, memory that only boot, or the exec or the many tasks that have just ended, needed goes. Once; the timer thread runs. */
void boot_trim_init(void);
void boot_trim_later(void);

/* boot_add.c: all containers. The first is there when boot_main() has got that far. */
void boot_list_add(struct boot_container *b);
/* fn under the list's lock. */
void boot_for_each(void (*fn)(struct boot_container *b, void *arg), void *arg);
/* References to what a further container shares, or its own. Return 0, or -1 with b->error. */
must_check int boot_make_namespaces(struct boot_container *b);
void boot_container_unref(struct boot_container *b);
static inline void boot_container_ref(struct boot_container *b)
{
	ref_get(&b->ref);
}

/* boot_init.c: the first process and further ones, made but not started. Return 0, or -1 with the error. */
/* b->init; extra: as struct boot_process has it. */
must_check int boot_create_init(struct boot_container *b, int *extra);
must_check int boot_create_process(struct boot_process *p, struct task **ret_task);
/* A variable's value in a NULL-terminated environment; NULL. */
const char *boot_env_value(char **envp, const char *name);

/*
 * boot_jobs.c: slow steps (the gofer or a terminal's reader may take their time) on threads of their own. The control thread leaves a connection
 * with a job alone until boot_next_job_done() gives it back.
 */
struct boot_job {
	STAILQ_ENTRY(boot_job) link; /* guarded by the queue's lock, once done */
	void (*run)(struct boot_job *j);
	int sock; /* the connection */
	struct boot_container *
		container; /* a reference; of CONTROL_ADD: replaced by the new one, NULL if refused */
	struct exec_session *session; /* of CONTROL_EXEC; out: NULL if refused */
	bool last; /* the connection ends with it */
	unsigned flags; /* of the request, as its descriptors */
	size_t count;
	int fds[CONTROL_FDS_MAX];
};
must_check int boot_jobs_init(void); /* before the seccomp filter */
int boot_event_fd(void); /* readable when some process ended, or some job is done */
void boot_event_raise(void);
void boot_event_on_exit(struct waiter *w, uint32_t events); /* a waiter on a group's pidfd_wait */
/* A copy of *j, on a new thread; without one to be had, here and now. False: out of memory, and its descriptors are closed. */
must_check bool boot_job_start(const struct boot_job *j);
struct boot_job *boot_next_job_done(void); /* NULL: none; free() */

/* boot_exec.c: processes of `moat exec`, one a connection; the control thread's own but for the jobs. */
struct exec_session;
void exec_begin(struct boot_job *j); /* a job: what CONTROL_EXEC asks for */
void exec_finish(struct boot_job *j); /* a job: tells the connection about the end of its process */
void exec_message(struct exec_session *x, const struct control_msg *msg);
must_check bool exec_has_ended(const struct exec_session *x);
void exec_end(struct exec_session *x); /* kills the process if it still lives */
/* Shared with boot_add.c. The spec from a memfd: 0 or -1 with *e. */
must_check int exec_read_spec(int fd, struct boot_spec *ret, struct boot_error *e);
/* Puts the descriptors from `at` on where the spec says they are, and takes them (-1 in fds). */
must_check int exec_place_fds(struct boot_process *p, int *fds, size_t count, size_t at,
			      unsigned flags);

/* boot_add.c: further containers, one a connection. */
void add_begin(struct boot_job *j); /* a job: what CONTROL_ADD asks for */
void add_finish(struct boot_job *j); /* a job: its processes have an end, the monitor is told */
/* Its processes are being killed: nothing of it waits for a daemon that hangs any more. */
void add_look_at_end(struct boot_container *b);
must_check bool add_has_ended(const struct boot_container *b);
/* boot_info.c: figures for `moat ps` and `moat events`. */
void control_ps_text(const struct boot_container *b, struct buf *out);
void control_stats_text(const struct boot_container *b, struct buf *out);

/* boot.c: limits, and the cgroup files that show them. */
void boot_configure_cgroup(struct boot_container *b);
/* What the sandbox has of memory: `limit` bytes (0: the host's). bounded: the host's cgroup holds it to that. */
void boot_set_memory(uint64_t limit, bool bounded);
/* The first process runs, once. Return 0, -EALREADY, -1. */
must_check int boot_start_init(struct boot_container *b);

/* boot_control.c: serves the lifeline and the listening socket; never returns. */
void control_post(const struct boot_container *b,
		  const struct control_msg *msg); /* to its lifeline */
noreturn_fn void control_serve(struct boot_container *first);
/* `what` of the sandbox (moat debug); "": what takes nobody's time. Return 0, -EINVAL with the reason in out: nothing is called so. */
must_check int control_debug_text(const char *what, struct buf *out);

/* boot_stacks.c: before the confinement; then the control thread's. */
void boot_stacks_init(void);
void boot_show_stack(struct buf *out, int host_tid);
void boot_show_address(struct buf *out, const void *addr); /* "moat+0x123" */
/* boot_mounts.c: requests that wait for the gofer's, a virtio-fs daemon's or a 9P server's answer. */
void boot_show_requests(struct buf *out);
void boot_emit_request(void *buf, const char *what, uint64_t id, int64_t age_ns); /* a line */

/* crash.c: before guard_install(). log_fd -1: standard error. */
void crash_handler_install(int log_fd);

/* Why the spec's platform was taken: into the log, and kept for moat debug. NULL: nobody said. */
void boot_platform_note(const struct boot_spec *spec);
const char *boot_platform_why(void);

#endif
