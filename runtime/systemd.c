/*
 * runtime/systemd.c - the systemd cgroup manager, over systemd's own D-Bus interface.
 *
 * Root talks to the manager itself (/run/systemd/private, as systemctl does), and by way of the system bus where that socket is not
 * there; whoever is not the host's root talks to its user's manager likewise: $XDG_RUNTIME_DIR/systemd/private, or the session's bus. Each call
 * opens a connection of its own: a command line makes a few in its life. What is asked for:
 *
 *	create   StartTransientUnit: Slice, Delegate, PIDs, accounting, no default dependencies
 *	exec     AttachProcessesToUnit, of a user who may not move a process out of a session
 *	limits   SetUnitProperties (runtime): MemoryMax and its like; on v1 and hybrid hosts the old names
 *	delete   StopUnit, ResetFailedUnit
 *
 * DevicePolicy is not asked for: a container's devices are its sentry's, and the sentry opens none of the host's by name.
 */
#include <ctype.h>
#include <dlfcn.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <systemd/sd-bus.h>
#include <time.h>
#include <unistd.h>

#include "base/io.h"
#include "runtime/cli.h"
#include "runtime/systemd.h"
#include "runtime/systemd_props.h"

#define LIBRARY "libsystemd.so.0"
#define MANAGER "org.freedesktop.systemd1.Manager"
#define PRIVATE_SOCKET "/run/systemd/private"
#define CALL_TIMEOUT_US (25ull * 1000 * 1000)
#define JOB_TIMEOUT_S 30
/* systemd knows CPUQuotaPeriodUSec and AllowedCPUs from these on. */
#define VERSION_QUOTA_PERIOD 242
#define VERSION_CPUSET 244

struct sd_api sd;

/* ---- the library ---- */

static int load_library(char *why)
{
	void *lib = sd.bus_new ? NULL : dlopen(LIBRARY, RTLD_NOW | RTLD_LOCAL);
	const struct {
		void *to;
		const char *name;
	} symbols[] = {
#define SYMBOL(name) {&sd.name, "sd_" #name}
		SYMBOL(bus_set_address),
		SYMBOL(bus_start),
		SYMBOL(bus_open_system),
		SYMBOL(bus_open_user),
		SYMBOL(bus_flush_close_unref),
		SYMBOL(bus_match_signal),
		SYMBOL(bus_process),
		SYMBOL(bus_wait),
		SYMBOL(bus_call),
		SYMBOL(bus_call_method),
		SYMBOL(bus_get_property_string),
		SYMBOL(bus_message_new_method_call),
		SYMBOL(bus_message_append),
		SYMBOL(bus_message_append_array),
		SYMBOL(bus_message_open_container),
		SYMBOL(bus_message_close_container),
		SYMBOL(bus_message_read),
		SYMBOL(bus_message_unref),
		SYMBOL(bus_error_free),
		SYMBOL(bus_slot_unref),
		SYMBOL(bus_new), /* last: it says that all are there */
#undef SYMBOL
	};

	if (sd.bus_new)
		return 0;
	for (size_t i = 0; lib && i < ARRAY_SIZE(symbols); i++) {
		void *at = dlsym(lib, symbols[i].name);

		if (!at) {
			snprintf(why, CGROUP_ERROR_MAX, LIBRARY " has no %s", symbols[i].name);
			sd.bus_new = NULL;
			return -ENOSYS;
		}
		memcpy(symbols[i].to, &at, sizeof(at));
	}
	if (lib)
		return 0;
	snprintf(why, CGROUP_ERROR_MAX,
		 "the systemd cgroup manager needs " LIBRARY
		 " (%.150s); install libsystemd0, or use the cgroupfs manager",
		 dlerror());
	return -ENOENT;
}

bool systemd_runs(void)
{
	struct stat st;

	return lstat("/run/systemd/system", &st) == 0 && S_ISDIR(st.st_mode);
}

/* ---- names ---- */

