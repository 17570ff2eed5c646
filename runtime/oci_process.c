/* runtime/oci_process.c - config.json's "process", also that of moat exec. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "runtime/oci_names.h"
#include "runtime/oci_parse.h"

/* Once each. What does not fit is left out: it is for a warning. */
static void note_unknown_cap(struct oci_parse *p, const char *name)
{
	char *list = p->c->unknown_caps;
	size_t used = strlen(list), len = strlen(name);

	if (!len)
		return;
	for (const char *at = list; (at = strstr(at, name)) != NULL; at += len)
		if ((at == list || at[-1] == ' ') && (at[len] == ' ' || !at[len]))
			return;
	if (used + len + 2 <= OCI_UNKNOWN_CAPS_MAX)
		snprintf(list + used, OCI_UNKNOWN_CAPS_MAX - used, "%s%s", used ? " " : "", name);
}

static uint64_t parse_capset(struct oci_parse *p, const json_t *caps, const char *name,
			     uint64_t dflt)
{
	const json_t *j = oci_member(p, caps, "process.capabilities", name, JSON_ARRAY);
	uint64_t set = 0;

	if (!j)
		return dflt;
	for (size_t i = 0; i < json_array_size(j); i++) {
		const char *s = json_string_value(json_array_get(j, i));
		int cap = s ? oci_cap_number(s) : -1;

		if (!s)
			oci_parse_error(p, "process.capabilities.%s[%zu] must be a string", name,
					i);
		else if (cap >= 0)
			set |= 1ull << cap;
		else /* perhaps newer than this list */
			note_unknown_cap(p, s);
	}
	return set;
}

static void parse_capabilities(struct oci_parse *p, const json_t *proc)
{
	const json_t *caps = oci_member(p, proc, "process", "capabilities", JSON_OBJECT);
	struct boot_spec *s = &p->c->spec;

	if (!caps)
		return; /* none, as runc */
	s->cap_bounding = parse_capset(p, caps, "bounding", 0);
	s->cap_effective = parse_capset(p, caps, "effective", 0);
	s->cap_permitted = parse_capset(p, caps, "permitted", 0);
	s->cap_inheritable = parse_capset(p, caps, "inheritable", 0);
	s->cap_ambient = parse_capset(p, caps, "ambient", 0);
	/* As of capset(2), with what is known: a name that is not is in none of them. */
	if (!p->err && s->cap_effective & ~s->cap_permitted)
		oci_parse_error(p, "process.capabilities: unable to apply caps: operation not "
				   "permitted: 'effective' has some that 'permitted' has not");
	if (!p->err && s->cap_inheritable & ~s->cap_bounding)
		oci_parse_error(p, "process.capabilities: unable to apply caps: operation not "
				   "permitted: 'inheritable' has some that 'bounding' has not");
}

/* 2^64-1, and whatever else is past INT64_MAX, is unlimited: see clamp_integers(). */
static uint64_t rlimit_value(struct oci_parse *p, const json_t *limit, const char *where,
			     const char *name)
{
	uint64_t v = oci_member_uint(p, limit, where, name, INT64_MAX);

	return v == INT64_MAX ? UINT64_MAX : v;
}

static void parse_rlimits(struct oci_parse *p, const json_t *proc)
{
	const json_t *list = oci_member(p, proc, "process", "rlimits", JSON_ARRAY);

	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *r = json_array_get(list, i);
		struct boot_rlimit *lim;
		const char *type;
		char where[48];
		int n;

		snprintf(where, sizeof(where), "process.rlimits[%zu]", i);
		if (!json_is_object(r))
			oci_parse_error(p, "%s must be an object", where);
		type = p->err ? NULL : oci_member_string(p, r, where, "type");
		if (p->err)
			return;
		n = type ? oci_rlimit_number(type) : -1;
		if (n < 0) {
			oci_parse_error(p,
					"%s.type: wrong rlimit value: '%s'; names are as "
					"RLIMIT_NOFILE",
					where, type ? type : "");
			return;
		}
		lim = &p->c->spec.rlimits[n];
		if (lim->set) {
			oci_parse_error(p, "process.rlimits has %s twice", type);
			return;
		}
		/* One that is missing is 0, as with runc. */
		*lim = (struct boot_rlimit){true, rlimit_value(p, r, where, "soft"),
					    rlimit_value(p, r, where, "hard")};
		if (!p->err && lim->cur > lim->max) {
			oci_parse_error(p,
					"%s (%s): soft limit %llu is above the hard "
					"limit %llu",
					where, type, (unsigned long long)lim->cur,
					(unsigned long long)lim->max);
			return;
		}
	}
}

