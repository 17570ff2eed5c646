/*
 * runtime/host_uds.h - --host-uds and the annotation org.moat.host-uds: which Unix sockets of bind mounts are the host's: "none" (default), "open"
 * (connect(2) reaches the host's listeners), "create" (bind(2) makes sockets that the host can connect to), "all".
 */
#ifndef MOAT_RUNTIME_HOST_UDS_H
#define MOAT_RUNTIME_HOST_UDS_H

#include "runtime/oci.h"

#define HOST_UDS_ANNOTATION "org.moat.host-uds"

/* BOOT_UDS_* of a word. -EINVAL. */
must_check int host_uds_parse(const char *word, unsigned *ret);
/* Fills spec.host_uds; the flag wins. -EINVAL after a message. */
must_check int host_uds_plan(struct oci_config *c);

#endif
