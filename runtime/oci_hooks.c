/*
 * runtime/oci_hooks.c - config.json's "hooks", checked before anything is made: hooks.c and exec.c run them as they are.
 *
 * Stages that are not known are ignored, as by runc. It begins a hook whatever its timeout, and one of 0 or less always "ran past" it.
 */
#include <stdio.h>
#include <stdlib.h>

#include "runtime/oci_parse.h"

/* Seconds; in nanoseconds still an int64_t. */
#define TIMEOUT_MAX (INT64_MAX / 1000000000)

static void check_strings(struct oci_parse *p, const json_t *hook, const char *where,
			  const char *name)
{
	char **v = oci_member_strv(p, hook, where, name);

	for (char **s = v; s && *s; s++)
		free(*s);
	free(v);
}

static void check_timeout(struct oci_parse *p, const json_t *hook, const char *where)
{
	const json_t *j = oci_member(p, hook, where, "timeout", JSON_INTEGER);
	long long seconds = json_integer_value(j);

	if (!j || (seconds > 0 && seconds <= TIMEOUT_MAX))
		return;
	oci_parse_error(p,
			"%s.timeout: invalid timeout %lld: seconds from 1 to %lld are wanted; "
			"leave it out for none",
			where, seconds, (long long)TIMEOUT_MAX);
}

static void check_hook(struct oci_parse *p, const json_t *hook, const char *stage, size_t index)
{
	const char *path;
	char where[64];

	snprintf(where, sizeof(where), "hooks.%s[%zu]", stage, index);
	if (!json_is_object(hook)) {
		oci_parse_error(p, "%s must be an object", where);
		return;
	}
	path = oci_member_string(p, hook, where, "path");
	if (!p->err && (!path || path[0] != '/'))
		oci_parse_error(p, "%s.path must be an absolute path (got '%s')", where,
				path ? path : "");
	if (!p->err)
		check_strings(p, hook, where, "args");
	if (!p->err)
		check_strings(p, hook, where, "env");
	if (!p->err)
		check_timeout(p, hook, where);
}

void oci_parse_hooks(struct oci_parse *p, const json_t *root)
{
	static const char *const stages[] = {"prestart",       "createRuntime", "createContainer",
					     "startContainer", "poststart",	"poststop"};
	const json_t *hooks = oci_member(p, root, "", "hooks", JSON_OBJECT);

	for (size_t i = 0; i < ARRAY_SIZE(stages) && !p->err; i++) {
		const json_t *list = oci_member(p, hooks, "hooks", stages[i], JSON_ARRAY);

		for (size_t k = 0; k < json_array_size(list) && !p->err; k++)
			check_hook(p, json_array_get(list, k), stages[i], k);
	}
	p->c->hooks = hooks;
}
