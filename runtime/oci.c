/*
 * runtime/oci.c - config.json to a boot spec.
 *
 * Reads what the sandbox acts on; hooks, resources and annotations are kept as JSON for those who do. Members it does not know are
 * ignored, as the specification demands.
 */
#include <fcntl.h>
#include <jansson.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>

#include "base/io.h"
#include "runtime/oci.h"
#include "runtime/oci_names.h"

/* Where the parser is, for messages. */
struct parse {
	struct oci_config *c;
	const char *file, *bundle;
	char *why;
	int err;
};

static int parse_error(struct parse *p, const char *fmt, ...) printf_like(2, 3);
static int parse_error(struct parse *p, const char *fmt, ...)
{
	char msg[OCI_ERROR_MAX];
	va_list ap;

	va_start(ap, fmt);
	vsnprintf(msg, sizeof(msg), fmt, ap);
	va_end(ap);
	snprintf(p->why, OCI_ERROR_MAX, "%.200s: %.300s", p->file, msg);
	return p->err = -EINVAL;
}

static char *dup_or_fail(struct parse *p, const char *s)
{
	char *copy = strdup(s);

	if (!copy)
		p->err = -ENOMEM;
	return copy;
}

/* An optional member of the wanted type; NULL if absent or null; an error if of another type. */
static const json_t *member(struct parse *p, const json_t *obj, const char *where, const char *name,
			    json_type type)
{
	const json_t *j = json_object_get(obj, name);
	static const char *const type_names[] = {"an object",  "an array", "a string",
						 "an integer", "a number", "a boolean",
						 "a boolean",  "null"};

	if (!j || json_is_null(j))
		return NULL;
	if (json_typeof(j) == type || (type == JSON_TRUE && json_is_boolean(j)))
		return j;
	parse_error(p, "%s%s%s must be %s", where, *where ? "." : "", name, type_names[type]);
	return NULL;
}

static const char *member_string(struct parse *p, const json_t *obj, const char *where,
				 const char *name)
{
	const json_t *j = member(p, obj, where, name, JSON_STRING);

	if (j && strlen(json_string_value(j)) != json_string_length(j)) {
		parse_error(p, "%s.%s contains a NUL byte", where, name);
		return NULL;
	}
	return json_string_value(j);
}

static bool member_bool(struct parse *p, const json_t *obj, const char *where, const char *name)
{
	return json_is_true(member(p, obj, where, name, JSON_TRUE));
}

static uint64_t member_uint(struct parse *p, const json_t *obj, const char *where, const char *name,
			    uint64_t max)
{
	const json_t *j = member(p, obj, where, name, JSON_INTEGER);
	json_int_t v = json_integer_value(j);

	if (j && (v < 0 || (uint64_t)v > max)) {
		parse_error(p, "%s.%s is out of range (0 to %llu)", where, name,
			    (unsigned long long)max);
		return 0;
	}
	return (uint64_t)v;
}

/* An array of strings; NULL if absent. */
static char **member_strv(struct parse *p, const json_t *obj, const char *where, const char *name)
{
	const json_t *j = member(p, obj, where, name, JSON_ARRAY);
	size_t n = json_array_size(j);
	char **v;

	if (!j)
		return NULL;
	if (n > BOOT_ARGS_MAX) {
		parse_error(p, "%s.%s has more than %d entries", where, name, BOOT_ARGS_MAX);
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
			parse_error(p, "%s.%s[%zu] must be a string without NUL bytes", where, name,
				    i);
			break;
		}
		v[i] = dup_or_fail(p, json_string_value(s));
		if (!v[i])
			break;
	}
	return v;
}

/* Once each. What does not fit is left out: it is for a warning. */
static void note_unknown_cap(struct parse *p, const char *name)
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

