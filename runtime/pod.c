/* runtime/pod.c - finding the sandbox of a pod's container, and whose namespaces it shares there. */
#include <dirent.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "runtime/cli.h"
#include "runtime/container.h"
#include "runtime/pod.h"

#define MEMBERS_MAX 4096

/* A container that lives. */
struct member {
	char *id, *sandbox; /* sandbox: of whom it is a further container; its own id otherwise */
	int pid;
};

struct members {
	struct member *list;
	size_t count;
};

static void members_fini(struct members *m)
{
	for (size_t i = 0; i < m->count; i++) {
		free(m->list[i].id);
		free(m->list[i].sandbox);
	}
	free(m->list);
	*m = (struct members){0};
}

static void members_add(struct members *m, const char *id)
{
	struct member *grown, one = {0};
	struct state_dir dir;
	const char *sandbox;
	json_t *j;

	if (m->count == MEMBERS_MAX || state_open(cli.root, id, true, &dir))
		return;
	j = state_is_live(&dir) ? state_load(&dir, "state.json") : NULL;
	state_close(&dir);
	one.pid = (int)json_integer_value(json_object_get(j, "pid"));
	sandbox = json_string_value(json_object_get(j, "sandbox"));
	if (one.pid > 0 && (grown = realloc(m->list, (m->count + 1) * sizeof(*grown)))) {
		m->list = grown;
		one.id = strdup(id);
		one.sandbox = strdup(sandbox ? sandbox : id);
		grown[m->count++] = one;
	}
	json_decref(j);
}

static void members_load(struct members *m)
{
	DIR *dir = opendir(cli.root);
	struct dirent *e;

	*m = (struct members){0};
	while (dir && (e = readdir(dir)) != NULL)
		if (e->d_name[0] != '.' && cli_id_valid(e->d_name))
			members_add(m, e->d_name);
	if (dir)
		closedir(dir);
}

static const struct member *member_of_id(const struct members *m, const char *id)
{
	for (size_t i = 0; i < m->count; i++)
		if (m->list[i].id && strcmp(m->list[i].id, id) == 0)
			return &m->list[i];
	return NULL;
}

/* Is the namespace at `path` that of process pid (0: our own)? */
static bool is_ns_of(const char *path, int pid, const char *type)
{
	struct stat given, its;
	char name[64];

	if (pid)
		snprintf(name, sizeof(name), "/proc/%d/ns/%s", pid, type);
	else
		snprintf(name, sizeof(name), "/proc/self/ns/%s", type);
	return stat(path, &given) == 0 && stat(name, &its) == 0 && given.st_dev == its.st_dev &&
	       given.st_ino == its.st_ino;
}

/* Whose it is: the first container of a sandbox before those that share it. NULL: nobody's. */
static const struct member *member_of_ns(const struct members *m, const char *path,
					 const char *type)
{
	const struct member *found = NULL;

	for (size_t i = 0; i < m->count; i++)
		if (is_ns_of(path, m->list[i].pid, type) &&
		    (!found || strcmp(m->list[i].id, m->list[i].sandbox) == 0))
			found = &m->list[i];
	return found;
}

static const char *annotation(const struct oci_config *c, const char *containerd, const char *crio)
{
	const char *s = json_string_value(json_object_get(c->annotations, containerd));

	return s ? s : json_string_value(json_object_get(c->annotations, crio));
}

/* Of a pod's container: its sandbox's id. NULL: it is none, or nothing says so. */
static const char *annotated_sandbox(const struct oci_config *c)
{
	const char *type = annotation(c, "io.kubernetes.cri.container-type",
				      "io.kubernetes.cri-o.ContainerType"),
		   *id = annotation(c, "io.kubernetes.cri.sandbox-id",
				    "io.kubernetes.cri-o.SandboxID");

	return type && id && strcmp(type, "container") == 0 ? id : NULL;
}

static int refuse(const char *type, const char *path)
{
	cli_error("linux.namespaces: %s %s: not of a container of moat's in %s. Processes and "
		  "System V "
		  "objects of a sandbox are its own kernel's, so they can be shared with another "
		  "container of moat's, which this one joins, and with nothing else",
		  type, path, cli.root);
	return -EINVAL;
}

/* By a namespace that can be had in its sandbox only. Return 0 with *ret (NULL: none), or -EINVAL. */
static int by_namespace(const struct members *m, const struct oci_config *c,
			const struct member **ret)
{
	const struct {
		const char *type, *path;
	} given[] = {{"pid", c->pid_ns_path}, {"ipc", c->ipc_ns_path}};

	*ret = NULL;
	for (size_t i = 0; i < ARRAY_SIZE(given); i++) {
		const struct member *owner;

		if (!given[i].path)
			continue;
		owner = member_of_ns(m, given[i].path, given[i].type);
		if (!owner)
			return refuse(given[i].type, given[i].path);
		*ret = owner;
	}
	return 0;
}

