/*
 * wire/boot_spec.c - struct boot_spec to JSON and back, driven by one table of members.
 */
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "wire/boot_spec.h"

enum field_kind {
	FIELD_STR,
	FIELD_STRV,
	FIELD_U64,
	FIELD_I64,
	FIELD_U32,
	FIELD_INT,
	FIELD_UINT,
	FIELD_BOOL
};

struct field {
	const char *name;
	enum field_kind kind;
	size_t offset;
	bool required;
};

#define F(type, member, kind, required)                         \
	{                                                       \
#member, kind, offsetof(type, member), required \
	}

static const struct field spec_fields[] = {
	F(struct boot_spec, id, FIELD_STR, true),
	F(struct boot_spec, hostname, FIELD_STR, false),
	F(struct boot_spec, domainname, FIELD_STR, false),
	F(struct boot_spec, argv, FIELD_STRV, true),
	F(struct boot_spec, envp, FIELD_STRV, true),
	F(struct boot_spec, program, FIELD_STR, false),
	F(struct boot_spec, cwd, FIELD_STR, true),
	F(struct boot_spec, uid, FIELD_U32, true),
	F(struct boot_spec, gid, FIELD_U32, true),
	F(struct boot_spec, umask, FIELD_U32, true),
	F(struct boot_spec, cap_bounding, FIELD_U64, true),
	F(struct boot_spec, cap_effective, FIELD_U64, true),
	F(struct boot_spec, cap_inheritable, FIELD_U64, true),
	F(struct boot_spec, cap_permitted, FIELD_U64, true),
	F(struct boot_spec, cap_ambient, FIELD_U64, true),
	F(struct boot_spec, no_new_privs, FIELD_BOOL, true),
	F(struct boot_spec, oom_score_adj, FIELD_INT, true),
	F(struct boot_spec, personality, FIELD_UINT, false),
	F(struct boot_spec, sched_policy, FIELD_UINT, false),
	F(struct boot_spec, sched_priority, FIELD_UINT, false),
	F(struct boot_spec, sched_reset_on_fork, FIELD_BOOL, false),
	F(struct boot_spec, nice, FIELD_INT, false),
	F(struct boot_spec, ioprio, FIELD_UINT, false),
	F(struct boot_spec, terminal, FIELD_BOOL, true),
	F(struct boot_spec, console_rows, FIELD_UINT, true),
	F(struct boot_spec, console_cols, FIELD_UINT, true),
	F(struct boot_spec, rootfs_overlay, FIELD_UINT, false),
	F(struct boot_spec, rootfs_readonly, FIELD_BOOL, true),
	F(struct boot_spec, rootfs_propagation, FIELD_U64, true),
	F(struct boot_spec, masked_paths, FIELD_STRV, false),
	F(struct boot_spec, readonly_paths, FIELD_STRV, false),
	F(struct boot_spec, memory_limit, FIELD_U64, true),
	F(struct boot_spec, memory_bounded, FIELD_BOOL, false),
	F(struct boot_spec, pids_limit, FIELD_U32, true),
	F(struct boot_spec, cpus, FIELD_UINT, true),
	F(struct boot_spec, host_cpus, FIELD_STR, false),
	F(struct boot_spec, platform, FIELD_STR, true),
	F(struct boot_spec, platform_why, FIELD_STR, false),
	F(struct boot_spec, no_path_cache, FIELD_BOOL, false),
	F(struct boot_spec, no_patch, FIELD_BOOL, false),
	F(struct boot_spec, host_fifo, FIELD_BOOL, false),
	F(struct boot_spec, host_uds, FIELD_UINT, false),
	F(struct boot_spec, strace, FIELD_STR, false),
	F(struct boot_spec, debug, FIELD_BOOL, true),
	F(struct boot_spec, network, FIELD_INT, false),
	F(struct boot_spec, hold, FIELD_BOOL, false),
	F(struct boot_spec, killable_init, FIELD_BOOL, false),
	F(struct boot_spec, seccomp, FIELD_STR, false),
	F(struct boot_spec, sysctls, FIELD_STRV, false),
	F(struct boot_spec, devices, FIELD_STRV, false),
	F(struct boot_spec, pid_of, FIELD_STR, false),
	F(struct boot_spec, ipc_of, FIELD_STR, false),
	F(struct boot_spec, uts_of, FIELD_STR, false),
	F(struct boot_spec, uid_map, FIELD_STR, false),
	F(struct boot_spec, gid_map, FIELD_STR, false),
	F(struct boot_spec, cgroup_path, FIELD_STR, false),
	F(struct boot_spec, memory_swap, FIELD_U64, false),
	F(struct boot_spec, memory_low, FIELD_U64, false),
	F(struct boot_spec, cpu_quota, FIELD_I64, false),
	F(struct boot_spec, cpu_period, FIELD_U64, false),
	F(struct boot_spec, cpu_shares, FIELD_U64, false),
	F(struct boot_spec, cpuset_cpus, FIELD_STR, false),
	F(struct boot_spec, cpuset_mems, FIELD_STR, false),
	F(struct boot_spec, cgroup_version, FIELD_INT, false),
	F(struct boot_spec, extra_fds, FIELD_UINT, false),
	F(struct boot_spec, extra_fd, FIELD_INT, false),
	F(struct boot_spec, virtiofs, FIELD_STRV, false),
	F(struct boot_spec, virtiofs_fd, FIELD_INT, false),
	F(struct boot_spec, console_fd, FIELD_INT, true),
	F(struct boot_spec, gofer_fd, FIELD_INT, true),
	F(struct boot_spec, control_fd, FIELD_INT, true),
	F(struct boot_spec, listen_fd, FIELD_INT, true),
	F(struct boot_spec, log_fd, FIELD_INT, true),
	F(struct boot_spec, notify_fd, FIELD_INT, false),
};