static uint64_t parse_capset(struct parse *p, const json_t *caps, const char *name, uint64_t dflt)
{
	const json_t *j = member(p, caps, "process.capabilities", name, JSON_ARRAY);
	uint64_t set = 0;

	if (!j)
		return dflt;
	for (size_t i = 0; i < json_array_size(j); i++) {
		const char *s = json_string_value(json_array_get(j, i));
		int cap = s ? oci_cap_number(s) : -1;

		if (!s)
			parse_error(p, "process.capabilities.%s[%zu] must be a string", name, i);
		else if (cap >= 0)
			set |= 1ull << cap;
		else /* perhaps newer than this list */
			note_unknown_cap(p, s);
	}
	return set;
}

static void parse_capabilities(struct parse *p, const json_t *proc)
{
	const json_t *caps = member(p, proc, "process", "capabilities", JSON_OBJECT);
	struct boot_spec *s = &p->c->spec;

	if (!caps)
		return; /* none, as runc */
	s->cap_bounding = parse_capset(p, caps, "bounding", 0);
	s->cap_effective = parse_capset(p, caps, "effective", 0);
	s->cap_permitted = parse_capset(p, caps, "permitted", 0);
	s->cap_inheritable = parse_capset(p, caps, "inheritable", 0);
	s->cap_ambient = parse_capset(p, caps, "ambient", 0);
}

/* 2^64-1, and whatever else is past INT64_MAX, is unlimited: see clamp_integers(). */
static uint64_t rlimit_value(const json_t *j)
{
	json_int_t v = json_integer_value(j);

	return v == INT64_MAX || v == -1 ? UINT64_MAX : (uint64_t)v;
}

static void parse_rlimits(struct parse *p, const json_t *proc)
{
	const json_t *list = member(p, proc, "process", "rlimits", JSON_ARRAY);

	for (size_t i = 0; i < json_array_size(list); i++) {
		const json_t *r = json_array_get(list, i);
		const char *type = member_string(p, r, "process.rlimits[]", "type");
		int n = type ? oci_rlimit_number(type) : -1;
		const json_t *soft = json_object_get(r, "soft"), *hard = json_object_get(r, "hard");

		if (n < 0) {
			parse_error(p, "process.rlimits[%zu].type '%s' is no rlimit", i,
				    type ? type : "");
			return;
		}
		if (!json_is_integer(soft) || !json_is_integer(hard)) {
			parse_error(p, "process.rlimits[%zu] (%s) needs numbers 'soft' and 'hard'",
				    i, type);
			return;
		}
		struct boot_rlimit *lim = &p->c->spec.rlimits[n];

		if (lim->set) {
			parse_error(p, "process.rlimits has %s twice", type);
			return;
		}
		*lim = (struct boot_rlimit){true, rlimit_value(soft), rlimit_value(hard)};
		if (lim->cur > lim->max) {
			parse_error(p,
				    "process.rlimits[%zu] (%s): soft limit %llu is above the hard "
				    "limit %llu",
				    i, type, (unsigned long long)lim->cur,
				    (unsigned long long)lim->max);
			return;
		}
	}
}

static void parse_user(struct parse *p, const json_t *proc)
{
	const json_t *user = member(p, proc, "process", "user", JSON_OBJECT);
	struct boot_spec *s = &p->c->spec;
	const json_t *groups;
	size_t n;

	s->umask = 022;
	if (!user)
		return;
	s->uid = (uint32_t)member_uint(p, user, "process.user", "uid", UINT32_MAX - 1);
	s->gid = (uint32_t)member_uint(p, user, "process.user", "gid", UINT32_MAX - 1);
	if (json_object_get(user, "umask"))
		s->umask = (uint32_t)member_uint(p, user, "process.user", "umask", 0777);
	groups = member(p, user, "process.user", "additionalGids", JSON_ARRAY);
	n = json_array_size(groups);
	if (n > 65536) {
		parse_error(p, "process.user.additionalGids has more than 65536 entries");
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
			parse_error(p, "process.user.additionalGids[%zu] is no group id", i);
			return;
		}
		s->groups[s->ngroups++] = (uint32_t)json_integer_value(g);
	}
}

