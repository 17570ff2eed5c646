/*
 * runtime/oci.h - config.json of an OCI bundle, read into a boot spec.
 *
 * Every error is one line that names the file, the place in it (line and column for syntax, the member's path otherwise) and what to do.
 */
#ifndef MOAT_RUNTIME_OCI_H
#define MOAT_RUNTIME_OCI_H

#include <jansson.h>

#include "wire/boot_spec.h"

#define OCI_CONFIG_MAX (16ul << 20)
#define OCI_ATTACHES_MAX 512 /* of a container: what its gofer serves */

/* A host directory or file that the gofer serves; index is its attach point. */
struct oci_attach {
	char *host_path; /* absolute; an overlay's: the data that it is mounted with */
	bool overlay; /* a mount of type overlay, on the host */
	bool readonly;
	bool is_file;
	bool alone; /* what is mounted below does not come along: "bind", not "rbind" */
};

#define OCI_UNKNOWN_CAPS_MAX 256
#define OCI_IGNORED_MAX 128

struct oci_config {
	struct boot_spec spec; /* without descriptors */
	struct oci_attach *attaches; /* [0] is the root */
	unsigned nattaches;
	char *oci_version;
	json_t *json; /* the whole document; the others below point into it */
	const json_t *hooks, *annotations, *resources; /* NULL if absent; hooks are checked */
	const char *cgroups_path; /* NULL if absent */
	/* linux.namespaces */
	bool net_ns; /* one is asked for; else the host's */
	const char *net_ns_path; /* NULL: a new one */
	bool uts_ns, pid_ns, ipc_ns;
	const char *uts_ns_path, *pid_ns_path, *ipc_ns_path;
	bool cgroup_ns; /* a new one */
	bool user_ns;
	const char *user_ns_path;
	const json_t *uid_mappings, *gid_mappings; /* NULL */
	char unknown_caps
		[OCI_UNKNOWN_CAPS_MAX]; /* of process.capabilities, as far as they fit: "A B" */
	char ignored[OCI_IGNORED_MAX]; /* members that ask for what is not done, likewise */
};

#define OCI_ERROR_MAX 512

/*
 * Pure part, for the fuzzer: parses `json` (from `name`, for messages); `bundle` is the absolute directory that relative paths start at.
 * Touches no files. Return: 0, -EINVAL with `why` set, -ENOMEM.
 */
must_check int oci_config_parse(const char *json, size_t size, const char *name, const char *bundle,
				struct oci_config *ret, char *why);
/* Reads DIR/config.json, parses it, and checks that the root and bind sources exist. */
must_check int oci_config_load(const char *bundle, struct oci_config *ret, char *why);
void oci_config_fini(struct oci_config *c);
/* Adds an attach point; takes host_path. Return its index or -ENOMEM. */
must_check int oci_attach_add(struct oci_config *c, char *host_path, bool readonly, bool is_file);

/* jansson's loader, but integers past INT64_MAX (engines write 2^64-1 for "unlimited") become that. NULL with *err. */
json_t *oci_json_load(const char *json, size_t size, json_error_t *err);
/* Is each member of linux.resources (may be NULL) that moat acts on of its type? Return 0, -EINVAL with `why`. */
must_check int oci_resources_check(const json_t *resources, char *why);
/* The container's view of linux.resources. */
must_check int oci_resources_to_spec(const json_t *resources, struct boot_spec *s);
/* Of seccomp(2), accepted: a filter that is there before the first program needs none of them. */
#define OCI_SECCOMP_FLAGS                                                                         \
	"SECCOMP_FILTER_FLAG_TSYNC", "SECCOMP_FILTER_FLAG_LOG", "SECCOMP_FILTER_FLAG_SPEC_ALLOW", \
		"SECCOMP_FILTER_FLAG_WAIT_KILLABLE_RECV"
/*
 * linux.seccomp as classic BPF in hexadecimal digits (struct boot_spec.seccomp), malloc'd. Return 0, -EINVAL with `why`, -ENOMEM.
 */
must_check int oci_seccomp_compile(const json_t *seccomp, char **ret_hex, char *why);

/* The data of a mount that reads all layers of an overlay's, and writes to none; malloc'd, NULL if there are no layers. */
char *oci_overlay_readonly(const char *data);
/* Are the layers there of the overlay at `destination`? Return 0, or -errno with `why`. */
must_check int oci_overlay_check(const char *data, const char *destination, char *why);
/*
 * A bind mount of the host's /sys, /proc and the like, which engines make where a container shares a namespace with the host. The gofer never serves
 * those: the sandbox has its own. Return its type; "": what lies below its own cgroup mount, which is there already; NULL: it is none of them.
 */
const char *oci_own_instead(const char *source, const char *destination);
/* Capability number of "CAP_CHOWN"; -1 if there is none. */
int oci_cap_number(const char *name);
const char *oci_cap_name(int cap);
/* The i-th of the mount options that are no filesystem's own; NULL behind the last. */
const char *oci_mount_option_name(size_t i);

#endif