static const struct field mount_fields[] = {
	F(struct boot_mount, destination, FIELD_STR, true),
	F(struct boot_mount, type, FIELD_STR, true),
	F(struct boot_mount, source, FIELD_STR, false),
	F(struct boot_mount, data, FIELD_STR, false),
	F(struct boot_mount, flags, FIELD_U64, true),
	F(struct boot_mount, propagation, FIELD_U64, true),
	F(struct boot_mount, attach, FIELD_INT, true),
	F(struct boot_mount, is_file, FIELD_BOOL, true),
	F(struct boot_mount, overlay, FIELD_UINT, false),
};

void boot_spec_init(struct boot_spec *spec)
{
	*spec = (struct boot_spec){.stdio = {-1, -1, -1},
				   .console_fd = -1,
				   .gofer_fd = -1,
				   .control_fd = -1,
				   .listen_fd = -1,
				   .log_fd = -1,
				   .notify_fd = -1,
				   .extra_fd = -1,
				   .virtiofs_fd = -1};
}

static void strv_free(char **v)
{
	for (char **p = v; p && *p; p++)
		free(*p);
	free(v);
}

static void fields_free(const struct field *fields, size_t count, void *obj)
{
	for (size_t i = 0; i < count; i++) {
		void *at = (char *)obj + fields[i].offset;

		if (fields[i].kind == FIELD_STR)
			free(*(char **)at);
		else if (fields[i].kind == FIELD_STRV)
			strv_free(*(char ***)at);
	}
}

void boot_spec_fini(struct boot_spec *spec)
{
	for (unsigned i = 0; i < spec->nmounts; i++)
		fields_free(mount_fields, ARRAY_SIZE(mount_fields), &spec->mounts[i]);
	free(spec->mounts);
	free(spec->groups);
	fields_free(spec_fields, ARRAY_SIZE(spec_fields), spec);
	boot_spec_init(spec);
}

/* Strings of the guest's configuration are bytes, not always UTF-8: latin-1 to code points and back. */
static json_t *bytes_to_json(const char *s)
{
	struct buf b;
	json_t *j;

	buf_init(&b, BOOT_SIZE_MAX);
	for (; *s; s++) {
		unsigned char c = (unsigned char)*s;

		if (c < 0x80) {
			buf_putc(&b, (char)c);
		} else {
			buf_putc(&b, (char)(0xc0 | c >> 6));
			buf_putc(&b, (char)(0x80 | (c & 0x3f)));
		}
	}
	j = buf_error(&b) ? NULL : json_stringn(b.data ? b.data : "", b.len);
	buf_fini(&b);
	return j;
}

static char *bytes_from_json(const json_t *j)
{
	const unsigned char *s = (const unsigned char *)json_string_value(j);
	size_t len = json_string_length(j), n = 0;
	char *out = malloc(len + 1);

	if (!out)
		return NULL;
	for (size_t i = 0; i < len; i++) {
		if (s[i] >= 0xc4 || s[i] == 0) { /* past U+00FF, or an embedded NUL */
			free(out);
			return NULL;
		}
		if (s[i] >= 0xc0 && i + 1 < len) {
			out[n++] = (char)((s[i] & 3) << 6 | (s[i + 1] & 0x3f));
			i++;
		} else {
			out[n++] = (char)s[i];
		}
	}
	out[n] = '\0';
	return out;
}

