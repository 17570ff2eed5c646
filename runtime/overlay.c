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

/* Two containers' copies of one lower tree in one upper directory would be garbage: locked, for as long as monitor or caller live. */
static int lock_dir(const char *dir)
{
	int fd = open(dir, O_RDONLY | O_DIRECTORY | O_CLOEXEC), err;

	if (fd >= 0 && flock(fd, LOCK_EX | LOCK_NB) == 0)
		return 0;
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
static int medium(struct oci_config *c, const char *item, const char *word)
{
	char *path;
	int n, err;

	if (strcmp(word, "memory") == 0)
		return BOOT_OVERLAY_MEMORY;
	if (strncmp(word, "dir=", 4) != 0 || !word[4])
		return refuse(item, "names no medium");
	path = realpath(word + 4, NULL);
	if (!path) {
		cli_error("--overlay: %s: %m; make the directory first", word + 4);
		return -errno;
	}
	err = lock_dir(path);
	if (err) {
		free(path);
		return err;
	}
	n = oci_attach_add(c, path, false, false);
	return n < 0 ? n : (int)BOOT_OVERLAY_DIR((unsigned)n);
}

static void over_root(struct oci_config *c, unsigned overlay)
{
	c->spec.rootfs_overlay = overlay;
	c->attaches[0].readonly = true;
}

static void over_mount(struct oci_config *c, struct boot_mount *m, unsigned overlay)
{
	m->overlay = overlay;
	c->attaches[m->attach].readonly = true;
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
static int plan_one(struct oci_config *c, char *item)
{
	char *colon = strchr(item, ':');
	struct boot_spec *s = &c->spec;
	struct boot_mount *m = NULL;
	int overlay;

	if (!colon || colon == item)
		return refuse(item, "is no PLACE:MEDIUM");
	*colon = '\0';
	if (strcmp(item, "root") != 0 && strcmp(item, "all") != 0) {
		m = find_mount(s, item);
		if (!m || m->attach < 0 || m->is_file)
			return refuse(item, "is no bind mount of a directory");
		if (m->overlay)
			return refuse(item, "is named twice");
	}
	overlay = medium(c, item, colon + 1);
	if (overlay < 0)
		return overlay;
	if (strcmp(item, "all") == 0 && overlay != BOOT_OVERLAY_MEMORY)
		return refuse(item, "takes memory only: a directory holds one tree");
	if (m)
		over_mount(c, m, (unsigned)overlay);
	else
		over_root(c, (unsigned)overlay);
	for (unsigned i = 0; strcmp(item, "all") == 0 && i < s->nmounts; i++)
		if (s->mounts[i].attach >= 0 && !s->mounts[i].is_file && !s->mounts[i].overlay)
			over_mount(c, &s->mounts[i], (unsigned)overlay);
	return 0;
}

int overlay_plan(struct oci_config *c)
{
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
		err = plan_one(c, item);
	free(copy);
	return err;
}
