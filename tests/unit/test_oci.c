// LINK: moat_oci moat_wire moat_base
/* config.json: what it gives, and what each mistake in it says. */
#include "check.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

#include "base/buf.h"
#include "runtime/oci.h"

#define PROCESS "\"process\":{\"args\":[\"sh\"],\"cwd\":\"/\"}"
#define ROOT "\"root\":{\"path\":\"rootfs\"}"
#define HEAD "{\"ociVersion\":\"1.0.2\","

static int parse(const char *json, struct oci_config *c, char *why)
{
	return oci_config_parse(json, strlen(json), "config.json", "/bundle", c, why);
}

static void test_minimal(void **state)
{
	struct oci_config c;
	char why[OCI_ERROR_MAX];

	(void)state;
	assert_int_equal(parse(HEAD PROCESS "," ROOT "}", &c, why), 0);
	assert_string_equal(c.spec.argv[0], "sh");
	assert_null(c.spec.argv[1]);
	assert_string_equal(c.spec.cwd, "/");
	assert_string_equal(c.attaches[0].host_path, "/bundle/rootfs");
	assert_int_equal(c.nattaches, 1);
	assert_int_equal(c.spec.umask, 022);
	assert_int_equal(c.spec.cap_effective, 0);
	oci_config_fini(&c);
}

static void test_full(void **state)
{
	struct oci_config c;
	char why[OCI_ERROR_MAX];
	int err;

	(void)state;
	err = parse(
		HEAD
		"\"hostname\":\"box\",\"process\":{\"terminal\":true,\"args\":[\"a\",\"b\"],"
		"\"env\":[\"X=1\"],\"cwd\":\"/tmp\","
		"\"user\":{\"uid\":7,\"gid\":8,\"umask\":63,\"additionalGids\":[5,6]},"
		"\"capabilities\":{\"effective\":[\"CAP_KILL\"],\"permitted\":[\"CAP_KILL\"],"
		"\"bounding\":[\"CAP_KILL\",\"CAP_"
		"CHOWN\"]},"
		"\"rlimits\":[{\"type\":\"RLIMIT_NOFILE\",\"soft\":10,\"hard\":"
		"18446744073709551615}],"
		"\"noNewPrivileges\":true,\"oomScoreAdj\":-5},"
		"\"root\":{\"path\":\"/r\",\"readonly\":true},"
		"\"mounts\":[{\"destination\":\"/"
		"t\",\"type\":\"tmpfs\",\"options\":[\"nosuid\",\"mode=755\",\"size=1k\"]},"
		"{\"destination\":\"/"
		"b\",\"type\":\"none\",\"source\":\"src\",\"options\":[\"rbind\",\"ro\",\"rslave\"]"
		"}],"
		"\"linux\":{\"maskedPaths\":[\"/proc/"
		"kcore\"],\"resources\":{\"memory\":{\"limit\":1048576},\"pids\":{\"limit\":9}}}}",
		&c, why);
	assert_int_equal(err, 0);
	assert_true(c.spec.terminal && c.spec.rootfs_readonly && c.spec.no_new_privs);
	assert_int_equal(c.spec.uid, 7);
	assert_int_equal(c.spec.umask, 63);
	assert_int_equal(c.spec.ngroups, 2);
	assert_int_equal(c.spec.cap_effective, 1 << 5);
	assert_int_equal(c.spec.cap_bounding, 1 << 5 | 1);
	assert_int_equal(c.spec.rlimits[7].cur, 10);
	assert_true(c.spec.rlimits[7].max == UINT64_MAX);
	assert_int_equal(c.spec.nmounts, 2);
	assert_int_equal(c.spec.mounts[0].flags, MS_NOSUID);
	assert_string_equal(c.spec.mounts[0].data, "mode=755,size=1k");
	assert_string_equal(c.spec.mounts[1].type, "bind");
	assert_string_equal(c.spec.mounts[1].source, "/bundle/src");
	assert_int_equal(c.spec.mounts[1].flags, MS_BIND | MS_REC | MS_RDONLY);
	assert_int_equal(c.spec.mounts[1].propagation, MS_SLAVE | MS_REC);
	assert_int_equal(c.spec.mounts[1].attach, 1);
	assert_true(c.attaches[1].readonly);
	assert_int_equal(c.spec.memory_limit, 1048576);
	assert_int_equal(c.spec.pids_limit, 9);
	assert_string_equal(c.spec.masked_paths[0], "/proc/kcore");
	oci_config_fini(&c);
}

