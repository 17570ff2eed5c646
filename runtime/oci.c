/*
 * runtime/oci.c - config.json to a boot spec.
 *
 * Reads what the sandbox acts on; hooks, resources and annotations are kept as JSON for those who do. Members it does not know are
 * ignored, as the specification demands.
 */
#include <fcntl.h>
#include <jansson.h>
#include <linux/magic.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>
#include <sys/stat.h>
#include <sys/statfs.h>

#include "base/io.h"
#include "runtime/oci.h"
#include "runtime/oci_names.h"
#include "runtime/oci_parse.h"

static char *path_from(struct oci_parse *p, const char *path)
{
	char *out = NULL;

	if (path[0] == '/')
		return oci_dup(p, path);
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

static void parse_root(struct oci_parse *p, const json_t *root)
{
	const json_t *r = oci_member(p, root, "", "root", JSON_OBJECT);
	const char *path = r ? oci_member_string(p, r, "root", "path") : NULL;
	char *host;

	if (p->err)
		return;
	if (!path || !*path) {
		oci_parse_error(
			p,
			"root.path is missing: name the directory that holds the root filesystem");
		return;
	}
	p->c->spec.rootfs_readonly = oci_member_bool(p, r, "root", "readonly");
	host = path_from(p, path);
	if (host && oci_attach_add(p->c, host, p->c->spec.rootfs_readonly, false) < 0)
		p->err = -ENOMEM;
}

/* Splits the options between VFS flags and the filesystem's own data. */
static void parse_mount_options(struct oci_parse *p, const json_t *list, size_t index,
				struct boot_mount *m)
{
	struct buf data;

	buf_init(&data, 65536);
	for (size_t i = 0; i < json_array_size(list); i++) {
		const char *o = json_string_value(json_array_get(list, i));

		if (!o) {
			oci_parse_error(p, "mounts[%zu].options[%zu] must be a string", index, i);
			break;
		}
		if (strcmp(o, "idmap") == 0 || strcmp(o, "ridmap") == 0) {
			oci_parse_error(p, "mounts[%zu]: idmapped mounts are not supported", index);
			break;
		}
		if (oci_mount_option(o, &m->flags, &m->propagation))
			continue;
		if (data.len)
			buf_putc(&data, ',');
		buf_puts(&data, o);
	}
	if (!p->err && data.len)
		m->data = oci_dup(p, data.data);
	buf_fini(&data);
}

/*
 * Has /sys/fs/cgroup no hierarchies below it? Where it has, as with v1, "ro" of a bind of it is about the tmpfs that they are on, and a systemd inside counts on it:
 * -v /sys/fs/cgroup:/sys/fs/cgroup:ro is how it has been run for years.
 */
static bool host_is_unified(void)
{
	struct statfs fs;

	return statfs("/sys/fs/cgroup", &fs) == 0 && fs.f_type == CGROUP2_SUPER_MAGIC;
}

static void parse_mount(struct oci_parse *p, const json_t *j, size_t index, struct boot_mount *m)
{
	char where[32];
	const char *dst, *type, *src;
	bool overlay;

	snprintf(where, sizeof(where), "mounts[%zu]", index);
	m->attach = -1;
	if (!json_is_object(j)) {
		oci_parse_error(p, "%s must be an object", where);
		return;
	}
	dst = oci_member_string(p, j, where, "destination");
	type = oci_member_string(p, j, where, "type");
	src = oci_member_string(p, j, where, "source");
	if (p->err)
		return;
	if (!dst || !*dst) {
		oci_parse_error(p, "%s.destination is missing", where);
		return;
	}
	/* Without them the files would be of other owners than was asked for. */
	if (json_array_size(json_object_get(j, "uidMappings")) ||
	    json_array_size(json_object_get(j, "gidMappings"))) {
		oci_parse_error(p, "%s (%s): idmapped mounts are not supported", where, dst);
		return;
	}
	if (asprintf(&m->destination, "%s%s", dst[0] == '/' ? "" : "/", dst) < 0) {
		m->destination = NULL;
		p->err = -ENOMEM;
		return;
	}
	parse_mount_options(p, oci_member(p, j, where, "options", JSON_ARRAY), index, m);
	if (p->err)
		return;
	if (m->flags & MS_BIND) {
		type = oci_own_instead(src, m->destination);
		if (type && !*type) {
			p->cgroup_writable |= !(m->flags & MS_RDONLY);
			return;
		}
		if (type && strcmp(type, "cgroup") == 0 && (m->flags & MS_REC) &&
		    !host_is_unified())
			m->flags &= ~(uint64_t)MS_RDONLY;
		m->flags &= type ? ~(uint64_t)(MS_BIND | MS_REC) : ~0ull;
		type = type ? type : "bind";
	}
	if (!type || !oci_mount_type_known(type)) {
		oci_parse_error(p,
				"%s (%s): unknown type '%s'; known are proc, sysfs, tmpfs, devpts, "
				"mqueue, cgroup, bind, overlay, virtiofs, 9p",
				where, dst, type ? type : "");
		return;
	}
	overlay = strcmp(type, "overlay") == 0;
	m->type = oci_dup(p, overlay ? "bind" : type);
	if (overlay || strcmp(type, "bind") == 0 || strcmp(type, "none") == 0) {
		if (!overlay && (!src || !*src)) {
			oci_parse_error(p, "%s (%s): a bind mount needs a source", where, dst);
			return;
		}
		m->source = overlay ? oci_dup(p, "overlay") : path_from(p, src);
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
		m->source = oci_dup(p, src && *src ? src : type);
	}
}

/* A bind mount of the host's /dev there, as of -v /dev:/dev. */
static bool is_host_dev(const json_t *m)
{
	const char *dst = json_string_value(json_object_get(m, "destination"));
	const char *src = json_string_value(json_object_get(m, "source"));
	const char *type = json_string_value(json_object_get(m, "type"));
	const json_t *options = json_object_get(m, "options");
	bool bind = type && strcmp(type, "bind") == 0;

	for (size_t i = 0; i < json_array_size(options); i++) {
		const char *o = json_string_value(json_array_get(options, i));

		bind = bind || (o && (strcmp(o, "bind") == 0 || strcmp(o, "rbind") == 0));
	}
	return bind && dst && src && strcmp(dst, "/dev") == 0 && strcmp(src, "/dev") == 0;
}

/* The list with the sandbox's own devices for the host's, of which the gofer serves none. Return: a reference; NULL: no memory. */
static json_t *with_own_dev(const json_t *list)
{
	static const char own[] =
		"[{'destination': '/dev', 'type': 'tmpfs', 'source': 'tmpfs',"
		"  'options': ['nosuid', 'strictatime', 'mode=755', 'size=65536k']},"
		" {'destination': '/dev/pts', 'type': 'devpts', 'source': 'devpts',"
		"  'options': ['nosuid', 'noexec', 'newinstance', 'ptmxmode=0666', 'mode=0620', "
		"'gid=5']},"
		" {'destination': '/dev/shm', 'type': 'tmpfs', 'source': 'shm',"
		"  'options': ['nosuid', 'noexec', 'nodev', 'mode=1777', 'size=65536k']},"
		" {'destination': '/dev/mqueue', 'type': 'mqueue', 'source': 'mqueue',"
		"  'options': ['nosuid', 'noexec', 'nodev']}]";
	json_t *all = json_array(), *dev;
	char text[sizeof(own)];
	int err = all ? 0 : -1;

	for (size_t i = 0; i < sizeof(own); i++)
		text[i] = own[i] == '\'' ? '"' : own[i];
	dev = json_loads(text, 0, NULL);
	for (size_t i = 0; i < json_array_size(list) && !err; i++) {
		json_t *m = json_array_get(list, i);

		err = is_host_dev(m) ? dev ? json_array_extend(all, dev) : -1
				     : json_array_append(all, m);
	}
	json_decref(dev);
	if (!err)
		return all;
	json_decref(all);
	return NULL;
}

/*
 * On a host with v1 podman's --systemd gives the container the hierarchy name=systemd to write to, below a /sys/fs/cgroup that is read-only. Here that is cgroup2
 * itself, as podman mounts it on a host with v2.
 */
static void make_cgroup_writable(struct boot_spec *s)
{
	for (unsigned i = 0; i < s->nmounts; i++)
		if (strcmp(s->mounts[i].type, "cgroup") == 0 &&
		    strcmp(s->mounts[i].destination, "/sys/fs/cgroup") == 0)
			s->mounts[i].flags &= ~(uint64_t)MS_RDONLY;
}

static void parse_mounts(struct oci_parse *p, const json_t *root)
{
	json_t *list = with_own_dev(oci_member(p, root, "", "mounts", JSON_ARRAY));
	size_t n = json_array_size(list);
	struct boot_spec *s = &p->c->spec;

	s->mounts = calloc(n ? n : 1, sizeof(*s->mounts));
	if (!list || !s->mounts) {
		p->err = -ENOMEM;
		goto out;
	}
	if (n > BOOT_MOUNTS_MAX) {
		oci_parse_error(p, "mounts has more than %d entries", BOOT_MOUNTS_MAX);
		goto out;
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
	if (p->cgroup_writable)
		make_cgroup_writable(s);
out:
	json_decref(list);
}

/* Names from the file are quoted in messages: whatever is in them, a message stays one line. */
static void make_one_line(char *why)
{
	for (; *why; why++)
		if ((unsigned char)*why < 0x20 || *why == 0x7f)
			*why = '?';
}

static const json_t *parse_annotations(struct oci_parse *p, const json_t *root)
{
	const json_t *all = oci_member(p, root, "", "annotations", JSON_OBJECT);
	const char *name;
	json_t *value;

	json_object_foreach((json_t *)all, name, value)
	{
		if (!p->err && !json_is_string(value) && !json_is_null(value))
			oci_parse_error(p, "annotations.%.100s must be a string", name);
	}
	return all;
}

int oci_config_parse(const char *json, size_t size, const char *name, const char *bundle,
		     struct oci_config *ret, char *why)
{
	struct oci_parse p = {.c = ret, .file = name, .bundle = bundle, .why = why};
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
		oci_parse_error(&p, "must be a JSON object");
	version = p.err ? NULL : oci_member_string(&p, root, "", "ociVersion");
	if (!p.err && !version)
		oci_parse_error(&p, "ociVersion is missing: is this an OCI bundle's config.json?");
	else if (!p.err && strncmp(version, "1.", 2) != 0)
		oci_parse_error(&p, "ociVersion '%s' is not supported; this moat reads 1.x",
				version);
	if (!p.err) {
		ret->oci_version = oci_dup(&p, version);
		parse_root(&p, root);
	}
	if (!p.err)
		oci_parse_process(&p, root);
	if (!p.err)
		parse_mounts(&p, root);
	if (!p.err)
		oci_parse_linux(&p, root);
	hostname = p.err ? NULL : oci_member_string(&p, root, "", "hostname");
	if (hostname && strlen(hostname) > 64)
		oci_parse_error(&p, "hostname is longer than 64 bytes");
	else if (hostname && *hostname)
		ret->spec.hostname = oci_dup(&p, hostname);
	hostname = p.err ? NULL : oci_member_string(&p, root, "", "domainname");
	if (hostname && strlen(hostname) > 64)
		oci_parse_error(&p, "domainname is longer than 64 bytes");
	else if (hostname && *hostname)
		ret->spec.domainname = oci_dup(&p, hostname);
	if (!p.err) {
		oci_parse_hooks(&p, root);
		ret->annotations = parse_annotations(&p, root);
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
