/*
 * runtime/install.c - moat install and uninstall: docker and podman learn of the runtime, or forget it.
 *
 * docker: "runtimes" in daemon.json, everything else in it is kept. podman: a file of its own in containers.conf.d. containerd's
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
#define PODMAN_CONF CONTAINERS_CONF_D "/moat.conf"
#define CONFIG_MAX (1u << 20)

struct install {
	const char *name; /* what the runtime is called */
	char path[PATH_MAX]; /* this program */
	const char *prefix; /* before /etc, for tests and images; "" */
	bool remove;
};

static int write_whole(const char *path, const char *text)
{
	char tmp[PATH_MAX];
	int err;

	snprintf(tmp, sizeof(tmp), "%.4000s.moat-new", path);
	err = io_write_file_at(AT_FDCWD, tmp, text, strlen(text), 0644);
	if (!err && rename(tmp, path) < 0)
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

static int docker(const struct install *in)
{
	char path[PATH_MAX];
	auto_free char *text = NULL, *out = NULL;
	json_t *j, *runtimes;
	json_error_t jerr;
	size_t size;
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
	runtimes = json_object_get(j, "runtimes");
	if (!json_is_object(runtimes) && !in->remove) {
		runtimes = json_object();
		json_object_set_new(j, "runtimes", runtimes);
	}
	if (in->remove) {
		json_object_del(runtimes, in->name);
		if (runtimes && json_object_size(runtimes) == 0)
			json_object_del(j, "runtimes");
	} else {
		json_object_set_new(runtimes, in->name, json_pack("{ss}", "path", in->path));
	}
	out = json_dumps(j, JSON_INDENT(4));
	json_decref(j);
	err = out ? mkdir_for(path) : -ENOMEM;
	if (!err)
		err = write_whole(path, out);
	if (!err)
		printf("%s: runtime '%s' %s; restart docker\n", path, in->name,
		       in->remove ? "removed" : "added");
	return err;
}

static int podman(const struct install *in)
{
	char path[PATH_MAX], text[PATH_MAX + 200];
	int err;

	snprintf(path, sizeof(path), "%.3000s%s", in->prefix, PODMAN_CONF);
	if (in->remove) {
		if (unlink(path) < 0 && errno != ENOENT) {
			cli_error("%s: %m", path);
			return -errno;
		}
		return 0;
	}
	snprintf(text, sizeof(text),
		 "# Written by moat install.\n[engine.runtimes]\n%.100s = [\"%s\"]\n", in->name,
		 in->path);
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
	if (n <= 0 || !cli_id_valid(in.name)) {
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
				      "Adds it to " DAEMON_JSON " and writes " PODMAN_CONF ";\n"
				      "prints the lines for containerd.\n\n" INSTALL_FLAGS,
				      install_main};
const struct cli_verb verb_uninstall = {
	"uninstall", "take back what moat install wrote",
	"Usage: moat uninstall [--name NAME] [--prefix DIR]\n\n" INSTALL_FLAGS, uninstall_main};