struct bad {
	const char *json, *says;
};

static const struct bad bad_configs[] = {
	{"{\n\"a\": }", "config.json:2:6: not valid JSON"},
	{"[]", "must be a JSON object"},
	{"{}", "ociVersion is missing"},
	{"{\"ociVersion\":\"2.0\"}", "ociVersion '2.0' is not supported"},
	{HEAD PROCESS "}", "root.path is missing"},
	{HEAD ROOT "}", "'process' is missing"},
	{HEAD ROOT ",\"process\":{\"cwd\":\"/\"}}", "process.args is missing or empty"},
	{HEAD ROOT ",\"process\":{\"cwd\":\"x\",\"args\":[\"sh\"]}}",
	 "process.cwd must be an absolute path"},
	{HEAD ROOT ",\"process\":{\"cwd\":\"/\",\"args\":[3]}}",
	 "process.args[0] must be a string"},
	{HEAD ROOT ",\"process\":7}", "process must be an object"},
	{HEAD ROOT "," PROCESS ",\"mounts\":[{\"destination\":\"/x\",\"type\":\"floppy\"}]}",
	 "unknown type 'floppy'"},
	{HEAD ROOT "," PROCESS ",\"mounts\":[{\"type\":\"tmpfs\"}]}",
	 "mounts[0].destination is missing"},
	{HEAD ROOT "," PROCESS ",\"mounts\":[{\"destination\":\"/x\",\"type\":\"bind\"}]}",
	 "a bind mount needs a source"},
	{HEAD ROOT
	 ",\"process\":{\"cwd\":\"/\",\"args\":[\"s\"],\"rlimits\":[{\"type\":\"RLIMIT_X\"}]}}",
	 "wrong rlimit value: 'RLIMIT_X'"},
	{HEAD ROOT ",\"process\":{\"cwd\":\"/"
		   "\",\"args\":[\"s\"],\"rlimits\":[{\"type\":\"RLIMIT_CPU\",\"soft\":-1}]}}",
	 "process.rlimits[0].soft is out of range"},
	{HEAD ROOT ",\"process\":{\"cwd\":\"/\",\"args\":[\"s\"],\"rlimits\":[7]}}",
	 "process.rlimits[0] must be an object"},
	{HEAD ROOT ",\"process\":{\"cwd\":\"/"
		   "\",\"args\":[\"s\"],\"capabilities\":{\"effective\":[\"CAP_KILL\"],"
		   "\"permitted\":[\"cap_kill\"]}}}",
	 "'effective' has some"},
	{HEAD ROOT ",\"process\":{\"cwd\":\"/"
		   "\",\"args\":[\"s\"],\"capabilities\":{\"inheritable\":[\"CAP_KILL\"]}}}",
	 "'inheritable' has some"},
	{HEAD ROOT "," PROCESS ",\"hooks\":[]}", "hooks must be an object"},
	{HEAD ROOT "," PROCESS ",\"hooks\":{\"poststop\":{}}}", "hooks.poststop must be an array"},
	{HEAD ROOT "," PROCESS ",\"hooks\":{\"prestart\":[{\"path\":\"/x\"},7]}}",
	 "hooks.prestart[1] must be an object"},
	{HEAD ROOT "," PROCESS ",\"hooks\":{\"poststart\":[{\"path\":\"x\"}]}}",
	 "hooks.poststart[0].path must be an absolute path"},
	{HEAD ROOT "," PROCESS ",\"hooks\":{\"prestart\":[{\"path\":\"/x\",\"timeout\":0}]}}",
	 "hooks.prestart[0].timeout: invalid timeout 0"},
	{HEAD ROOT
	 "," PROCESS
	 ",\"hooks\":{\"prestart\":[{\"path\":\"/x\",\"timeout\":18446744073709551615}]}}",
	 "hooks.prestart[0].timeout: invalid timeout"},
	{HEAD ROOT "," PROCESS ",\"hooks\":{\"prestart\":[{\"path\":\"/x\",\"env\":[1]}]}}",
	 "hooks.prestart[0].env[0] must be a string"},
	{HEAD ROOT "," PROCESS ",\"hooks\":{\"prestart\":[{\"path\":\"/x\",\"args\":7}]}}",
	 "hooks.prestart[0].args must be an array"},
	{HEAD ROOT ",\"process\":{\"cwd\":\"/\",\"args\":[\"s\"],\"user\":{\"uid\":-1}}}",
	 "process.user.uid is out of range"},
};