static void parse_user(struct oci_parse *p, const json_t *proc)
{
	const json_t *user = oci_member(p, proc, "process", "user", JSON_OBJECT);
	struct boot_spec *s = &p->c->spec;
	const json_t *groups;
	size_t n;

	s->umask = 022;
	if (!user)
		return;
	s->uid = (uint32_t)oci_member_uint(p, user, "process.user", "uid", UINT32_MAX - 1);
	s->gid = (uint32_t)oci_member_uint(p, user, "process.user", "gid", UINT32_MAX - 1);
	if (oci_member(p, user, "process.user", "umask", JSON_INTEGER))
		s->umask = (uint32_t)oci_member_uint(p, user, "process.user", "umask", UINT32_MAX) &
			   0777;
	groups = oci_member(p, user, "process.user", "additionalGids", JSON_ARRAY);
	n = json_array_size(groups);
	if (n > 65536) {
		oci_parse_error(p, "process.user.additionalGids has more than 65536 entries");
		return;
	}
	s->groups = calloc(n ? n : 1, sizeof(*s->groups));
	if (!s->groups) {
		p->err = -ENOMEM;
		return;
	}
	for (size_t i = 0; i < n; i++) {
		const json_t *g = json_array_get(groups, i);

		if (!json_is_integer(g) || json_integer_value(g) < 0 ||
		    json_integer_value(g) >= UINT32_MAX) {
			oci_parse_error(p, "process.user.additionalGids[%zu] is no group id", i);
			return;
		}
		s->groups[s->ngroups++] = (uint32_t)json_integer_value(g);
	}
}

/*
 * NAME=VALUE each. Of one name the last counts, in the first's place: the C library takes the first that it finds, and `moat exec --env` adds to what
 * the container has.
 */
static void parse_env(struct oci_parse *p, const json_t *proc)
{
	char **v = oci_member_strv(p, proc, "process", "env");
	json_t *seen = json_object();
	size_t kept = 0, n = 0;

	if (!v)
		v = calloc(1, sizeof(*v));
	p->c->spec.envp = v;
	if (!v || !seen) {
		p->err = -ENOMEM;
		goto out;
	}
	while (v[n])
		n++;
	for (size_t i = 0; i < n && !p->err; i++) {
		char *equals = strchr(v[i], '='), *entry = v[i];
		const json_t *at;

		if (!equals || equals == entry) {
			oci_parse_error(p,
					"process.env: invalid environment variable: '%s': "
					"NAME=VALUE is wanted",
					entry);
			break;
		}
		*equals = '\0';
		at = json_object_get(seen, entry);
		if (!at && json_object_set_new_nocheck(seen, entry, json_integer((json_int_t)kept)))
			p->err = -ENOMEM;
		*equals = '=';
		v[i] = NULL;
		if (at) {
			free(v[json_integer_value(at)]);
			v[json_integer_value(at)] = entry;
		} else {
			v[kept++] = entry;
		}
	}
	/* What an error left over would not be found behind the first NULL. */
	for (size_t i = kept; p->err && i < n; i++) {
		free(v[i]);
		v[i] = NULL;
	}
out:
	json_decref(seen);
}

/* The index of a member's string in a table; -1 with an error. */
static int member_choice(struct oci_parse *p, const json_t *obj, const char *where,
			 const char *name, const char *const *choices, size_t count)
{
	const char *s = oci_member_string(p, obj, where, name);

	for (size_t i = 0; s && i < count; i++)
		if (choices[i] && strcmp(s, choices[i]) == 0)
			return (int)i;
	oci_parse_error(p, "%s.%s '%s' is not supported", where, name, s ? s : "");
	return -1;
}

static int member_int(struct oci_parse *p, const json_t *obj, const char *where, const char *name,
		      int min, int max)
{
	json_int_t v = json_integer_value(oci_member(p, obj, where, name, JSON_INTEGER));

	if (v < min || v > max) {
		oci_parse_error(p, "%s.%s %lld is out of range (%d to %d)", where, name,
				(long long)v, min, max);
		return 0;
	}
	return (int)v;
}