static json_t *field_to_json(const struct field *f, const void *obj)
{
	const void *at = (const char *)obj + f->offset;
	json_t *j;

	switch (f->kind) {
	case FIELD_STR:
		return *(char *const *)at ? bytes_to_json(*(char *const *)at) : json_null();
	case FIELD_STRV:
		if (!*(char **const *)at)
			return json_null();
		j = json_array();
		for (char **p = *(char **const *)at; *p; p++)
			json_array_append_new(j, bytes_to_json(*p));
		return j;
	case FIELD_U64: /* JSON integers are signed: the bits are kept */
		return json_integer((json_int_t) * (const uint64_t *)at);
	case FIELD_I64:
		return json_integer((json_int_t) * (const int64_t *)at);
	case FIELD_U32:
		return json_integer(*(const uint32_t *)at);
	case FIELD_INT:
		return json_integer(*(const int *)at);
	case FIELD_UINT:
		return json_integer(*(const unsigned *)at);
	case FIELD_BOOL:
		return json_boolean(*(const bool *)at);
	}
	return NULL;
}

static json_t *fields_to_json(const struct field *fields, size_t count, const void *obj)
{
	json_t *j = json_object();

	for (size_t i = 0; i < count; i++)
		json_object_set_new(j, fields[i].name, field_to_json(&fields[i], obj));
	return j;
}

void boot_spec_encode(const struct boot_spec *spec, struct buf *out)
{
	json_t *j = fields_to_json(spec_fields, ARRAY_SIZE(spec_fields), spec);
	json_t *list = json_array();
	char *text;

	for (unsigned i = 0; i < spec->nmounts; i++)
		json_array_append_new(list, fields_to_json(mount_fields, ARRAY_SIZE(mount_fields),
							   &spec->mounts[i]));
	json_object_set_new(j, "mounts", list);
	list = json_array();
	for (unsigned i = 0; i < spec->ngroups; i++)
		json_array_append_new(list, json_integer(spec->groups[i]));
	json_object_set_new(j, "groups", list);
	list = json_array();
	for (unsigned i = 0; i < BOOT_RLIMITS; i++)
		json_array_append_new(list, json_pack("[bII]", spec->rlimits[i].set,
						      (json_int_t)spec->rlimits[i].cur,
						      (json_int_t)spec->rlimits[i].max));
	json_object_set_new(j, "rlimits", list);
	json_object_set_new(j, "stdio",
			    json_pack("[iii]", spec->stdio[0], spec->stdio[1], spec->stdio[2]));
	json_object_set_new(j, "rootfs", json_integer(spec->rootfs));
	text = json_dumps(j, JSON_COMPACT);
	json_decref(j);
	if (text)
		buf_puts(out, text);
	else
		out->error = -ENOMEM;
	free(text);
}

static int strv_from_json(const json_t *j, char ***ret)
{
	size_t n = json_array_size(j);
	char **v;

	if (!json_is_array(j) || n > BOOT_ARGS_MAX)
		return -EINVAL;
	v = calloc(n + 1, sizeof(*v));
	if (!v)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		const json_t *s = json_array_get(j, i);

		v[i] = json_is_string(s) ? bytes_from_json(s) : NULL;
		if (!v[i]) {
			strv_free(v);
			return -EINVAL;
		}
	}
	*ret = v;
	return 0;
}

static int field_from_json(const struct field *f, const json_t *j, void *obj)
{
	void *at = (char *)obj + f->offset;
	json_int_t v;

	if (!j || json_is_null(j))
		return f->required ? -EINVAL : 0;
	switch (f->kind) {
	case FIELD_STR:
		*(char **)at = json_is_string(j) ? bytes_from_json(j) : NULL;
		return *(char **)at ? 0 : -EINVAL;
	case FIELD_STRV:
		return strv_from_json(j, at);
	case FIELD_BOOL:
		if (!json_is_boolean(j))
			return -EINVAL;
		*(bool *)at = json_is_true(j);
		return 0;
	case FIELD_U64:
	case FIELD_I64:
	case FIELD_U32:
	case FIELD_INT:
	case FIELD_UINT:
		break;
	}
	if (!json_is_integer(j))
		return -EINVAL;
	v = json_integer_value(j);
	if (f->kind == FIELD_U64 || f->kind == FIELD_I64)
		*(uint64_t *)at = (uint64_t)v;
	else if (f->kind == FIELD_INT && v >= INT32_MIN && v <= INT32_MAX)
		*(int *)at = (int)v;
	else if (f->kind != FIELD_INT && v >= 0 && v <= UINT32_MAX)
		*(uint32_t *)at = (uint32_t)v;
	else
		return -ERANGE;
	return 0;
}

