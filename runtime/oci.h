/*
 * runtime/oci.h - config.json of an OCI bundle, read into a boot spec.
 *
 * Every error is one line that names the file, the place in it (line and column for syntax, the member's path otherwise) and what to do.
 */
#ifndef MOAT_RUNTIME_OCI_H
#define MOAT_RUNTIME_OCI_H

#include "wire/boot_spec.h"

#define OCI_CONFIG_MAX (16ul << 20)

/* A host directory or file that the gofer serves; index is its attach point. */
struct oci_attach {
	char *host_path; /* absolute */
	bool readonly;
	bool is_file;
};

struct oci_config {
	struct boot_spec spec; /* without descriptors */
	struct oci_attach *attaches; /* [0] is the root */
	unsigned nattaches;
	char *oci_version;
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

/* Capability number of "CAP_CHOWN"; -1 if there is none. */
int oci_cap_number(const char *name);
const char *oci_cap_name(int cap);

#endif
