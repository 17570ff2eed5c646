/*
 * runtime/install.c - moat install and uninstall: docker and podman learn of the runtime, or forget it.
 *
 * docker: "path" of one entry of "runtimes" in daemon.json; everything else in it is kept, and so are the file's owner and mode.
 * podman: a file of its own in containers.conf.d. What somebody else wrote there, or cannot be understood, is left as it is, and
 * then nothing at all is changed. containerd's configuration is no file that a program should edit: the lines are printed.
 */
#include <errno.h>
#include <fcntl.h>
#include <jansson.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <unistd.h>

#include "base/io.h"
#include "runtime/cli.h"

#define DAEMON_JSON "/etc/docker/daemon.json"
#define CONTAINERS_CONF_D "/etc/containers/containers.conf.d"
#define PODMAN_HEAD "# Written by moat install.\n"
#define CONFIG_MAX (1u << 20)
#define NAME_SIZE_MAX 100
#define PREFIX_SIZE_MAX 3000
#define DIGITS_MIN 15 /* that many of any number keep their text in a double */
#define DIGITS_MAX 17 /* that many tell every double from any other */

struct install {
	const char *name; /* what the runtime is called */
	char path[PATH_MAX]; /* this program */
	const char *prefix; /* before /etc, for tests and images; "" */
	bool remove;
};

/* A file that is to be written, or removed. Nothing on the disk changes before every file's change is known and staged. */
struct change {
	char path[PATH_MAX]; /* as it is called */
	char real[PATH_MAX]; /* where its symlinks lead: that is what is written */
	bool there, link;
	struct stat st; /* of what is there */
	char *text; /* the new content */
	bool remove; /* or this; neither: it stays as it is */
	char tmp[PATH_MAX]; /* the new content, staged beside `real`; "": not */
};

/* What is at c->path. Return: 0; -errno, told, where it is nothing that can be read and replaced. */
static int look(const struct install *in, struct change *c)
{
	struct stat st;
	int err;

	c->link = lstat(c->path, &st) == 0 && S_ISLNK(st.st_mode);
	if (realpath(c->path, c->real) && stat(c->real, &c->st) == 0) {
		c->there = true;
		if (S_ISREG(c->st.st_mode))
			return 0;
		cli_error("%s: not a regular file; it is left as it is", c->path);
		return -EINVAL;
	}
	err = -errno;
	snprintf(c->real, sizeof(c->real), "%s", c->path);
	/* Nothing there, nothing to take back; also where a link leads nowhere. */
	if (err == -ENOENT && (!c->link || in->remove))
		return 0;
	if (err == -ENOENT)
		cli_error("%s: a symbolic link to a file that does not exist; make that file "
			  "(empty) or remove the link",
			  c->path);
	else
		cli_error("%s: %s", c->path, strerror(-err));
	return err;
}

/* The whole of c->real, "" if there is none; -errno is told. */
static int read_there(const struct change *c, char **ret_text, size_t *ret_size)
{
	int err;

	if (!c->there) {
		*ret_size = 0;
		*ret_text = strdup("");
		return *ret_text ? 0 : -ENOMEM;
	}
	err = io_read_file_at(AT_FDCWD, c->real, CONFIG_MAX, ret_text, ret_size);
	if (err)
		cli_error("%s: %s", c->path, strerror(-err));
	return err;
}

static int mkdir_for(const char *path)
{
	char dir[PATH_MAX];

	snprintf(dir, sizeof(dir), "%s", path);
	for (char *p = dir + 1; *p; p++)
		if (*p == '/') {
			*p = '\0';
			if (mkdir(dir, 0755) < 0 && errno != EEXIST) {
				int err = -errno;

				cli_error("%s: %s", dir, strerror(-err));
				return err;
			}
			*p = '/';
		}
	return 0;
}

