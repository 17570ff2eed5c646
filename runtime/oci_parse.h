/*
 * runtime/oci_parse.h - what the parts of the reader of config.json share.
 *
 * The first error stays in p->err, with its text; functions after it do nothing that matters.
 */
#ifndef MOAT_RUNTIME_OCI_PARSE_H
#define MOAT_RUNTIME_OCI_PARSE_H

#include "runtime/oci.h"

/* Where the parser is, for messages. */
struct oci_parse {
	struct oci_config *c;
	const char *file, *bundle;
	char *why;
	int err;
	bool cgroup_writable; /* a hierarchy of v1 was to be mounted for writing */
};

/* "FILE: message". Returns -EINVAL, which p->err is from now on. */
int oci_parse_error(struct oci_parse *p, const char *fmt, ...) printf_like(2, 3);
/* A copy, malloc'd; NULL with p->err -ENOMEM. */
char *oci_dup(struct oci_parse *p, const char *s);
/* An optional member of the wanted type (JSON_TRUE: a boolean); NULL if absent or null; an error if of another type. `where`: the object's own name. */
const json_t *oci_member(struct oci_parse *p, const json_t *obj, const char *where,
			 const char *name, json_type type);
/* Borrowed from obj. */
const char *oci_member_string(struct oci_parse *p, const json_t *obj, const char *where,
			      const char *name);
bool oci_member_bool(struct oci_parse *p, const json_t *obj, const char *where, const char *name);
/* 0 if absent; an error if below 0 or above max. */
uint64_t oci_member_uint(struct oci_parse *p, const json_t *obj, const char *where,
			 const char *name, uint64_t max);
/* An array of strings, malloc'd; NULL if absent. */
char **oci_member_strv(struct oci_parse *p, const json_t *obj, const char *where, const char *name);
/* For a warning: `name`, if obj has a member of that name with something in it. */
void oci_note_ignored(struct oci_parse *p, const json_t *obj, const char *where, const char *name);
/* oci_hooks.c, oci_linux.c, oci_process.c: the sections "hooks", "linux" and "process" of `root`. */
void oci_parse_hooks(struct oci_parse *p, const json_t *root);
void oci_parse_linux(struct oci_parse *p, const json_t *root);
void oci_parse_process(struct oci_parse *p, const json_t *root);

#endif