/* The guest's kernel keeps these for its programs to see, and orders nothing by them: its threads are the host's to schedule. */
static void parse_scheduler(struct oci_parse *p, const json_t *proc)
{
	/* By number, as in <linux/sched.h>. */
	static const char *const policies[] = {"SCHED_OTHER", "SCHED_FIFO", "SCHED_RR",
					       "SCHED_BATCH", NULL,	    "SCHED_IDLE"};
	static const char *const classes[] = {NULL, "IOPRIO_CLASS_RT", "IOPRIO_CLASS_BE",
					      "IOPRIO_CLASS_IDLE"};
	const json_t *sched = oci_member(p, proc, "process", "scheduler", JSON_OBJECT),
		     *io = oci_member(p, proc, "process", "ioPriority", JSON_OBJECT), *flags, *f;
	struct boot_spec *s = &p->c->spec;
	int policy, class;
	size_t i;

	if (sched) {
		policy = member_choice(p, sched, "process.scheduler", "policy", policies,
				       ARRAY_SIZE(policies));
		s->sched_policy = policy < 0 ? 0 : (unsigned)policy;
		s->nice = member_int(p, sched, "process.scheduler", "nice", -20, 19);
		/* Real-time ones have a priority, the others none. */
		s->sched_priority = (unsigned)member_int(p, sched, "process.scheduler", "priority",
							 policy == 1 || policy == 2 ? 1 : 0,
							 policy == 1 || policy == 2 ? 99 : 0);
		flags = oci_member(p, sched, "process.scheduler", "flags", JSON_ARRAY);
		json_array_foreach((json_t *)flags, i, f)
		{
			const char *name = json_string_value(f);

			if (!name || strcmp(name, "SCHED_FLAG_RESET_ON_FORK") != 0)
				oci_parse_error(p, "process.scheduler.flags: '%s' is not supported",
						name ? name : "");
			s->sched_reset_on_fork = true;
		}
	}
	if (io) {
		class = member_choice(p, io, "process.ioPriority", "class", classes,
				      ARRAY_SIZE(classes));
		s->ioprio = (unsigned)((class < 0 ? 0 : class) << 13 |
				       member_int(p, io, "process.ioPriority", "priority", 0, 7));
	}
	oci_note_ignored(p, proc, "process", "execCPUAffinity");
}

void oci_parse_process(struct oci_parse *p, const json_t *root)
{
	const json_t *proc = oci_member(p, root, "", "process", JSON_OBJECT), *size;
	struct boot_spec *s = &p->c->spec;
	const char *cwd;

	if (p->err)
		return;
	if (!proc) {
		oci_parse_error(p,
				"'process' is missing; 'moat spec' writes a complete config.json");
		return;
	}
	s->argv = oci_member_strv(p, proc, "process", "args");
	if (!p->err && (!s->argv || !s->argv[0])) {
		oci_parse_error(p, "process.args is missing or empty: name the program to run");
		return;
	}
	if (!p->err)
		parse_env(p, proc);
	cwd = oci_member_string(p, proc, "process", "cwd");
	if (!p->err && (!cwd || cwd[0] != '/')) {
		oci_parse_error(p, "process.cwd must be an absolute path (got '%s')",
				cwd ? cwd : "");
		return;
	}
	s->cwd = cwd ? oci_dup(p, cwd) : NULL;
	s->terminal = oci_member_bool(p, proc, "process", "terminal");
	size = oci_member(p, proc, "process", "consoleSize", JSON_OBJECT);
	if (size) {
		s->console_rows =
			(unsigned)oci_member_uint(p, size, "process.consoleSize", "height", 65535);
		s->console_cols =
			(unsigned)oci_member_uint(p, size, "process.consoleSize", "width", 65535);
	}
	s->no_new_privs = oci_member_bool(p, proc, "process", "noNewPrivileges");
	s->oom_score_adj = member_int(p, proc, "process", "oomScoreAdj", -1000, 1000);
	parse_scheduler(p, proc);
	parse_user(p, proc);
	parse_capabilities(p, proc);
	parse_rlimits(p, proc);
}