static void parse_process(struct parse *p, const json_t *root)
{
	const json_t *proc = member(p, root, "", "process", JSON_OBJECT), *size;
	struct boot_spec *s = &p->c->spec;
	const char *cwd;

	if (p->err)
		return;
	if (!proc) {
		parse_error(p, "'process' is missing; 'moat spec' writes a complete config.json");
		return;
	}
	s->argv = member_strv(p, proc, "process", "args");
	s->envp = member_strv(p, proc, "process", "env");
	if (!p->err && (!s->argv || !s->argv[0])) {
		parse_error(p, "process.args is missing or empty: name the program to run");
		return;
	}
	if (!s->envp)
		s->envp = calloc(1, sizeof(*s->envp));
	cwd = member_string(p, proc, "process", "cwd");
	if (!p->err && (!cwd || cwd[0] != '/')) {
		parse_error(p, "process.cwd must be an absolute path (got '%s')", cwd ? cwd : "");
		return;
	}
	s->cwd = cwd ? dup_or_fail(p, cwd) : NULL;
	s->terminal = member_bool(p, proc, "process", "terminal");
	size = member(p, proc, "process", "consoleSize", JSON_OBJECT);
	if (size) {
		s->console_rows =
			(unsigned)member_uint(p, size, "process.consoleSize", "height", 65535);
		s->console_cols =
			(unsigned)member_uint(p, size, "process.consoleSize", "width", 65535);
	}
	s->no_new_privs = member_bool(p, proc, "process", "noNewPrivileges");
	const json_t *adj = member(p, proc, "process", "oomScoreAdj", JSON_INTEGER);
	s->oom_score_adj = (int)MAX(-1000, MIN(1000, json_integer_value(adj)));
	parse_user(p, proc);
	parse_capabilities(p, proc);
	parse_rlimits(p, proc);
}

static char *path_from(struct parse *p, const char *path)
{
	char *out = NULL;

	if (path[0] == '/')
		return dup_or_fail(p, path);
	if (asprintf(&out, "%s/%s", p->bundle, path) < 0) {
		p->err = -ENOMEM;
		return NULL;
	}
	return out;
}

int oci_attach_add(struct oci_config *c, char *host_path, bool readonly, bool is_file)
{
	struct oci_attach *grown = realloc(c->attaches, (c->nattaches + 1) * sizeof(*grown));

	if (!grown) {
		free(host_path);
		return -ENOMEM;
	}
	c->attaches = grown;
	grown[c->nattaches] = (struct oci_attach){
		.host_path = host_path, .readonly = readonly, .is_file = is_file};
	return (int)c->nattaches++;
}

static void parse_root(struct parse *p, const json_t *root)
{
	const json_t *r = member(p, root, "", "root", JSON_OBJECT);
	const char *path = r ? member_string(p, r, "root", "path") : NULL;
	char *host;

	if (p->err)
		return;
	if (!path || !*path) {
		parse_error(
			p,
			"root.path is missing: name the directory that holds the root filesystem");
		return;
	}
	p->c->spec.rootfs_readonly = member_bool(p, r, "root", "readonly");
	host = path_from(p, path);
	if (host && oci_attach_add(p->c, host, p->c->spec.rootfs_readonly, false) < 0)
		p->err = -ENOMEM;
}

/* Splits the options between VFS flags and the filesystem's own data. */
static void parse_mount_options(struct parse *p, const json_t *list, size_t index,
				struct boot_mount *m)
{
	struct buf data;

	buf_init(&data, 65536);
	for (size_t i = 0; i < json_array_size(list); i++) {
		const char *o = json_string_value(json_array_get(list, i));

		if (!o) {
			parse_error(p, "mounts[%zu].options[%zu] must be a string", index, i);
			break;
		}
		if (oci_mount_option(o, &m->flags, &m->propagation))
			continue;
		if (data.len)
			buf_putc(&data, ',');
		buf_puts(&data, o);
	}
	if (!p->err && data.len)
		m->data = dup_or_fail(p, data.data);
	buf_fini(&data);
}

