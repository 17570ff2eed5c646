/* runtime/oci_parse.c - members of config.json's objects: their types, bounds, and errors that name them. */
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/oci_parse.h"

int oci_parse_error(struct oci_parse *p, const char *fmt, ...)
{
	char msg[OCI_ERROR_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	snprintf(p->why, OCI_ERROR_MAX, "%.200s: %.300s", p->file, msg);
	return p->err = -EINVAL;
}

char *oci_dup(struct oci_parse *p, const char *s)
{
	char *copy = strdup(s);

	if (!copy)
		p->err = -ENOMEM;
	return copy;
}

/* An optional member of the wanted type; NULL if absent or null; an error if of another type. */
const json_t *oci_member(struct oci_parse *p, const json_t *obj, const char *where,
			 const char *name, json_type type)
{
	const json_t *j = json_object_get(obj, name);
	static const char *const type_names[] = {"an object",  "an array", "a string",
						 "an integer", "a number", "a boolean",
						 "a boolean",  "null"};

	if (!j || json_is_null(j))
		return NULL;
	if (json_typeof(j) == type || (type == JSON_TRUE && json_is_boolean(j)))
		return j;
	oci_parse_error(p, "%s%s%s must be %s", where, *where ? "." : "", name, type_names[type]);
	return NULL;
}

const char *oci_member_string(struct oci_parse *p, const json_t *obj, const char *where,
			      const char *name)
{
	const json_t *j = oci_member(p, obj, where, name, JSON_STRING);

	if (j && strlen(json_string_value(j)) != json_string_length(j)) {
		oci_parse_error(p, "%s.%s contains a NUL byte", where, name);
		return NULL;
	}
	return json_string_value(j);
}

bool oci_member_bool(struct oci_parse *p, const json_t *obj, const char *where, const char *name)
{
	return json_is_true(oci_member(p, obj, where, name, JSON_TRUE));
}

uint64_t oci_member_uint(struct oci_parse *p, const json_t *obj, const char *where,
			 const char *name, uint64_t max)
{
	const json_t *j = oci_member(p, obj, where, name, JSON_INTEGER);
	json_int_t v = json_integer_value(j);

	if (j && (v < 0 || (uint64_t)v > max)) {
		oci_parse_error(p, "%s.%s is out of range (0 to %llu)", where, name,
				(unsigned long long)max);
		return 0;
	}
	return (uint64_t)v;
}

/* An array of strings; NULL if absent. */
char **oci_member_strv(struct oci_parse *p, const json_t *obj, const char *where, const char *name)
{
	const json_t *j = oci_member(p, obj, where, name, JSON_ARRAY);
	size_t n = json_array_size(j);
	char **v;

	if (!j)
		return NULL;
	if (n > BOOT_ARGS_MAX) {
		oci_parse_error(p, "%s.%s has more than %d entries", where, name, BOOT_ARGS_MAX);
		return NULL;
	}
	v = calloc(n + 1, sizeof(*v));
	if (!v) {
		p->err = -ENOMEM;
		return NULL;
	}
	for (size_t i = 0; i < n; i++) {
		const json_t *s = json_array_get(j, i);

		if (!json_is_string(s) || strlen(json_string_value(s)) != json_string_length(s)) {
			oci_parse_error(p, "%s.%s[%zu] must be a string without NUL bytes", where,
					name, i);
			break;
		}
		v[i] = oci_dup(p, json_string_value(s));
		if (!v[i])
			break;
	}
	return v;
}

void oci_note_ignored(struct oci_parse *p, const json_t *obj, const char *where, const char *name)
{
	const json_t *j = json_object_get(obj, name);
	char *list = p->c->ignored;
	size_t used = strlen(list);

	if (json_object_size(j) || json_array_size(j) || json_string_length(j))
		snprintf(list + used, OCI_IGNORED_MAX - used, "%s%s.%s", used ? " " : "", where,
			 name);
}
