/* runtime/spec.c - moat spec: a config.json to begin with. */
#include <fcntl.h>
#include <jansson.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "base/io.h"
#include "runtime/cli.h"

static const char spec_help[] =
	"Usage: moat spec [--bundle DIR] [--rootless]\n\n"
	"Writes DIR/config.json (default: the current directory) for a shell in the root\n"
	"filesystem DIR/rootfs. Refuses to overwrite one.\n\n"
	"  -b, --bundle DIR   there\n"
	"  --rootless         with a user namespace, in which root is the caller, and the host's\n"
	"                     network\n";

static const char spec_json[] =
	"{\n"
	"\t\"ociVersion\": \"1.1.0\",\n"
	"\t\"process\": {\n"
	"\t\t\"terminal\": true,\n"
	"\t\t\"user\": { \"uid\": 0, \"gid\": 0 },\n"
	"\t\t\"args\": [\"sh\"],\n"
	"\t\t\"env\": [\n"
	"\t\t\t\"PATH=/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin\",\n"
	"\t\t\t\"TERM=xterm\"\n"
	"\t\t],\n"
	"\t\t\"cwd\": \"/\",\n"
	"\t\t\"capabilities\": {\n"
	"\t\t\t\"bounding\": [\"CAP_AUDIT_WRITE\", \"CAP_KILL\", \"CAP_NET_BIND_SERVICE\"],\n"
	"\t\t\t\"effective\": [\"CAP_AUDIT_WRITE\", \"CAP_KILL\", \"CAP_NET_BIND_SERVICE\"],\n"
	"\t\t\t\"permitted\": [\"CAP_AUDIT_WRITE\", \"CAP_KILL\", \"CAP_NET_BIND_SERVICE\"]\n"
	"\t\t},\n"
	"\t\t\"rlimits\": [{ \"type\": \"RLIMIT_NOFILE\", \"hard\": 1024, \"soft\": 1024 }],\n"
	"\t\t\"noNewPrivileges\": true\n"
	"\t},\n"
	"\t\"root\": { \"path\": \"rootfs\", \"readonly\": true },\n"
	"\t\"hostname\": \"moat\",\n"
	"\t\"mounts\": [\n"
	"\t\t{ \"destination\": \"/proc\", \"type\": \"proc\", \"source\": \"proc\" },\n"
	"\t\t{ \"destination\": \"/dev\", \"type\": \"tmpfs\", \"source\": \"tmpfs\",\n"
	"\t\t  \"options\": [\"nosuid\", \"strictatime\", \"mode=755\", \"size=65536k\"] },\n"
	"\t\t{ \"destination\": \"/dev/pts\", \"type\": \"devpts\", \"source\": \"devpts\",\n"
	"\t\t  \"options\": [\"nosuid\", \"noexec\", \"newinstance\", \"ptmxmode=0666\", "
	"\"mode=0620\", \"gid=5\"] },\n"
	"\t\t{ \"destination\": \"/dev/shm\", \"type\": \"tmpfs\", \"source\": \"shm\",\n"
	"\t\t  \"options\": [\"nosuid\", \"noexec\", \"nodev\", \"mode=1777\", \"size=65536k\"] "
	"},\n"
	"\t\t{ \"destination\": \"/dev/mqueue\", \"type\": \"mqueue\", \"source\": \"mqueue\",\n"
	"\t\t  \"options\": [\"nosuid\", \"noexec\", \"nodev\"] },\n"
	"\t\t{ \"destination\": \"/sys\", \"type\": \"sysfs\", \"source\": \"sysfs\",\n"
	"\t\t  \"options\": [\"nosuid\", \"noexec\", \"nodev\", \"ro\"] }\n"
	"\t],\n"
	"\t\"linux\": {\n"
	"\t\t\"namespaces\": [{ \"type\": \"pid\" }, { \"type\": \"network\" }, { \"type\": "
	"\"ipc\" }, { \"type\": \"uts\" },\n"
	"\t\t\t{ \"type\": \"mount\" }],\n"
	"\t\t\"maskedPaths\": [\"/proc/kcore\", \"/proc/keys\", \"/proc/timer_list\", "
	"\"/sys/firmware\"],\n"
	"\t\t\"readonlyPaths\": [\"/proc/bus\", \"/proc/fs\", \"/proc/irq\", \"/proc/sys\", "
	"\"/proc/sysrq-trigger\"]\n"
	"\t}\n"
	"}\n";

/* Drops those of an array whose `key` (NULL: themselves) is `value`. */
static void drop(json_t *array, const char *key, const char *value)
{
	for (size_t i = json_array_size(array); i-- > 0;) {
		json_t *e = json_array_get(array, i);
		const char *s = json_string_value(key ? json_object_get(e, key) : e);

		if (s && strcmp(s, value) == 0)
			json_array_remove(array, i);
	}
}

/* What runc's makes of it: one id is all that its caller may map. Returns malloc'd text, NULL without memory. */
static char *rootless_spec(void)
{
	json_t *j = json_loads(spec_json, 0, NULL), *linux_part = json_object_get(j, "linux"),
	       *spaces = json_object_get(linux_part, "namespaces"), *m;
	char *text;
	size_t i;

	drop(spaces, "type", "network");
	json_array_append_new(spaces, json_pack("{ss}", "type", "user"));
	json_object_set_new(linux_part, "uidMappings",
			    json_pack("[{si sI si}]", "containerID", 0, "hostID",
				      (json_int_t)geteuid(), "size", 1));
	json_object_set_new(linux_part, "gidMappings",
			    json_pack("[{si sI si}]", "containerID", 0, "hostID",
				      (json_int_t)getegid(), "size", 1));
	json_array_foreach(json_object_get(j, "mounts"), i, m)
	{
		/* tty's group is not mapped. */
		drop(json_object_get(m, "options"), NULL, "gid=5");
		/* Without a network namespace of its own runc may mount no sysfs; Moat takes this for its own. */
		if (strcmp(json_string_value(json_object_get(m, "destination")), "/sys") == 0)
			json_object_update_new(m, json_pack("{ss ss s[sssss]}", "type", "none",
							    "source", "/sys", "options", "rbind",
							    "nosuid", "noexec", "nodev", "ro"));
	}
	text = json_dumps(j, JSON_INDENT(4));
	json_decref(j);
	return text;
}

static int spec_main(int argc, char **argv)
{
	const char *bundle = ".";
	auto_free char *rootless = NULL;
	const char *text = spec_json;
	bool want_rootless = false;
	char path[4200];
	int fd;

	for (int i = 1; i < argc; i++) {
		if (cli_bool_flag(argv, &i, "rootless", 0, &want_rootless) ||
		    cli_flag(argc, argv, &i, "bundle", 'b', &bundle) ||
		    cli_global_flag(argc, argv, &i))
			continue;
		return cli_unknown_flag("spec", argv[i]);
	}
	if (want_rootless) {
		text = rootless = rootless_spec();
		if (!text)
			return 1;
	}
	snprintf(path, sizeof(path), "%.4000s/config.json", bundle);
	fd = open(path, O_WRONLY | O_CREAT | O_EXCL | O_CLOEXEC, 0644);
	if (fd < 0) {
		cli_error("%s: %m%s", path,
			  errno == EEXIST
				  ? "; remove it first, or give another directory with --bundle"
				  : "");
		return 1;
	}
	if (write(fd, text, strlen(text)) != (ssize_t)strlen(text) || close(fd) < 0) {
		cli_error("%s: %m", path);
		return 1;
	}
	return 0;
}

const struct cli_verb verb_spec = {"spec", "write a config.json to begin with", spec_help,
				   spec_main};