/* Owner, group and mode are those of what is replaced. */
static int fill(int fd, const struct change *c)
{
	struct stat st;
	int err = io_write_full(fd, c->text, strlen(c->text));

	if (err)
		return err;
	if (fstat(fd, &st) < 0)
		return -errno;
	if (c->there && (st.st_uid != c->st.st_uid || st.st_gid != c->st.st_gid) &&
	    fchown(fd, c->st.st_uid, c->st.st_gid) < 0)
		return -errno;
	if (fchmod(fd, c->there ? c->st.st_mode & 07777 : 0644) < 0 || fsync(fd) < 0)
		return -errno;
	return 0;
}

/* The new file beside the old one, under a name that nobody can foresee and that is nobody's link. */
static int stage(struct change *c)
{
	size_t size = sizeof(c->tmp);
	int fd, err;

	if (!c->text)
		return 0;
	if (!c->there) {
		err = mkdir_for(c->real);
		if (err)
			return err;
	}
	fd = -ENAMETOOLONG;
	if ((size_t)snprintf(c->tmp, size, "%s.moat-XXXXXX", c->real) < size) {
		fd = mkostemp(c->tmp, O_CLOEXEC);
		if (fd < 0)
			fd = -errno;
	}
	if (fd < 0) {
		c->tmp[0] = '\0';
		err = fd;
	} else {
		err = fill(fd, c);
		close(fd);
	}
	if (err)
		cli_error("%s: %s", c->path, strerror(-err));
	return err;
}

/* A name that changed in the directory is kept over a crash. */
static void sync_directory(const char *path)
{
	char dir[PATH_MAX];
	int fd;

	snprintf(dir, sizeof(dir), "%s", path);
	*strrchr(dir, '/') = '\0';
	fd = open(dir[0] ? dir : "/", O_RDONLY | O_DIRECTORY | O_CLOEXEC);
	if (fd < 0)
		return;
	fsync(fd); /* some filesystems cannot */
	close(fd);
}

static int commit(struct change *c)
{
	int err = 0;

	if (c->text && rename(c->tmp, c->real) < 0)
		err = -errno;
	if (c->remove && unlink(c->path) < 0)
		err = -errno;
	if (err) {
		cli_error("%s: %s", c->path, strerror(-err));
		return err;
	}
	c->tmp[0] = '\0';
	if (c->text || c->remove)
		sync_directory(c->text ? c->real : c->path);
	return 0;
}

static void change_fini(struct change *c)
{
	if (c->tmp[0])
		unlink(c->tmp);
	free(c->text);
}

/* A program of this one's name is this one, of another version or place; so is a link to it. */
static bool is_ours(const struct install *in, const char *path)
{
	const char *base = strrchr(path, '/'), *own = strrchr(in->path, '/');
	struct stat st, self;

	return (base && own && strcmp(base, own) == 0) ||
	       (stat(path, &st) == 0 && stat(in->path, &self) == 0 && st.st_dev == self.st_dev &&
		st.st_ino == self.st_ino);
}

/*
 * The entry of that name in "runtimes": NULL if there is none. What is not ours is told and -EINVAL: another's program, or another
 * way to name one (docker's runtimeType).
 */
static int find_entry(const struct install *in, json_t *runtimes, const char *file,
		      json_t **ret_entry)
{
	json_t *entry = json_object_get(runtimes, in->name), *path;
	const char *other;

	*ret_entry = entry;
	if (!entry)
		return 0;
	path = json_object_get(entry, "path");
	if (json_is_object(entry) && !path && !json_object_get(entry, "runtimeType"))
		return 0;
	other = json_string_value(path);
	if (other && is_ours(in, other))
		return 0;
	cli_error("%s: runtime '%s' is %s%s; it is left as it is: give another --name, or take it "
		  "out there",
		  file, in->name, other ? "another program's: " : "not one of this program",
		  other ? other : "");
	return -EINVAL;
}