static void test_errors(void **state)
{
	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(bad_configs); i++) {
		struct oci_config c;
		char why[OCI_ERROR_MAX];

		assert_true(parse(bad_configs[i].json, &c, why) < 0);
		if (!strstr(why, bad_configs[i].says))
			fail_msg("'%s' does not say '%s'", why, bad_configs[i].says);
		assert_non_null(strstr(why, "config.json"));
		assert_null(strchr(why, '\n'));
	}
}

/* What runc would warn of: each name once; what does not fit is left out. */
static void test_unknown_caps(void **state)
{
	char why[OCI_ERROR_MAX], long_name[300], json[1024];
	struct oci_config c;

	(void)state;
	assert_int_equal(parse(HEAD "\"process\":{\"args\":[\"a\"],\"cwd\":\"/\","
				    "\"capabilities\":{\"bounding\":[\"CAP_B\",\"CAP_KILL\",\"\","
				    "\"CAP_BB\",\"CAP_B\"],\"effective\":[\"\",\"CAP_BB\"]}},"
				    "\"root\":{\"path\":\"/r\"}}",
			       &c, why),
			 0);
	assert_string_equal(c.unknown_caps, "CAP_B CAP_BB");
	assert_int_equal(c.spec.cap_bounding, 1 << 5);
	oci_config_fini(&c);
	memset(long_name, 'X', sizeof(long_name) - 1);
	long_name[sizeof(long_name) - 1] = 0;
	snprintf(json, sizeof(json),
		 HEAD "\"process\":{\"args\":[\"a\"],\"cwd\":\"/\","
		      "\"capabilities\":{\"bounding\":[\"%s\",\"CAP_C\"]}},"
		      "\"root\":{\"path\":\"/r\"}}",
		 long_name);
	assert_int_equal(parse(json, &c, why), 0);
	assert_string_equal(c.unknown_caps, "CAP_C");
	oci_config_fini(&c);
}

static char *with(const char *process, const char *linux_part, const char *mounts, char *json,
		  size_t size)
{
	snprintf(json, size,
		 HEAD "\"process\":{\"args\":[\"a\"],\"cwd\":\"/\"%s%s}," ROOT
		      ",\"mounts\":[%s],\"linux\":{%s}}",
		 *process ? "," : "", process, mounts, linux_part);
	return json;
}

static void test_environment(void **state)
{
	static const char *const wanted[] = {"A=3", "B=", "C=1=2"};
	struct oci_config c;
	char why[OCI_ERROR_MAX], json[1024];

	(void)state;
	with("\"env\":[\"A=1\",\"B=\",\"A=2\",\"C=1=2\",\"A=3\"]", "", "", json, sizeof(json));
	assert_int_equal(parse(json, &c, why), 0);
	for (size_t i = 0; i < ARRAY_SIZE(wanted); i++)
		assert_string_equal(c.spec.envp[i], wanted[i]);
	assert_null(c.spec.envp[ARRAY_SIZE(wanted)]);
	oci_config_fini(&c);
	with("\"env\":[\"A=1\",\"A=2\",\"B\",\"C=\"]", "", "", json, sizeof(json));
	assert_int_equal(parse(json, &c, why), -EINVAL);
	assert_non_null(strstr(why, "invalid environment variable: 'B'"));
	with("\"env\":[\"A=1\",\"=x\"]", "", "", json, sizeof(json));
	assert_int_equal(parse(json, &c, why), -EINVAL);
	assert_non_null(strstr(why, "invalid environment variable: '=x'"));
	with("\"env\":[\"A=1\",\"B=1\",3,\"C=1\"]", "", "", json, sizeof(json));
	assert_int_equal(parse(json, &c, why), -EINVAL);
	assert_non_null(strstr(why, "process.env[2]"));
}