/* "a-b.slice" is "/a.slice/a-b.slice"; "-.slice" the root. */
static char *expand_slice(const char *slice, char *why)
{
	size_t len = strlen(slice), base = len - strlen(".slice");
	char *path, *end;

	if (strcmp(slice, "-.slice") == 0)
		return strdup("");
	if (len > SYSTEMD_PATH_MAX || len <= strlen(".slice") ||
	    strcmp(slice + base, ".slice") != 0 || strchr(slice, '/') || slice[0] == '-' ||
	    slice[base - 1] == '-' || strstr(slice, "--")) {
		snprintf(why, CGROUP_ERROR_MAX, "linux.cgroupsPath: invalid slice name: %.100s",
			 slice);
		return NULL;
	}
	path = end = malloc((len + 2) * (len / 2 + 2) + 1);
	for (size_t i = 1; path && i <= base; i++)
		if (slice[i] == '-' || i == base)
			end += sprintf(end, "/%.*s.slice", (int)i, slice);
	if (!path)
		snprintf(why, CGROUP_ERROR_MAX, "linux.cgroupsPath: %s", strerror(ENOMEM));
	return path;
}

int systemd_names(const char *cgroups_path, const char *id, bool user, char **ret_slice,
		  char **ret_unit, char **ret_below, char *why)
{
	const char *path = cgroups_path && *cgroups_path ? cgroups_path : "", *c1, *c2;
	char *slice = NULL, *unit = NULL, *below = NULL, *expanded = NULL;
	int err = -EINVAL, len;

	c1 = strchr(path, ':');
	c2 = c1 ? strchr(c1 + 1, ':') : NULL;
	if (*path && (!c2 || strchr(c2 + 1, ':'))) {
		snprintf(why, CGROUP_ERROR_MAX,
			 "expected cgroupsPath to be of format \"slice:prefix:name\" for systemd "
			 "cgroups, got \"%.100s\" instead",
			 path);
		return -EINVAL;
	}
	slice = *path && c1 > path ? strndup(path, (size_t)(c1 - path))
				   : strdup(user ? "user.slice" : "system.slice");
	len = *path ? asprintf(&unit, "%.*s-%s.scope", (int)(c2 - c1 - 1), c1 + 1, c2 + 1)
		    : asprintf(&unit, "moat-%s.scope", id);
	if (!slice || len < 0) {
		unit = len < 0 ? NULL : unit;
		err = -ENOMEM;
	} else if (*path && (!c2[1] || strchr(c1, '/'))) {
		snprintf(why, CGROUP_ERROR_MAX,
			 "linux.cgroupsPath: \"%.100s\" names no systemd scope", path);
	} else {
		expanded = expand_slice(slice, why);
		if (expanded)
			err = asprintf(&below, "%s/%s", expanded, unit) < 0 ? -ENOMEM : 0;
	}
	free(expanded);
	if (err) {
		free(slice);
		free(unit);
		if (err == -ENOMEM)
			snprintf(why, CGROUP_ERROR_MAX, "linux.cgroupsPath: %s", strerror(ENOMEM));
		return err;
	}
	*ret_slice = slice;
	*ret_unit = unit;
	*ret_below = below;
	return 0;
}

/* ---- the connection ---- */

/* NULL: nobody answers there. */
static sd_bus *connect_private(const char *address)
{
	sd_bus *bus = NULL;
	int err = sd.bus_new(&bus);

	if (err >= 0)
		err = sd.bus_set_address(bus, address);
	if (err >= 0)
		err = sd.bus_start(bus);
	return err < 0 ? sd.bus_flush_close_unref(bus) : bus;
}

/* The socket of the user's manager itself; NULL: by way of the bus. */
static sd_bus *connect_user(void)
{
	const char *dir = secure_getenv("XDG_RUNTIME_DIR");
	auto_free char *path = NULL;
	char address[1200], *out = address;

	if (!dir || dir[0] != '/' || strlen(dir) > 300 ||
	    asprintf(&path, "%s/systemd/private", dir) < 0 || access(path, F_OK) < 0)
		return NULL;
	/* As an address has it: whatever could end it by its number. */
	out = stpcpy(out, "unix:path=");
	for (const char *p = path; *p; p++)
		if (isalnum((unsigned char)*p) || strchr("-_/.*", *p))
			*out++ = *p;
		else
			out += sprintf(out, "%%%02x", (unsigned char)*p);
	*out = '\0';
	return connect_private(address);
}