/* Only "path" is ours: arguments and whatever else the administrator gave the runtime stay. Return: as docker_edit. */
static int docker_add(const struct install *in, json_t *j, json_t *runtimes, json_t *entry)
{
	const char *path = json_string_value(json_object_get(entry, "path"));

	if (path && strcmp(path, in->path) == 0)
		return 0;
	if (!runtimes) {
		runtimes = json_object();
		if (json_object_set_new(j, "runtimes", runtimes) < 0)
			return -ENOMEM;
	}
	if (!entry) {
		entry = json_object();
		if (json_object_set_new(runtimes, in->name, entry) < 0)
			return -ENOMEM;
	}
	/* A path that is no UTF-8 is no JSON string. */
	if (json_object_set_new(entry, "path", json_string(in->path)) < 0) {
		cli_error("%s: cannot be written as JSON", in->path);
		return -EINVAL;
	}
	return 1;
}

/* "runtimes" of docker's configuration with ours or without. Return: 1 when that changed it, 0, -errno. */
static int docker_edit(const struct install *in, json_t *j, const char *path)
{
	json_t *runtimes = json_object_get(j, "runtimes"), *entry;
	const char *is_default = json_string_value(json_object_get(j, "default-runtime"));
	int err;

	if (runtimes && !json_is_object(runtimes)) {
		cli_error("%s: \"runtimes\" is not a JSON object; it is left as it is", path);
		return -EINVAL;
	}
	entry = json_object_get(runtimes, in->name);
	if (in->remove && entry && is_default && strcmp(is_default, in->name) == 0) {
		cli_error("%s: \"default-runtime\" is '%s': docker would not start without it; "
			  "change that first",
			  path, in->name);
		return -EINVAL;
	}
	err = find_entry(in, runtimes, path, &entry);
	if (err)
		return err;
	if (!in->remove)
		return docker_add(in, j, runtimes, entry);
	if (!entry)
		return 0;
	json_object_del(runtimes, in->name);
	if (json_object_size(runtimes) == 0)
		json_object_del(j, "runtimes");
	return 1;
}

/* With as few digits as every number needs to stay what it is: 0.1 is 0.1. */
static char *dump(const json_t *j)
{
	for (size_t digits = DIGITS_MIN; digits <= DIGITS_MAX; digits++) {
		auto_free char *text = json_dumps(j, JSON_INDENT(4) | JSON_REAL_PRECISION(digits));
		json_t *back = text ? json_loads(text, 0, NULL) : NULL;
		bool same = back && json_equal(j, back);
		char *line;

		json_decref(back);
		if (same)
			return asprintf(&line, "%s\n", text) < 0 ? NULL : line;
	}
	return NULL;
}

static int docker_plan(const struct install *in, struct change *c)
{
	auto_free char *text = NULL;
	json_error_t jerr;
	size_t size;
	json_t *j;
	int err;

	snprintf(c->path, sizeof(c->path), "%s%s", in->prefix, DAEMON_JSON);
	err = look(in, c);
	if (!err)
		err = read_there(c, &text, &size);
	if (err)
		return err;
	/* A key that is there twice would be there once. */
	j = size == 0 ? json_object() : json_loadb(text, size, JSON_REJECT_DUPLICATES, &jerr);
	if (!j && size)
		cli_error("%s:%d:%d: not valid JSON (%s); it is left as it is", c->path, jerr.line,
			  jerr.column, jerr.text);
	else if (!json_is_object(j))
		cli_error("%s: not a JSON object; it is left as it is", c->path);
	err = json_is_object(j) ? docker_edit(in, j, c->path) : -EINVAL;
	if (err > 0) {
		/* Nothing is left of it: docker does not need the file. But a link stays one. */
		c->remove = in->remove && json_object_size(j) == 0 && !c->link;
		c->text = c->remove ? NULL : dump(j);
		err = c->remove || c->text ? 0 : -ENOMEM;
	}
	json_decref(j);
	return err;
}

