/* runtime/oci_names.h - names in config.json to numbers. */
#ifndef MOAT_RUNTIME_OCI_NAMES_H
#define MOAT_RUNTIME_OCI_NAMES_H

#include "base/compiler.h"

int oci_rlimit_number(const char *name); /* -1: unknown */
/* An option of the VFS: changes the flags. False: it is the filesystem's own (goes into data). */
bool oci_mount_option(const char *name, uint64_t *inout_flags, uint64_t *inout_propagation);
bool oci_mount_type_known(const char *type);

#endif