static bool same_network(const struct network_options *n, int pid)
{
	const char *path = n->host ? "/proc/self/ns/net" : n->path;

	return path && is_ns_of(path, pid, "net");
}

/* Why it cannot be added to that sandbox; NULL: it can. */
static const char *obstacle(const struct network_options *network, const struct member *sandbox)
{
	if (!same_network(network, sandbox->pid))
		return "a network namespace of another kind: a sandbox has one network (give it "
		       "that "
		       "container's, as with --network=container:)";
	return NULL;
}

/*
 * Whose namespace of a kind it gets: `path`'s owner, its own (NULL), or, where the configuration asks for none (the host's), the sandbox's:
 * that is what the host is to a pod. Return 0 or -EINVAL.
 */
static int share(const struct members *m, const struct member *sandbox, const char *type,
		 bool asked, const char *path, bool must, char **ret)
{
	const struct member *owner = sandbox;

	if (asked && !path)
		return 0;
	if (path)
		owner = member_of_ns(m, path, type);
	if (!owner || strcmp(owner->sandbox, sandbox->id) != 0)
		return must ? refuse(type, path) : 0;
	*ret = strdup(owner->id);
	return *ret ? 0 : -ENOMEM;
}

static int join(struct pod *p, struct oci_config *c, const struct members *m,
		const struct member *sandbox)
{
	struct container first;
	int err = container_load(sandbox->id, false, &first);

	if (err)
		return err;
	if (first.status != CONTAINER_RUNNING && first.status != CONTAINER_CREATED) {
		cli_error("the pod's sandbox %s is %s", sandbox->id,
			  container_status_name(first.status));
		err = -EINVAL;
	}
	if (!err)
		err = share(m, sandbox, "pid", c->pid_ns, c->pid_ns_path, true, &c->spec.pid_of);
	if (!err)
		err = share(m, sandbox, "ipc", c->ipc_ns, c->ipc_ns_path, true, &c->spec.ipc_of);
	if (!err)
		err = share(m, sandbox, "uts", c->uts_ns, c->uts_ns_path, false, &c->spec.uts_of);
	if (!err) {
		p->sock = state_connect(&first.dir);
		p->sandbox = strdup(sandbox->id);
		err = p->sock < 0 ? p->sock : p->sandbox ? 0 : -ENOMEM;
		if (err)
			cli_error("the pod's sandbox %s: %s", sandbox->id, strerror(-err));
	}
	container_unload(&first);
	return err;
}

void pod_init(struct pod *p)
{
	*p = (struct pod){.sock = -1};
}

int pod_find(struct pod *p, struct oci_config *c, const struct network_options *network)
{
	const struct member *other = NULL, *sandbox = NULL;
	const char *why, *annotated = annotated_sandbox(c);
	struct members m;
	int err = 0;

	if (!annotated && !c->pid_ns_path && !c->ipc_ns_path)
		return 0;
	members_load(&m);
	if (annotated)
		other = member_of_id(&m, annotated);
	if (!other)
		err = by_namespace(&m, c, &other);
	if (!err && other)
		sandbox = member_of_id(&m, other->sandbox);
	if (!err && other && !sandbox && (c->pid_ns_path || c->ipc_ns_path)) {
		cli_error(
			"it cannot share the pid or ipc namespace of container %s: the sandbox %s "
			"that it is in has ended",
			other->id, other->sandbox);
		err = -EINVAL;
	}
	if (!sandbox)
		goto out;
	why = obstacle(network, sandbox);
	if (!why) {
		err = join(p, c, &m, sandbox);
	} else if (c->pid_ns_path || c->ipc_ns_path) {
		cli_error("it cannot share the pid or ipc namespace of container %s: it has %s",
			  other->id, why);
		err = -EINVAL;
	} else {
		cli_warn("it gets a sandbox of its own, not that of the pod: it has %s", why);
	}
out:
	members_fini(&m);
	return err;
}

void pod_fini(struct pod *p)
{
	free(p->sandbox);
	if (p->sock >= 0)
		close(p->sock);
	pod_init(p);
}

bool pod_is_shared(const char *id)
{
	struct members m;
	bool shared = false;

	members_load(&m);
	for (size_t i = 0; i < m.count; i++)
		if (m.list[i].id && m.list[i].sandbox && strcmp(m.list[i].id, id) != 0 &&
		    strcmp(m.list[i].sandbox, id) == 0)
			shared = true;
	members_fini(&m);
	return shared;
}