static void parse_mount(struct parse *p, const json_t *j, size_t index, struct boot_mount *m)
{
	char where[32];
	const char *dst, *type, *src;
	bool overlay;

	snprintf(where, sizeof(where), "mounts[%zu]", index);
	m->attach = -1;
	if (!json_is_object(j)) {
		parse_error(p, "%s must be an object", where);
		return;
	}
	dst = member_string(p, j, where, "destination");
	type = member_string(p, j, where, "type");
	src = member_string(p, j, where, "source");
	if (p->err)
		return;
	if (!dst || !*dst) {
		parse_error(p, "%s.destination is missing", where);
		return;
	}
	if (asprintf(&m->destination, "%s%s", dst[0] == '/' ? "" : "/", dst) < 0) {
		m->destination = NULL;
		p->err = -ENOMEM;
		return;
	}
	parse_mount_options(p, member(p, j, where, "options", JSON_ARRAY), index, m);
	if (p->err)
		return;
	if (m->flags & MS_BIND) {
		type = oci_own_instead(src, m->destination);
		if (type && !*type)
			return;
		m->flags &= type ? ~(uint64_t)(MS_BIND | MS_REC) : ~0ull;
		type = type ? type : "bind";
	}
	if (!type || !oci_mount_type_known(type)) {
		parse_error(p,
			    "%s (%s): unknown type '%s'; known are proc, sysfs, tmpfs, devpts, "
			    "mqueue, cgroup, bind, overlay, virtiofs, 9p",
			    where, dst, type ? type : "");
		return;
	}
	overlay = strcmp(type, "overlay") == 0;
	m->type = dup_or_fail(p, overlay ? "bind" : type);
	if (overlay || strcmp(type, "bind") == 0 || strcmp(type, "none") == 0) {
		if (!overlay && (!src || !*src)) {
			parse_error(p, "%s (%s): a bind mount needs a source", where, dst);
			return;
		}
		m->source = overlay ? dup_or_fail(p, "overlay") : path_from(p, src);
		char *host = m->source ? strdup(overlay && m->data ? m->data : m->source) : NULL;
		m->attach =
			host ? oci_attach_add(p->c, host, m->flags & MS_RDONLY, false) : -ENOMEM;
		if (m->attach < 0) {
			p->err = -ENOMEM;
			return;
		}
		p->c->attaches[m->attach].overlay = overlay;
		p->c->attaches[m->attach].alone = (m->flags & (MS_BIND | MS_REC)) == MS_BIND;
	} else {
		m->source = dup_or_fail(p, src && *src ? src : type);
	}
}

static void parse_mounts(struct parse *p, const json_t *root)
{
	const json_t *list = member(p, root, "", "mounts", JSON_ARRAY);
	size_t n = json_array_size(list);
	struct boot_spec *s = &p->c->spec;

	if (n > BOOT_MOUNTS_MAX) {
		parse_error(p, "mounts has more than %d entries", BOOT_MOUNTS_MAX);
		return;
	}
	s->mounts = calloc(n ? n : 1, sizeof(*s->mounts));
	if (!s->mounts) {
		p->err = -ENOMEM;
		return;
	}
	for (size_t i = 0; i < n && !p->err; i++) {
		struct boot_mount *m = &s->mounts[s->nmounts++];

		parse_mount(p, json_array_get(list, i), i, m);
		if (p->err || m->type)
			continue;
		/* The sandbox has its own. */
		free(m->destination);
		free(m->data);
		*m = (struct boot_mount){0};
		s->nmounts--;
	}
}

