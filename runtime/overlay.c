/* runtime/overlay.c - --overlay: see overlay.h. */
#include "runtime/overlay.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/file.h>
#include <unistd.h>

#include "runtime/cli.h"

static int refuse(const char *item, const char *why)
{
	cli_error("--overlay: '%s' %s; it is none, or PLACE:memory or PLACE:dir=DIR, comma "
		  "separated, where PLACE is root, all or a bind mount's destination",
		  item, why);
	return -EINVAL;
}

struct plan {
	struct oci_config *c;
	struct overlay_locks *locks;
	bool annotation; /* not the flag: who wrote it may not know the host */
	bool root; /* root is named already */
};

/* Two containers' copies of one lower tree in one upper directory would be garbage: locked, for as long as caller or monitor live. */
static int lock_dir(struct overlay_locks *locks, const char *dir)
{
	int fd, err;

	if (locks->count == OVERLAY_DIRS_MAX) {
		cli_error("--overlay: more than %d directories", OVERLAY_DIRS_MAX);
		return -E2BIG;
	}
	fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0) {
		locks->fds[locks->count++] = fd;
		return 0;
	}
	err = -errno;
	if (err == -EWOULDBLOCK)
		cli_error("--overlay: %s takes another container's writes: give each container a "
			  "directory of its own",
			  dir);
	else
		cli_error("--overlay: %s: %s; make the directory first", dir, strerror(-err));
	if (fd >= 0)
		close(fd);
	return err;
}

/* BOOT_OVERLAY_* of MEDIUM, or a negative error that was said. */
static int medium(struct plan *p, const char *item, const char *word)
{
	char *path;
	int n, err;

	if (strcmp(word, "memory") == 0)
		return BOOT_OVERLAY_MEMORY;
	if (strncmp(word, "dir=", 4) != 0 || !word[4])
		return refuse(item, "names no medium");
	if (p->annotation) {
		cli_error("annotation %s: dir=DIR is for --overlay only", OVERLAY_ANNOTATION);
		return -EPERM;
	}
	path = realpath(word + 4, NULL);
	if (!path) {
		err = -errno;
		cli_error("--overlay: %s: %s; make the directory first", word + 4, strerror(-err));
		return err;
	}
	err = lock_dir(p->locks, path);
	if (err) {
		free(path);
		return err;
	}
	n = oci_attach_add(p->c, path, false, false);
	return n < 0 ? n : (int)BOOT_OVERLAY_DIR((unsigned)n);
}

static void over_root(struct plan *p, unsigned overlay)
{
	p->root = true;
	p->c->spec.rootfs_overlay = overlay;
	p->c->attaches[0].readonly = true;
}

static void over_mount(struct plan *p, struct boot_mount *m, unsigned overlay)
{
	m->overlay = overlay;
	p->c->attaches[m->attach].readonly = true;
}

/* What has none yet. */
static void over_all(struct plan *p, unsigned overlay)
{
	struct boot_spec *s = &p->c->spec;

	if (!p->root)
		over_root(p, overlay);
	for (unsigned i = 0; i < s->nmounts; i++)
		if (s->mounts[i].attach >= 0 && !s->mounts[i].is_file && !s->mounts[i].overlay)
			over_mount(p, &s->mounts[i], overlay);
}

static struct boot_mount *find_mount(struct boot_spec *s, const char *place)
{
	/* The last one is what shows. */
	for (unsigned i = s->nmounts; i-- > 0;)
		if (strcmp(s->mounts[i].destination, place) == 0)
			return &s->mounts[i];
	return NULL;
}

/* One PLACE:MEDIUM, which is taken apart. */
static int plan_one(struct plan *p, char *item)
{
	char *colon = strchr(item, ':');
	bool root = false, all = false;
	struct boot_mount *m = NULL;
	int overlay;

	if (!colon || colon == item)
		return refuse(item, "is no PLACE:MEDIUM");
	*colon = '\0';
	root = strcmp(item, "root") == 0;
	all = strcmp(item, "all") == 0;
	if (!root && !all) {
		m = find_mount(&p->c->spec, item);
		if (!m || m->attach < 0 || m->is_file)
			return refuse(item, "is no bind mount of a directory");
	}
	if (root ? p->root : m && m->overlay)
		return refuse(item, "is named twice");
	overlay = medium(p, item, colon + 1);
	if (overlay < 0)
		return overlay;
	if (all && overlay != BOOT_OVERLAY_MEMORY)
		return refuse(item, "takes memory only: a directory holds one tree");
	if (m)
		over_mount(p, m, (unsigned)overlay);
	else if (root)
		over_root(p, (unsigned)overlay);
	else
		over_all(p, (unsigned)overlay);
	return 0;
}

int overlay_plan(struct oci_config *c, struct overlay_locks *locks)
{
	struct plan p = {.c = c, .locks = locks, .annotation = !cli.overlay};
	const char *text =
		cli.overlay
			? cli.overlay
			: json_string_value(json_object_get(c->annotations, OVERLAY_ANNOTATION));
	char *copy, *next, *item;
	int err = 0;

	if (!text || strcmp(text, "none") == 0)
		return 0;
	copy = strdup(text);
	if (!copy)
		return -ENOMEM;
	for (next = copy; !err && (item = strsep(&next, ","));)
		err = plan_one(&p, item);
	free(copy);
	return err;
}