static int bus_connect(bool user, sd_bus **ret, char *why)
{
	sd_bus *bus = NULL;
	int err = load_library(why);

	if (err)
		return err;
	if (user)
		bus = connect_user();
	else if (geteuid() == 0 && access(PRIVATE_SOCKET, F_OK) == 0)
		bus = connect_private("unix:path=" PRIVATE_SOCKET);
	if (!bus)
		err = user ? sd.bus_open_user(&bus) : sd.bus_open_system(&bus);
	if (err < 0) {
		snprintf(why, CGROUP_ERROR_MAX, "cannot talk to %s: %s%s",
			 user ? "the user's systemd" : "systemd", strerror(-err),
			 user ? "; XDG_RUNTIME_DIR or DBUS_SESSION_BUS_ADDRESS must say where it is"
			      : "");
		return err;
	}
	*ret = bus;
	return 0;
}

int systemd_user_group(char **ret, char *why)
{
	sd_bus_error error = SD_BUS_ERROR_NULL;
	char *group = NULL;
	sd_bus *bus;
	int err = bus_connect(true, &bus, why);

	if (err)
		return err;
	err = sd.bus_get_property_string(bus, SYSTEMD_NAME, SYSTEMD_OBJECT, MANAGER, "ControlGroup",
					 &error, &group);
	if (err >= 0 && group[0] != '/')
		err = -EINVAL;
	if (err < 0) {
		snprintf(why, CGROUP_ERROR_MAX,
			 "unable to get the cgroup of the user's systemd: %.150s",
			 error.message ? error.message : strerror(-err));
		free(group);
	} else {
		*ret = group;
	}
	sd.bus_error_free(&error);
	sd.bus_flush_close_unref(bus);
	return err < 0 ? err : 0;
}

/* A call of the manager's, not sent. */
static int new_call(sd_bus *bus, const char *method, sd_bus_message **ret)
{
	return sd.bus_message_new_method_call(bus, ret, SYSTEMD_NAME, SYSTEMD_OBJECT, MANAGER,
					      method);
}

/* systemd's number ("252.38-1" is 252); 0: it does not say. */
static int bus_version(sd_bus *bus)
{
	char *text = NULL;
	int version = 0;

	if (sd.bus_get_property_string(bus, SYSTEMD_NAME, SYSTEMD_OBJECT, MANAGER, "Version", NULL,
				       &text) >= 0 &&
	    text)
		version = atoi(text + (*text == 'v'));
	free(text);
	return version;
}

/* ---- jobs ---- */

struct job {
	char path[256]; /* "" until the call has returned */
	char result[24];
};

static int on_job_removed(sd_bus_message *m, void *arg, sd_bus_error *error unused_arg)
{
	const char *path, *unit, *result;
	struct job *job = arg;
	uint32_t id;

	if (sd.bus_message_read(m, "uoss", &id, &path, &unit, &result) >= 0 && job->path[0] &&
	    strcmp(path, job->path) == 0)
		snprintf(job->result, sizeof(job->result), "%s", result);
	return 0;
}

/* Return 0 when it is "done". */
static int await_job(sd_bus *bus, struct job *job)
{
	struct timespec now, end;

	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += JOB_TIMEOUT_S;
	while (!job->result[0]) {
		int n = sd.bus_process(bus, NULL);

		if (n == 0)
			n = sd.bus_wait(bus, 1000000);
		if (n < 0 && n != -EINTR)
			return n;
		clock_gettime(CLOCK_MONOTONIC, &now);
		if (now.tv_sec >= end.tv_sec)
			return -ETIMEDOUT;
	}
	return strcmp(job->result, "done") == 0 ? 0 : -ECANCELED;
}

/*
 * Sends `m` (unless NULL), whose reply is a job, and waits for the job. The match is made before: on a quick machine the signal
 * comes first, and then waits in the connection's queue.
 */