static void parse_namespaces(struct parse *p, const json_t *l)
{
	static const char *const types[] = {"pid", "network", "mount",	"ipc",
					    "uts", "user",    "cgroup", "time"};
	const json_t *list = member(p, l, "linux", "namespaces", JSON_ARRAY);
	unsigned seen = 0;

	p->c->uid_mappings = member(p, l, "linux", "uidMappings", JSON_ARRAY);
	p->c->gid_mappings = member(p, l, "linux", "gidMappings", JSON_ARRAY);
	for (size_t i = 0; i < json_array_size(list) && !p->err; i++) {
		const json_t *ns = json_array_get(list, i);
		const char *type = member_string(p, ns, "linux.namespaces[]", "type"),
			   *path = member_string(p, ns, "linux.namespaces[]", "path");
		unsigned k = 0;

		while (k < ARRAY_SIZE(types) && (!type || strcmp(type, types[k]) != 0))
			k++;
		if (k == ARRAY_SIZE(types)) {
			parse_error(p, "linux.namespaces[%zu].type '%s' is no namespace", i,
				    type ? type : "");
		} else if (seen & 1u << k) {
			parse_error(p, "linux.namespaces has '%s' twice", type);
		} else if (path && *path && path[0] != '/') {
			parse_error(p, "linux.namespaces[%zu].path '%s' is not absolute", i, path);
		} else if (k == 0) {
			p->c->pid_ns = true;
			p->c->pid_ns_path = path && *path ? path : NULL;
		} else if (k == 3) {
			p->c->ipc_ns = true;
			p->c->ipc_ns_path = path && *path ? path : NULL;
		} else if (k == 1) {
			p->c->net_ns = true;
			p->c->net_ns_path = path && *path ? path : NULL;
		} else if (k == 4) {
			p->c->uts_ns = true;
			p->c->uts_ns_path = path && *path ? path : NULL;
		} else if (k == 5) {
			p->c->user_ns = true;
			p->c->user_ns_path = path && *path ? path : NULL;
		} else if (k == 6) {
			p->c->cgroup_ns = !path || !*path;
		}
		seen |= 1u << k;
	}
}

/* Adds a string to a NULL-terminated vector whose count is known; takes s. */
static void strv_add(struct parse *p, char ***v, size_t *count, char *s)
{
	char **grown = s ? realloc(*v, (*count + 2) * sizeof(*grown)) : NULL;

	if (!grown) {
		free(s);
		p->err = -ENOMEM;
		return;
	}
	*v = grown;
	grown[(*count)++] = s;
	grown[*count] = NULL;
}

static void parse_devices(struct parse *p, const json_t *l)
{
	const json_t *list = member(p, l, "linux", "devices", JSON_ARRAY);
	size_t count = 0;

	for (size_t i = 0; i < json_array_size(list) && !p->err; i++) {
		const json_t *d = json_array_get(list, i);
		const char *path = member_string(p, d, "linux.devices[]", "path"),
			   *type = member_string(p, d, "linux.devices[]", "type");
		char *line = NULL;

		if (p->err)
			return;
		if (!path || path[0] != '/' || !type || strlen(type) != 1 ||
		    !strchr("cubp", type[0])) {
			parse_error(p,
				    "linux.devices[%zu] needs an absolute path and a type of "
				    "c, u, b or p",
				    i);
			return;
		}
		if (asprintf(&line, "%c %u %u %o %u %u %s", type[0] == 'u' ? 'c' : type[0],
			     (unsigned)member_uint(p, d, "linux.devices[]", "major", UINT32_MAX),
			     (unsigned)member_uint(p, d, "linux.devices[]", "minor", UINT32_MAX),
			     json_object_get(d, "fileMode")
				     ? (unsigned)member_uint(p, d, "linux.devices[]", "fileMode",
							     UINT32_MAX) &
					       07777
				     : 0666,
			     (unsigned)member_uint(p, d, "linux.devices[]", "uid", UINT32_MAX - 1),
			     (unsigned)member_uint(p, d, "linux.devices[]", "gid", UINT32_MAX - 1),
			     path) < 0)
			line = NULL;
		strv_add(p, &p->c->spec.devices, &count, line);
	}
}

static void parse_sysctl(struct parse *p, const json_t *l)
{
	const json_t *obj = member(p, l, "linux", "sysctl", JSON_OBJECT), *v;
	const char *key;
	size_t count = 0;

	json_object_foreach((json_t *)obj, key, v)
	{
		char *line = NULL;

		if (!json_is_string(v) || strstr(key, "..") || key[0] == '/') {
			parse_error(p, "linux.sysctl: '%s' needs a string, and a name with dots",
				    key);
			return;
		}
		if (asprintf(&line, "%s=%s", key, json_string_value(v)) < 0)
			line = NULL;
		strv_add(p, &p->c->spec.sysctls, &count, line);
		if (p->err)
			return;
	}
}

