// LINK: moat_oci moat_wire moat_base
/* config.json: what it gives, and what each mistake in it says. */
#include "check.h"

#include <stdlib.h>
#include <string.h>
#include <sys/mount.h>

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
		"\"capabilities\":{\"effective\":[\"CAP_KILL\"],\"bounding\":[\"CAP_KILL\",\"CAP_"
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
	 "is no rlimit"},
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_unknown_caps),
		cmocka_unit_test(test_minimal),
		cmocka_unit_test(test_full),
		cmocka_unit_test(test_errors),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