static int call_job(sd_bus *bus, sd_bus_message *m, sd_bus_error *error, struct job *job)
{
	sd_bus_message *reply = NULL;
	sd_bus_slot *slot = NULL;
	const char *path;
	int err;

	err = sd.bus_match_signal(bus, &slot, NULL, SYSTEMD_OBJECT, MANAGER, "JobRemoved",
				  on_job_removed, job);
	/* A bus passes them on only when somebody asks. */
	if (err >= 0)
		err = sd.bus_call_method(bus, SYSTEMD_NAME, SYSTEMD_OBJECT, MANAGER, "Subscribe",
					 NULL, NULL, NULL);
	if (err >= 0)
		err = sd.bus_call(bus, m, CALL_TIMEOUT_US, error, &reply);
	if (err >= 0)
		err = sd.bus_message_read(reply, "o", &path);
	if (err >= 0) {
		snprintf(job->path, sizeof(job->path), "%s", path);
		err = await_job(bus, job);
	}
	sd.bus_message_unref(reply);
	sd.bus_slot_unref(slot);
	return err < 0 ? err : 0;
}

/* ---- the three requests ---- */

static int append_scope(sd_bus_message *m, const struct cgroup *cg, int pid,
			const json_t *annotations, char *why)
{
	static const char *const accounting[2][4] = {
		{"MemoryAccounting", "CPUAccounting", "BlockIOAccounting", "TasksAccounting"},
		{"MemoryAccounting", "CPUAccounting", "IOAccounting", "TasksAccounting"},
	};
	auto_free char *description = NULL;
	int err = asprintf(&description, "moat container %s", cg->unit);

	if (err < 0)
		description = NULL;
	if (err >= 0)
		err = sd.bus_message_append(m, "ss", cg->unit, "replace");
	if (err >= 0)
		err = sd.bus_message_open_container(m, 'a', "(sv)");
	if (err >= 0)
		err = sd.bus_message_append(m, "(sv)(sv)(sv)(sv)(sv)", "Description", "s",
					    description, "Slice", "s", cg->slice, "Delegate", "b",
					    1, "PIDs", "au", 1, (uint32_t)pid,
					    "DefaultDependencies", "b", 0);
	for (size_t i = 0; err >= 0 && i < 4; i++)
		err = sd.bus_message_append(m, "(sv)", accounting[cg->version == 2][i], "b", 1);
	if (err >= 0)
		err = systemd_append_annotations(m, annotations, why);
	if (err >= 0)
		err = sd.bus_message_close_container(m);
	if (err >= 0)
		err = sd.bus_message_append(m, "a(sa(sv))", 0);
	return err < 0 ? err : 0;
}

/* A unit that failed keeps its name until it is reset; one that runs is not touched. */
static void reset_failed(sd_bus *bus, const char *unit)
{
	(void)!sd.bus_call_method(bus, SYSTEMD_NAME, SYSTEMD_OBJECT, MANAGER, "ResetFailedUnit",
				  NULL, NULL, "s", unit);
}

static int call_start(sd_bus *bus, const struct cgroup *cg, int pid, const json_t *annotations,
		      sd_bus_error *error, struct job *job, char *why)
{
	sd_bus_message *m = NULL;
	int err = new_call(bus, "StartTransientUnit", &m);

	if (err >= 0)
		err = append_scope(m, cg, pid, annotations, why);
	if (err >= 0)
		err = call_job(bus, m, error, job);
	sd.bus_message_unref(m);
	return err;
}

int systemd_start_scope(const struct cgroup *cg, int pid, const json_t *annotations, char *why)
{
	sd_bus_error error = SD_BUS_ERROR_NULL;
	struct job job = {0};
	sd_bus *bus;
	int err = bus_connect(cg->user, &bus, why);

	if (err)
		return err;
	*why = '\0';
	err = call_start(bus, cg, pid, annotations, &error, &job, why);
	/* As runc: it may be the rest of one that failed. */
	if (error.name && strcmp(error.name, SYSTEMD_NAME ".UnitExists") == 0) {
		sd.bus_error_free(&error);
		error = SD_BUS_ERROR_NULL;
		reset_failed(bus, cg->unit);
		err = call_start(bus, cg, pid, annotations, &error, &job, why);
	}
	if (error.name)
		err = -EEXIST;
	if (err < 0 && !*why)
		snprintf(why, CGROUP_ERROR_MAX, "unable to start unit \"%.100s\": %.120s%.24s",
			 cg->unit,
			 error.message	 ? error.message
			 : job.result[0] ? "its job ended: "
					 : strerror(-err),
			 error.message ? "" : job.result);
	sd.bus_error_free(&error);
	sd.bus_flush_close_unref(bus);
	return err;
}