static void parse_seccomp(struct parse *p, const json_t *l)
{
	const json_t *s = member(p, l, "linux", "seccomp", JSON_OBJECT);
	char why[OCI_ERROR_MAX];
	int err;

	if (!s || p->err)
		return;
	err = oci_seccomp_compile(s, &p->c->spec.seccomp, why);
	if (err == -EINVAL)
		parse_error(p, "%.250s", why);
	else if (err)
		p->err = err;
}

static void parse_linux(struct parse *p, const json_t *root)
{
	const json_t *l = member(p, root, "", "linux", JSON_OBJECT);
	struct boot_spec *s = &p->c->spec;
	const char *prop;

	if (!l || p->err)
		return;
	s->masked_paths = member_strv(p, l, "linux", "maskedPaths");
	s->readonly_paths = member_strv(p, l, "linux", "readonlyPaths");
	prop = member_string(p, l, "linux", "rootfsPropagation");
	if (prop) {
		uint64_t flags = 0;

		if (!oci_mount_option(prop, &flags, &s->rootfs_propagation) ||
		    !s->rootfs_propagation)
			parse_error(p,
				    "linux.rootfsPropagation '%s' is none of shared, slave, "
				    "private, unbindable",
				    prop);
	}
	p->c->resources = member(p, l, "linux", "resources", JSON_OBJECT);
	if (!p->err && oci_resources_to_spec(p->c->resources, s))
		p->err = -ENOMEM;
	p->c->cgroups_path = member_string(p, l, "linux", "cgroupsPath");
	parse_namespaces(p, l);
	parse_devices(p, l);
	parse_sysctl(p, l);
	parse_seccomp(p, l);
}

/* Names from the file are quoted in messages: whatever is in them, a message stays one line. */
static void make_one_line(char *why)
{
	for (; *why; why++)
		if ((unsigned char)*why < 0x20 || *why == 0x7f)
			*why = '?';
}

int oci_config_parse(const char *json, size_t size, const char *name, const char *bundle,
		     struct oci_config *ret, char *why)
{
	struct parse p = {.c = ret, .file = name, .bundle = bundle, .why = why};
	const char *hostname, *version;
	json_error_t jerr;
	json_t *root = NULL;

	memset(ret, 0, sizeof(*ret));
	boot_spec_init(&ret->spec);
	why[0] = '\0';
	root = oci_json_load(json, size, &jerr);
	if (!root) {
		snprintf(why, OCI_ERROR_MAX, "%.200s:%d:%d: not valid JSON: %.200s", name,
			 jerr.line, jerr.column, jerr.text);
		make_one_line(why);
		return -EINVAL;
	}
	ret->json = root;
	if (!json_is_object(root))
		parse_error(&p, "must be a JSON object");
	version = p.err ? NULL : member_string(&p, root, "", "ociVersion");
	if (!p.err && !version)
		parse_error(&p, "ociVersion is missing: is this an OCI bundle's config.json?");
	else if (!p.err && strncmp(version, "1.", 2) != 0)
		parse_error(&p, "ociVersion '%s' is not supported; this moat reads 1.x", version);
	if (!p.err) {
		ret->oci_version = dup_or_fail(&p, version);
		parse_root(&p, root);
	}
	if (!p.err)
		parse_process(&p, root);
	if (!p.err)
		parse_mounts(&p, root);
	if (!p.err)
		parse_linux(&p, root);
	hostname = p.err ? NULL : member_string(&p, root, "", "hostname");
	if (hostname && strlen(hostname) > 64)
		parse_error(&p, "hostname is longer than 64 bytes");
	else if (hostname)
		ret->spec.hostname = dup_or_fail(&p, hostname);
	hostname = p.err ? NULL : member_string(&p, root, "", "domainname");
	if (hostname && strlen(hostname) <= 64)
		ret->spec.domainname = dup_or_fail(&p, hostname);
	if (!p.err) {
		ret->hooks = member(&p, root, "", "hooks", JSON_OBJECT);
		ret->annotations = member(&p, root, "", "annotations", JSON_OBJECT);
	}
	if (p.err) {
		if (!why[0])
			snprintf(why, OCI_ERROR_MAX, "%.200s: out of memory", name);
		make_one_line(why);
		oci_config_fini(ret);
	}
	return p.err;
}