/* More than there may be: an error, and nothing else. */
static void test_many(void **state)
{
	static const char entry[] = "\"A=1\",";
	struct oci_config c;
	struct buf b;
	char why[OCI_ERROR_MAX];

	(void)state;
	buf_init(&b, OCI_CONFIG_MAX);
	buf_puts(&b, HEAD "\"process\":{\"args\":[\"a\"],\"cwd\":\"/\",\"env\":[");
	for (size_t i = 0; i < BOOT_ARGS_MAX; i++)
		buf_puts(&b, entry);
	buf_puts(&b, "\"A=1\"]}," ROOT "}");
	assert_int_equal(buf_error(&b), 0);
	assert_int_equal(parse(b.data, &c, why), -EINVAL);
	assert_non_null(strstr(why, "process.env has more than 65536 entries"));
	buf_fini(&b);
}

/* null is as if it were not there. */
static void test_null(void **state)
{
	struct oci_config c;
	char why[OCI_ERROR_MAX], json[1024];

	(void)state;
	with("\"user\":{\"uid\":1,\"umask\":null}",
	     "\"devices\":[{\"path\":\"/dev/x\",\"type\":\"c\",\"fileMode\":null}]", "", json,
	     sizeof(json));
	assert_int_equal(parse(json, &c, why), 0);
	assert_int_equal(c.spec.umask, 022);
	assert_string_equal(c.spec.devices[0], "c 0 0 666 0 0 /dev/x");
	oci_config_fini(&c);
}

static void test_priorities(void **state)
{
	struct oci_config c;
	char why[OCI_ERROR_MAX], json[1024];

	(void)state;
	with("\"scheduler\":{\"policy\":\"SCHED_RR\",\"priority\":7,\"nice\":-3,\"flags\":[\"SCHED_"
	     "FLAG_RESET_ON_FORK\"]},\"ioPriority\":{\"class\":\"IOPRIO_CLASS_BE\",\"priority\":5}"
	     ",\"execCPUAffinity\":{\"final\":\"0\"}",
	     "\"personality\":{\"domain\":\"LINUX32\"},\"netDevices\":{\"a\":{}},\"memoryPolicy\":{"
	     "}",
	     "", json, sizeof(json));
	assert_int_equal(parse(json, &c, why), 0);
	assert_int_equal(c.spec.sched_policy, 2);
	assert_int_equal(c.spec.sched_priority, 7);
	assert_int_equal(c.spec.nice, -3);
	assert_true(c.spec.sched_reset_on_fork);
	assert_int_equal(c.spec.ioprio, 2 << 13 | 5);
	assert_int_equal(c.spec.personality, 8);
	assert_string_equal(c.ignored, "process.execCPUAffinity linux.netDevices");
	oci_config_fini(&c);
}