static int podman_plan(const struct install *in, struct change *c)
{
	auto_free char *text = NULL;
	bool plain = strcmp(in->name, "moat") == 0;
	size_t size;
	int err;

	snprintf(c->path, sizeof(c->path), "%s%s/%s%s.conf", in->prefix, CONTAINERS_CONF_D,
		 plain ? "" : "moat-", in->name);
	err = look(in, c);
	if (!err)
		err = read_there(c, &text, &size);
	if (err)
		return err;
	if (c->there && strncmp(text, PODMAN_HEAD, strlen(PODMAN_HEAD)) != 0) {
		cli_error("%s: not written by moat install; it is left as it is", c->path);
		return -EEXIST;
	}
	c->remove = in->remove && c->there;
	if (!in->remove && asprintf(&c->text, PODMAN_HEAD "[engine.runtimes]\n\"%s\" = [\"%s\"]\n",
				    in->name, in->path) < 0) {
		c->text = NULL;
		return -ENOMEM;
	}
	return 0;
}

/* Everything is looked at, then written beside what is there, and only then is anything changed. */
static int change_all(const struct install *in)
{
	struct change docker = {.tmp = ""}, podman = {.tmp = ""};
	int err = docker_plan(in, &docker);

	if (!err)
		err = podman_plan(in, &podman);
	if (!err)
		err = stage(&docker);
	if (!err)
		err = stage(&podman);
	if (!err)
		err = commit(&docker);
	if (!err && (docker.text || docker.remove))
		printf("%s: runtime '%s' %s; restart docker\n", docker.path, in->name,
		       in->remove ? "removed" : "added");
	else if (!err && !in->remove)
		printf("%s: runtime '%s' is there already\n", docker.path, in->name);
	if (!err)
		err = commit(&podman);
	if (!err && podman.text)
		printf("%s: runtime '%s' added; podman --runtime %s run ...\n", podman.path,
		       in->name, in->name);
	if (err == -ENOMEM)
		cli_error("out of memory");
	change_fini(&docker);
	change_fini(&podman);
	return err;
}

static int install_or_remove(const char *verb, bool remove, int argc, char **argv)
{
	struct install in = {.name = "moat", .prefix = "", .remove = remove};
	ssize_t n = readlink("/proc/self/exe", in.path, sizeof(in.path) - 1);

	for (int i = 1; i < argc; i++) {
		if (cli_flag(argc, argv, &i, "name", 0, &in.name) ||
		    cli_flag(argc, argv, &i, "prefix", 0, &in.prefix) ||
		    cli_global_flag(argc, argv, &i))
			continue;
		return cli_unknown_flag(verb, argv[i]);
	}
	if (n <= 0 || strlen(in.name) > NAME_SIZE_MAX || !cli_id_valid(in.name)) {
		cli_error("%s: '%s' is no name for a runtime", verb, in.name);
		return 1;
	}
	if (strlen(in.prefix) > PREFIX_SIZE_MAX) {
		cli_error("%s: the prefix is too long", verb);
		return 1;
	}
	if (change_all(&in))
		return 1;
	if (!remove)
		printf("containerd: in /etc/containerd/config.toml, below "
		       "[plugins.\"io.containerd.grpc.v1.cri\".containerd.runtimes.%s]:\n"
		       "  runtime_type = \"io.containerd.runc.v2\"\n"
		       "  options.BinaryName = \"%s\"\n",
		       in.name, in.path);
	return 0;
}

static int install_main(int argc, char **argv)
{
	return install_or_remove("install", false, argc, argv);
}

static int uninstall_main(int argc, char **argv)
{
	return install_or_remove("uninstall", true, argc, argv);
}

#define INSTALL_FLAGS                                                         \
	"  --name NAME     what the runtime is called there (default moat)\n" \
	"  --prefix DIR    in another root directory\n"

const struct cli_verb verb_install = {"install", "make this runtime known to docker and podman",
				      "Usage: moat install [--name NAME] [--prefix DIR]\n\n"
				      "Adds it to " DAEMON_JSON " and writes " CONTAINERS_CONF_D
				      "/moat.conf (moat-NAME.conf);\n"
				      "prints the lines for containerd.\n\n" INSTALL_FLAGS,
				      install_main};
const struct cli_verb verb_uninstall = {
	"uninstall", "take back what moat install wrote",
	"Usage: moat uninstall [--name NAME] [--prefix DIR]\n\n" INSTALL_FLAGS, uninstall_main};
