/* sentry/boot/internal.h - what the files of boot/ share. boot.h has the way in. */
#ifndef MOAT_SENTRY_BOOT_INTERNAL_H
#define MOAT_SENTRY_BOOT_INTERNAL_H

#include "sentry/task.h"
#include "wire/boot_spec.h"
#include "wire/control.h"

struct tty;

/* A boot error: the CLI prints `text` and exits with `exit_code`. */
struct boot_error {
	int exit_code;
	char text[512];
};

/* Formats into e and returns -1. */
int boot_fail(struct boot_error *e, int exit_code, const char *fmt, ...) printf_like(3, 4);

struct boot_state {
	struct boot_spec spec;
	struct boot_error error;
	struct cred *root_cred; /* full: mounts are made with it */
	struct mount_namespace *ns;
	struct vfs_path root; /* references */
	struct tty *console; /* NULL without a terminal */
	struct task *init; /* a reference, once made */
	_Atomic bool started;
};

/* A process that comes from outside: what it is, and what became of it. */
struct boot_process {
	struct boot_state *boot;
	struct boot_spec *spec; /* its descriptors are taken */
	struct boot_error *error;
	bool is_init;
	int *extra; /* spec->extra_fds descriptors, -1 once taken; NULL: from spec->extra_fd on */
	struct tty *tty; /* out: its terminal, a reference; also after an error */
};

/* boot_mounts.c: root filesystem, config mounts, /dev, masked and read-only paths. Return 0 or -1 with b->error. */
must_check int boot_make_root(struct boot_state *b);
/* Before the seccomp filter: the vhost-user handshakes; devices are known by their tags then. */
int boot_connect_virtiofs(struct boot_state *b);
must_check int boot_make_mounts(struct boot_state *b);
/* boot_copyup.c: takes a word out of comma-separated options; was it there? */
bool boot_take_option(char *data, const char *option);
/* Copies what `covered` (a directory below the mount on `path`) holds; its own mode and owner too, but for keep_mode. Return 0 or -errno. */
must_check int boot_copy_up(struct boot_state *b, const struct vfs_path *covered, const char *path,
			    bool keep_mode);
/* A lookup with full credentials from the container's root. */
struct vfs_lookup boot_lookup(struct boot_state *b, const char *path, unsigned flags);

/* boot_notify.c: connects the container's NOTIFY_SOCKET with the host's, if there is one. Failure is logged: the program is told by its own calls. */
void boot_make_notify(struct boot_state *b);

/* boot_init.c: the first process and further ones, made but not started. Return 0, or -1 with the error. */
must_check int boot_create_init(struct boot_state *b, struct task **ret_task);
must_check int boot_create_process(struct boot_process *p, struct task **ret_task);
/* A variable's value in a NULL-terminated environment; NULL. */
const char *boot_env_value(char **envp, const char *name);

/*
 * boot_exec.c: processes of `moat exec`, one a connection; the control thread's own. Its slow steps are done on threads of
 * their own; until exec_next_done() gives the connection back, it is theirs.
 */
struct exec_session;
/* Takes the descriptors, not the socket. False: out of memory. */
must_check bool exec_request(struct boot_state *b, int sock, const int *fds, size_t count,
			     unsigned flags);
void exec_message(struct exec_session *x, const struct control_msg *msg);
must_check bool exec_has_ended(const struct exec_session *x);
/* Tells the connection about the end of its process. False: out of memory. */
must_check bool exec_report(struct exec_session *x, int sock);
/* A step that is done: the session (NULL: refused, an error was sent), and whether it was the last one. */
must_check bool exec_next_done(int *ret_sock, struct exec_session **ret_session,
			       bool *ret_finished);
void exec_end(struct exec_session *x); /* kills the process if it still lives */
int exec_event_fd(void); /* readable when some process ended, or some step is done */
must_check int exec_init(void); /* before the seccomp filter */
/* boot_info.c: figures for `moat ps` and `moat events`. */
void control_ps_text(struct buf *out);
void control_stats_text(struct buf *out);

/* boot.c: the first process runs, once. Return 0, -EALREADY, -1. */
must_check int boot_start_init(struct boot_state *b);

/* boot_control.c: serves the lifeline and the listening socket; never returns. */
void control_init(struct boot_state *b); /* before the first control_post() */
void control_post(const struct control_msg *msg); /* to the lifeline; any thread */
noreturn_fn void control_serve(struct boot_state *b);
void control_debug_text(const char *what, struct buf *out);

/* boot_stacks.c: before the confinement; then the control thread's. */
void boot_stacks_init(void);
void boot_show_stack(struct buf *out, int host_tid);
void boot_show_address(struct buf *out, const void *addr); /* "moat+0x123" */
/* boot_mounts.c: requests that wait for the gofer's or a virtio-fs daemon's answer. */
void boot_show_requests(struct buf *out);

/* crash.c: before guard_install(). log_fd -1: standard error. */
void crash_handler_install(int log_fd);

/* Why the spec's platform was taken: into the log, and kept for moat debug. NULL: nobody said. */
void boot_platform_note(const struct boot_spec *spec);
const char *boot_platform_why(void);

#endif