/* Each alone: refused, with a word of the reason. */
static void test_refused(void **state)
{
	static const struct {
		const char *process, *linux_part, *mounts, *why;
	} cases[] = {
		{"\"scheduler\":{\"policy\":\"SCHED_FIFO\"}", "", "",
		 "priority 0 is out of range (1 to 99)"},
		{"\"scheduler\":{\"policy\":\"SCHED_OTHER\",\"priority\":1}", "", "", "(0 to 0)"},
		{"\"scheduler\":{\"policy\":\"SCHED_DEADLINE\"}", "", "",
		 "'SCHED_DEADLINE' is not supported"},
		{"\"scheduler\":{}", "", "", "policy '' is not supported"},
		{"\"scheduler\":{\"policy\":\"SCHED_OTHER\",\"flags\":[3]}", "", "",
		 "scheduler.flags"},
		{"\"ioPriority\":{\"class\":\"IOPRIO_CLASS_RT\",\"priority\":8}", "", "",
		 "(0 to 7)"},
		{"\"ioPriority\":{\"priority\":1}", "", "", "class '' is not supported"},
		{"\"oomScoreAdj\":1001", "", "", "(-1000 to 1000)"},
		{"", "\"timeOffsets\":{\"boottime\":{\"nanosecs\":1}}", "", "timeOffsets.boottime"},
		{"", "\"intelRdt\":{}", "", "Intel RDT"},
		{"", "\"personality\":{\"domain\":\"BSD\"}", "", "'BSD' is none of"},
		{"", "\"personality\":{\"domain\":\"LINUX\",\"flags\":[\"x\"]}", "",
		 "personality.flags"},
		{"", "\"seccomp\":{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"flags\":[\"X\"]}", "",
		 "flag 'X'"},
		{"",
		 "\"seccomp\":{\"defaultAction\":\"SCMP_ACT_ALLOW\",\"architectures\":[\"SCMP_ARCH_"
		 "X\"]}",
		 "", "architecture 'SCMP_ARCH_X'"},
		{"", "\"resources\":{\"memory\":{\"limit\":\"1\"}}", "",
		 "memory.limit is of the wrong type"},
		{"", "\"resources\":{\"memory\":[]}", "", "memory is of the wrong type"},
		{"", "\"resources\":{\"blockIO\":{\"throttleReadBpsDevice\":[{\"rate\":\"1\"}]}}",
		 "", "blockIO.throttleReadBpsDevice[0].rate is of the wrong type"},
		{"", "\"resources\":{\"hugepageLimits\":[3]}", "",
		 "hugepageLimits[0] is of the wrong"},
		{"", "\"resources\":{\"rdma\":{\"x\":{\"hcaHandles\":true}}}", "",
		 "rdma[x].hcaHandles is of the wrong type"},
		{"", "\"timeOffsets\":{\"boottime\":{\"secs\":\"5\"}}", "", "timeOffsets.boottime"},
		{"", "\"resources\":{\"memory\":{\"swappiness\":-2}}", "", "swappiness value: -2"},
		{"", "", "{\"destination\":\"/a\",\"type\":\"tmpfs\",\"options\":[\"ridmap\"]}",
		 "idmapped"},
		{"", "", "{\"destination\":\"/a\",\"type\":\"tmpfs\",\"uidMappings\":[{}]}",
		 "idmapped"},
	};

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		struct oci_config c;
		char why[OCI_ERROR_MAX], json[1024];

		with(cases[i].process, cases[i].linux_part, cases[i].mounts, json, sizeof(json));
		assert_int_equal(parse(json, &c, why), -EINVAL);
		if (!strstr(why, cases[i].why))
			fail_msg("%s: lacks %s", why, cases[i].why);
	}
}

static void test_recursive_options(void **state)
{
	struct oci_config c;
	char why[OCI_ERROR_MAX], json[1024];

	(void)state;
	with("", "\"timeOffsets\":{\"monotonic\":{\"secs\":0}}",
	     "{\"destination\":\"/a\",\"type\":\"bind\",\"source\":\"/"
	     "b\",\"options\":[\"rbind\",\"rro\","
	     "\"rnosuid\",\"silent\"]}",
	     json, sizeof(json));
	assert_int_equal(parse(json, &c, why), 0);
	assert_int_equal(c.spec.mounts[0].flags, MS_BIND | MS_REC | MS_RDONLY | MS_NOSUID);
	assert_null(c.spec.mounts[0].data);
	assert_true(c.attaches[1].readonly);
	oci_config_fini(&c);
}

static void test_overlay_readonly(void **state)
{
	static const char *const cases[][2] = {
		{"lowerdir=/l,upperdir=/u,workdir=/w", "lowerdir=/u:/l"},
		{"lowerdir=/l:/m", "lowerdir=/l:/m"},
		/* A colon is upperdir's own, and would part two layers: /etc is not to be one. */
		{"upperdir=/u:/etc,lowerdir=/l", "lowerdir=/u\\:/etc:/l"},
		{"upperdir=/u\\:x\\,y,lowerdir=/l\\,m", "lowerdir=/u\\:x\\,y:/l\\,m"},
		{"userxattr,lowerdir=/l,upperdir=/u,workdir=/w,volatile,metacopy=on,xino=auto",
		 "lowerdir=/u:/l,userxattr,metacopy=on"},
	};
	char *got;

	(void)state;
	for (size_t i = 0; i < ARRAY_SIZE(cases); i++) {
		got = oci_overlay_readonly(cases[i][0]);
		assert_non_null(got);
		assert_string_equal(got, cases[i][1]);
		free(got);
	}
	assert_null(oci_overlay_readonly("upperdir=/u"));
	assert_null(oci_overlay_readonly(""));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_unknown_caps),
		cmocka_unit_test(test_minimal),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_errors),
		cmocka_unit_test(test_environment),
		cmocka_unit_test(test_priorities),
		cmocka_unit_test(test_refused),
		cmocka_unit_test(test_recursive_options),
		cmocka_unit_test(test_many),
		cmocka_unit_test(test_null),
		cmocka_unit_test(test_overlay_readonly),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