static int check_sources(struct oci_config *c, const char *file, char *why)
{
	struct stat st;

	errno = ENOTDIR;
	if (stat(c->attaches[0].host_path, &st) < 0 || !S_ISDIR(st.st_mode)) {
		snprintf(why, OCI_ERROR_MAX,
			 "%.150s: root.path: %.200s: %s; make it or correct root.path", file,
			 c->attaches[0].host_path, strerror(errno));
		return -EINVAL;
	}
	for (unsigned i = 0; i < c->spec.nmounts; i++) {
		struct boot_mount *m = &c->spec.mounts[i];

		if (m->attach < 0)
			continue;
		if (c->attaches[m->attach].overlay) {
			if (oci_overlay_check(c->attaches[m->attach].host_path, m->destination,
					      why))
				return -EINVAL;
			continue;
		}
		if (stat(m->source, &st) < 0) {
			snprintf(why, OCI_ERROR_MAX,
				 "%.150s: mounts[%u] (%.100s): source %.150s: %s", file, i,
				 m->destination, m->source, strerror(errno));
			return -EINVAL;
		}
		m->is_file = !S_ISDIR(st.st_mode);
		c->attaches[m->attach].is_file = m->is_file;
	}
	return 0;
}

/* Those that the sandbox has as its own are not entered; a path that leads nowhere is an error all the same, as with runc. */
static int check_namespaces(const struct oci_config *c, char *why)
{
	const json_t *list = json_object_get(json_object_get(c->json, "linux"), "namespaces");

	for (size_t i = 0; i < json_array_size(list); i++) {
		const char *path =
			json_string_value(json_object_get(json_array_get(list, i), "path"));
		struct stat st;

		if (!path || !*path || lstat(path, &st) == 0)
			continue;
		snprintf(why, OCI_ERROR_MAX, "linux.namespaces[%zu].path %.300s: %s", i, path,
			 strerror(errno));
		return -ENOENT;
	}
	return 0;
}

int oci_config_load(const char *bundle, struct oci_config *ret, char *why)
{
	char path[4200], *json;
	struct stat st;
	size_t size;
	int err;

	if (stat(bundle, &st) < 0 || !S_ISDIR(st.st_mode)) {
		snprintf(why, OCI_ERROR_MAX,
			 "bundle %.300s: no such directory; give one with --bundle", bundle);
		return -ENOENT;
	}
	snprintf(path, sizeof(path), "%.4000s/config.json", bundle);
	err = io_read_file_at(AT_FDCWD, path, OCI_CONFIG_MAX, &json, &size);
	if (err) {
		snprintf(why, OCI_ERROR_MAX, "%.300s: %s%s", path, strerror(-err),
			 err == -ENOENT ? "; 'moat spec --bundle DIR' writes one" : "");
		return err;
	}
	err = oci_config_parse(json, size, path, bundle, ret, why);
	free(json);
	if (!err) {
		err = check_sources(ret, path, why);
		if (!err)
			err = check_namespaces(ret, why);
		if (err)
			oci_config_fini(ret);
	}
	return err;
}

void oci_config_fini(struct oci_config *c)
{
	for (unsigned i = 0; i < c->nattaches; i++)
		free(c->attaches[i].host_path);
	free(c->attaches);
	free(c->oci_version);
	json_decref(c->json);
	boot_spec_fini(&c->spec);
	memset(c, 0, sizeof(*c));
}