int systemd_set_resources(const struct cgroup *cg, const json_t *resources, char *why)
{
	sd_bus_error error = SD_BUS_ERROR_NULL;
	sd_bus_message *m = NULL;
	struct systemd_props props = {.v2 = cg->version == 2, .why = why};
	int version, err;
	sd_bus *bus;

	err = bus_connect(cg->user, &bus, why);
	if (err)
		return err;
	version = bus_version(bus);
	props.quota_period = version >= VERSION_QUOTA_PERIOD;
	props.cpuset = version >= VERSION_CPUSET;
	*why = '\0';
	err = new_call(bus, "SetUnitProperties", &m);
	if (err >= 0)
		err = sd.bus_message_append(m, "sb", cg->unit, 1);
	if (err >= 0)
		err = sd.bus_message_open_container(m, 'a', "(sv)");
	if (err >= 0)
		err = systemd_append_resources(m, &props, resources);
	if (err >= 0)
		err = sd.bus_message_close_container(m);
	if (err >= 0 && props.count)
		err = sd.bus_call(bus, m, CALL_TIMEOUT_US, &error, NULL);
	if (err < 0 && !*why)
		snprintf(why, CGROUP_ERROR_MAX,
			 "unable to set unit properties of \"%.100s\": %.150s", cg->unit,
			 error.message ? error.message : strerror(-err));
	sd.bus_error_free(&error);
	sd.bus_message_unref(m);
	sd.bus_flush_close_unref(bus);
	return err < 0 ? err : 0;
}

int systemd_attach(const struct cgroup *cg, int pid)
{
	sd_bus_error error = SD_BUS_ERROR_NULL;
	char why[CGROUP_ERROR_MAX];
	sd_bus_message *m = NULL;
	sd_bus *bus;
	int err = bus_connect(cg->user, &bus, why);

	if (err) {
		cli_debug("moving process %d into %s: %s", pid, cg->unit, why);
		return err;
	}
	err = new_call(bus, "AttachProcessesToUnit", &m);
	if (err >= 0)
		err = sd.bus_message_append(m, "ssau", cg->unit, "", 1, (uint32_t)pid);
	if (err >= 0)
		err = sd.bus_call(bus, m, CALL_TIMEOUT_US, &error, NULL);
	if (err < 0)
		cli_debug("moving process %d into %s: %s", pid, cg->unit,
			  error.message ? error.message : strerror(-err));
	sd.bus_error_free(&error);
	sd.bus_message_unref(m);
	sd.bus_flush_close_unref(bus);
	return err < 0 ? err : 0;
}

int systemd_stop_scope(const struct cgroup *cg)
{
	sd_bus_error error = SD_BUS_ERROR_NULL;
	char why[CGROUP_ERROR_MAX];
	sd_bus_message *m = NULL;
	struct job job = {0};
	sd_bus *bus;
	int err = bus_connect(cg->user, &bus, why);

	if (err) {
		cli_debug("stopping %s: %s", cg->unit, why);
		return err;
	}
	err = new_call(bus, "StopUnit", &m);
	if (err >= 0)
		err = sd.bus_message_append(m, "ss", cg->unit, "replace");
	if (err >= 0)
		err = call_job(bus, m, &error, &job);
	/* It went with its last process. */
	if (error.name && strcmp(error.name, SYSTEMD_NAME ".NoSuchUnit") == 0)
		err = 0;
	else if (err < 0)
		cli_debug("stopping %s: %s", cg->unit,
			  error.message ? error.message : strerror(-err));
	/* If processes were killed it counts as failed, and the name stays taken. */
	reset_failed(bus, cg->unit);
	sd.bus_error_free(&error);
	sd.bus_message_unref(m);
	sd.bus_flush_close_unref(bus);
	return err < 0 ? err : 0;
}