static int fields_from_json(const struct field *fields, size_t count, const json_t *j, void *obj,
			    char *why, size_t why_size)
{
	for (size_t i = 0; i < count; i++) {
		int err = field_from_json(&fields[i], json_object_get(j, fields[i].name), obj);

		if (err) {
			snprintf(why, why_size, "boot spec: bad or missing member '%s'",
				 fields[i].name);
			return err == -ENOMEM ? err : -EINVAL;
		}
	}
	return 0;
}

static int mounts_from_json(const json_t *j, struct boot_spec *spec, char *why, size_t why_size)
{
	size_t n = json_array_size(j);
	int err;

	if (!json_is_array(j) || n > BOOT_MOUNTS_MAX) {
		snprintf(why, why_size, "boot spec: bad member 'mounts'");
		return -EINVAL;
	}
	spec->mounts = calloc(n ? n : 1, sizeof(*spec->mounts));
	if (!spec->mounts)
		return -ENOMEM;
	for (size_t i = 0; i < n; i++) {
		spec->nmounts = (unsigned)i + 1;
		err = fields_from_json(mount_fields, ARRAY_SIZE(mount_fields), json_array_get(j, i),
				       &spec->mounts[i], why, why_size);
		if (err)
			return err;
	}
	return 0;
}

static int arrays_from_json(const json_t *j, struct boot_spec *spec)
{
	const json_t *groups = json_object_get(j, "groups"),
		     *rlimits = json_object_get(j, "rlimits");
	const json_t *stdio = json_object_get(j, "stdio"), *rootfs = json_object_get(j, "rootfs");
	size_t n = json_array_size(groups);

	if (!json_is_array(groups) || n > 65536 || json_array_size(rlimits) != BOOT_RLIMITS ||
	    json_array_size(stdio) != 3 || !json_is_integer(rootfs) ||
	    json_integer_value(rootfs) < 0 || json_integer_value(rootfs) > BOOT_ROOTFS_VIRTIOFS)
		return -EINVAL;
	spec->rootfs = (enum boot_rootfs_kind)json_integer_value(rootfs);
	spec->groups = calloc(n ? n : 1, sizeof(*spec->groups));
	if (!spec->groups)
		return -ENOMEM;
	spec->ngroups = (unsigned)n;
	for (size_t i = 0; i < n; i++)
		spec->groups[i] = (uint32_t)json_integer_value(json_array_get(groups, i));
	for (size_t i = 0; i < BOOT_RLIMITS; i++) {
		const json_t *r = json_array_get(rlimits, i);

		spec->rlimits[i] = (struct boot_rlimit){
			.set = json_is_true(json_array_get(r, 0)),
			.cur = (uint64_t)json_integer_value(json_array_get(r, 1)),
			.max = (uint64_t)json_integer_value(json_array_get(r, 2)),
		};
	}
	for (size_t i = 0; i < 3; i++)
		spec->stdio[i] = (int)json_integer_value(json_array_get(stdio, i));
	return 0;
}

int boot_spec_decode(const char *json, size_t size, struct boot_spec *ret, char *why,
		     size_t why_size)
{
	json_error_t jerr;
	json_t *j = size <= BOOT_SIZE_MAX ? json_loadb(json, size, 0, &jerr) : NULL;
	int err;

	boot_spec_init(ret);
	if (!j) {
		snprintf(why, why_size, "boot spec: not JSON");
		return -EINVAL;
	}
	err = fields_from_json(spec_fields, ARRAY_SIZE(spec_fields), j, ret, why, why_size);
	if (!err)
		err = mounts_from_json(json_object_get(j, "mounts"), ret, why, why_size);
	if (!err) {
		err = arrays_from_json(j, ret);
		if (!err && ret->extra_fds > BOOT_EXTRA_FDS_MAX)
			err = -EINVAL;
		if (err)
			snprintf(why, why_size, "boot spec: bad groups, rlimits, stdio or rootfs");
	}
	json_decref(j);
	if (err)
		boot_spec_fini(ret);
	return err;
}
