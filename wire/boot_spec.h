/*
 * wire/boot_spec.h - what the runtime tells a sentry to boot: one JSON document, handed over in a memfd.
 *
 * The runtime builds it from config.json (or from `moat do`'s arguments); the sentry reads it before it is confined.
 * Descriptors are passed by number (the runtime dup2s them into place before exec).
 * boot_spec_decode() trusts nothing: every member is type-checked and bounded, so that it can be fuzzed.
 */
#ifndef MOAT_WIRE_BOOT_SPEC_H
#define MOAT_WIRE_BOOT_SPEC_H

#include "base/buf.h"
#include "base/compiler.h"

#define BOOT_ARGS_MAX 65536
#define BOOT_MOUNTS_MAX 4096
#define BOOT_SIZE_MAX (16ul << 20)
#define BOOT_RLIMITS 16
#define BOOT_SECCOMP_INSNS_MAX 4096
#define BOOT_EXTRA_FDS_MAX 256

enum boot_network {
	BOOT_NETWORK_OWN, /* a network namespace of the container's: made for it, or handed over by path */
	BOOT_NETWORK_HOST, /* the one that the command line was called in */
};

enum boot_rootfs_kind {
	BOOT_ROOTFS_GOFER, /* gofer attach point 0 */
	BOOT_ROOTFS_VIRTIOFS, /* the first virtio-fs device */
};

/* What takes the writes of a tree: the tree itself, memory, or a directory of the host's, the gofer's attach point n. */
/* Unix sockets of bind mounts */
#define BOOT_UDS_OPEN 1u /* connect(2) reaches the host's listeners */
#define BOOT_UDS_CREATE 2u /* bind(2) makes sockets that the host reaches */

#define BOOT_OVERLAY_NONE 0u
#define BOOT_OVERLAY_MEMORY 1u
#define BOOT_OVERLAY_DIR(n) (2u + (n))

struct boot_mount {
	char *destination; /* absolute in the container */
	char *type; /* "proc", "tmpfs", ..., "bind" */
	char *source; /* as shown in mountinfo; may be NULL */
	char *data; /* file-system options, comma separated; may be NULL */
	uint64_t flags; /* MS_* */
	uint64_t propagation; /* MS_SHARED ... or 0 */
	int attach; /* gofer attach point of a bind, else -1 */
	bool is_file; /* the bind's source is no directory */
	unsigned overlay; /* BOOT_OVERLAY_*, of a bind */
};

struct boot_rlimit {
	bool set;
	uint64_t cur, max;
};

/* What the sentry asks the monitor for, a packet, when a virtio-fs daemon went away; the same comes back, with a connection if there is one. */
struct boot_virtiofs_again {
	uint32_t index; /* in boot_spec.virtiofs */
	uint32_t seq; /* which request it answers */
};

struct boot_spec {
	char *id;
	char *hostname, *domainname;
	char **argv, **envp; /* NULL-terminated */
	char *program; /* absolute; NULL: what argv[0] is in PATH */
	char *cwd;
	uint32_t uid, gid, umask;
	uint32_t *groups;
	unsigned ngroups;
	uint64_t cap_bounding, cap_effective, cap_inheritable, cap_permitted, cap_ambient;
	bool no_new_privs;
	int oom_score_adj;
	unsigned personality; /* personality(2) */
	unsigned sched_policy, sched_priority; /* sched_setscheduler(2) */
	bool sched_reset_on_fork;
	int nice;
	unsigned ioprio; /* ioprio_set(2) */
	struct boot_rlimit rlimits[BOOT_RLIMITS];
	bool terminal;
	unsigned console_rows, console_cols;
	enum boot_rootfs_kind rootfs;
	unsigned rootfs_overlay; /* BOOT_OVERLAY_* */
	bool rootfs_readonly;
	uint64_t rootfs_propagation;
	struct boot_mount *mounts;
	unsigned nmounts;
	char **masked_paths, **readonly_paths; /* NULL-terminated; may be NULL */
	uint64_t memory_limit; /* bytes; 0: the host's */
	bool memory_bounded; /* the host's cgroup holds the sandbox to it */
	uint32_t pids_limit; /* 0: none */
	unsigned cpus;
	char *host_cpus; /* "0-3,6": which those are to the host, whatever a cpuset leaves of them */
	char *platform;
	char *platform_why; /* for moat debug; NULL: not told */
	bool no_path_cache; /* every path is walked */
	bool no_patch; /* no call site is patched */
	bool host_fifo; /* fifos of bind mounts are the host's */
	unsigned host_uds; /* BOOT_UDS_*: so are Unix sockets */
	char *strace; /* NULL: off; "": all; else a list of names */
	bool debug;
	int network; /* enum boot_network: which the sentry was started in */
	bool hold; /* the first process waits for CONTROL_START */
	bool killable_init; /* the first process is a command, no init: signals without a handler act on it */
	char *seccomp; /* classic BPF, 16 hexadecimal digits an instruction; NULL: none */
	char **sysctls; /* "net.core.somaxconn=1"; NULL-terminated; may be NULL */
	char **devices; /* "c MAJOR MINOR MODE(octal) UID GID PATH"; may be NULL */
	char *pid_of, *ipc_of,
		*uts_of; /* of CONTROL_ADD: the container of the sandbox whose namespace it shares; NULL: its own */
	char *uid_map, *gid_map; /* as /proc/self/uid_map shows them; NULL: the identity */
	char *cgroup_path; /* as /proc/PID/cgroup shows it; NULL: "/" */
	uint64_t memory_swap, memory_low; /* what the cgroup files show; 0: unlimited, none */
	int64_t cpu_quota; /* microseconds per cpu_period; 0 or less: none */
	uint64_t cpu_period, cpu_shares; /* 0: default */
	char *cpuset_cpus, *cpuset_mems;
	int cgroup_version; /* the container's view: 1 or 2 */
	char **virtiofs; /* devices: what mounts name them by; NULL-terminated; may be NULL */
	unsigned extra_fds; /* descriptors that become 3, 4 ... */
	/* descriptors, -1 for none */
	int stdio[3];
	int console_fd; /* terminal: byte stream to the CLI's terminal */
	int gofer_fd; /* connection to the gofer */
	int control_fd; /* socket pair to the CLI (lifeline) */
	int listen_fd; /* listening control socket */
	int log_fd;
	int notify_fd; /* where datagrams for NOTIFY_SOCKET go */
	int extra_fd; /* the first of extra_fds */
	int virtiofs_fd; /* the first of as many connections as virtiofs has names; the next one is where another is asked for */
};

void boot_spec_init(struct boot_spec *spec);
void boot_spec_fini(struct boot_spec *spec);
void boot_spec_encode(const struct boot_spec *spec, struct buf *out); /* buf_error() tells */
/* Return: 0; -EINVAL with a one-line reason in `why`; -ENOMEM. */
must_check int boot_spec_decode(const char *json, size_t size, struct boot_spec *ret, char *why,
				size_t why_size);

#endif
