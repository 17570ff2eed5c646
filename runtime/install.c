/*
 * runtime/install.c - moat install and uninstall: docker and podman learn of the runtime, or forget it.
 *
 * docker: "runtimes" in daemon.json, everything else in it is kept, and so is the file's mode. podman: a file of its own in
 * containers.conf.d. What somebody else wrote there, or cannot be understood, is left as it is. containerd's
 * configuration is no file that a program should edit: the lines are printed.
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

struct install {
	const char *name; /* what the runtime is called */
	char path[PATH_MAX]; /* this program */
	const char *prefix; /* before /etc, for tests and images; "" */
	bool remove;
};

/* In one step, with the mode of what was there; through a symlink, as the administrator made it. */
static int write_whole(const char *path, const char *text)
{
	char tmp[PATH_MAX], real[PATH_MAX];
	struct stat st = {.st_mode = 0644};
	int err;

	if (!realpath(path, real))
		snprintf(real, sizeof(real), "%s", path);
	else if (stat(real, &st) < 0)
		st.st_mode = 0600;
	snprintf(tmp, sizeof(tmp), "%.4000s.moat-new", real);
	err = io_write_file_at(AT_FDCWD, tmp, text, strlen(text), st.st_mode & 0777);
	if (!err && (chmod(tmp, st.st_mode & 0777) < 0 || rename(tmp, real) < 0))
		err = -errno;
	if (err) {
		unlink(tmp);
		cli_error("%s: %s", path, strerror(-err));
	}
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
				cli_error("%s: %m", dir);
				return -errno;
			}
			*p = '/';
		}
	return 0;
}

/* "runtimes" of docker's configuration with ours or without. Return: 1 when that changed it, 0, -EINVAL. */
static int docker_edit(const struct install *in, json_t *j, const char *path)
{
	json_t *runtimes = json_object_get(j, "runtimes");
	const char *is_default = json_string_value(json_object_get(j, "default-runtime"));

	if (runtimes && !json_is_object(runtimes)) {
		cli_error("%s: \"runtimes\" is not a JSON object; it is left as it is", path);
		return -EINVAL;
	}
	if (!in->remove) {
		if (!runtimes) {
			runtimes = json_object();
			json_object_set_new(j, "runtimes", runtimes);
		}
		json_object_set_new(runtimes, in->name, json_pack("{ss}", "path", in->path));
		return 1;
	}
	if (!json_object_get(runtimes, in->name))
		return 0;
	if (is_default && strcmp(is_default, in->name) == 0) {
		cli_error("%s: \"default-runtime\" is '%s': docker would not start without it; "
			  "change that first",
			  path, in->name);
		return -EINVAL;
	}
	json_object_del(runtimes, in->name);
	if (json_object_size(runtimes) == 0)
		json_object_del(j, "runtimes");
	return 1;
}

static int docker_write(json_t *j, const char *path, bool remove)
{
	auto_free char *out = NULL;
	int err;

	/* Nothing is left of it: docker does not need the file. */
	if (remove && json_object_size(j) == 0) {
		if (unlink(path) == 0)
			return 0;
		err = -errno;
		cli_error("%s: %s", path, strerror(-err));
		return err;
	}
	out = json_dumps(j, JSON_INDENT(4));
	err = out ? mkdir_for(path) : -ENOMEM;
	return err ? err : write_whole(path, out);
}

static int docker(const struct install *in)
{
	char path[PATH_MAX];
	auto_free char *text = NULL;
	json_error_t jerr;
	size_t size;
	json_t *j;
	int err;

	snprintf(path, sizeof(path), "%.3000s%s", in->prefix, DAEMON_JSON);
	err = io_read_file_at(AT_FDCWD, path, CONFIG_MAX, &text, &size);
	if (err && err != -ENOENT) {
		cli_error("%s: %s", path, strerror(-err));
		return err;
	}
	if (err && in->remove)
		return 0;
	j = err || size == 0 ? json_object() : json_loadb(text, size, 0, &jerr);
	if (!json_is_object(j)) {
		cli_error("%s: not a JSON object; it is left as it is", path);
		json_decref(j);
		return -EINVAL;
	}
	err = docker_edit(in, j, path);
	if (err > 0) {
		err = docker_write(j, path, in->remove);
		if (!err)
			printf("%s: runtime '%s' %s; restart docker\n", path, in->name,
			       in->remove ? "removed" : "added");
	}
	json_decref(j);
	return err;
}

/* Is there a file that is not ours? */
static bool is_foreign(const char *path)
{
	auto_free char *text = NULL;
	size_t size;
	int err = io_read_file_at(AT_FDCWD, path, CONFIG_MAX, &text, &size);

	if (err == -ENOENT || (!err && strncmp(text, PODMAN_HEAD, strlen(PODMAN_HEAD)) == 0))
		return false;
	cli_error("%s: %s; it is left as it is", path,
		  err ? strerror(-err) : "not written by moat install");
	return true;
}

static int podman(const struct install *in)
{
	char path[PATH_MAX], text[PATH_MAX + 200];
	bool plain = strcmp(in->name, "moat") == 0;
	int err;

	snprintf(path, sizeof(path), "%.3000s%s/%s%.100s.conf", in->prefix, CONTAINERS_CONF_D,
		 plain ? "" : "moat-", in->name);
	if (is_foreign(path))
		return -EEXIST;
	if (in->remove) {
		if (unlink(path) < 0 && errno != ENOENT) {
			err = -errno;
			cli_error("%s: %s", path, strerror(-err));
			return err;
		}
		return 0;
	}
	snprintf(text, sizeof(text), PODMAN_HEAD "[engine.runtimes]\n\"%.100s\" = [\"%s\"]\n",
		 in->name, in->path);
	err = mkdir_for(path);
	if (!err)
		err = write_whole(path, text);
	if (!err)
		printf("%s: runtime '%s' added; podman --runtime %s run ...\n", path, in->name,
		       in->name);
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
	if (docker(&in) || podman(&in))
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
